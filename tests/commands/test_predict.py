"""Predictions of pictures without labels: those of an evaluation of the same files, and what can't be read is named."""

import csv
import functools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

import srp_exp

TINY = (
    "dataset=folder", "backbone.depth=8", "recipe.epochs=1", "recipe.batch_size=4", "recipe.warmup_epochs=0",
    "device=cpu", "workers=0",
)  # fmt: skip
LOOK = ("device=cpu", "workers=0")
KINDS = {
    "read from files": ("dataset.memory_mb=0", "dataset.augmentation.crop_size=16"),
    "held in memory": (),
}


def write_pictures(root: Path, sides: tuple[int, ...]) -> Path:
    """Three classes, four training and two test pictures each, whose widths are `sides` in turns."""
    draw = torch.Generator().manual_seed(0)
    for part, count in (("train", 4), ("test", 2)):
        for label, name in enumerate(("dark", "grey", "light")):
            (root / part / name).mkdir(parents=True)
            for number in range(count):
                size = (12, sides[number % len(sides)], 3)
                pixels = torch.randint(0, 90, size, generator=draw) + 80 * label
                Image.fromarray(pixels.byte().numpy()).save(root / part / name / f"{number}.png")
    return root


@pytest.fixture(scope="module")
def train(command_line, tmp_path_factory) -> Callable[[str], tuple[Path, Path]]:
    """`train(kind)`: a run, and the folder of its test pictures."""

    @functools.cache
    def train_kind(kind: str) -> tuple[Path, Path]:
        home = tmp_path_factory.mktemp("predict")
        root = write_pictures(home / "pics", (12,) if kind == "held in memory" else (14, 20))
        outcome = command_line(*TINY, *KINDS[kind], f"dataset.root={root}", f"output_dir={home / 'out'}")
        assert outcome.code == 0, outcome.err
        (run,) = (home / "out" / "runs").iterdir()
        return run, root / "test"

    return train_kind


@pytest.fixture(params=KINDS)
def either(request, train) -> tuple[Path, Path]:
    return train(request.param)


@pytest.fixture
def trained(train) -> tuple[Path, Path]:
    return train("read from files")


def predict(command_line: Any, run: Path, source: Path, file: Path, *others: str) -> Any:
    return command_line("mode=predict", f"run={run}", f"source={source}", f"predictions={file}", *LOOK, *others)


def read(file: Path) -> dict[str, dict[str, str]]:
    with file.open(newline="") as opened:
        return {row["path"]: row for row in csv.DictReader(opened)}


def evaluated(run: Path, part: str = "test") -> dict[str, dict[str, float]]:
    """By path the probability of each class."""
    rows = pq.read_table(run / "evaluation" / part / "predictions.parquet").to_pylist()
    return {row["path"]: {name: row[f"probability_{name}"] for name in ("dark", "grey", "light")} for row in rows}


def test_a_folder_is_predicted_as_it_is_evaluated(command_line, either, tmp_path) -> None:
    run, root = either
    outcome = predict(command_line, run, root, tmp_path / "found.csv", "workers=2", "top=2")
    assert outcome.code == 0, outcome.err
    assert outcome.out.splitlines()[-1] == f"predicted 6 of 6 pictures  {tmp_path / 'found.csv'}"
    found, expected = read(tmp_path / "found.csv"), evaluated(run)
    assert list(found) == sorted(expected)
    for path, row in found.items():
        best = sorted(expected[path], key=lambda name: -expected[path][name])[:2]
        assert [row["class_1"], row["class_2"]] == best
        assert [float(row[f"probability_{k}"]) for k in (1, 2)] == pytest.approx(
            [expected[path][name] for name in best], rel=1e-4
        )
        assert "class_3" not in row


def test_the_mean_with_the_mirrored_picture(command_line, either, tmp_path) -> None:
    run, root = either
    assert predict(command_line, run, root, tmp_path / "found.csv", "flip=true").code == 0
    outcome = command_line("mode=eval", f"run={run}", "flip=true", *LOOK)
    assert outcome.code == 0, outcome.err
    loaded = srp_exp.load_run(run)
    for path, row in read(tmp_path / "found.csv").items():
        image = loaded.transform(path)
        with torch.no_grad():
            both = loaded.network(torch.stack([image, image.flip(2)])).softmax(1)
        wanted = dict(zip(loaded.class_names, both.mean(0).tolist(), strict=True))
        assert float(row["probability_1"]) == pytest.approx(wanted[row["class_1"]], rel=1e-4)
        assert evaluated(run, "test-flip")[path] == pytest.approx(wanted, rel=1e-4)
        assert not torch.allclose(*both, rtol=1e-3)


def odd_pictures(folder: Path, good: Path) -> Path:
    folder.mkdir()
    (folder / "a.png").write_bytes(good.read_bytes())
    (folder / "cut.png").write_bytes(good.read_bytes()[:60])
    Image.new("RGB", (40, 90), (200, 20, 20)).save(folder / "large.jpg")
    Image.new("I;16", (20, 20), 3000).save(folder / "x deep.png")
    (folder / "notes.txt").write_text("no picture")
    os.mkfifo(folder / "pipe.png")  # whoever opens it waits for ever
    return folder


def test_what_cannot_be_read_is_named_and_the_rest_done(command_line, trained, tmp_path) -> None:
    run, root = trained
    odd = odd_pictures(tmp_path / "odd", root / "dark" / "0.png")
    file = tmp_path / "new" / "found.parquet"
    outcome = predict(command_line, run, odd, file)
    assert outcome.code == 0
    cut, deep = outcome.err.splitlines()
    assert cut.startswith(f"{odd / 'cut.png'}: not a readable image of 60 bytes") and "on_corrupt" not in cut
    assert deep.startswith(f"{odd / 'x deep.png'}: has more than 8 bits") and "dataset." not in deep
    assert "predicted 2 of 4 pictures" in outcome.out
    assert f"{odd / 'large.jpg'}  " in outcome.out  # few are printed too
    table = pq.read_table(file)
    assert table["path"].to_pylist() == [str(odd / "a.png"), str(odd / "large.jpg")]
    assert table.column_names == ["path", *(f"{what}_{k}" for k in (1, 2, 3) for what in ("class", "probability"))]
    sums = sum(table[f"probability_{k}"].to_numpy() for k in (1, 2, 3))
    assert sums == pytest.approx([1, 1], abs=1e-5)


def test_a_table_names_pictures_or_holds_them_and_one_picture_will_do(command_line, trained, tmp_path) -> None:
    run, root = trained
    picture = root / "light" / "1.png"
    (tmp_path / "names.csv").write_text(f"file,note\n{picture},x\nmissing.png,y\n")
    pq.write_table(pa.table({"image": [picture.read_bytes()]}), tmp_path / "held.parquet")
    answers = []
    for source, path in (
        ("names.csv", picture),
        ("held.parquet", f"{tmp_path / 'held.parquet'}#0"),
        (picture, picture),
    ):
        outcome = predict(command_line, run, tmp_path / source, tmp_path / "found.csv")
        assert outcome.code == 0, outcome.err
        ((found, row),) = read(tmp_path / "found.csv").items()
        assert found == str(path)
        assert ("missing.png: No such file" in outcome.err) == (source == "names.csv")
        answers.append({name: value for name, value in row.items() if name != "path"})
    assert answers[0] == answers[1] == answers[2]


def test_predictions_lie_in_the_run_where_no_file_is_named(command_line, trained) -> None:
    run, root = trained
    outcome = command_line("mode=predict", f"run={run}", f"source={root}", *LOOK)
    assert outcome.code == 0, outcome.err
    assert len(read(run / "predictions" / "pics-test.csv")) == 6


def test_a_name_that_a_spreadsheet_would_run_is_quoted(command_line, trained, tmp_path, monkeypatch) -> None:
    run, root = trained
    monkeypatch.chdir(tmp_path)
    Path("=odd").mkdir()
    Path("=odd", "a.png").write_bytes((root / "dark" / "0.png").read_bytes())
    outcome = command_line("mode=predict", f"run={run}", "source='=odd'", "predictions=found.csv", *LOOK)
    assert outcome.code == 0, outcome.err
    assert list(read(Path("found.csv"))) == ["'=odd/a.png"]


WRONG = [
    ("source=nowhere", "source=nowhere: there is no such folder"),
    ("source=empty", "source=empty: no file in it is named as a picture"),
    ("source=cut.png", "source=cut.png: none of its 1 pictures can be read"),
    ("source=names.csv source_column=z", "source_column=z: names.csv has no such column, but one, two"),
    ("source=names.csv", "2 columns may hold images; set source_column to one of one, two"),
    ("source=empty predictions=x.txt", "predictions=x.txt"),
    ("source=empty top=0", "top=0"),
    ("", "mode=predict needs source=FOLDER"),
    ("source=empty flip=true evaluators=[gates]", "flip=true: evaluators"),
    ("source=empty seed=1", "seed=1: what a run is comes from"),
]


def test_wrong_input_is_one_line(command_line, trained, tmp_path, monkeypatch) -> None:
    run, _ = trained
    monkeypatch.chdir(tmp_path)
    Path("empty").mkdir()
    Path("cut.png").write_bytes(b"\x89PNG")
    Path("names.csv").write_text("one,two\na.png,b.png\n")
    for given, named in WRONG:
        outcome = command_line("mode=predict", f"run={run}", *given.split(), *LOOK)
        assert outcome.code == 1
        assert named in outcome.err.splitlines()[-1], outcome.err
        assert outcome.err.count("\n") == (2 if "cut.png" in given else 1)


OF_OTHER_MODES = [
    ("source=x", "source=x: is for mode=predict"),
    ("flip=true", "flip=true: is for mode=eval and mode=predict"),
]


def test_its_settings_are_read_by_no_training(command_line) -> None:
    for given, named in OF_OTHER_MODES:
        outcome = command_line(given)
        assert outcome.code == 1
        assert named in outcome.err and outcome.err.count("\n") == 1
