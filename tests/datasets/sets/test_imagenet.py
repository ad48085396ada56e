"""ImageNet in folders: the same files, order and labels as torchvision's ImageFolder."""

import time

import pytest
import torchvision
from official_copies import make_imagenet, put

from srp_exp.datasets.augmentation import FileAugmentation
from srp_exp.datasets.sets.imagenet import ImageNet


def open_imagenet(root, **others):
    arguments = {"cache_dir": None, "verify": "warn", "on_corrupt": "stop", "copy_side": None} | others
    return ImageNet(str(root), augmentation=FileAugmentation(), **arguments)


def test_it_is_torchvisions_image_folder(tmp_path):
    make_imagenet(tmp_path, classes=11, per_class=12)
    found = open_imagenet(tmp_path)
    for part, folder in ((found.train, "train"), (found.test, "val")):
        reference = torchvision.datasets.ImageFolder(str(tmp_path / folder))
        paths = [part.source.name(row) for row in part.rows.tolist()]
        assert list(zip(paths, part.labels.tolist(), strict=True)) == reference.samples
        assert list(found.class_names) == reference.classes


def test_what_is_no_image_is_passed_over(tmp_path):
    make_imagenet(tmp_path)
    (tmp_path / "train" / ".cache").mkdir()
    (tmp_path / "train" / "n01440764" / "Thumbs.db").touch()
    (tmp_path / "val" / "README").touch()
    found = open_imagenet(tmp_path)
    assert (len(found.train), len(found.test), found.num_classes) == (12, 6, 3)


def test_a_flat_val_has_no_labels(tmp_path):
    make_imagenet(tmp_path)
    put(tmp_path / "val" / "ILSVRC2012_val_00000001.JPEG", 0)
    with pytest.raises(
        ValueError, match=r"1 images are in no class folder \(ILSVRC2012_val_00000001.JPEG\).*prepare_data"
    ):
        open_imagenet(tmp_path)


def test_val_may_not_have_classes_of_its_own(tmp_path):
    make_imagenet(tmp_path)
    put(tmp_path / "val" / "n99999999" / "a.JPEG", 0)
    with pytest.raises(ValueError, match=r"val has classes that train lacks \(n99999999\)"):
        open_imagenet(tmp_path)


def test_a_missing_val_is_named(tmp_path):
    make_imagenet(tmp_path)
    (tmp_path / "val").rename(tmp_path / "validation")
    with pytest.raises(FileNotFoundError, match=r": val is missing; lay ImageNet out as"):
        open_imagenet(tmp_path)


def test_a_new_file_is_noticed(tmp_path):
    make_imagenet(tmp_path)
    assert len(open_imagenet(tmp_path).train) == 12
    time.sleep(0.02)  # longer than the file system's clock takes to tick
    put(tmp_path / "train" / "n01440764" / "n01440764_1.JPEG", 0)
    assert len(open_imagenet(tmp_path).train) == 13


def test_an_empty_split_is_refused_even_as_a_subset(tmp_path):
    make_imagenet(tmp_path)
    for file in (tmp_path / "val").rglob("*.JPEG"):
        file.unlink()
    with pytest.raises(ValueError, match="there are no test images"):
        open_imagenet(tmp_path)
