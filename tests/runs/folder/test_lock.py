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

from srp_exp.errors import UserError
from srp_exp.runs.folder.lock import LOCK, InUseError, NoLocksError, is_held, only_writer

HOLD = """
import os, sys, time
from pathlib import Path
from srp_exp.runs.folder.lock import only_writer
with only_writer(Path(sys.argv[1])) as held:
    child = os.fork() if sys.argv[2] == "fork" else None
    if child == 0:
        time.sleep(60)
        os._exit(0)
    print(child, held.died, flush=True)
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
    with only_writer(tmp_path) as held:
        assert held.died == ""


def test_a_lock_of_a_killed_process_is_taken_over(hold: Hold, tmp_path: Path) -> None:
    first = hold()
    said(first)
    first.send_signal(signal.SIGKILL)
    first.wait()
    with only_writer(tmp_path) as held:
        assert re.fullmatch(who(first.pid), held.died)
        assert re.fullmatch(who(os.getpid()), (tmp_path / LOCK).read_text())
    with only_writer(tmp_path) as held:
        assert held.died == ""


def test_a_forked_child_does_not_hold_it(hold: Hold, tmp_path: Path) -> None:
    first = hold("fork")
    child = int(said(first)[0])
    try:
        first.send_signal(signal.SIGKILL)
        first.wait()
        os.kill(child, 0)  # it lives
        with only_writer(tmp_path) as held:
            assert f"process {first.pid} " in held.died
    finally:
        os.kill(child, signal.SIGKILL)


def test_it_is_given_back_after_an_error(hold: Hold, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), only_writer(tmp_path):
        raise RuntimeError
    assert said(hold()) == ["None", ""]


def test_a_removed_lock_is_made_again(hold: Hold, tmp_path: Path) -> None:
    with only_writer(tmp_path) as held:
        held.confirm()
        (tmp_path / LOCK).unlink()
        held.confirm()
        second = hold()
        assert f"in use by process {os.getpid()} " in second.communicate()[1]
        held.confirm()


def test_who_is_second_after_the_lock_was_removed_stays_and_the_first_stops(hold: Hold, tmp_path: Path) -> None:
    with only_writer(tmp_path) as held:
        (tmp_path / LOCK).unlink()
        second = hold()
        said(second)
        with pytest.raises(InUseError, match=f"taken by process {second.pid} "):
            held.confirm()
    assert re.fullmatch(who(second.pid), (tmp_path / LOCK).read_text())
    assert is_held(tmp_path)


@pytest.mark.parametrize("again", [False, True])
def test_a_folder_that_was_deleted_is_held_by_nobody(tmp_path: Path, again: bool) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    with only_writer(folder) as held:
        folder.rename(tmp_path / "elsewhere")
        if again:
            folder.mkdir()
            (folder / LOCK).touch()
        with pytest.raises(UserError, match=re.escape(str(folder))):
            held.confirm()


def test_a_lock_that_may_only_be_read_tells_who_holds_it(hold: Hold, tmp_path: Path) -> None:
    said(hold())
    (tmp_path / LOCK).chmod(0o444)
    assert is_held(tmp_path)


def test_a_file_system_without_locks_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuses(*_: object) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr("fcntl.lockf", refuses)
    with pytest.raises(NoLocksError, match=r"No locks available.* output_dir"), only_writer(tmp_path):
        pass
    assert not is_held(tmp_path)
