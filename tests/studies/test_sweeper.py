"""The sweeper: it trains what is left of a grid, once, goes on after a failure, and reports."""

import os
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hydra.core.plugins import Plugins
from planned_grids import THREE, TINY, contents, fail, finish, plan

from srp_exp.commands.listing import print_grid, terminal
from srp_exp.runs import slurm
from srp_exp.studies.grid import Grid, PlannedRun
from srp_exp.training.reporting.reporter import Reporter

GRID = (*THREE, *TINY, "progress=false")
OWN_STUDY = """
# @package _global_
study:
  name: depths
  question: Deeper?
  claim: A deeper network is better
  methods: {shallow: [backbone.depth=8], odd: [backbone.depth=9], again: [backbone.depth=8, srp.last=0.5]}
  comparisons: [{method: odd, baseline: shallow}]
  smallest_effect: {value: 0.01, reason: because}
  pilot: true
hydra:
  mode: MULTIRUN
"""


def trained(printed: str) -> list[str]:
    """Names of the runs that were trained to their end, in their order."""
    return [Path(line.split()[-1]).name for line in printed.splitlines() if line.startswith("run folder ")]


@pytest.fixture
def in_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_grid_trains_what_is_left_and_reruns_nothing(command_line, in_folder) -> None:
    runs = plan("progress=false", "seed=0", output_dir=Path("outputs")).runs
    folder = finish(runs[1], 0.75)
    before = contents(folder)
    first = command_line(*GRID, "seed=0")
    assert first.code == 0, first.err
    assert trained(first.out) == [runs[0].run.folder.name, runs[2].run.folder.name]
    assert "1 of 2: gap dataset=synthetic seed=0" in first.out
    assert "3 runs: 3 finished" in first.out
    assert contents(folder) == before
    finished = contents(in_folder / "outputs" / "runs")
    second = command_line(*GRID, "seed=0")
    assert second.code == 0
    assert trained(second.out) == []
    assert contents(in_folder / "outputs" / "runs") == finished
    table = first.out[first.out.index("3 runs: 3 finished") :]
    assert second.out.endswith(table)
    assert command_line(*GRID, "seed=0", "rerun=true").out.count("run folder ") == 3


def test_a_failing_run_stops_no_other_and_is_retried(command_line, in_folder) -> None:
    (in_folder / "my" / "study").mkdir(parents=True)
    (in_folder / "my" / "study" / "depths.yaml").write_text(OWN_STUDY.lstrip())
    grid = ("--config-dir", str(in_folder / "my"), "study=depths", *TINY[:-2], "device=cpu", "progress=false")
    outcome = command_line(*grid)
    assert outcome.code == 1
    # shallow and again are one run, which is trained once
    assert len(trained(outcome.out)) == 1
    assert "2 runs: 1 finished, 1 failed" in outcome.out
    states = {
        line.split()[0]: line.split()[2] for line in outcome.out.splitlines() if re.match("shallow|odd|again", line)
    }
    assert states["shallow"] == states["again"] == "finished"
    assert states["odd"] == "failed"
    (failure,) = (line for line in outcome.out.splitlines() if line.startswith("failed: "))
    assert failure.startswith("failed: odd seed=0: ")
    assert "depth" in failure
    assert outcome.err.count("srp-exp: ") == 1
    finished = contents(in_folder / "outputs" / "runs" / trained(outcome.out)[0])
    again = command_line(*grid)
    assert again.code == 1
    assert "1 of 1: odd seed=0" in again.out
    assert trained(again.out) == []
    assert contents(in_folder / "outputs" / "runs" / trained(outcome.out)[0]) == finished


def test_a_run_that_failed_is_trained_when_the_cause_is_gone(command_line, in_folder) -> None:
    runs = plan("progress=false", "seed=0", output_dir=Path("outputs")).runs
    finish(runs[0])
    finish(runs[1])
    fail(runs[2], "no space left")
    outcome = command_line(*GRID, "seed=0")
    assert outcome.code == 0, outcome.err
    assert trained(outcome.out) == [runs[2].run.folder.name]
    assert "no space left" not in outcome.out
    assert not (runs[2].run.folder / "failure.txt").exists()


def test_ctrl_c_stops_a_grid_in_one_line_and_the_same_command_goes_on(command_line, in_folder, monkeypatch) -> None:
    epochs = iter([None, KeyboardInterrupt()])  # in the second run
    with monkeypatch.context() as patch:
        real = Reporter.epoch

        def epoch(self: Reporter, *arguments: object) -> None:
            error = next(epochs)
            if error is not None:
                raise error
            real(self, *arguments)  # type: ignore[arg-type]

        patch.setattr(Reporter, "epoch", epoch)
        stopped = command_line(*GRID, "seed=0")
    assert stopped.code == 130
    assert stopped.out.splitlines()[-1].startswith(
        "interrupted; 3 runs: 1 finished, 1 interrupted, 1 new; run the same command"
    )
    assert "Traceback" not in stopped.err
    assert trained(stopped.out) != []
    done = command_line(*GRID, "seed=0")
    assert done.code == 0
    assert "1 of 2: fixed" in done.out
    assert "3 runs: 3 finished" in done.out


def test_without_a_study_a_grid_has_a_table_and_no_report(command_line, in_folder) -> None:
    outcome = command_line("-m", *TINY, "progress=false", "srp=gap,fixed")
    assert outcome.code == 0, outcome.err
    assert len(trained(outcome.out)) == 2
    assert "2 runs: 2 finished" in outcome.out
    assert {path.name for path in (in_folder / "outputs").iterdir()} == {"curves", "runs"}
    assert [path.name for path in (in_folder / "outputs" / "runs").iterdir() if path.is_file()] == []


WRONG = [
    (("study=demp",), ["study=demp", "demo?"]),
    (("srp=gap",), ["srp=gap", "study=three compares srp"]),
    (("recipe.epochs=0",), ["recipe.epochs=0", "[1, inf)"]),
    (("study.rows=[metod]",), ["study.rows", "metod", "method?"]),
    (("seed=0,x",), ["seed=x", "whole number"]),
    (("srp.last=0.3",), ["srp.last", "is not a setting"]),
]


def test_a_wrong_grid_is_refused_before_anything_is_trained(command_line, in_folder) -> None:
    for wrong, parts in WRONG:
        outcome = command_line(*GRID, *wrong)
        assert (outcome.code, outcome.out) == (1, "")
        assert outcome.err.count("\n") == 1, outcome.err
        assert outcome.err.startswith("srp-exp: ")
        assert [part for part in parts if part not in outcome.err] == [], outcome.err
        assert list(in_folder.iterdir()) == []


ENDLESS_OR_TWICE = [
    ("-m study=demo,mixup", ["study=demo,mixup", "a command for each"]),
    ("-m seed=range(200000)", ["seed=range(200000)", "more than 10,000 runs"]),
    ("-m seed=shuffle(range(3000000000))", ["more than 10,000 runs"]),
    ("-m seed=range(2000) recipe.lr=0.1,0.2,0.3,0.4,0.5,0.6", ["seed=range(2000) recipe.lr=", "10,000 runs"]),
    ("study=demo seed=range(9999)", ["10,000 runs"]),  # of every method
    ("-m seed=range(0,10,0)", ["seed=range(0,10,0)", "zero"]),
    ("-m srp.last=interval(0.1,0.4)", ["srp.last=interval(0.1,0.4)", "hydra/sweeper=search"]),
    ("-m mode=train,eval", ["mode=train,eval", "one value"]),
    ("-m dry=true,false", ["dry=true,false", "one value"]),
    ("-m device=cpu,cuda", ["device=cpu and device=cuda", "one training"]),
    ("study=demo device=cpu,cuda", ["device=cpu and device=cuda", "one training"]),
    ("-m optimizer=adamw recipe.lr=0.1,0.2", ["recipe.lr=0.1 and recipe.lr=0.2", "one training"]),
    ("-m srp=ramped,scheduled srp.ramp_until=0.5", ["srp=ramped and srp=scheduled", "one training"]),
    ("-m optimizer=adamw seed=0,1 recipe.lr=0.3", ["recipe.lr=0.3", "optimizer.lr"]),
]


def test_a_grid_that_would_count_wrongly_or_never_end_is_refused_at_once(command_line, in_folder) -> None:
    for line, parts in ENDLESS_OR_TWICE:
        outcome = command_line(*line.split())
        assert (outcome.code, outcome.out) == (1, "")
        assert outcome.err.count("\n") == 1, outcome.err
        assert [part for part in parts if part not in outcome.err] == [], outcome.err
        assert list(in_folder.iterdir()) == []


def test_what_some_runs_of_a_grid_read_may_be_given_to_all(in_folder) -> None:
    grid = plan("optimizer=sgd,adamw", "recipe.lr=0.3", "seed=0", output_dir=Path("outputs"))
    assert {planned.config.optimizer.lr for planned in grid.runs} == {0.3, 0.001}


def test_two_methods_that_are_one_training_have_one_folder(in_folder) -> None:
    methods = "+study.methods={ramped:['srp=ramped'],written:['srp=scheduled','srp.ramp_until=0.5']}"
    *_, ramped, written = plan("seed=0", methods, output_dir=Path("outputs")).runs
    assert (ramped.method, written.method) == ("ramped", "written")
    assert ramped.run.folder == written.run.folder


def test_squeue_is_asked_once_a_poll_however_many_runs_wait(in_folder, command_line, monkeypatch) -> None:
    """A squeue of this test tells the jobs three times, and then that they are gone."""
    commands = in_folder / "bin"
    commands.mkdir()
    squeue = commands / "squeue"
    jobs = [f"7_{number}" for number in range(9)]
    asked = commands / "asked"
    squeue.write_text(f"#!/bin/sh\necho >> {asked}\n[ $(wc -l < {asked}) -gt 3 ] || echo {' '.join(jobs)}\n")
    squeue.chmod(0o755)
    monkeypatch.setenv("PATH", f"{commands}:{os.environ['PATH']}")
    monkeypatch.setattr(slurm, "POLL_SECONDS", 0)
    monkeypatch.setattr(slurm, "submit", lambda *_: jobs)
    outcome = command_line("-m", *TINY, "seed=range(9)", "hydra/launcher=slurm", "progress=false")
    assert "submitted 9 runs as 7_0 to 7_8" in outcome.out
    assert "9 runs: 9 new" in outcome.out  # nobody has trained them
    polls, table = 4, 1
    assert len(asked.read_text().splitlines()) == polls + table


def test_brackets_stand_in_the_table_as_they_were_written(in_folder, capsys) -> None:
    grid = plan("seed=0", output_dir=Path("outputs"))
    named = [replace(planned, method=f"{planned.method} [gates] [/]") for planned in grid.runs]
    print_grid(Grid(tuple(named), ("evaluators=[gates]",)), terminal())
    printed = capsys.readouterr().out
    assert printed.count("[gates] [/]") == len(named)
    assert "all with evaluators=[gates]" in printed


LOOKS = ("seed=range(9)", "study.looks=[5,7,9]", "study.smallest_effect.value=0.001")
CLOSE = 0.0004
"""Of scheduled over fixed: the first look, at a spread of 0.0016, leaves it open."""


@pytest.fixture
def launched(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """What the sweeper launches, each of which finishes at once: fixed 10 points above gap, scheduled just above it."""
    runs: list[tuple[str, int]] = []

    def launch(self: object, to_do: Sequence[PlannedRun], console: object) -> None:
        for planned in to_do:
            method, seed = planned.method, planned.seed
            runs.append((method, seed))
            if (method, seed) == ("scheduled", 1):
                fail(planned, "no space left")
                continue
            spread = (-1) ** (seed // 2) * 0.0008 if method == "scheduled" else 0.0
            level = {"gap": 0.5, "fixed": 0.6, "scheduled": 0.6 + CLOSE}[method]
            finish(planned, level + seed / 1000 + spread + (0.002 if method == "scheduled" and seed > 4 else 0))

    sweeper = Plugins.instance().class_name_to_class["hydra_plugins.srp_exp_sweeper.GridSweeper"]
    monkeypatch.setattr(sweeper, "_launch", launch)
    return runs


def test_a_study_trains_up_to_the_look_that_decides_without_methods_that_are_decided(
    command_line, in_folder, launched
) -> None:
    outcome = command_line(*GRID, *LOOKS)
    assert outcome.code == 1  # as a run failed
    first = {(method, seed) for method in ("gap", "fixed", "scheduled") for seed in range(5)}
    assert set(launched[:15]) == first  # a run that failed isn't tried again by the same command
    later = launched[15:]
    assert later and {method for method, _ in later} == {"fixed", "scheduled"}  # both beat gap already
    assert [seed for method, seed in later if method == "fixed"] == list(range(5, 5 + len(later) // 2))
    assert "look " in outcome.out and "Failed: " in outcome.out
    before = list(launched)
    assert command_line(*GRID, *LOOKS).code == 1
    assert launched[len(before) :] == [("scheduled", 1)]


def test_looks_that_end_elsewhere_are_refused(command_line, in_folder, launched) -> None:
    outcome = command_line(*GRID, "seed=range(8)", "study.looks=[4,6]")
    assert (outcome.code, launched) == (1, [])
    assert "study.looks=[4, 6]" in outcome.err and "8 seeds" in outcome.err
