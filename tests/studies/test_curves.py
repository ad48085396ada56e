"""TensorBoard shows the curves of a grid by method, cell and seed."""

from pathlib import Path

import pytest
from planned_grids import plan
from tensorboard.backend.event_processing import io_wrapper

from srp_exp.studies.curves import name_curves


def test_tensorboard_finds_each_run_under_its_label(tmp_path: Path) -> None:
    grid, folder = plan("seed=0,1", output_dir=tmp_path), tmp_path / "curves" / "three"
    assert name_curves(grid, folder)
    for planned in grid.runs:
        planned.run.folder.mkdir(parents=True, exist_ok=True)
        (planned.run.folder / "events.out.tfevents.1.host").touch()
    found = {Path(path).name: Path(path).resolve() for path in io_wrapper.GetLogdirSubdirectories(str(folder))}
    assert found == {planned.label: planned.run.folder.resolve() for planned in grid.runs}
    assert len(found) == len(grid.runs) > 2


def test_a_smaller_grid_replaces_the_links_and_nothing_else(tmp_path: Path) -> None:
    folder = tmp_path / "curves"
    assert name_curves(plan("seed=0,1", output_dir=tmp_path), folder)
    (folder / "notes.txt").write_text("mine")
    grid = plan("seed=1", output_dir=tmp_path)
    assert name_curves(grid, folder)
    assert {path.name for path in folder.iterdir()} == {"notes.txt", *(planned.label for planned in grid.runs)}


def test_a_file_system_without_links_is_no_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError("no links here")

    monkeypatch.setattr(Path, "symlink_to", refuse)
    assert not name_curves(plan("seed=0", output_dir=tmp_path), tmp_path / "curves")
