"""Data that moved after the training, or are gone: where they are now, and what needs none of them."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image

SMALL = (
    "dataset=folder", "dataset.memory_mb=0", "dataset.augmentation.crop_size=16", "backbone.depth=8", "recipe.epochs=1",
    "recipe.batch_size=8", "recipe.warmup_epochs=0", "device=cpu", "workers=0",
)  # fmt: skip
LOOK = ("device=cpu", "workers=0")


def write_pictures(root: Path) -> Path:
    """Two classes, eight training, two validation and four test pictures each, of several sizes."""
    draw = torch.Generator().manual_seed(0)
    for part, count in (("train", 8), ("test", 4), ("val", 2)):
        for label, name in enumerate(("dark", "light")):
            (root / part / name).mkdir(parents=True)
            for number in range(count):
                pixels = torch.randint(0, 128, (20 + number, 24, 3), generator=draw) + 100 * label
                Image.fromarray(pixels.byte().numpy()).save(root / part / name / f"{number}.png")
    return root


@pytest.fixture(scope="module")
def original(command_line, tmp_path_factory) -> Path:
    """A folder with pictures in data/pics, and a run of each srp, gap and fixed, in out/."""
    home = tmp_path_factory.mktemp("moved")
    write_pictures(home / "data" / "pics")
    for srp in ("gap", "fixed"):
        place = [f"data_root={home / 'data'}", "dataset.root=${data_root}/pics"]
        outcome = command_line(*SMALL, f"srp={srp}", *place, f"output_dir={home / 'out'}")
        assert outcome.code == 0, outcome.err
    return home


@pytest.fixture
def home(original, tmp_path, monkeypatch) -> Path:
    """Copies of the runs, whose data are in new/pics now; elsewhere is the current folder."""
    shutil.copytree(original / "out", tmp_path / "out")
    shutil.copytree(original / "data" / "pics", tmp_path / "new" / "pics")
    (original / "data").rename(original / "away")
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    (original / "away").rename(original / "data")


def runs(home: Path) -> tuple[Path, Path]:
    gap, fixed = sorted((home / "out" / "runs").iterdir(), key=lambda run: "-gap-" not in run.name)
    return gap, fixed


def metrics(run: Path, part: str = "test") -> dict[str, float]:
    found: dict[str, float] = json.loads((run / "evaluation" / part / "metrics.json").read_text())
    return found


MODES = ("mode=eval", "mode=export format=safetensors", "mode=compare other=OTHER output_dir=out")


def look(command_line, home: Path, mode: str, *settings: str):
    run, other = runs(home)
    for folder in (run, other):
        shutil.rmtree(folder / "evaluation", ignore_errors=True)
    return command_line(*mode.replace("OTHER", str(other)).split(), f"run={run}", *LOOK, *settings)


@pytest.mark.parametrize("mode", MODES[::2])
def test_moved_data_are_looked_for_where_the_command_says(command_line, home, mode) -> None:
    before = metrics(runs(home)[0])
    outcome = look(command_line, home, mode)
    assert outcome.code == 1
    assert outcome.err.count("\n") == 1, outcome.err
    assert "dataset.root=FOLDER" in outcome.err
    for place in (f"dataset.root={home / 'new' / 'pics'}", f"data_root={home / 'new'}"):
        outcome = look(command_line, home, mode, place)
        assert outcome.code == 0, outcome.err
    assert metrics(runs(home)[0]) == before


@pytest.mark.parametrize("mode", MODES[::2])
def test_other_test_pictures_need_none_of_the_runs(command_line, home, mode) -> None:
    before = metrics(runs(home)[0])
    outcome = look(command_line, home, mode, f"test_root={home / 'new' / 'pics' / 'test'}")
    assert outcome.code == 0, outcome.err
    (part,) = (runs(home)[0] / "evaluation").iterdir()
    after = metrics(runs(home)[0], part.name)
    assert (after["top1"], after["samples"]) == (before["top1"], before["samples"])
    assert after["loss"] == pytest.approx(before["loss"], abs=1e-6)


@pytest.mark.parametrize("mode", MODES[:2])
def test_the_test_part_needs_no_training_picture(command_line, home, mode) -> None:
    before = metrics(runs(home)[0])
    for picture in (home / "new" / "pics" / "train").glob("*/*"):
        picture.write_bytes(b"")
    outcome = look(command_line, home, mode, f"dataset.root={home / 'new' / 'pics'}")
    assert outcome.code == 0, outcome.err
    if "export" in mode:
        (file,) = (runs(home)[0] / "export").glob("*.json")
        facts = json.loads(file.read_text())
        assert (facts["images"]["background"], facts["images"]["value_range"]) == ([255, 255, 255], None)
    else:
        assert metrics(runs(home)[0]) == before


def test_nor_does_a_validation_part_that_the_set_brings(command_line, home) -> None:
    for picture in (home / "new" / "pics" / "train").glob("*/*"):
        picture.write_bytes(b"")
    run, _ = runs(home)
    outcome = command_line("mode=eval", f"run={run}", f"dataset.root={home / 'new' / 'pics'}", "split=val", *LOOK)
    assert outcome.code == 0, outcome.err
    assert metrics(run, "val")["samples"] == 4


def test_data_that_did_not_move_are_found_from_everywhere(command_line, original, tmp_path, monkeypatch) -> None:
    """The data_root of the training counts, not the default of the command that looks at it."""
    run = shutil.copytree(runs(original)[0], tmp_path / "runs" / runs(original)[0].name)
    monkeypatch.chdir(tmp_path)
    outcome = command_line("mode=eval", f"run={run}", *LOOK)
    assert outcome.code == 0, outcome.err


def test_other_data_are_refused_wherever_they_are(command_line, home) -> None:
    picture = next((home / "new" / "pics" / "test" / "light").iterdir())
    Image.new("RGB", (99, 99)).save(picture)
    outcome = look(command_line, home, "mode=eval", f"dataset.root={home / 'new' / 'pics'}")
    assert outcome.code == 1 and "was trained on other data (test pictures" in outcome.err


WRONG = [
    ("dataset.rot=x", ["dataset.rot=x", "dataset.root=FOLDER"]),
    ("dataset.download=true", ["dataset.download=true", "no such setting", "dataset.root"]),
    ("dataset.root=null", ["dataset.root=None", "not Optional"]),
    ("dataset.root=nowhere", ["nowhere", "dataset.root=FOLDER"]),
    ("dataset.on_corrupt=skip", ["dataset.on_corrupt=skip", "leave it out"]),
    ("dataset=folder", ["dataset=folder", "leave it out"]),
    ("test_root=nowhere", ["test_root=nowhere", "no such folder"]),
]


def test_what_says_nothing_of_the_place_is_one_line(command_line, home) -> None:
    for setting, named in WRONG:
        outcome = look(command_line, home, "mode=eval", setting)
        assert outcome.code == 1
        assert outcome.err.count("\n") == 1, outcome.err
        assert [part for part in named if part not in outcome.err] == [], outcome.err


def test_a_set_that_lies_nowhere_has_no_root(command_line, tmp_path) -> None:
    small = [setting for setting in SMALL if "dataset" not in setting]
    assert (
        command_line(
            "dataset=synthetic", "dataset.train_size=16", "dataset.test_size=16", *small, f"output_dir={tmp_path}"
        ).code
        == 0
    )
    (run,) = (tmp_path / "runs").iterdir()
    outcome = command_line("mode=eval", f"run={run}", *LOOK, "dataset.root=x")
    assert outcome.code == 1 and "dataset.root=x: synthetic has no such setting" in outcome.err
