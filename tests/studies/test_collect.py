"""From run folders to the entries of a table."""

import json
import re

import pytest
from planned_grids import THREE, begin, fail, finish

from srp_exp.commands.report.command import plan_study
from srp_exp.runs.folder.store import State
from srp_exp.studies.reports.report import contents
from srp_exp.studies.results import StudyResults, collect

TOP1 = {"gap": 0.5, "fixed": 0.625, "scheduled": 0.75}


def collected(tmp_path, *overrides: str, study: str = "three", **provenance: object) -> StudyResults:
    """Of a grid whose runs have finished, the last one with another `provenance`."""
    lines = [*THREE[1:], f"study={study}", "dataset=synthetic", "seed=0,1", *overrides, f"output_dir={tmp_path}"]
    _, grid = plan_study(lines)
    for planned in grid.runs[:-1]:
        finish(planned, TOP1.get(planned.method, 0.25) + planned.seed / 16)
    finish(grid.runs[-1], 0.8125, **provenance)
    config, grid = plan_study(lines)
    return collect(grid, config.study)


def test_an_entry_holds_the_metric_of_its_runs_by_seed(tmp_path) -> None:
    results = collected(tmp_path, "recipe.lr=0.05")
    cell = (("dataset", "synthetic"),)
    assert [(entry.method, entry.cell) for entry in results.entries] == [(method, cell) for method in TOP1]
    assert {entry.method: entry.values for entry in results.entries} == {
        method: {0: value, 1: value + 1 / 16} for method, value in TOP1.items()
    }
    assert {"study=three", "seed=0,1", "recipe.lr=0.05"} < set(results.arguments)
    assert results.warnings == ()
    assert results.states == {State.finished: 6}
    assert results.study["comparisons"][0]["expect"] == "better"


def test_unfinished_runs_stay_in_their_entries_without_a_value(tmp_path) -> None:
    lines = [*THREE, "dataset=synthetic", "seed=0,1", f"output_dir={tmp_path}"]
    _, grid = plan_study(lines)
    finish(grid.runs[0], 0.5)
    fail(grid.runs[1], "no")
    begin(grid.runs[2])
    config, grid = plan_study(lines)
    entries = {entry.method: entry for entry in collect(grid, config.study).entries}
    assert entries["gap"].values == {0: 0.5}
    assert [run.state for run in entries["gap"].runs.values()] == [State.finished, State.failed]
    assert not entries["gap"].complete
    assert entries["fixed"].values == {}
    assert [run.state for run in entries["fixed"].runs.values()] == [State.interrupted, State.new]


def test_a_run_that_two_methods_name_is_in_both_entries_and_counts_once(tmp_path) -> None:
    results = collected(tmp_path, "+study.methods.half=['srp=fixed']")
    entries = {entry.method: entry for entry in results.entries}
    assert entries["half"].runs[0].folder == entries["fixed"].runs[0].folder
    assert entries["half"].values == entries["fixed"].values
    assert results.states == {State.finished: 6}


def test_runs_of_other_code_versions_or_devices_are_told(tmp_path) -> None:
    results = collected(
        tmp_path, commit="fedcba9876543210", diff="diff", packages={"torch": "2.9.0", "timm": "1.0.31"}, device="cuda"
    )
    assert results.warnings == (
        "runs of different commit in one table: "
        "0123456789 (5 runs), fedcba9876 with uncommitted changes df0879 (1 run)",
        "runs of different torch in one table: 2.14.1 (5 runs), 2.9.0 (1 run)",
        "runs of different device in one table: AMD EPYC (5 runs), cuda (1 run)",
    )


def test_runs_of_one_commit_with_different_changes_or_drivers_are_told(tmp_path) -> None:
    lines = [*THREE[1:], "study=three", "dataset=synthetic", "seed=0,1", f"output_dir={tmp_path}"]
    _, grid = plan_study(lines)
    for planned in grid.runs:
        finish(planned, 0.5, diff=f"+x = {planned.method}", driver="550" if planned.seed else "545")
    config, grid = plan_study(lines)
    commits, drivers, *confounded = collect(grid, config.study).warnings
    assert [line.partition(":")[0] for line in confounded] == ["commit is confounded with the method in every pair"] * 3
    assert re.fullmatch(
        "runs of different commit in one table: "
        + ", ".join(["0123456789 with uncommitted changes [0-9a-f]{6} \\(2 runs\\)"] * 3),
        commits,
    )
    assert drivers == "runs of different driver in one table: 545 (3 runs), 550 (3 runs)"


def test_a_run_that_went_on_with_other_threads_is_told(tmp_path) -> None:
    results = collected(tmp_path, earlier_starts=[{"threads": 4}])
    assert any("threads 4 -> 1" in warning for warning in results.warnings)


def test_the_results_of_another_run_are_refused_and_missing_digests_told(tmp_path) -> None:
    lines = [*THREE[1:], "study=three", "dataset=synthetic", "seed=0,1", f"output_dir={tmp_path}"]
    _, grid = plan_study(lines)
    for planned in grid.runs:
        finish(planned, 0.5)
        (planned.run.folder / "data.json").write_text("{}")
    first, last = grid.runs[0].run.folder, grid.runs[-1].run.folder
    (last / "data.json").write_text('{"training pictures": "two"}')
    config, grid = plan_study(lines)
    (warning,) = collect(grid, config.study).warnings
    assert warning.startswith("5 of 6 finished runs don't say what data they read")
    results = json.loads((first / "results.json").read_text())
    (last / "results.json").write_text(json.dumps({**results, "run": first.name}))
    _, grid = plan_study(lines)
    with pytest.raises(ValueError, match=f"{last.name}/results.json is that of {first.name}"):
        collect(grid, config.study)


def test_a_value_that_is_not_finite_is_named_without_a_comparison_too(tmp_path) -> None:
    lines = [
        *THREE[1:],
        "study=three",
        "dataset=synthetic",
        "seed=0,1",
        "study.comparisons=[]",
        f"output_dir={tmp_path}",
    ]
    _, grid = plan_study(lines)
    finish(grid.runs[0], float("nan"))
    config, grid = plan_study(lines)
    with pytest.raises(ValueError, match=f"top1=nan in .*{grid.runs[0].run.folder.name} can't be compared"):
        collect(grid, config.study)


def test_runs_over_other_data_are_told(tmp_path) -> None:
    """Two of six have read other pictures under the same name; other settings of a data set may make other data."""
    lines = [*THREE[1:], "study=three", "dataset=synthetic", "seed=0,1", f"output_dir={tmp_path}"]
    _, grid = plan_study(lines)
    for number, planned in enumerate(grid.runs):
        finish(planned, 0.5)
        digests = {"training pictures": "two" if number < 2 else "four", "class names": "same"}
        (planned.run.folder / "data.json").write_text(json.dumps(digests))
    config, grid = plan_study(lines)
    (warning,) = collect(grid, config.study).warnings
    assert re.fullmatch(
        r"runs of different data in one table: synthetic with the digests \w{8} \(4 runs\), \w{8} \(2 runs\)", warning
    )
    for number, planned in enumerate(grid.runs):
        file = planned.run.folder / "config.yaml"
        file.write_text(file.read_text().replace("train_size: ", f"train_size: {'9' if number < 2 else '8'}"))
    config, grid = plan_study(lines)
    assert collect(grid, config.study).warnings == ()


def test_a_metric_that_was_not_measured_is_told_with_the_remedy(tmp_path) -> None:
    results = collected(tmp_path, "study.metric=gates.region_gap", "study.higher_is_better=true")
    assert results.warnings == ("6 finished runs have no gates.region_gap: evaluators=[gates] measures it",)
    assert all(entry.values == {} for entry in results.entries)
    for path in tmp_path.glob("runs/*/results.json"):
        (path.parent / "evaluation" / "test").mkdir(parents=True)
        (path.parent / "evaluation" / "test" / "gates.json").write_text(json.dumps({"summary": {"region_gap": 2.0}}))
    config, grid = plan_study(
        [
            *THREE,
            "dataset=synthetic",
            "seed=0,1",
            "study.metric=gates.region_gap",
            "study.higher_is_better=true",
            f"output_dir={tmp_path}",
        ]
    )
    measured = collect(grid, config.study)
    assert measured.warnings == ()
    assert {value for entry in measured.entries for value in entry.values.values()} == {2.0}


def test_a_run_that_went_on_under_another_commit_is_a_warning(tmp_path) -> None:
    _, grid = plan_study([*THREE, "dataset=synthetic", "seed=0", f"output_dir={tmp_path}"])
    finish(grid.runs[0])
    finish(grid.runs[1])
    resumed = finish(grid.runs[2])
    last = json.loads((resumed / "provenance.json").read_text())
    starts = [{**last, "commit": "a" * 40}, {**last, "packages": {**last["packages"], "torch": "1"}}]
    (resumed / "provenance.json").write_text(json.dumps({**last, "earlier_starts": starts}))
    config, grid = plan_study([*THREE, "dataset=synthetic", "seed=0", f"output_dir={tmp_path}"])
    commit, torch = last["commit"][:12], last["packages"]["torch"]
    assert collect(grid, config.study).warnings == (
        f"{resumed.name} resumed in a different environment: commit {'a' * 12} -> {commit}",
        f"{resumed.name} resumed in a different environment: torch {torch} -> 1",
    )


def test_a_device_that_goes_with_the_method_is_named_in_every_pair(tmp_path) -> None:
    """gap on one machine type and SRP on another; 6 runs and 6 runs could as well be half of each."""
    lines = [*THREE, "dataset=synthetic", "seed=0,1", f"output_dir={tmp_path}"]
    _, grid = plan_study(lines)
    for planned in grid.runs:
        crossed = "Xeon" if planned.seed else "EPYC"
        finish(planned, 0.5, device="H200" if planned.method == "gap" else crossed)
    config, grid = plan_study(lines)
    confounded = [line for line in collect(grid, config.study).warnings if "confounded" in line]
    assert confounded == [
        f"device is confounded with the method in every pair: {name} EPYC (1 run), Xeon (1 run), gap H200 (2 runs)"
        for name in ("fixed", "scheduled")
    ]


def test_finished_seeds_that_are_left_out_and_excluded_runs_are_told(tmp_path) -> None:
    _, grid = plan_study([*THREE, "seed=range(4)", f"output_dir={tmp_path}"])
    for planned in grid.runs:
        finish(planned, 0.5)
    broken = grid.runs[1].run.folder.name
    lines = [*THREE, "seed=0,2", "recipe.lr=0.1", f"output_dir={tmp_path}"]
    config, chosen = plan_study(lines)
    assert collect(chosen, config.study).left_out == 6  # seeds 1 and 3 of three methods
    config, chosen = plan_study([*THREE, "recipe.lr=0.05", f"output_dir={tmp_path}"])
    assert collect(chosen, config.study).left_out == 0  # which are other trainings
    without = f"study.exclude=[{{run: {broken}, reason: the disk broke}}]"
    config, chosen = plan_study([*THREE, "seed=range(4)", without, f"output_dir={tmp_path}"])
    results = collect(chosen, config.study)
    assert results.excluded == (f"{broken}: the disk broke",)
    assert sum(len(entry.runs) for entry in results.entries) == len(grid.runs) - 1
    made = contents(results)
    assert "1 excluded" in made.outcome and "preliminary" not in made.outcome
    assert f"Excluded: {broken}: the disk broke." in made.reason
    with pytest.raises(ValueError, match=r"study.exclude: nothing: no run of this grid"):
        plan_study([*THREE, without.replace(broken, "nothing"), f"output_dir={tmp_path}"])


def test_methods_that_train_longer_or_on_more_are_told(tmp_path) -> None:
    longer = "+study.methods.long=['srp=fixed','recipe.epochs=3']"
    config, grid = plan_study([*THREE, "seed=0", longer, f"output_dir={tmp_path}"])
    (warning,) = collect(grid, config.study).warnings
    assert warning == "methods differ in recipe.epochs: gap, fixed, scheduled 10; long 3"


def test_of_several_looks_the_runs_of_those_begun_are_planned(tmp_path) -> None:
    lines = [*THREE, "seed=range(8)", "study.looks=[2,4,8]", f"output_dir={tmp_path}"]
    config, grid = plan_study(lines)
    assert {len(entry.runs) for entry in collect(grid, config.study).entries} == {2}
    for planned in grid.runs:
        if planned.seed < (2 if planned.method == "fixed" else 3):
            finish(planned, 0.5)
    config, grid = plan_study(lines)
    counts = {entry.method: len(entry.runs) for entry in collect(grid, config.study).entries}
    assert counts == {"gap": 4, "fixed": 2, "scheduled": 4}
