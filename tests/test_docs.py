"""The documents' snippets run, and their commands compose."""

import re
import shlex
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir

from srp_exp.config import CONF_DIR
from srp_exp.config.register import register
from srp_exp.config.validate import validate

ROOT = Path(__file__).parent.parent
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
SNIPPETS = [
    pytest.param(snippet, id=f"{document.stem}-{number}")
    for document in DOCUMENTS
    for number, snippet in enumerate(re.findall(r"```python\n(.*?)```", document.read_text(), re.DOTALL))
]
COMMANDS = re.findall(r"^ +srp-exp( [^#\n]*|$)", (ROOT / "README.md").read_text(), re.MULTILINE)
TRAINING = [command for command in COMMANDS if "--" not in command and "mode=eval" not in command]


def test_the_readme_has_snippets_and_commands() -> None:
    assert len(SNIPPETS) >= 2
    assert len(COMMANDS) >= 10


@pytest.mark.parametrize("snippet", SNIPPETS)
def test_snippet_runs(snippet: str) -> None:
    exec(compile(snippet, "snippet", "exec"), {})


@pytest.mark.parametrize("command", TRAINING)
def test_command_of_the_readme_composes(command: str) -> None:
    register()
    overrides = [override for override in shlex.split(command) if override != "-m"]
    sweep_free = [re.sub(r",.*", "", override) for override in overrides]
    with initialize_config_dir(str(CONF_DIR), version_base=None):
        validate(compose("config", sweep_free))
