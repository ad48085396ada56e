"""Other test pictures for a trained run: matched by class name, evaluated as the run's own, written beside them."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from srp_exp.datasets import ImageSet, Split
from srp_exp.datasets.augmentation import Augmentation, FileAugmentation
from srp_exp.datasets.files.file_split import FileSplit
from srp_exp.datasets.known import facts_of, without_pictures
from srp_exp.datasets.other_test import name_of, other_test
from srp_exp.datasets.sets.folder import Folder
from srp_exp.datasets.sets.synthetic import Synthetic

SMALL = (
    "backbone.depth=8", "recipe.epochs=1", "recipe.batch_size=4", "recipe.warmup_epochs=0", "device=cpu", "workers=0",
)  # fmt: skip
SYNTHETIC = ("dataset=synthetic", "dataset.num_classes=6", "dataset.train_size=24", "dataset.test_size=20", *SMALL)


def the_run(output_dir: Path) -> Path:
    (folder,) = (output_dir / "runs").iterdir()
    return folder


def write(path: Path, pixels: torch.Tensor) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels.permute(1, 2, 0).squeeze(2).numpy()).save(path)


def write_split(root: Path, split: Split, class_names: tuple[str, ...]) -> Path:
    for name in class_names:
        (root / name).mkdir(parents=True)
    for number, (image, label) in enumerate(zip(split.images, split.labels.tolist(), strict=True)):
        write(root / class_names[label] / f"{number:03}.png", image)
    return root


def files(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def trained(command_line, tmp_path_factory) -> tuple[Path, Path]:
    """A run of generated images, and its own test images as PNG files in class folders."""
    home = tmp_path_factory.mktemp("trained")
    assert command_line(*SYNTHETIC, f"output_dir={home / 'out'}").code == 0
    test = Synthetic(0, 6, 24, 20, (32, 32), 3, 3, 8, Augmentation()).test
    return the_run(home / "out"), write_split(home / "own" / "pictures", test, tuple(f"class {n}" for n in range(6)))


def test_a_runs_own_pictures_as_files_give_its_own_result(command_line, trained) -> None:
    run, root = trained
    before = files(run)
    outcome = command_line("mode=eval", f"run={run}", f"test_root={root}", "device=cpu")
    assert outcome.code == 0, outcome.err
    after = files(run)
    assert {path: after[path] for path in before} == before  # nothing of the run is touched
    (folder,) = {path.parent for path in after.keys() - before.keys()}
    assert folder == run / "evaluation" / name_of(root)
    assert folder.name.startswith("own-pictures-")
    own, other = (json.loads((place / "metrics.json").read_text()) for place in (run / "evaluation" / "test", folder))
    assert other.pop("test_root") == str(root)
    assert other["samples"] == 20
    assert other.pop("loss") == pytest.approx(own.pop("loss"), abs=1e-6)
    assert own == other
    answers = pq.read_table(folder / "predictions.parquet")
    labels = answers["label"].to_pylist()
    assert labels == sorted(labels)
    assert answers["path"].to_pylist() == [str(path) for path in sorted(root.rglob("*.png"))]
    assert "path" not in pq.read_table(run / "evaluation" / "test" / "predictions.parquet").column_names


def test_other_content_has_another_place(trained, tmp_path) -> None:
    _, root = trained
    copy = shutil.copytree(root, tmp_path / "own" / "pictures")
    assert name_of(copy) == name_of(root)
    next(copy.rglob("*.png")).unlink()
    assert name_of(copy) != name_of(root)


CHANGES = [
    (lambda root: (root / "class 3").rename(root / "cat"), "it lacks class 3 and has cat besides"),
    (lambda root: shutil.rmtree(root / "class 3"), "or set some_classes=true"),
    (lambda root: (root / "class 7").mkdir(), "it has class 7 besides; name them"),
    (lambda root: (root / "class 2" / "notes.txt").touch(), "notes.txt is not named as a picture"),
    (lambda root: os.mkfifo(root / "class 2" / "pipe.png"), "pipe.png is not named as a picture, or no file"),
    (lambda root: write(root / "class 2" / "x.png", torch.zeros(3, 30, 32).byte()), "x.png has 30 x 32 pixels"),
    (lambda root: [path.unlink() for path in root.rglob("*.png")], "there is no picture"),
    (shutil.rmtree, "there is no such folder"),
]


def test_what_does_not_fit_is_one_line_and_writes_nothing(command_line, trained, tmp_path) -> None:
    run, root = trained
    before = files(run)
    for number, (change, message) in enumerate(CHANGES):
        copy = shutil.copytree(root, tmp_path / f"changed{number}")
        change(copy)
        outcome = command_line("mode=eval", f"run={run}", f"test_root={copy}", "device=cpu")
        assert outcome.code == 1
        assert outcome.err.startswith("srp-exp: test_root=") or "x.png" in outcome.err
        assert f"{copy.name}: " in outcome.err or "x.png" in outcome.err  # a long line leaves out folders above it
        assert message in outcome.err and outcome.err.count("\n") == 1
    assert files(run) == before


def test_a_network_chooses_among_some_classes(command_line, trained, tmp_path) -> None:
    run, root = trained
    some = tmp_path / "some"
    for label in (1, 3, 4):
        shutil.copytree(root / f"class {label}", some / f"class {label}")
    place = (f"test_root={some}", "some_classes=true", "device=cpu", "evaluators=[robustness]")
    outcome = command_line("mode=eval", f"run={run}", *place)
    assert outcome.code == 0, outcome.err
    rows = pq.read_table(run / "evaluation" / "test" / "predictions.parquet").to_pylist()
    all_classes = [
        [row[f"probability_class {label}"] for label in (1, 3, 4)] for row in rows if row["label"] in (1, 3, 4)
    ]
    labels = [row["label"] for row in rows if row["label"] in (1, 3, 4)]
    folder = run / "evaluation" / name_of(some)
    found = pq.read_table(folder / "predictions.parquet").to_pydict()
    masked = np.array([found[f"probability_class {label}"] for label in (1, 3, 4)]).T
    expected = np.array(all_classes)[np.argsort(labels, kind="stable")]
    np.testing.assert_allclose(masked, expected / expected.sum(1, keepdims=True), rtol=1e-4)
    for label in (0, 2, 5):
        assert set(found[f"probability_class {label}"]) == {0.0}
    right = np.array([1, 3, 4])[masked.argmax(1)] == found["label"]
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["top1"] == pytest.approx(right.mean()) and metrics["some_classes"] is True
    measured = json.loads((folder / "robustness.json").read_text())["summary"]["clean_top1"]
    assert measured == pytest.approx(right.mean())


def test_classes_that_are_no_part_of_the_runs_are_refused(command_line, trained, tmp_path) -> None:
    run, root = trained
    for number, (change, named) in enumerate(
        [
            (lambda root: (root / "class 9").mkdir(), "class 9 isn't one of them"),
            (lambda root: [shutil.rmtree(root / f"class {label}") for label in range(1, 6)], "it has 1 of them"),
        ]
    ):
        copy = shutil.copytree(root, tmp_path / f"changed{number}")
        change(copy)
        outcome = command_line("mode=eval", f"run={run}", f"test_root={copy}", "some_classes=true", "device=cpu")
        assert outcome.code == 1
        assert outcome.err.startswith(f"srp-exp: test_root={copy}") and named in outcome.err
        assert outcome.err.count("\n") == 1


def test_some_classes_without_other_pictures_is_refused(command_line, trained) -> None:
    run, _ = trained
    outcome = command_line("mode=eval", f"run={run}", "some_classes=true", "device=cpu")
    assert outcome.code == 1 and "some_classes=true: is for test_root=FOLDER" in outcome.err


def test_it_is_for_evaluation_of_the_test_split_only(command_line) -> None:
    for arguments in (("mode=train",), ("mode=eval", "run=x", "split=val"), ("mode=compare", "run=x")):
        outcome = command_line(*arguments, "test_root=here")
        assert outcome.code == 1
        assert "test_root=here: is for mode=eval run=FOLDER with split=test" in outcome.err


def set_of(class_names: tuple[str, ...], channels: int = 3) -> ImageSet:
    split = Split(torch.zeros(3, channels, 8, 8).byte(), torch.arange(3) % len(class_names), torch.arange(3))
    return ImageSet(split, split, class_names, (0.5,) * channels, (0.5,) * channels, Augmentation())


def test_folders_with_the_numbers_of_imagenets_classes_are_its_labels(tmp_path) -> None:
    """As ImageNet-V2 is laid out: 0 to 999, in the order of the sorted wnids, not of the sorted numbers."""
    wnids = tuple(f"n{number:08}" for number in range(11))
    for label in range(11):
        write(tmp_path / str(label) / "a.png", torch.full((3, 8, 8), label).byte())
    split = other_test(tmp_path, set_of(wnids))
    assert isinstance(split, Split)
    assert torch.equal(split.images[:, 0, 0, 0].long(), split.labels)
    assert split.labels.tolist() == list(range(11))
    for label in range(2, 11):
        shutil.rmtree(tmp_path / str(label))
    assert other_test(tmp_path, set_of(wnids), some_classes=True).labels.tolist() == [0, 1]
    with pytest.raises(ValueError, match="needs folders of two or more of the 11 classes of the run"):
        other_test(tmp_path, set_of(tuple(f"species {label}" for label in range(11))), some_classes=True)


def test_a_slash_in_a_class_is_an_underscore_in_a_folder_and_an_empty_folder_a_class(tmp_path) -> None:
    write(tmp_path / "Ram C_V" / "deep" / "a.png", torch.ones(3, 8, 8).byte())
    (tmp_path / "Audi").mkdir()
    split = other_test(tmp_path, set_of(("Audi", "Ram C/V")))
    assert split.labels.tolist() == [1]


def test_grey_pictures_fit_a_set_of_one_channel_and_colours_do_not(tmp_path) -> None:
    grey = torch.arange(64).view(1, 8, 8).byte()
    write(tmp_path / "a" / "a.png", grey)
    (tmp_path / "b").mkdir()
    split = other_test(tmp_path, set_of(("a", "b"), channels=1))
    assert isinstance(split, Split)
    assert torch.equal(split.images, grey[None])
    write(tmp_path / "a" / "b.png", torch.cat([grey, grey, grey + 1]))
    with pytest.raises(ValueError, match=r"b\.png has colours"):
        other_test(tmp_path, set_of(("a", "b"), channels=1))


@pytest.mark.parametrize("memory_mb", [0, 1])
def test_pictures_of_16_bits_are_read_in_the_range_of_the_run(tmp_path, memory_mb) -> None:
    """Whatever theirs is, and also where the run's own pictures aren't opened; a run of 8 bits has no range."""

    def save(place: Path, values: np.ndarray) -> None:
        for name in "ab":
            (place / name).mkdir(parents=True)
            Image.fromarray(values).save(place / name / "0.png")

    values = np.arange(64, dtype=np.uint16).reshape(8, 8)
    for part in ("train", "test"):
        save(tmp_path / "deep" / part, values * 65)  # to 4,095
        save(tmp_path / "flat" / part, np.dstack([values.astype(np.uint8)] * 3))
    save(tmp_path / "other", values * 16)  # to 1,008
    small = FileAugmentation(resize=8, crop_size=8, eval_crop_size=8) if memory_mb == 0 else FileAugmentation()
    expected = torch.from_numpy(np.floor(values * (16 / 4095 * 255) + 0.5)).byte().expand(3, 8, 8)
    opened = Folder(str(tmp_path / "deep"), None, "stop", None, small, memory_mb=memory_mb)
    for dataset in (opened, without_pictures(facts_of(opened), opened.augmentation)):
        split = other_test(tmp_path / "other", dataset)
        found = [split.images[row] if isinstance(split, Split) else split.picture(row) for row in range(2)]
        assert all(torch.equal(picture, expected) for picture in found)
    opened = Folder(str(tmp_path / "flat"), None, "stop", None, small, memory_mb=memory_mb)
    with pytest.raises(ValueError, match=r"other/a/0\.png: has more than 8 bits.*dataset\.value_range"):
        split = other_test(tmp_path / "other", opened)
        assert isinstance(split, FileSplit)
        split.picture(0)


@pytest.fixture(scope="module")
def trained_on_files(command_line, tmp_path_factory) -> tuple[Path, Path]:
    """A run of a set of ImageNet's form with two classes, and the folder of it and of two more test sets."""
    home, pixels = tmp_path_factory.mktemp("files"), torch.Generator().manual_seed(0)
    for part in ("imagenet/train", "imagenet/val", "blur/1", "blur/2"):
        for wnid in ("n01440764", "n01443537"):
            for number in range(5):
                image = torch.randint(0, 256, (3, 40, 50 + number), generator=pixels).byte()
                write(home / part / wnid / f"{number}.JPEG", image)
    sizes = ("dataset.verify=warn", "dataset.augmentation.resize=40", "dataset.augmentation.crop_size=32")
    outcome = command_line("dataset=imagenet", *sizes, *SMALL, f"data_root={home}", f"output_dir={home / 'out'}")
    assert outcome.code == 0, outcome.err
    return the_run(home / "out"), home


def test_pictures_of_any_size_for_a_run_on_files(command_line, trained_on_files) -> None:
    """Each has a result of its own, and the run's own test pictures have the run's."""
    run, home = trained_on_files
    for root in ("imagenet/val", "blur/1", "blur/2"):
        place = ("device=cpu", "workers=0", f"data_root={home}", f"test_root={home / root}")
        outcome = command_line("mode=eval", f"run={run}", *place)
        assert outcome.code == 0, outcome.err
    places = sorted((run / "evaluation").iterdir())
    assert [place.name.rpartition("-")[0] for place in places] == ["blur-1", "blur-2", "imagenet-val", ""]
    losses = [json.loads((place / "metrics.json").read_text())["loss"] for place in places]
    assert losses[2] == pytest.approx(losses[3], abs=1e-6)
    assert len({round(loss, 5) for loss in losses}) == 3


def test_an_export_tells_how_pictures_are_prepared(command_line, trained_on_files) -> None:
    run, home = trained_on_files
    outcome = command_line("mode=export", f"run={run}", "format=safetensors", "workers=0", f"data_root={home}")
    assert outcome.code == 0, outcome.err
    assert json.loads((run / "export" / "model.safetensors.json").read_text())["images"] == {
        "channels": 3, "height": 32, "width": 32, "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225],
        "background": [255, 255, 255], "value_range": None,
        "resize": 40, "eval_crop": "center", "interpolation": "bilinear",
    }  # fmt: skip
