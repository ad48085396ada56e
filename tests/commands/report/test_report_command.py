"""srp-report: studies, lists of runs and comparisons of two, from what lies in the run folders."""

import contextlib
import csv
import io
import json
import re
import sys
from pathlib import Path

import pytest
from planned_grids import THREE, TINY, begin, contents, fail, finish, plan

from srp_exp.commands.report.command import main


def report(*arguments: str) -> tuple[int, list[str], str]:
    """Exit code, printed lines and the one line of an error of `srp-report <arguments>`."""
    out, code, error = io.StringIO(), 0, ""
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(out):
        patch.setattr(sys, "argv", ["srp-report", *arguments])
        try:
            main()
        except SystemExit as exit_:
            code, error = int(exit_.code != 0), str(exit_.code)
    return code, out.getvalue().splitlines(), error


@pytest.fixture
def outputs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """outputs/ in the current folder with six runs: two finished, one failed, one interrupted, two absent."""
    monkeypatch.chdir(tmp_path)
    runs = plan("seed=0,1", output_dir=Path("outputs")).runs
    finish(runs[0], 0.5)
    finish(runs[1], 0.75)
    fail(runs[2], "no space left")
    begin(runs[3])
    return tmp_path / "outputs"


def rows(lines: list[str]) -> list[list[str]]:
    """The words of each line of the list of runs, which ends where they are counted."""
    (end,) = (number for number, line in enumerate(lines) if re.match(r"\d+ runs?: ", line))
    return [line.split() for line in lines[1:end]]


def test_help_is_printed_without_arguments() -> None:
    for arguments in ((), ("--help",), ("-h",)):
        code, lines, _ = report(*arguments)
        assert code == 0
        assert lines[0].startswith("usage: srp-report ")
        assert {"study=demo", "runs", "compare"} <= {
            line.split()[1] for line in lines if line.startswith("srp-report ")
        }


def test_all_runs_are_listed(outputs) -> None:
    code, lines, _ = report("runs")
    assert code == 0
    assert lines[0].split() == ["srp", "seed", "state", "test", "top-1", "seconds", "run"]  # what differs, no more
    assert sorted(row[2] for row in rows(lines)) == ["failed", "finished", "finished", "interrupted"]
    assert "4 runs: 2 finished, 1 interrupted, 1 failed" in lines
    assert re.fullmatch("synthetic-resnet20-se-fixed-.* failed: no space left", lines[-1])


def test_runs_are_sorted_chosen_by_what_was_typed_and_written(outputs) -> None:
    for provenance in (outputs / "runs").glob("*/provenance.json"):
        of = json.loads(provenance.read_text())
        of["command"] = ["srp-exp", *(["dataset=mine"] if "-gap-" in str(provenance) else [])]
        provenance.write_text(json.dumps(of))
    code, lines, _ = report("runs", "sort=-test", "dataset=mine", "csv=found/runs.csv")
    assert code == 0
    assert [row[2] for row in rows(lines)] == ["75.00%", "50.00%"]
    written = list(csv.DictReader((outputs.parent / "found" / "runs.csv").read_text().splitlines()))
    assert [line["seed"] for line in written] == ["1", "0"]
    assert [float(line["test top-1"]) for line in written] == [0.75, 0.5]
    assert report("runs", "sort=sede")[2].endswith("did you mean seed?")


def test_a_sweep_is_summed_up_by_its_settings(outputs) -> None:
    code, lines, error = report("sweep", "by=srp", "csv=sweep.csv", "latex=sweep.tex")
    assert code == 0, error
    by_srp = {line.split("│")[1].strip(): line.split("│")[2:4] for line in lines if line.startswith("│")}
    assert [cell.strip() for cell in by_srp["gap"]] == ["62.50 ± 17.68", "2"]
    assert [cell.strip() for cell in by_srp["fixed"]] == ["-", "0 of 2"]
    assert not any("taken together" in line for line in lines)
    (gap,) = (row for row in csv.DictReader(Path("sweep.csv").read_text().splitlines()) if row["srp"] == "gap")
    assert (gap["metric"], gap["mean"], gap["n"]) == ("test top-1", "0.625", "2")
    assert r"gap & 62.50 $\pm$ 17.68 & 2 \\" in Path("sweep.tex").read_text()
    mixed = report("sweep", "by=seed")[1]  # gap and fixed have the same seeds
    assert any("srp" in line and "taken together" in line for line in mixed)


FILTERS = [
    (["srp=gap"], 2),
    (["state=finished", "seed=1"], 1),
    (["srp.scale=0.50"], 2),
    (["dataset.image_size=[16,16]"], 4),
    (["rerun=False"], 4),
    (["recipe.label_smoothing=0"], 4),
    (["srp=scheduled"], 0),
    (["output_dir=outputs", "state=failed"], 1),
]


def test_filters_choose_runs_by_their_settings(outputs) -> None:
    for filters, count in FILTERS:
        code, lines, error = report("runs", *filters)
        assert code == 0, error
        assert len(rows(lines)) == count
        assert any(line.startswith(f"{count} run") for line in lines)


def test_a_study_is_reported_as_far_as_its_runs_are_there_and_no_run_is_touched(outputs) -> None:
    before = contents(outputs / "runs")
    code, lines, error = report(*THREE, *TINY, "seed=0,1")
    assert code == 0, error
    assert contents(outputs / "runs") == before
    assert any("62.50 ± 17.68" in line for line in lines)
    assert any("Partial: 2 of 6 runs have finished." in line for line in lines)
    wrote = [line.removeprefix("wrote ") for line in lines if line.startswith("wrote ")]
    assert len(wrote) == 8
    assert all(Path(path).is_file() for path in wrote)


def test_two_runs_are_compared_as_by_mode_compare(outputs, monkeypatch) -> None:
    first, second = sorted((outputs / "runs").glob("*-gap-*"))
    called: list[list[str]] = []
    monkeypatch.setattr("srp_exp.__main__.main", lambda: called.append(sys.argv))
    code, _, error = report("compare", str(first), str(second), "cams=3")
    assert code == 0, error
    assert called == [["srp-exp", "mode=compare", f"run='{first}'", f"other='{second}'", "cams=3"]]


WRONG = {
    "study=demp": ["study=demp", "demo?"],
    "demo": ["demo"],
    "recipe.epochs=3": ["no study is named", "demo", "main_cifar"],
    "study=demo srp=gap": ["srp=gap", "study=demo compares srp"],
    "study=main_cifar study.columns=[datset]": ["study.columns", "datset", "mean dataset"],
    "runs dataset": ["dataset is not a filter", "setting=value"],
    "runs datset=synthetic": ["datset", "mean dataset"],
    "runs state=finishd": ["state=finishd", "finished?"],
    "runs output_dir=nowhere": ["nowhere", "output_dir"],
    "sweep by=srpp": ["by=srpp", "srp?"],
    "comapre a b": ["comapre", "compare"],
    "compare outputs/runs/a": ["name two run folders"],
    "study=demo recipe.epoch=3": ["recipe.epoch ", "epochs?"],
    "study=demo study.metric=top2": ["top2", "top1"],
    "--config-dir nowhere study=demo": ["--config-dir=nowhere", "no such folder"],
    "--confg-dir=x study=demo": ["--confg-dir"],
    "compare nowhere outputs": ["nowhere", "not a finished run"],
}


def test_a_wrong_command_is_one_line(outputs) -> None:
    before = contents(outputs)
    for line in WRONG:
        code, lines, error = report(*line.split())
        assert (code, lines) == (1, [])
        assert error.startswith("srp-report: ")
        assert "\n" not in error
        assert [part for part in WRONG[line] if part not in error] == [], error
        assert contents(outputs) == before


def test_an_unfinished_run_can_not_be_compared(outputs) -> None:
    finished = str(next((outputs / "runs").glob("*-gap-*")))
    for folder in (outputs / "runs").glob("*-fixed-*"):
        code, _, error = report("compare", finished, str(folder))
        assert code == 1
        assert str(folder) in error
        assert ("failed" in error) or ("interrupted" in error)
