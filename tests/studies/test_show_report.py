"""What has become of a grid: its runs, and the report of a study on the terminal and in its folder."""

import io

from planned_grids import TINY, fail, finish
from rich.console import Console

from srp_exp.commands.report import plan_study
from srp_exp.studies.listing import print_grid
from srp_exp.studies.report import show_report

REPORT = {"report.html", "report.md", "table.tex", "table.csv", "runs.csv"}


def outcome(output_dir, *overrides: str) -> str:
    config, grid = plan_study(["study=demo", *TINY, "seed=0,1", *overrides, f"output_dir={output_dir}"])
    text = io.StringIO()
    console = Console(file=text, width=200)
    print_grid(grid, console)
    show_report(grid, config, console)
    return text.getvalue()


def test_a_partial_grid_has_a_partial_report(tmp_path) -> None:
    _, grid = plan_study(["study=demo", *TINY, "seed=0,1", f"output_dir={tmp_path}"])
    for planned, top1 in zip(grid.runs[:4], (0.5, 0.75, 0.625, 0.875), strict=True):
        finish(planned, top1)
    fail(grid.runs[4], "no space left")
    shown = outcome(tmp_path)
    assert "6 runs: 4 finished, 1 failed, 1 new" in shown
    assert "failed: scheduled dataset=synthetic seed=0: no space left" in shown
    assert "Partial: 4 of 6 runs have finished." in shown
    assert "62.50 ± 17.68" in shown  # gap: mean and sd of 50 and 75 %
    assert "75.00 ± 17.68" in shown  # fixed
    assert "+12.50" in shown
    folder = tmp_path / "reports" / "demo"
    assert {path.name for path in folder.iterdir()} == REPORT
    assert "no space left" in (folder / "runs.csv").read_text()
    assert "Partial: 4 of 6 runs have finished." in (folder / "report.md").read_text()


def test_a_report_of_nothing_says_so(tmp_path) -> None:
    shown = outcome(tmp_path)
    assert "0 of 6 runs have finished" in shown
    assert {path.name for path in (tmp_path / "reports" / "demo").iterdir()} == REPORT


def test_the_report_names_the_command_that_goes_on(tmp_path) -> None:
    outcome(tmp_path, "recipe.lr=0.05")
    assert "srp-exp study=demo dataset=synthetic" in (tmp_path / "reports" / "demo" / "report.md").read_text()
    assert "recipe.lr=0.05" in (tmp_path / "reports" / "demo" / "report.md").read_text()
