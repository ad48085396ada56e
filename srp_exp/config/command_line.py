"""The command line, looked at before Hydra composes it: what Hydra would refuse without naming it, or not at all."""

from collections.abc import Sequence
from pathlib import Path

from hydra._internal.utils import get_args_parser
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override

from srp_exp.config import CONF_DIR
from srp_exp.config.explain import nearest
from srp_exp.config.register import SCHEMAS
from srp_exp.errors import UserError

OPTIONAL = ("experiment", "study")
"""Groups of which a run may have no choice."""


def check_command_line(arguments: Sequence[str]) -> None:
    """Raise UserError, or Hydra's OverrideParseException, for arguments of srp-exp that can't be right."""
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
    check_overrides(parser.parse_args(arguments).overrides)


def searched(config_dir: str | None) -> list[str]:
    """The override that lets Hydra search `config_dir` too; raises UserError where it isn't there."""
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
        if key in (*SCHEMAS, "recipe", *OPTIONAL):
            _check_choice(override, key)


def _check_choice(override: Override, group: str) -> None:
    line = override.input_line
    if override.is_delete():
        if group not in OPTIONAL:
            raise UserError(f"{line}: {group} can't be deleted, every run has one{nearest('', _choices(group))}")
    elif not override.is_sweep_override():
        match override.value():
            case None if group in OPTIONAL:
                pass
            case list(names) if group != "experiment":
                given = ",".join(map(str, names))
                raise UserError(f"{line}: a run has one {group}; `-m {group}={given}` makes a run of each")
            case None | int() | float() as value:
                raise UserError(f"{line}: name a choice of {group}{nearest(str(value), _choices(group))}")


def _choices(group: str) -> list[str]:
    return [file.stem for file in Path(CONF_DIR, group).glob("*.yaml")]
