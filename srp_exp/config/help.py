"""What `srp-exp --help` prints: the choices of every group, and the settings of a run with what they mean.

Hydra's own takes several seconds, in which it copies all configurations for every group.
"""

import re
import shutil
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path

from hydra import initialize_config_dir
from hydra._internal.utils import get_args_parser
from hydra.core.global_hydra import GlobalHydra
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from srp_exp.config import CONF_DIR
from srp_exp.config.command_line import searched
from srp_exp.config.documented import fields_of, meaning, range_of, written

_LEFT = 34
"""Characters of the column of names and values."""

_HEADER = """srp-exp trains and evaluates attention networks with Stochastic Region Pooling.

  srp-exp srp=fixed srp.scale=0.75 seed=1 choose from a group, and set
  srp-exp -m srp=gap,fixed seed=0,1,2     a sweep of several runs
  srp-exp dataset=folder --help           the settings of other choices
  srp-exp --cfg job                       the configuration of a run
  srp-exp --hydra-help                    other options, and shell completion

All settings of all choices: docs/settings.md
"""


def help_text(arguments: Sequence[str]) -> str:
    """The help for the choices that `arguments` make; raises what composing them raises."""
    given = get_args_parser().parse_args(list(arguments))
    mode = RunMode.MULTIRUN if given.multirun else RunMode.RUN
    with initialize_config_dir(str(CONF_DIR), version_base=None):
        loader = GlobalHydra.instance().config_loader()
        overrides = [*searched(given.config_dir), *given.overrides]
        config = loader.load_configuration("config", overrides, run_mode=mode)
    folders = [Path(CONF_DIR), *([Path(given.config_dir).expanduser()] if given.config_dir else [])]
    return "\n".join([_HEADER, *_choices(folders), *_settings(config)])


def _choices(folders: Sequence[Path]) -> Iterator[str]:
    yield from ("Choices, group=choice", "---------------------")
    groups = sorted({folder.name for parent in folders for folder in parent.iterdir() if folder.is_dir()} - {"hydra"})
    for group in groups:
        names = sorted({file.stem for parent in folders for file in parent.glob(f"{group}/*.yaml")})
        yield from _two_columns(f"  {group}", ", ".join(names), 14)


def _settings(config: DictConfig) -> Iterator[str]:
    """Every setting, one group after the other, then those that are in none."""
    nodes = {str(key): config._get_node(key) for key in config if key != "hydra"}
    groups = {key: node for key, node in nodes.items() if isinstance(node, DictConfig) and not node._is_none()}
    for group, node in {**groups, "": config}.items():
        named = "name" in node.keys()  # noqa: SIM118  a name that has no value isn't `in node`
        title = f"{group}={written(node._get_node('name'))}" if named else group or "Any run"
        yield from ("", title, "-" * len(title))
        for shown, text in _values(node, f"{group}." if group else "", below=bool(group)):
            yield from _two_columns(f"  {shown}", text, _LEFT)


def _values(node: DictConfig, prefix: str, below: bool) -> Iterator[tuple[str, str]]:
    """name=value and what the schema says of it, of the settings of `node`, and of the nodes in it where `below`."""
    schema = OmegaConf.get_type(node)
    fields = fields_of(schema)
    for key in map(str, node):
        child = node._get_node(key)
        if key.startswith("_") or key == "hydra":
            continue
        if isinstance(child, DictConfig) and not child._is_none() and not child._is_interpolation():
            yield from _values(child, f"{prefix}{key}.", below) if below else ()
        else:
            choices = range_of(*fields[key]) if key in fields else ""
            yield f"{prefix}{key}={written(child)}", "; ".join(filter(None, (meaning(schema, key), choices)))


def _two_columns(left: str, right: str, width: int) -> Iterator[str]:
    """`right` wrapped beside `left`, or below it where that is wider; an interval stays in one line."""
    room = max(shutil.get_terminal_size().columns, 60) - width
    text = re.sub(r"([\[(][\d.]+,) (?=[\w.]+[\])])", "\\1\N{NO-BREAK SPACE}", right)
    lines = textwrap.wrap(text, room, break_long_words=False, break_on_hyphens=False)
    lines = [line.replace("\N{NO-BREAK SPACE}", " ") for line in lines]
    yield f"{left:<{width}}{lines.pop(0)}" if lines and len(left) < width else left
    yield from (f"{'':<{width}}{line}" for line in lines)
