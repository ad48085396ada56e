"""A file is whole or absent, whatever happens to its writer."""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import pytest

from srp_exp.files import remove, write_atomically, write_together


def test_bytes_and_writers_are_written_whole(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    for existing in (None, b"old", b"a much longer old content"):
        for content in (b"new", lambda file: (file.write(b"n"), file.write(b"ew")), b""):
            path.unlink(missing_ok=True) if existing is None else path.write_bytes(existing)
            write_atomically(path, content)
            assert path.read_bytes() == (content if isinstance(content, bytes) else b"new")
            assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(("existing", "error"), [(None, KeyboardInterrupt), (b"old", OSError), (b"old", SystemExit)])
def test_a_writer_that_fails_leaves_the_old_file_alone(
    tmp_path: Path, existing: bytes | None, error: type[BaseException]
) -> None:
    path = tmp_path / "results.json"
    if existing is not None:
        path.write_bytes(existing)

    def fails(file: BinaryIO) -> None:
        file.write(b"half")
        file.flush()
        assert (path.read_bytes() if path.exists() else None) == existing
        raise error

    with pytest.raises(error):
        write_atomically(path, fails)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == (
        {} if existing is None else {"results.json": existing}
    )


@pytest.mark.parametrize("failing", ["fsync", "replace"])
def test_a_disk_that_fails_late_leaves_the_old_file_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    path = tmp_path / "results.json"
    path.write_bytes(b"old")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os if failing == "fsync" else Path, failing, full)
    with pytest.raises(OSError, match="No space left"):
        write_atomically(path, b"new")
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == {"results.json": b"old"}


def test_the_content_is_on_disk_before_it_takes_the_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    events = []
    fsync, replace = os.fsync, Path.replace
    path = tmp_path / "results.json"

    def recording_fsync(descriptor: int) -> None:
        events.append(("fsync", os.fstat(descriptor).st_size))
        fsync(descriptor)

    def recording_replace(source: Path, target: Path) -> Path:
        events.append(("replace", source.stat().st_size))
        assert source.parent == target.parent  # on one file system, where replacing is atomic
        return replace(source, target)

    monkeypatch.setattr(os, "fsync", recording_fsync)
    monkeypatch.setattr(Path, "replace", recording_replace)
    write_atomically(path, lambda file: file.write(b"12345"))
    assert events == [("fsync", 5), ("replace", 5)]


def test_a_killed_writer_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    path.write_bytes(b"old")
    code = f"""
import os, signal
from pathlib import Path
from srp_exp.files import remove, write_atomically, write_together

def dies(file):
    file.write(b"half")
    file.flush()
    os.kill(os.getpid(), signal.SIGKILL)

write_atomically(Path({str(path)!r}), dies)
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -signal.SIGKILL
    assert path.read_bytes() == b"old"
    write_atomically(path, b"new")
    assert path.read_bytes() == b"new"


def test_a_folder_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="absent"):
        write_atomically(tmp_path / "absent" / "results.json", b"new")


def test_two_writers_of_one_process_id_both_succeed(tmp_path: Path) -> None:
    """As in containers, where every process may have the id 1: the second begins and ends amid the first."""
    path = tmp_path / "cache.npz"

    def slow(file: BinaryIO) -> None:
        file.write(b"slow")
        write_atomically(path, b"quick")
        assert path.read_bytes() == b"quick"

    write_atomically(path, slow)
    assert path.read_bytes() == b"slow"
    assert list(tmp_path.iterdir()) == [path]


def test_of_a_link_nothing_but_the_link_is_removed(tmp_path: Path) -> None:
    elsewhere, place = tmp_path / "elsewhere", tmp_path / "place"
    elsewhere.mkdir()
    (elsewhere / "kept").touch()
    place.symlink_to(elsewhere)
    remove(place)
    assert not place.is_symlink()
    assert (elsewhere / "kept").exists()
    (tmp_path / "dangling").symlink_to(tmp_path / "nothing")
    for name in ("dangling", "absent", "elsewhere"):
        remove(tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_files_that_belong_together_are_of_one_writing_where_the_last_exists(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed before any step that touches a name."""
    names = ("table.csv", "figure.png", "report.md")
    originals = {name: getattr(os, name) for name in ("replace", "unlink")}
    left = 0

    def counting(name: str) -> Callable[..., None]:
        def call(*arguments: Any, **keywords: Any) -> None:
            nonlocal left
            if left <= 0:
                raise KeyboardInterrupt
            left -= 1
            originals[name](*arguments, **keywords)

        return call

    seen = set()
    for survived in range(10):
        write_together(tmp_path, dict.fromkeys(names, b"old"))
        left = survived
        with monkeypatch.context() as patch, contextlib.suppress(KeyboardInterrupt):
            for name in originals:
                patch.setattr(os, name, counting(name))
            write_together(tmp_path, dict.fromkeys(names, b"new"))
        found = [(tmp_path / name).read_bytes() for name in names if (tmp_path / name).exists()]
        seen.add(tuple(found))
        assert len(set(found)) == 1 or not (tmp_path / names[-1]).exists()
    assert seen == {(b"old",) * 3, (b"old",) * 2, (b"new", b"old"), (b"new",) * 2, (b"new",) * 3}


def test_where_one_can_not_be_written_all_old_ones_stay(tmp_path: Path) -> None:
    def fails(file: BinaryIO) -> None:
        raise OSError(28, "No space left on device")

    write_together(tmp_path, {"a": b"old", "b": b"old"})
    with pytest.raises(OSError, match="No space left"):
        write_together(tmp_path, {"a": b"new", "b": fails})
    with pytest.raises(OSError, match="results.json"):
        write_atomically(tmp_path / "results.json", fails)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == {"a": b"old", "b": b"old"}
