"""Evaluators in runs, and the comparison of two runs, by the command line on tiny generated images."""

import gc
import hashlib
import json
import shutil
import sys
import weakref
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from test_main import ROOT, TINY, python, snapshot

from srp_exp.training.learner import Learner

MEASURES = ("descriptors", "responses", "gates")
ALL = f"evaluators=[{','.join(MEASURES)}]"


def read_json(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text())
    return content


@pytest.fixture(scope="module")
def runs(command_line, tmp_path_factory) -> dict[str, Path]:
    """Folders of finished runs: gap with all evaluators, scheduled without, and gap on other images."""
    output_dir = tmp_path_factory.mktemp("runs")
    folders: dict[str, Path] = {}
    for name, overrides in (
        ("gap", ("srp=gap", ALL)), ("scheduled", ("srp=scheduled",)), ("other", ("srp=gap", "dataset.data_seed=1")),
    ):  # fmt: skip
        outcome = command_line(*TINY, *overrides, "recipe.epochs=1", f"output_dir={output_dir}")
        assert outcome.code == 0, outcome.err
        (folders[name],) = set((output_dir / "runs").iterdir()) - set(folders.values())
    return folders


@pytest.fixture
def copies(runs, tmp_path) -> dict[str, Path]:
    """Copies of the run folders, for tests that write there."""
    return {name: Path(shutil.copytree(path, tmp_path / "runs" / path.name)) for name, path in runs.items()}


# --- Evaluators in a run --------------------------------------------------------------------------


def test_a_training_is_finished_before_it_measures(runs) -> None:
    folder = runs["gap"] / "evaluation" / "test"
    finished = (runs["gap"] / "results.json").stat().st_mtime_ns
    for name in MEASURES:
        file = folder / f"{name}.json"
        assert file.stat().st_mtime_ns >= finished
        measured = read_json(file)
        assert len(measured["modules"]) == 3  # one for each block of a ResNet-8
        assert all(measured["summary"].keys() == values.keys() for values in measured["modules"].values())
    events = EventAccumulator(str(folder))
    events.Reload()
    assert "measure/gates/region_gap" in events.Tags()["scalars"]
    assert "measure" not in json.dumps(read_json(runs["gap"] / "results.json"))


def test_a_finished_run_is_measured_without_training(command_line, runs, copies, tmp_path) -> None:
    before = snapshot(copies["gap"])
    gates = copies["gap"] / "evaluation" / "test" / "gates.json"
    expected = gates.read_bytes()
    gates.unlink()
    command = (*TINY, "srp=gap", ALL, "recipe.epochs=1", f"output_dir={tmp_path}")
    outcome = command_line(*command)
    assert outcome.code == 0, outcome.err
    assert "finished already" in outcome.out
    assert "measured gates " in outcome.out
    assert gates.read_bytes() == expected
    changed = {name for name, state in snapshot(copies["gap"]).items() if before.get(name) != state}
    measured = {f"evaluation/test/gates.{kind}" for kind in ("json", "png")}
    assert {name for name in changed if "tfevents" not in name} == {*measured, "lock"}
    again = command_line(*command)
    assert "finished already" in again.out
    assert "measured" not in again.out


def test_a_failing_evaluator_costs_nothing(command_line, tmp_path, monkeypatch) -> None:
    """Neither the results nor what the other evaluators measure; the same command measures what is missing."""
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "own_measures.py").write_text("def broken(subject):\n    raise ValueError('no such layer')\n")
    chosen = "evaluators=[own_measures.broken,gates]"
    command = (*TINY, "srp=gap", chosen, "recipe.epochs=1", f"output_dir={tmp_path / 'outputs'}")
    with pytest.raises(ValueError, match="no such layer"):
        command_line(*command)
    (results,) = tmp_path.glob("outputs/runs/*/results.json")
    folder = results.parent
    assert (folder / "evaluation" / "test" / "gates.json").is_file()
    assert not (folder / "failure.txt").exists()  # the run is finished
    assert "no such layer" in (folder / "run.log").read_text()
    before = results.stat().st_mtime_ns
    (tmp_path / "own_measures.py").write_text("def broken(subject):\n    return {'summary': {'mended': 1.0}}\n")
    monkeypatch.delitem(sys.modules, "own_measures")
    outcome = command_line(*command)
    assert outcome.code == 0, outcome.err
    assert "measured own_measures.broken " in outcome.out
    assert results.stat().st_mtime_ns == before


def test_the_training_is_gone_when_evaluators_measure(command_line, tmp_path, monkeypatch) -> None:
    learners = []
    monkeypatch.setattr(Learner, "train_step", recorded(Learner.train_step, learners))
    alive = []

    def measure(subject):
        gc.collect()
        alive.extend(learner() for learner in learners)
        return {"summary": {}}

    monkeypatch.setattr("srp_exp.evaluation.gates.gates", measure)
    outcome = command_line(*TINY, "srp=gap", "evaluators=[gates]", "recipe.epochs=1", f"output_dir={tmp_path}")
    assert outcome.code == 0, outcome.err
    assert alive
    assert all(learner is None for learner in alive)


def recorded(train_step, learners):
    def step(self, *arguments, **settings):
        learners.append(weakref.ref(self))
        return train_step(self, *arguments, **settings)

    return step


def test_a_run_that_has_all_its_measures_is_skipped_without_torch(copies, tmp_path) -> None:
    arguments = [*TINY, "srp=gap", ALL, "recipe.epochs=1", f"output_dir={tmp_path}"]
    code = (
        f"import sys; sys.argv = ['srp-exp', *{arguments!r}]; from srp_exp.__main__ import main; main(); "
        "assert 'torch' not in sys.modules"
    )
    python("-c", code, folder=tmp_path)  # finds out, in this user's cache, what the data are
    done = python("-c", code, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "finished already" in done.stdout


def test_evaluators_of_an_evaluation_write_beside_its_metrics(command_line, copies) -> None:
    outcome = command_line("mode=eval", f"run={copies['scheduled']}", "split=train", "evaluators=[gates]", "device=cpu")
    assert outcome.code == 0, outcome.err
    folder = copies["scheduled"] / "evaluation" / "train"
    assert {"metrics.json", "gates.json"} <= {path.name for path in folder.iterdir()}


WRONG_EVALUATORS = [
    (["evaluators=[gate]"], "evaluators: there is no gate; did you mean gates?"),
    (["evaluators=[no_package.f]"], "evaluators: no_package.f: there is no package no_package"),
    (["evaluators=[gates]", "attention=none", "srp=gap"], "evaluators: gates measure attention with average"),
]


def test_a_wrong_evaluator_is_one_line_before_training(command_line, tmp_path) -> None:
    for overrides, message in WRONG_EVALUATORS:
        outcome = command_line(*TINY, *overrides, f"output_dir={tmp_path}")
        assert outcome.code == 1
        assert outcome.err.count("\n") == 1
        assert message in outcome.err
        assert not (tmp_path / "runs").exists() or list((tmp_path / "runs").iterdir()) == []


# --- Comparison -----------------------------------------------------------------------------------


def test_comparison_of_two_runs(command_line, copies, tmp_path) -> None:
    pytest.importorskip("pytorch_grad_cam")
    a, b = copies["gap"], copies["scheduled"]
    measured = (a / "evaluation" / "test" / "gates.json").stat().st_mtime_ns
    command = ("mode=compare", f"run={a}", f"other={b}", ALL, "cams=3", f"output_dir={tmp_path}", "device=cpu")
    outcome = command_line(*command)
    assert outcome.code == 0, outcome.err
    folder = tmp_path / "reports" / f"compare-{a.name}-{b.name}"
    assert str(folder) in outcome.out
    report = read_json(folder / "test.json")
    assert report["settings"]["srp.name"] == ["gap", "scheduled"]
    assert {name.partition(".")[0] for name in report["settings"]} == {"srp"}
    metrics = [read_json(run / "evaluation" / "test" / "metrics.json") for run in (a, b)]
    assert report["values"]["loss"] == [metrics[0]["loss"], metrics[1]["loss"], metrics[1]["loss"] - metrics[0]["loss"]]
    gates = [read_json(run / "evaluation" / "test" / "gates.json")["summary"]["region_gap"] for run in (a, b)]
    assert report["values"]["gates/region_gap"] == [*gates, gates[1] - gates[0]]
    assert (a / "evaluation" / "test" / "gates.json").stat().st_mtime_ns == measured  # not measured again
    table = (folder / "test.md").read_text()
    assert table in outcome.out
    assert all(f"| {name} |" in table for name in report["values"])
    assert "| srp.name | gap | scheduled |" in table
    for letter, run in (("A", a), ("B", b)):
        origin = read_json(run / "provenance.json")
        changes = f"+{hashlib.sha256(origin['diff'].encode()).hexdigest()[:6]}" if origin["diff"] else ""
        commit = (origin["commit"] or "unknown")[:10] + changes
        assert f"{letter}: {run.name}, commit {commit}  \n" in table
    answers = [pq.read_table(run / "evaluation" / "test" / "predictions.parquet") for run in (a, b)]
    right = [pc.equal(of["label"], of["prediction"]).to_numpy() for of in answers]
    alone = [int((one & ~other).sum()) for one, other in (right, right[::-1])]
    assert [report["mcnemar"]["only_a"], report["mcnemar"]["only_b"]] == alone
    assert f"Right in one alone: {alone[0]} images in A, {alone[1]} in B; McNemar's exact test p = " in table
    assert (folder / "test-cams.png").read_bytes().startswith(b"\x89PNG")
    events = EventAccumulator(str(folder))
    events.Reload()
    assert events.Tags()["images"] == ["cams/test"]
    first = {path.name: path.read_bytes() for path in folder.iterdir() if path.suffix in (".json", ".md", ".png")}
    assert command_line(*command).code == 0
    assert {name: (folder / name).read_bytes() for name in first} == first


def test_a_run_compared_with_itself_differs_in_nothing(command_line, copies, tmp_path) -> None:
    a = copies["gap"]
    outcome = command_line("mode=compare", f"run={a}", f"other={a}", f"output_dir={tmp_path}", "device=cpu", ALL)
    assert outcome.code == 0, outcome.err
    report = read_json(tmp_path / "reports" / f"compare-{a.name}-{a.name}" / "test.json")
    assert report["settings"] == {}
    assert all(difference in (0, None) for _, _, difference in report["values"].values())


def test_runs_on_other_images_are_refused(command_line, runs, tmp_path) -> None:
    outcome = command_line(
        "mode=compare", f"run={runs['gap']}", f"other={runs['other']}", f"output_dir={tmp_path}", "device=cpu"
    )
    assert outcome.code == 1
    assert outcome.err.count("\n") == 1
    assert "different data sets, dataset.data_seed=0 and 1: choose two" in outcome.err
    assert not (tmp_path / "reports").exists()


def test_a_split_of_other_labels_is_refused(command_line, copies, tmp_path) -> None:
    file = copies["scheduled"] / "evaluation" / "test" / "predictions.parquet"
    table = pq.read_table(file)
    column = table.schema.get_field_index("label")
    pq.write_table(table.set_column(column, "label", pc.add(table["label"], 1)), file)
    outcome = command_line(
        "mode=compare", f"run={copies['gap']}", f"other={copies['scheduled']}", f"output_dir={tmp_path}", "device=cpu"
    )
    assert outcome.code == 1
    assert "hold different images in split=test" in outcome.err
    assert not (tmp_path / "reports").exists()


def test_an_evaluation_that_is_mixed_of_two_is_refused(command_line, copies, tmp_path) -> None:
    file = Path("evaluation", "test", "metrics.json")
    found = read_json(copies["gap"] / file)
    (copies["gap"] / file).write_text(json.dumps({**found, "top1": found["top1"] + 0.01}))
    outcome = command_line(
        "mode=compare", f"run={copies['gap']}", f"other={copies['scheduled']}", f"output_dir={tmp_path}", "device=cpu"
    )
    assert (outcome.code, outcome.err.count("\n")) == (1, 1)
    assert "one of them is of another run" in outcome.err and str(copies["gap"]) in outcome.err
    assert not (tmp_path / "reports").exists()


WRONG = [
    ((), "needs two finished runs: run=FOLDER other=FOLDER"),
    (("run=nowhere", "other=nowhere"), "nowhere: not a finished run"),
    (("run=nowhere", "other=nowhere", "cams=-1"), "cams=-1 is out of range"),
]


def test_wrong_input_is_one_line(command_line, tmp_path) -> None:
    for overrides, message in WRONG:
        outcome = command_line("mode=compare", *overrides, f"output_dir={tmp_path}")
        assert outcome.code == 1
        assert outcome.err.count("\n") == 1
        assert message in outcome.err
        assert not (tmp_path / "reports").exists()


def test_a_missing_package_is_one_line(command_line, monkeypatch, runs, tmp_path) -> None:
    monkeypatch.setitem(sys.modules, "pytorch_grad_cam", None)
    monkeypatch.delitem(sys.modules, "srp_exp.evaluation.cams", raising=False)
    outcome = command_line(
        "mode=compare", f"run={runs['gap']}", f"other={runs['scheduled']}", "cams=1", f"output_dir={tmp_path}"
    )
    assert outcome.code == 1
    assert outcome.err.count("\n") == 1
    assert "pip install 'srp-exp[cams]'" in outcome.err


def test_the_documents_name_every_evaluator_and_measure(runs) -> None:
    text = (ROOT / "docs" / "evaluators.md").read_text()
    for name in MEASURES:
        for measure in read_json(runs["gap"] / "evaluation" / "test" / f"{name}.json")["summary"]:
            assert f"| {name} | `{measure}` |" in text
