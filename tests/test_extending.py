"""Every part and command of docs/extending.md, as they are written, in one folder."""

import json
import re
import shlex
import sys
from pathlib import Path

import pytest
import yaml

PAGE = (Path(__file__).parent.parent / "docs" / "extending.md").read_text()
FILES = re.findall(r"```(?:python|yaml)\n# (\S+)\n(.*?)```", PAGE, re.DOTALL)
COMMANDS = re.findall(r"^    srp-exp (.*)$", PAGE, re.MULTILINE)


@pytest.fixture
def parts(tmp_path, monkeypatch) -> Path:
    """A folder with the files of the page, from which modules are imported afresh."""
    for name, text in FILES:
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    for name, _ in FILES:
        sys.modules.pop(Path(name).stem, None)


def test_a_part_is_one_module_and_at_most_ten_lines_of_yaml() -> None:
    assert len(FILES) >= 10
    for name, text in FILES:
        if name.endswith(".yaml"):
            assert len(text.splitlines()) < 10
            assert yaml.safe_load(text).get("name", "lines") == Path(name).stem


@pytest.mark.long
def test_the_page_does_what_it_says(command_line, parts) -> None:
    for command in COMMANDS:
        outcome = command_line(*shlex.split(command), "device=cpu")
        assert outcome.code == 0, f"{command}\n{outcome.err}"
    (run,) = (parts / "outputs" / "runs").glob("stripes-small-gate-late-*")
    assert json.loads((run / "results.json").read_text())["attention_modules"] == 2
    (measured,) = run.rglob("my_evaluator.confidence.json")
    assert 0.5 <= json.loads(measured.read_text())["summary"]["mean_confidence"] <= 1
    (logged,) = (parts / "outputs" / "runs").glob("*/lines.txt")
    assert re.search(r"^8 train/loss \d", logged.read_text(), re.MULTILINE)
    outcome = command_line("mode=eval", f"run={run}", "split=train")
    assert outcome.code == 0, outcome.err
