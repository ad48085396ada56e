"""A run folder is cleared in an order that leaves no half of a run for a whole one."""

import os
import shutil
from pathlib import Path

import pytest

from srp_exp.runs.folder.layout import clear, remove_unfinished
from srp_exp.runs.folder.lock import LOCK
from srp_exp.runs.folder.store import State, find_run

FILES = (
    "results.json", "config.yaml", "data.json", "metrics.jsonl", "events.out.tfevents.1", LOCK,
    "checkpoints/step-000000004.pt", "checkpoints/step-000000008.pt", "checkpoints/final.pt",
    "evaluation/test/metrics.json",
)  # fmt: skip


class Killed(BaseException):
    """Stands for the end of the process."""


def make(folder: Path) -> Path:
    for name in FILES:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("{}" if name.endswith(".json") else "")
    return folder


@pytest.mark.parametrize("linked", [False, True])
def test_a_kill_at_any_point_leaves_no_finished_run_and_all_checkpoints_or_none(tmp_path, monkeypatch, linked) -> None:
    originals = {name: getattr(os, name) for name in ("unlink", "rename", "rmdir")}
    left = 0

    def counting(name):
        def call(*arguments, **keywords):
            nonlocal left
            if left == 0:
                raise Killed
            left -= 1
            return originals[name](*arguments, **keywords)

        return call

    for survived in range(50):
        folder = make(tmp_path / str(survived))
        if linked:
            (folder / "checkpoints").rename(tmp_path / f"scratch {survived}")
            (folder / "checkpoints").symlink_to(tmp_path / f"scratch {survived}")
        left = survived
        with monkeypatch.context() as patch:
            for name in originals:
                patch.setattr(os, name, counting(name))
            try:
                clear(folder, keep=LOCK)
                died = False
            except Killed:
                died = True
        if survived:
            assert find_run(folder, set).state in (State.interrupted, State.new)
        else:
            assert find_run(folder, set).state == State.finished  # nothing has happened yet
        assert len(list(folder.glob("checkpoints/*"))) in (0, 3)
        if linked:
            assert len(list((tmp_path / f"scratch {survived}").iterdir())) == 3
        if not died:
            break
        remove_unfinished(folder)  # as the next start does
        assert not list(folder.glob(".*"))
    assert not died
    assert survived > 5
    assert [path.name for path in folder.iterdir()] == [LOCK]


def test_what_was_half_written_goes_and_all_else_stays(tmp_path) -> None:
    folder = make(tmp_path / "run")
    for name in (
        ".config.yaml.0a.tmp",
        ".checkpoints.tmp/final.pt",
        "evaluation/test/.metrics.json.0b.tmp",
        "failure.txt",
    ):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).touch()
    remove_unfinished(folder)
    assert {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()} == set(FILES)
    shutil.rmtree(folder / "evaluation")
    remove_unfinished(folder)
