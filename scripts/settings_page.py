"""Write docs/settings.md: every setting, from the schemas in srp_exp/config/ and the files in conf/.

    python scripts/settings_page.py

tests/scripts/test_settings_page.py fails where the page is not what this writes.
"""

import itertools
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from srp_exp.config import CONF_DIR
from srp_exp.config.command_line import SEVERAL
from srp_exp.config.documented import Setting, documented
from srp_exp.config.register import SCHEMAS
from srp_exp.config.schemas.run import Config
from srp_exp.config.schemas.study import StudyConfig
from srp_exp.config.schemas.training import RecipeConfig

PAGE = Path(__file__).resolve().parent.parent / "docs" / "settings.md"
COMMAND = "python scripts/settings_page.py"

INTRODUCTION = f"""# Settings

Every setting, its range, default and meaning: a reference to search in. Written by `{COMMAND}`; not to be edited.

`name=value` on the command line changes a setting, `group=choice` takes a file of `conf/<group>/`. `srp-exp --help`
prints the settings of a run with the values that it has, and `srp-exp dataset=folder srp=stages --help` those of other
choices. A default in `${{...}}` is the value of another setting, or computed; *required* has none. Keys that begin with
an underscore are Hydra's: `_target_` names the class or function that a choice builds, with the settings as arguments.
"""

ROWS = "| setting | type | range or choices | default | meaning |\n| --- | --- | --- | --- | --- |"


def page() -> str:
    """The text of docs/settings.md."""
    of_run = [s for s in documented(Config) if s.name.partition(".")[0] not in ("recipe", "study", *SCHEMAS)]
    parts = [INTRODUCTION, "## Any run\n", *_choices("speed"), _table(of_run)]
    groups: dict[str, dict[str, type[Any]]] = {**SCHEMAS, "recipe": {"": RecipeConfig}, "study": {"": StudyConfig}}
    for group, schemas in groups.items():
        parts += [f"\n## {group}\n", *_choices(group), "\n\n".join(_settings(group, schemas))]
    return "\n".join(parts) + "\n"


def _choices(group: str) -> Iterable[str]:
    """A line for each file of conf/<group>/: its first comment."""
    for file in sorted((CONF_DIR / group).glob("*.yaml")):
        lines = itertools.takewhile(lambda line: line.startswith("# "), file.read_text().splitlines())
        text = " ".join(line.removeprefix("# ") for line in lines if not line.startswith("# @package"))
        yield f"- `{group}={file.stem}`: {_escaped(text)}"
    yield ""


def _settings(group: str, schemas: dict[str, type[Any]]) -> Iterable[str]:
    """A table for the settings that all choices have, and one for those of each set of choices."""
    owners: dict[Setting, list[str]] = {}
    for name, schema in schemas.items():
        prefix = f"{group}.{name}." if group in SEVERAL else f"{group}."  # each of several has its place
        for setting in documented(schema, prefix):
            owners.setdefault(setting, []).append(name)
    for names in sorted(dict.fromkeys(map(tuple, owners.values())), key=lambda names: len(names) < len(schemas)):
        title = [f"{_title(group, names)}:\n\n"] if len(names) < len(schemas) else []
        yield "".join([*title, _table([setting for setting, of in owners.items() if tuple(of) == names])])


def _title(group: str, names: tuple[str, ...]) -> str:
    """The choices that have one of the schemas `names`, or the schemas themselves where no choice has it."""
    found = {
        file.stem: schema[1]
        for file in sorted((CONF_DIR / group).glob("*.yaml"))
        if (schema := re.search(rf"/hydra/schema/{group}/(\w+)@_here_", file.read_text()))
    }
    have = [choice for choice, schema in found.items() if schema in names]
    lack = [choice for choice, schema in found.items() if schema not in names]
    if not have:
        return "Schema " + ", ".join(f"`{name}`" for name in names)
    listed = ", ".join(f"`{choice}`" for choice in (have if len(have) <= len(lack) else lack))
    return listed if len(have) <= len(lack) else f"All but {listed}"


def _table(settings: Iterable[Setting]) -> str:
    rows = [ROWS]
    for setting in settings:
        default = "*required*" if setting.default == "required" else f"`{setting.default}`"
        cells = (f"`{setting.name}`", setting.type, _escaped(setting.range), default, _escaped(setting.meaning))
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows)


def _escaped(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "\\<")


if __name__ == "__main__":
    PAGE.write_text(page())
