"""What has become of a grid: its runs, and the report of a study on the terminal and in its folder."""

import io
import os
import re
import shlex
from pathlib import Path

from planned_grids import THREE, TINY, fail, finish
from rich.console import Console

from srp_exp.commands.listing import print_grid
from srp_exp.commands.report.command import plan_study, show_report

REPORT = {
    "report.html", "report.md", "tables.tex", "entries.csv", "comparisons.csv", "verdict.json", "runs.csv",
    "study.yaml",
}  # fmt: skip


def folder_of(output_dir) -> Path:
    (folder,) = (output_dir / "reports").iterdir()
    return folder


def outcome(output_dir, *overrides: str) -> str:
    config, grid = plan_study([*THREE, *TINY, "seed=0,1", *overrides, f"output_dir={output_dir}"])
    text = io.StringIO()
    console = Console(file=text, width=200)
    print_grid(grid, console)
    show_report(grid, config, console)
    return text.getvalue()


def test_a_partial_grid_has_a_partial_report(tmp_path) -> None:
    _, grid = plan_study([*THREE, *TINY, "seed=0,1", f"output_dir={tmp_path}"])
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
    folder = folder_of(tmp_path)
    assert {path.name for path in folder.iterdir() if path.suffix not in (".pdf", ".png")} == REPORT
    assert "no space left" in (folder / "runs.csv").read_text()
    assert "Partial: 4 of 6 runs have finished." in (folder / "report.md").read_text()


def test_a_report_of_nothing_says_so(tmp_path) -> None:
    shown = outcome(tmp_path)
    assert "0 of 6 runs have finished" in shown
    assert {path.name for path in (folder_of(tmp_path)).iterdir()} == REPORT


def test_the_report_names_the_command_that_goes_on(tmp_path) -> None:
    """Row 7: with sweeps, seeds and the folder of an own study."""
    outcome(tmp_path, "recipe.lr=0.05", "mixing=none,mixup", "rerun=true")
    text = (folder_of(tmp_path) / "report.md").read_text()
    (command,) = [line.strip() for line in text.splitlines() if line.startswith("    srp-exp ")]
    conf = os.path.relpath(Path(__file__).parents[2] / "conf")
    assert shlex.split(command)[:3] == ["srp-exp", f"--config-dir={conf}", "study=three"]
    assert {*TINY, "seed=0,1", "recipe.lr=0.05", "mixing=none,mixup"} <= set(shlex.split(command))
    assert "rerun" not in command
    assert f"    {command.replace('srp-exp', 'srp-report', 1)}\n" in text


def test_a_report_says_that_it_is_a_pilot_what_was_trained_and_asked(tmp_path) -> None:
    """Two seeds can't decide: srp-exp runs them as a pilot only, and so do the commands of the report."""
    assert "undecided (pilot, " in outcome(tmp_path, "study.pilot=false", "dataset.train_per_class=4")
    folder = folder_of(tmp_path)
    text = (folder / "report.md").read_text()
    assert "**Verdict:** undecided (pilot, " in text
    (command,) = [line for line in text.splitlines() if line.startswith("    srp-exp ")]
    assert "study.pilot=true" in shlex.split(command)
    assert "- training data: synthetic, 4 training pictures of every class\n" in text
    assert "- network: resnet20 with se\n" in text
    assert re.search(
        "^- recipe: quick: 1 epoch, batches of 16, learning rate 0.1 by sgd and cosine$", text, re.MULTILINE
    )
    file = (Path(__file__).parents[2] / "conf" / "study" / "three.yaml").read_text()
    assert (folder / "study.yaml").read_text() == file
    assert all(f"    {line}\n" in text for line in file.splitlines() if line)


def test_reports_with_other_settings_lie_in_folders_of_their_own(tmp_path) -> None:
    """Row 13."""
    for changes in ((), ("recipe.lr=0.05",), ("recipe.lr=0.06",), ("seed=2",), ("study.metric=loss",)):
        outcome(tmp_path, *changes)
    assert len(list((tmp_path / "reports").iterdir())) == 5
    for where in (("device=cpu",), ("workers=0",), ("dry=true",)):
        assert plan_study(["study=demo", *where])[1].variant == ""
    assert plan_study(["study=demo", "recipe.lr=0.05"])[1].variant == "-recipe.lr=0.05"
