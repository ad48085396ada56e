"""One epoch from a small copy of every set in its official format, through the command line."""

import json
import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import timm
import torch
from official_copies import (
    encoded,
    make_cars,
    make_cub200,
    make_dogs,
    make_imagenet,
    make_parquet,
)

from srp_exp.config.identity import sha256_of_file
from srp_exp.datasets.augmentation import FileAugmentation
from srp_exp.datasets.prepare.copy import CopySettings, write_copy
from srp_exp.datasets.sets.folder import Folder

TINY = (
    "dataset.verify=warn", "dataset.augmentation.resize=40", "dataset.augmentation.crop_size=32", "backbone.depth=8",
    "recipe.epochs=1", "recipe.batch_size=4", "recipe.warmup_epochs=0", "device=cpu", "workers=0",
)  # fmt: skip
SETS = {
    "imagenet": (make_imagenet, "dataset=imagenet"),
    "imagenet_parquet": (make_parquet, "dataset=imagenet_parquet"),
    "cub200": (make_cub200, "dataset=cub200"),
    "cars": (make_cars, "dataset=cars"),
    "dogs": (make_dogs, "dataset=dogs"),
}


@pytest.fixture
def warnings() -> Iterator[list[str]]:
    """What is logged before the run's folder is known."""
    messages: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: messages.append(record.getMessage())
    log = logging.getLogger("srp_exp")
    log.addHandler(handler)
    yield messages
    log.removeHandler(handler)


def the_run(output_dir):
    (folder,) = (output_dir / "runs").iterdir()
    return folder


@pytest.mark.parametrize("name", SETS)
def test_an_epoch_of_a_set_in_its_official_format(command_line, tmp_path, warnings, name) -> None:
    make, choice = SETS[name]
    home = make(tmp_path / "data" / choice.partition("=")[2])
    outcome = command_line(choice, *TINY, f"data_root={tmp_path / 'data'}", f"output_dir={tmp_path / 'out'}")
    assert outcome.code == 0, outcome.err
    (warning,) = warnings
    assert warning.startswith(str(home)) and ": 12 training images instead of" in warning
    folder = the_run(tmp_path / "out")
    results = json.loads((folder / "results.json").read_text())
    assert results["samples"] == {"train": 12, "test": 6}
    predictions = pq.read_table(folder / "evaluation" / "test" / "predictions.parquet").to_pydict()
    assert predictions["index"] == [0, 1, 2, 3, 4, 5]
    assert not list(home.rglob(".srp_exp"))  # nothing is written beside the data


def test_a_set_elsewhere_is_found_again_in_evaluation(command_line, tmp_path) -> None:
    """dataset.root lies outside data_root: evaluation uses it, and data_root moves what lies inside."""
    outside, output_dir = make_cub200(tmp_path / "outside"), tmp_path / "out"
    trained = command_line("dataset=cub200", *TINY, f"dataset.root={outside}", f"output_dir={output_dir}")
    assert trained.code == 0, trained.err
    folder = the_run(output_dir)
    outcome = command_line("mode=eval", f"run={folder}", "device=cpu", "workers=0")
    assert outcome.code == 0, outcome.err
    outcome = command_line("mode=eval", f"run={folder}", "device=cpu", "workers=0", f"data_root={tmp_path}")
    assert outcome.code == 0, outcome.err


def test_a_set_moved_with_data_root_is_found_in_evaluation(command_line, tmp_path) -> None:
    make_dogs(tmp_path / "data" / "dogs")
    trained = command_line("dataset=dogs", *TINY, f"data_root={tmp_path / 'data'}", f"output_dir={tmp_path / 'out'}")
    assert trained.code == 0, trained.err
    (tmp_path / "data").rename(tmp_path / "moved")
    outcome = command_line(
        "mode=eval", f"run={the_run(tmp_path / 'out')}", "device=cpu", "workers=0", f"data_root={tmp_path / 'moved'}"
    )
    assert outcome.code == 0, outcome.err


@pytest.mark.parametrize("on_corrupt", ["stop", "skip"])
def test_a_corrupt_image_stops_the_run_or_is_left_out(command_line, tmp_path, warnings, on_corrupt) -> None:
    home = make_cub200(tmp_path / "cub200")
    broken = [home / "images" / "001.Some_Bird" / name for name in ("Some_Bird_0000_1.jpg", "Some_Bird_0004_5.jpg")]
    for file in broken:  # one of the test images and one of the training images
        file.write_bytes(encoded("truncated", 5))
    outcome = command_line(
        "dataset=cub200", *TINY, f"data_root={tmp_path}", f"output_dir={tmp_path / 'out'}",
        f"dataset.on_corrupt={on_corrupt}", "recipe.batch_size=11",
    )  # fmt: skip
    if on_corrupt == "stop":
        assert outcome.code == 1
        last = outcome.err.splitlines()[-1]
        assert last.startswith("srp-exp: ") and "Some_Bird_000" in last and "dataset.on_corrupt=skip" in last
        return
    assert outcome.code == 0, outcome.err
    assert [file.name in text for file, text in zip(broken, reversed(warnings), strict=False)] == [True, True]
    folder = the_run(tmp_path / "out")
    results = json.loads((folder / "results.json").read_text())
    assert results["samples"] == {"train": 11, "test": 5}
    assert results["skipped"] == {"train": 1, "test": 1}
    predictions = pq.read_table(folder / "evaluation" / "test" / "predictions.parquet").to_pydict()
    assert predictions["index"] == [
        1,
        2,
        3,
        4,
        5,
    ]  # the first stays the first of the official list, though it isn't there
    assert len(set(predictions["path"])) == 5 and str(broken[0]) not in predictions["path"]
    assert all(Path(path).is_file() for path in predictions["path"])


def test_the_crop_to_the_box_changes_what_is_evaluated(command_line, tmp_path) -> None:
    make_cars(tmp_path / "cars")
    logits = []
    for choice in ("false", "true"):
        output_dir = tmp_path / choice
        outcome = command_line(
            "dataset=cars", *TINY, f"data_root={tmp_path}", f"output_dir={output_dir}", f"dataset.crop_to_box={choice}",
            "recipe.lr=1e-9",
        )  # fmt: skip
        assert outcome.code == 0, outcome.err
        metrics = json.loads((the_run(output_dir) / "evaluation" / "test" / "metrics.json").read_text())
        logits.append(metrics["loss"])
    assert not np.isclose(*logits)


def test_weights_of_a_file_are_what_training_begins_from(command_line, tmp_path, monkeypatch) -> None:
    """With next to no learning rate, what is trained is the network of the file, whose content is in the run's hash."""
    monkeypatch.chdir(tmp_path)
    make_cub200(tmp_path / "cub200")
    torch.manual_seed(5)
    source = timm.create_model("resnet18", num_classes=1000)
    torch.save(source.state_dict(), tmp_path / "weights.pth")
    fine = [*(o for o in TINY if not o.startswith("backbone")), "recipe=finegrained", "dataset=cub200"]
    choices = ["backbone=timm", "backbone.model=resnet18", "attention=se", "recipe.epochs=1", "recipe.batch_size=4"]
    arguments = [*fine, *choices, "recipe.lr=1e-12", "backbone.weights=weights.pth", "data_root=."]
    outcome = command_line(*arguments, "output_dir=out")
    assert outcome.code == 0, outcome.err
    folder = the_run(tmp_path / "out")
    trained = torch.load(folder / "checkpoints" / "final.pt", weights_only=True)["model"]
    torch.testing.assert_close(trained["layer3.0.conv2.weight"], source.state_dict()["layer3.0.conv2.weight"])
    assert trained["fc.weight"].shape == (3, 512)
    assert f"weights_sha256: {sha256_of_file('weights.pth')}" in (folder / "config.yaml").read_text()
    (tmp_path / "weights.pth").unlink()
    outcome = command_line("mode=eval", f"run={folder}", "device=cpu", "workers=0", "data_root=.")
    assert outcome.code == 0, outcome.err  # a checkpoint needs no other weights
    outcome = command_line(*arguments, "output_dir=other")
    assert outcome.code == 1
    assert outcome.err.endswith("srp-exp: backbone.weights=weights.pth: there is no such file\n")


@pytest.mark.parametrize("kind", ["table", "copy"])
def test_a_validation_part_of_the_set_selects_the_epoch(command_line, tmp_path, kind) -> None:
    """Six training, two test and four validation pictures."""
    root, lines = tmp_path / "pics", ["image,label,split"]
    for part, count in (("train", 3), ("test", 1), ("val", 2)):
        for number, label in enumerate("ab" * count):
            file = root / part / label / f"{number}.jpg"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(encoded("rgb", len(lines)))
            lines.append(f"{file},{label},{part}")
    choice = ["dataset=folder", f"dataset.root={root}", "dataset.memory_mb=0"]
    if kind == "table":
        (tmp_path / "labels.csv").write_text("\n".join(lines))
        choice = ["dataset=csv", f"dataset.root={tmp_path / 'labels.csv'}", "dataset.memory_mb=0"]
    else:
        made = Folder(str(root), None, "stop", None, FileAugmentation(), test_fraction=0.0, split_seed=0)
        parts = {"train": made.train, "test": made.test, "val": made.val}
        (tmp_path / "copy").mkdir()
        settings = CopySettings("folder", made.class_names, 32, original={"settings": made.settings})
        write_copy(parts, tmp_path / "copy", settings, lambda done: None)
        choice[1:2] = [f"dataset.root={tmp_path / 'copy'}", "dataset.copy_side=32"]
    tiny = [setting for setting in TINY if "verify" not in setting]
    outcome = command_line(*choice, *tiny, "recipe.selection=best", f"output_dir={tmp_path / 'out'}")
    assert outcome.code == 0, outcome.err
    run = the_run(tmp_path / "out")
    for split, size in (("test", 2), ("val", 4)):
        outcome = command_line("mode=eval", f"run={run}", f"split={split}", "device=cpu", "workers=0")
        assert outcome.code == 0, outcome.err
        assert json.loads((run / "evaluation" / split / "metrics.json").read_text())["samples"] == size
    assert list((run / "checkpoints").glob("best*"))
