"""The command line, looked at before Hydra composes it: what Hydra would refuse without naming it, or not at all."""

import itertools
import math
from collections.abc import Sequence
from pathlib import Path

from hydra._internal.utils import get_args_parser
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, OverrideType, RangeSweep
from hydra.errors import HydraException

from srp_exp.config import CONF_DIR
from srp_exp.config.failures.explain import nearest
from srp_exp.config.register import SCHEMAS
from srp_exp.errors import UserError

OPTIONAL = ("experiment", "study")
"""Groups of which a run may have no choice."""

SEVERAL = ("experiment", "logger")
"""Groups of which a run may have several choices, as logger=[tensorboard,csv]."""

PLACES = ("hydra.run.dir", "hydra.sweep.dir", "hydra.sweep.subdir")
"""Where Hydra puts a run: what output_dir and the name of the run tell it."""

MOST_RUNS = 10_000
"""Of a grid: planning them takes a minute."""


def check_command_line(arguments: Sequence[str]) -> list[str]:
    """The arguments for Hydra; raises UserError, or OverrideParseException, for those that can't be right.

    Where a run is named, dataset.root=FOLDER says where its data are now; as ++dataset.root=FOLDER Hydra takes it,
    whatever data set it composes meanwhile.
    """
    parser = get_args_parser()
    options = [option for action in parser._actions for option in action.option_strings]

    def refuse(message: str) -> None:
        wrong = message.removeprefix("unrecognized arguments: ").split()[0]
        if message.startswith("unrecognized arguments: ") and "=" in wrong and not wrong.startswith("-"):
            raise UserError(f"{wrong}: overrides stand together; write options, such as -m, before all of them")
        if message.startswith("unrecognized arguments: "):
            raise UserError(f"{wrong} is no option{nearest(wrong, options)}")
        raise UserError(f"{' '.join(arguments)}: {message}")

    parser.error = refuse  # type: ignore[method-assign, assignment]  # instead of its usage in eight lines
    overrides = parser.parse_args(arguments).overrides
    check_overrides(overrides)
    parsed = OverridesParser.create().parse_overrides(overrides)
    if not {"run", "checkpoint"} & {override.key_or_group for override in parsed}:
        return list(arguments)
    of_data = {o.input_line for o in parsed if o.key_or_group.startswith("dataset.") and o.type is OverrideType.CHANGE}
    return [f"++{argument}" if argument in of_data else argument for argument in arguments]


def searched(config_dir: str | None) -> list[str]:
    """The override that lets Hydra search `config_dir` too; raises UserError if it doesn't exist."""
    if config_dir is None:
        return []
    folder = Path(config_dir).expanduser().absolute()
    if not folder.is_dir():
        raise UserError(f"--config-dir={config_dir}: there is no such folder")
    quoted = str(folder).replace("\\", "\\\\").replace("'", "\\'")
    return [f"hydra.searchpath=['file://{quoted}']"]


def check_overrides(overrides: Sequence[str]) -> None:
    """Raise UserError, or Hydra's OverrideParseException, for overrides that name no choice where one is needed."""
    parsed = OverridesParser.create().parse_overrides(list(overrides))
    chosen = {override.key_or_group for override in parsed}
    for override in parsed:
        line, key = override.input_line, override.key_or_group
        if not key:
            raise UserError(f"{line}: an override is name=value, such as seed=1")
        if key.startswith("study.") and not chosen.intersection(OPTIONAL):
            raise UserError(f"{line}: no study is chosen; name it first{nearest('', _choices('study'))}")
        if key in PLACES:
            raise UserError(
                f"{line}: the settings of a run name its folder; output_dir=FOLDER puts it into FOLDER/runs"
            )
        if key == "hydra.job.chdir" and override.value() is not False:
            raise UserError(f"{line}: relative folders are those of the place where the command is given; leave it out")
        if key in (*SCHEMAS, "recipe", *OPTIONAL):
            _check_choice(override, key)


def check_sweeps(given: Sequence[Override], methods: int) -> None:
    """Raise ValueError for a sweep that a grid can't have, and for more runs than can be planned, before any is."""
    last = {override.get_key_element(): override for override in given}  # the last one of a key counts
    sweeps = [override for override in last.values() if override.is_sweep_override()]
    for override in sweeps:
        key, line = override.key_or_group, override.input_line
        if key == "study":
            raise UserError(f"{line}: a study is a grid of its own; give a command for each, as srp-exp study=demo")
        if key in ("mode", "dry", "rerun", "wait"):
            raise UserError(f"{line}: {key} is for the whole command; give one value")
        if override.is_interval_sweep():
            raise UserError(
                f"{line}: a grid takes values, as {key}=0.3,0.5; an interval is searched by hydra/sweeper=search"
            )
    if methods * math.prod(map(_length, sweeps)) > MOST_RUNS:
        lines = " ".join(str(override.input_line) for override in sweeps)
        raise UserError(f"{lines}: more than {MOST_RUNS:,} runs; give a part of them at a time")


def _length(sweep: Override) -> int:
    """The number of values of a sweep, as far as it matters."""
    value = sweep.value()
    try:
        values = value.range() if isinstance(value, RangeSweep) else sweep.sweep_iterator()
        return sum(1 for _ in itertools.islice(values, MOST_RUNS + 1))
    except (ValueError, HydraException) as error:
        raise UserError(f"{sweep.input_line}: no range of numbers: {str(error).lower()}") from None


def _check_choice(override: Override, group: str) -> None:
    line = override.input_line
    if override.is_delete():
        if group not in OPTIONAL:
            raise UserError(f"{line}: {group} can't be deleted, every run has one{nearest('', _choices(group))}")
    elif not override.is_sweep_override():
        match override.value():
            case None if group in OPTIONAL:
                pass
            case list() if group in SEVERAL:
                pass
            case list(names):
                given = ",".join(map(str, names))
                raise UserError(f"{line}: a run has one {group}; `-m {group}={given}` makes a run of each")
            case None | int() | float() as value:
                raise UserError(f"{line}: name a choice of {group}{nearest(str(value), _choices(group))}")


def _choices(group: str) -> list[str]:
    return [file.stem for file in Path(CONF_DIR, group).glob("*.yaml")]
