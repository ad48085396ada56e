"""The CSV files have every number in full."""

import csv
import statistics
from typing import Any

import pytest
from planned_grids import entry_of

from srp_exp.runs.folder.store import State
from srp_exp.studies.reports.csv_rows import csv as csv_of
from srp_exp.studies.reports.csv_rows import entry_values, run_values
from srp_exp.studies.results import StudyResults


def read(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(text.splitlines(), strict=True))


def test_entries(full_study: StudyResults) -> None:
    lines = read(csv_of(entry_values(full_study)))
    assert [(line["method"], line["backbone"]) for line in lines] == [
        (entry.method, dict(entry.cell)["backbone"]) for entry in full_study.entries
    ]
    for line, entry in zip(lines, full_study.entries, strict=True):
        values = list(entry.values.values())
        assert float(line["mean"]) == pytest.approx(statistics.mean(values), rel=1e-15)
        assert float(line["sd"]) == pytest.approx(statistics.stdev(values), rel=1e-12)
        assert float(line["low"]) < float(line["mean"]) < float(line["high"])
        assert (int(line["n"]), int(line["planned"])) == (len(values), 3)
        assert line["warnings"] == full_study.warnings[0]
    assert (lines[0]["published"], lines[0]["source"], lines[1]["published"]) == ("0.95", "A & B, Table 1", "")
    assert [line["parameters"] for line in lines] == ["271807"] * 3 + ["860000"] * 3


def test_runs(full_study: StudyResults) -> None:
    lines = read(csv_of(run_values(full_study)))
    assert len(lines) == 18
    for line in lines:
        found = entry_of(full_study, line["method"], (("backbone", line["backbone"]),))
        run = found.runs[int(line["seed"])]
        assert (line["state"], line["folder"]) == (run.state.value, str(run.folder))
        if line["state"] == "finished":
            assert float(line["top1"]) == found.values[int(line["seed"])]
            assert (float(line["top5"]), float(line["loss"])) == (0.999, run.results["test"]["loss"])
            assert (line["commit"], line["torch"], line["device"]) == ("0123456789", "2.14.1", "AMD EPYC")
    (failed,) = [line for line in lines if line["state"] == "failed"]
    assert (failed["top1"], failed["commit"], failed["parameters"]) == ("", "", "")


def test_the_reason_of_a_failure_and_uncommitted_changes(make_results: Any) -> None:
    results = make_results({("gap", ()): {0: State.failed, 1: 0.9}})
    runs = entry_of(results, "gap").runs
    runs[0].folder.mkdir(parents=True)
    (runs[0].folder / "failure.txt").write_text('loss is "nan", at step 3\nTraceback')
    runs[1].provenance["diff"] = "changes"
    first, second = read(csv_of(run_values(results)))
    assert first["failure"] == 'loss is "nan", at step 3'
    assert second["commit"] == "0123456789+d0b4ba"


def test_a_study_without_a_single_result_can_be_written(make_results: Any) -> None:
    results = make_results({("gap", ()): {0: State.new}})
    (entry,), (run,) = read(csv_of(entry_values(results))), read(csv_of(run_values(results)))
    assert (entry["mean"], entry["n"], entry["planned"], run["state"], run["top1"]) == ("", "0", "1", "new", "")
