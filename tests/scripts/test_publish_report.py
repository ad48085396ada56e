"""Publishing a report: what is kept of its runs gives it again, and nothing published is lost."""

import sys
from pathlib import Path

import pytest
from planned_grids import THREE, fail, finish

from scripts import adopt_runs, publish_report
from srp_exp.commands.report.command import main as report_command
from srp_exp.commands.report.command import plan_study


def contents(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def test_what_is_kept_gives_the_report_again_and_no_run_is_dropped(tmp_path, monkeypatch, capsys) -> None:
    lines = [*THREE, "seed=range(4)", "study.looks=[2,4]", "output_dir=outputs"]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(publish_report, "PUBLISHED", tmp_path / "results")
    published = tmp_path / "results" / "three"

    def publish(*overrides: str) -> None:
        monkeypatch.setattr(sys, "argv", ["publish_report", *lines, *overrides])
        publish_report.main()

    with pytest.raises(ValueError, match="none of its runs is finished"):
        publish()
    _, grid = plan_study(lines)
    for number, planned in enumerate(grid.runs[:-1]):
        finish(planned, 0.5 + (number * 7 % 11) / 97)
    fail(grid.runs[-1], "no space left")
    publish()
    first = contents(published)
    assert first.keys() == {"report.md", "differences-0.png", "runs.parquet"}

    monkeypatch.setattr(sys, "argv", ["srp-report", str(published)])
    report_command()
    written = tmp_path / "outputs" / "reports" / "three"
    assert all((written / name).read_bytes() == first[name] for name in ("report.md", "differences-0.png"))
    assert grid.runs[-1].run.folder.name in (written / "verdict.json").read_text()  # it failed

    (tmp_path / "outputs").rename(tmp_path / "elsewhere")
    monkeypatch.setattr(adopt_runs, "PUBLISHED", tmp_path / "results")
    refused = {
        "recipe.epochs=77": r"was trained with recipe.epochs=.*, and gap .*seed=0 has recipe.epochs=77",
        "attention=eca": r"was trained with attention._target_=SqueezeExcite, .* has attention._target_=EcaModule",
        "loss=bce": "nothing was adopted; .* give --accept too",
    }
    for override, said in refused.items():
        monkeypatch.setattr(sys, "argv", ["adopt_runs", *lines, override])
        with pytest.raises(ValueError, match=said):
            adopt_runs.main()
    assert "loss._target_=BinaryCrossEntropy is new (11 runs)" in capsys.readouterr().out
    assert not (tmp_path / "outputs").exists()
    monkeypatch.setattr(sys, "argv", ["adopt_runs", *lines])
    for finished in (11, 0):
        adopt_runs.main()
        assert f"adopted {finished} of 12 runs" in capsys.readouterr().out
    fail(grid.runs[-1], "no space left")
    publish()
    again = contents(published)
    assert all(again[name] == first[name] for name in ("report.md", "differences-0.png"))

    with pytest.raises(ValueError, match="is of another command"):
        publish("study.metric=top5")
    lost = grid.runs[0].run.folder
    lost.rename(tmp_path / "lost")
    with pytest.raises(ValueError, match=f"1 of its runs aren't among the finished, such as {lost.name}"):
        publish()
    assert contents(published) == again
    (published / "runs.parquet").unlink()
    with pytest.raises(ValueError, match="was made from 11 runs, and 10 are finished"):
        publish()


def test_a_folder_that_holds_no_report_is_named(tmp_path, monkeypatch) -> None:
    (tmp_path / "runs.parquet").write_bytes(b"PAR1")
    monkeypatch.setattr(sys, "argv", ["srp-report", str(tmp_path)])
    with pytest.raises(SystemExit, match=r"runs\.parquet: holds no runs of a study"):
        report_command()
