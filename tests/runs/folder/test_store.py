"""The states of run folders, and what is read from them."""

import json
import os
import signal
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from srp_exp.runs.folder.lock import LOCK, only_writer
from srp_exp.runs.folder.store import JOB, Run, State, all_runs, find_run, note_job, slurm_jobs


@pytest.fixture
def held() -> Iterator[Callable[[Path], None]]:
    """`held(folder)`: another process is the writer of `folder` until the end of the test."""
    children = []

    def hold(folder: Path) -> None:
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            with only_writer(folder):
                os.write(writer, b"held")
                signal.pause()
        children.append(child)
        assert os.read(reader, 4) == b"held"
        os.close(reader)
        os.close(writer)

    yield hold
    for child in children:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def write(folder: Path, *names: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).write_text("{}" if name.endswith(".json") else "seed: 0\n")
    return folder


STATES = [
    ((), State.new),
    (("lock",), State.new),
    (("config.yaml",), State.interrupted),
    (("config.yaml", "metrics.jsonl", "lock"), State.interrupted),
    (("failure.txt",), State.failed),
    (("config.yaml", "failure.txt"), State.failed),
    (("config.yaml", "results.json"), State.finished),
    (("config.yaml", "failure.txt", "results.json"), State.finished),
]


def test_a_state_follows_from_the_files_of_a_folder(tmp_path) -> None:
    for number, (names, state) in enumerate(STATES):
        assert find_run(write(tmp_path / str(number), *names), set).state == state, names


def test_a_folder_that_is_not_there_is_new_and_is_not_made(tmp_path) -> None:
    assert find_run(tmp_path / "run").state == State.new
    assert list(tmp_path.iterdir()) == []


def test_a_run_is_running_while_another_process_holds_its_folder(held, tmp_path) -> None:
    folder = write(tmp_path / "run", "config.yaml", "failure.txt")
    held(folder)
    assert find_run(folder, set).state == State.running
    assert (folder / LOCK).read_text().startswith("process ")


def test_a_run_is_queued_while_slurm_has_its_job(tmp_path) -> None:
    folder = tmp_path / "runs" / "run"
    note_job(folder, "12_3")
    assert (folder / JOB).read_text() == "12_3\n"
    assert find_run(folder, lambda: {"12_3", "12_4"}).state == State.queued
    assert find_run(folder, lambda: {"12_30"}).state == State.new
    write(folder, "config.yaml")
    assert find_run(folder, lambda: {"12_3"}).state == State.queued
    assert find_run(folder, set).state == State.interrupted


def test_slurm_is_asked_only_where_a_job_was_submitted(tmp_path) -> None:
    def queue() -> set[str]:
        raise AssertionError("squeue takes a while")

    assert find_run(write(tmp_path / "run", "config.yaml"), queue).state == State.interrupted


def fake_squeue(folder: Path, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    program = folder / "squeue"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")


def test_jobs_are_what_squeue_prints(tmp_path, monkeypatch) -> None:
    fake_squeue(tmp_path, "printf '7\\n12_3\\n12_4\\n'", monkeypatch)
    assert slurm_jobs() == {"7", "12_3", "12_4"}


def test_without_slurm_there_are_no_jobs(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert slurm_jobs() == set()


def test_a_controller_that_does_not_answer_is_an_error(tmp_path, monkeypatch) -> None:
    fake_squeue(tmp_path, "echo 'Unable to contact slurm controller' >&2; exit 1", monkeypatch)
    with pytest.raises(OSError, match="Unable to contact slurm controller"):
        slurm_jobs()


def test_settings_are_flat_and_a_choice_has_its_name(tmp_path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "config.yaml").write_text("srp: {name: fixed, scale: 0.5}\nrerun: false\nseed: 3\nsizes: [16, 16]\n")
    expected = {
        "srp": "fixed", "srp.name": "fixed", "srp.scale": "0.5", "rerun": "false", "seed": "3", "sizes": "[16, 16]",
    }  # fmt: skip
    assert find_run(folder, set).settings == expected
    assert Run(tmp_path / "none", State.new).settings == {}


def test_a_metric_is_read_from_the_results_or_from_an_evaluator_s_file(tmp_path) -> None:
    results = {"test": {"top1": 0.5, "loss": 0.0}, "parameters": 12, "training_seconds": 3.5}
    evaluation = tmp_path / "evaluation" / "test"
    evaluation.mkdir(parents=True)
    (tmp_path / "results.json").write_text(json.dumps(results))
    (evaluation / "gates.json").write_text(json.dumps({"summary": {"spread": 0.25, "undefined": None}}))
    (evaluation / "my_package.sizes.json").write_text(json.dumps({"summary": {"mean": 3.0}}))
    run = find_run(tmp_path)
    assert (run.value("top1"), run.value("loss"), run.value("parameters")) == (0.5, 0.0, 12)
    assert run.value("top5") is None
    assert run.value("gates.spread") == 0.25
    assert run.value("my_package.sizes.mean") == 3.0
    for unmeasured in ("gates.undefined", "gates.none", "responses.share"):
        assert run.value(unmeasured) is None


def test_a_failure_is_the_first_line_of_its_file(tmp_path) -> None:
    (tmp_path / "failure.txt").write_text("no such image\nTraceback ...\n")
    assert find_run(tmp_path).failure == "no such image"
    assert find_run(write(tmp_path / "other")).failure == ""


def test_the_history_is_one_entry_per_epoch(tmp_path) -> None:
    assert find_run(tmp_path).history == []
    (tmp_path / "metrics.jsonl").write_text('{"epoch": 1}\n{"epoch": 2}\n')
    assert find_run(tmp_path).history == [{"epoch": 1}, {"epoch": 2}]


def test_all_runs_are_the_folders_in_which_one_began(tmp_path) -> None:
    assert all_runs(tmp_path / "none") == []
    for name, files in {"c": ["config.yaml"], "a": ["results.json"], "b": [], "d": ["failure.txt"]}.items():
        write(tmp_path / name, *files)
    (tmp_path / "multirun.yaml").write_text("")
    assert [(run.folder.name, run.state.value) for run in all_runs(tmp_path)] == [
        ("a", "finished"), ("c", "interrupted"), ("d", "failed"),
    ]  # fmt: skip
