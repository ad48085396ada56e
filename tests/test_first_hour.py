"""Every command of docs/first_hour.md, in its order, in one folder."""

import os
import re
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PARTS = re.findall(
    r"```python\n(?P<snippet>.*?)```|^    (?P<command>\S[^#\n]*)(?P<comment>#[^\n]*)?$",
    (ROOT / "docs" / "first_hour.md").read_text(),
    re.DOTALL | re.MULTILINE,
)
ENVIRONMENT = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "PYTHONPATH": f"{ROOT}:."}

SECOND = ("class_weights", "ls outputs", "by=recipe.lr", "gate-*) source", "format=onnx")
"""A part of some commands of the second hour."""


def run(*command: str, folder: Path) -> tuple[int, str]:
    done = subprocess.run(command, cwd=folder, env=ENVIRONMENT, capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr


def answers(logdir: str, folder: Path) -> bool:
    """Whether TensorBoard shows its page."""
    command = ["tensorboard", f"--logdir={logdir}", "--port=0"]
    with subprocess.Popen(command, cwd=folder, env=ENVIRONMENT, stderr=subprocess.PIPE, text=True) as server:
        try:
            address = next(found[0] for line in server.stderr or () if (found := re.search(r"http://\S+", line)))
            with urllib.request.urlopen(address) as page:
                return b"TensorBoard" in page.read()
        finally:
            server.kill()


@pytest.mark.long
def test_every_command_does_what_the_document_says(tmp_path) -> None:
    printed: dict[str, str] = {}
    for snippet, line, comment in PARTS:
        command = line.strip()
        if snippet:
            code, output = run(sys.executable, "-c", snippet, folder=tmp_path)
        elif command == "make demo":  # of which this environment is the first half; scripts and tests run the second
            code, output = run("make", "--dry-run", "demo", folder=ROOT)
        elif command in (". .venv/bin/activate", "export PYTHONPATH=."):  # as ENVIRONMENT has it
            continue
        elif command.startswith("tensorboard"):
            assert answers(command.split()[-1], tmp_path)
            continue
        else:
            code, output = run("bash", "-c", command, folder=tmp_path)
            if command in printed:
                assert "finished already" in output
        assert code == (1 if "refused" in comment else 0), f"{command or snippet}\n{output}"
        printed[command] = output

    assert len(list((tmp_path / "pictures").rglob("*.png"))) == 500
    assert next(output for command, output in printed.items() if "mode=predict" in command).count("500 of 500") == 1
    assert "did you mean scheduled" in printed["srp-exp srp=schedule recipe.epochs=2"]
    sweep = next(output for command, output in printed.items() if "-m srp=gap,fixed,scheduled" in command)
    assert "5 of 5" in sweep and "6 runs: 6 finished" in sweep
    assert "12 runs: 1 finished, 11 new" in printed["srp-exp study=demo recipe.epochs=2 dry=true"]
    second = {name: output for command, output in printed.items() for name in SECOND if name in command}
    assert "balanced" in second["class_weights"] and "confusion.png" in second["ls outputs"]
    assert all(rate in second["by=recipe.lr"] for rate in ("0.02", "0.1"))
    assert "500 of 500" in second["gate-*) source"] and ".onnx" in second["format=onnx"]
    assert "report.html" in printed["srp-report study=demo recipe.epochs=2"]
