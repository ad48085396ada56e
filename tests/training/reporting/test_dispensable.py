"""What a run can do without: it is said once that it can't be written, and the process lives."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from srp_exp.training.reporting.dispensable import Dispensable
from srp_exp.training.reporting.logs import LOG, log_to

FULL = Path("/dev/full")
OUTLIVES = """
import logging, sys, warnings
from pathlib import Path
from srp_exp.training.reporting.dispensable import outlive_the_console
from srp_exp.training.reporting.logs import LOG, log_from_the_start, log_to
outlive_the_console()
with log_from_the_start(), log_to(Path(sys.argv[1])):
    sys.stdin.readline()
    for number in range(3):
        LOG.info("line %d", number)
        print("printed", number)
        print("x" * 100_000, file=sys.stderr)
    open(sys.argv[1] + "/next file", "w").write("own content")
    print("printed")
"""


def test_a_failure_and_its_end_are_said_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "srp_exp")
    thing = Dispensable("metrics.jsonl")
    for fails in (False, True, True, False, False):
        with thing.written():
            if fails:
                raise OSError(28, "No space left on device")
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 2
    assert "metrics.jsonl" in said[0] and "No space left on device" in said[0]
    assert "again" in said[1]
    with pytest.raises(ValueError, match="a fault"), thing.written():
        raise ValueError("a fault")


@pytest.mark.parametrize(("console", "options"), [("pipe", []), ("full", ["-u"]), ("closed", [])])
def test_a_process_outlives_its_console(tmp_path: Path, options: list[str], console: str) -> None:
    command = [sys.executable, *options, "-c", OUTLIVES, str(tmp_path)]
    reader, writer = os.pipe() if console == "pipe" else (-1, os.open(FULL, os.O_WRONLY))
    closing = ["sh", "-c", 'exec "$@" >&- 2>&-', "sh"] if console == "closed" else []
    process = subprocess.Popen([*closing, *command], stdin=subprocess.PIPE, stdout=writer, stderr=writer)
    os.close(writer)
    if console == "pipe":
        os.close(reader)
    process.communicate(b"go\n", timeout=60)
    assert process.returncode == 0
    log = (tmp_path / "run.log").read_text()
    assert [line.partition(" INFO ")[2] for line in log.splitlines() if " INFO " in line] == [
        f"line {number}" for number in range(3)
    ]
    assert log.count("the console is gone") == (0 if console == "closed" else 2)  # of the output, and of the errors
    assert (tmp_path / "next file").read_text() == "own content"


def test_lines_wait_for_a_reader_that_is_slow(tmp_path: Path) -> None:
    """A pipe that doesn't block, as some job managers give, and is full."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    process = subprocess.Popen(
        [sys.executable, "-c", OUTLIVES, str(tmp_path)], stdin=subprocess.PIPE, stdout=writer, stderr=writer
    )
    os.close(writer)
    assert process.stdin is not None
    process.stdin.write(b"go\n")
    process.stdin.close()
    with os.fdopen(reader, "rb") as file:
        printed = file.read()
    assert process.wait(timeout=60) == 0
    assert printed.count(b"x") == 300_000
    assert printed.count(b"printed") == 4


def test_a_full_disk_costs_lines_of_the_log_and_nothing_else(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "run.log").symlink_to(FULL)
    with log_to(tmp_path):
        LOG.info("lost")
        LOG.info("lost too")
        (tmp_path / "run.log").unlink()
        LOG.info("kept")
    lines = [line.split(" INFO ")[-1] for line in (tmp_path / "run.log").read_text().splitlines() if line]
    assert lines[0] == "kept"
    assert len(lines) == 2
    assert capsys.readouterr().out.count("No space left on device") == 1
