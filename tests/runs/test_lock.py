"""One writer: who comes second is told who is there, and who died doesn't count."""

import os
import platform
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from srp_exp.runs.lock import LOCK, only_writer

HOLD = """
import os, sys, time
from pathlib import Path
from srp_exp.runs.lock import only_writer
with only_writer(Path(sys.argv[1])) as died:
    child = os.fork() if sys.argv[2] == "fork" else None
    if child == 0:
        time.sleep(60)
        os._exit(0)
    print(child, died, flush=True)
    sys.stdin.readline()
"""
WHO = r"process {pid} on {host} since \d{{4}}-\d\d-\d\d \d\d:\d\d:\d\d UTC"

Hold = Callable[..., subprocess.Popen[str]]


def who(pid: int) -> str:
    return WHO.format(pid=pid, host=re.escape(platform.node()))


@pytest.fixture
def hold(tmp_path: Path) -> Iterator[Hold]:
    """Starts a process that has the lock of tmp_path and keeps it until its standard input ends."""
    started = []

    def start(how: str = "alone") -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", HOLD, str(tmp_path), how],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def said(process: subprocess.Popen[str]) -> list[str]:
    """The forked child, and who died."""
    assert process.stdout is not None
    return process.stdout.readline().rstrip("\n").split(" ", 1)


def test_the_second_is_told_host_process_and_time(hold: Hold, tmp_path: Path) -> None:
    first = hold()
    assert said(first) == ["None", ""]
    with pytest.raises(ValueError) as caught, only_writer(tmp_path):
        pass
    message = str(caught.value)
    assert re.fullmatch(f"{re.escape(str(tmp_path))} is in use by {who(first.pid)}: wait .*", message), message
    second = hold()  # and it is refused in a process of its own
    _, errors = second.communicate()
    assert second.returncode == 1
    assert "is in use by process" in errors
    first.communicate("\n")
    assert first.returncode == 0
    with only_writer(tmp_path) as died:
        assert died == ""


def test_a_lock_of_a_killed_process_is_taken_over(hold: Hold, tmp_path: Path) -> None:
    first = hold()
    said(first)
    first.send_signal(signal.SIGKILL)
    first.wait()
    with only_writer(tmp_path) as died:
        assert re.fullmatch(who(first.pid), died)
        assert re.fullmatch(who(os.getpid()), (tmp_path / LOCK).read_text())
    with only_writer(tmp_path) as died:
        assert died == ""


def test_a_forked_child_does_not_hold_it(hold: Hold, tmp_path: Path) -> None:
    first = hold("fork")
    child = int(said(first)[0])
    try:
        first.send_signal(signal.SIGKILL)
        first.wait()
        os.kill(child, 0)  # it lives
        with only_writer(tmp_path) as died:
            assert f"process {first.pid} " in died
    finally:
        os.kill(child, signal.SIGKILL)


def test_it_is_given_back_after_an_error(hold: Hold, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), only_writer(tmp_path):
        raise RuntimeError
    assert said(hold()) == ["None", ""]
