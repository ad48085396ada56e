"""What all published sets have in common: found, checked against the facts, remembered, subsets, corrupt files."""

import os
import shutil
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from official_copies import (
    encoded,
    make_cars,
    make_cars_single,
    make_cub200,
    make_dogs,
    make_imagenet,
    make_parquet,
)

from srp_exp.datasets.augmentation import FileAugmentation
from srp_exp.datasets.files.decode import decode
from srp_exp.datasets.on_disk.catalogue import Facts, listing
from srp_exp.datasets.prepare.copy import CopySettings, write_copy
from srp_exp.datasets.sets.cars import Cars
from srp_exp.datasets.sets.cub200 import Cub200
from srp_exp.datasets.sets.dogs import Dogs
from srp_exp.datasets.sets.imagenet import ImageNet
from srp_exp.datasets.sets.parquet import ImageNetParquet
from srp_exp.errors import CorruptImageError

COPIES = {
    "imagenet": (ImageNet, make_imagenet),
    "parquet": (ImageNetParquet, make_parquet),
    "cub200": (Cub200, make_cub200),
    "cars": (Cars, make_cars),
    "cars in one file": (Cars, make_cars_single),
    "dogs": (Dogs, make_dogs),
}


def open_set(kind, root, verify="warn", on_corrupt="stop", **others):
    arguments = {"cache_dir": None, "copy_side": None, "augmentation": FileAugmentation()} | others
    return kind(str(root), verify=verify, on_corrupt=on_corrupt, **arguments)


@pytest.fixture(params=COPIES)
def copy(request, tmp_path):
    """A set's class and a small copy of it: 12 training and 6 test images of 3 classes."""
    kind, make = COPIES[request.param]
    return kind, make(tmp_path / "set")


def facts_of_a_copy(kind):
    return Facts(12, 6, 3)


def test_a_set_has_its_facts_and_every_odd_kind_of_image_decodes(copy, monkeypatch):
    kind, home = copy
    found = open_set(kind, home)
    assert (len(found.train), len(found.test), found.num_classes, found.channels) == (12, 6, 3, 3)
    assert found.image_size == (224, 224)
    for part in (found.train, found.test):
        assert part.index.tolist() == list(range(len(part)))
        assert part.labels.bincount().tolist() == [len(part) // 3] * 3
        assert part.boxes is None and part.skipped == 0
        for row in part.rows.tolist():  # as stored, whatever EXIF says
            assert decode(part.source.read(row), part.source.name(row)).shape == (3, 40, 48)
    monkeypatch.setattr(kind, "read", None)  # the second start reads no list
    again = open_set(kind, home)
    assert again.class_names == found.class_names
    for one, other in ((found.train, again.train), (found.test, again.test)):
        assert torch.equal(one.labels, other.labels) and torch.equal(one.index, other.index)
        names = [[part.source.name(row) for row in part.rows.tolist()] for part in (one, other)]
        assert names[0] == names[1]


def test_strict_accepts_the_official_counts_only(tmp_path, monkeypatch):
    home = make_cub200(tmp_path)
    with pytest.raises(ValueError, match="12 training images instead of ") as error:
        open_set(Cub200, home, verify="strict")
    message = str(error.value)
    assert "\n" not in message and Cub200.remedy in message and "dataset.verify=warn" in message
    monkeypatch.setattr(Cub200, "facts", facts_of_a_copy(Cub200))
    assert len(open_set(Cub200, home, verify="strict").train) == 12


def test_the_folder_above_will_do(tmp_path):
    for name, (kind, make) in COPIES.items():
        make(tmp_path / name / kind.usual_names[0])
        assert len(open_set(kind, tmp_path / name).train) == 12


def test_a_missing_set_is_one_line_with_the_place_and_the_remedy(tmp_path):
    (tmp_path / "empty").mkdir()
    for kind in (ImageNet, ImageNetParquet, Cub200, Cars, Dogs):
        for root in (tmp_path / "empty", tmp_path / "nothing"):
            with pytest.raises(FileNotFoundError) as error:
                open_set(kind, root)
            message = str(error.value)
            assert message.startswith(f"dataset.root={root}: ") and kind.remedy in message and "\n" not in message


class Flipped(Cub200):
    """A subclass has the set_name of its base."""

    @classmethod
    def read(cls, home, boxes):
        found = super().read(home, boxes)
        return replace(found, train=replace(found.train, labels=2 - found.train.labels))


def test_a_class_has_an_index_of_its_own(tmp_path):
    home = make_cub200(tmp_path)
    plain, flipped, again = (open_set(kind, home).train.labels for kind in (Cub200, Flipped, Cub200))
    assert torch.equal(flipped, 2 - plain) and torch.equal(again, plain)


def test_a_listing_takes_arrays_and_lists_but_not_of_several_lengths():
    names = ["é.jpg", "b.jpg"]
    for paths in (np.array(names), np.array(names, object), tuple(names)):
        found = listing(paths, [0, 1], [[0, 0, 5, 5]] * 2)
        assert [os.fsdecode(path) for path in found.paths.tolist()] == names and found.boxes.dtype == np.float32
    for labels, boxes in (([0], None), ([0, 1, 0], None), ([0, 1], [[0, 0, 5, 5]])):
        with pytest.raises(ValueError, match="listing: 2 paths, but another number of labels or boxes"):
            listing(names, labels, boxes)


def test_a_change_is_noticed(tmp_path, monkeypatch):
    home = make_cub200(tmp_path)
    monkeypatch.setattr(Cub200, "facts", facts_of_a_copy(Cub200))
    open_set(Cub200, home, verify="strict")
    time.sleep(0.02)  # longer than the file system's clock takes to tick
    (home / "images" / "002.Some_Bird" / "Some_Bird_0003_10.jpg").unlink()
    with pytest.raises(FileNotFoundError, match=r"1 listed files are absent \(images/002\.Some_Bird/Some_Bird_0003_10"):
        open_set(Cub200, home, verify="strict")


def test_what_is_amiss_is_said_at_every_start(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr("srp_exp.datasets.on_disk.picture_set._LOG.propagate", True)
    home = make_cub200(tmp_path)
    for _ in range(2):
        caplog.clear()
        open_set(Cub200, home)
        assert "12 training images instead of 5,994, 6 test images instead of 5,794" in caplog.text


@pytest.mark.parametrize("name", ["cub200", "cars"])
def test_absent_files_are_named_or_left_out_of_a_subset(tmp_path, name, caplog, monkeypatch):
    monkeypatch.setattr("srp_exp.datasets.on_disk.picture_set._LOG.propagate", True)
    kind, make = COPIES[name]
    home = make(tmp_path)
    complete = open_set(kind, home)
    gone = [complete.train.source.name(row) for row in (0, 5, 6, 7, 8)]
    for file in gone:
        (home / file).unlink()
    monkeypatch.setattr(kind, "facts", facts_of_a_copy(kind))
    with pytest.raises(FileNotFoundError, match="5 listed files are absent") as error:
        open_set(kind, home, verify="strict")
    relative = [str((home / file).relative_to(home)) for file in gone]
    assert f"({', '.join(relative[:3])} and 2 more)" in str(error.value)
    subset = open_set(kind, home)
    assert "5 listed files are absent" in caplog.text
    assert subset.train.index.tolist() == [1, 2, 3, 4, 9, 10, 11]  # places in the official list
    assert torch.equal(subset.train.labels, complete.train.labels[subset.train.index])
    assert len(subset.test) == 6


@pytest.mark.parametrize("name", ["imagenet", "dogs"])  # and tables, whose images test_table.py damages
def test_corrupt_images_are_left_out_once_and_for_all(tmp_path, name, monkeypatch, caplog):
    kind, make = COPIES[name]
    home = make(tmp_path)
    monkeypatch.setattr("srp_exp.datasets.on_disk.picture_set._LOG.propagate", True)
    complete = open_set(kind, home)
    for part, row, content in (
        (complete.train, 2, encoded("truncated", 1)),
        (complete.train, 7, b""),
        (complete.test, 0, b"<html>404</html>"),
    ):
        Path(part.source.name(row)).write_bytes(content)
    with pytest.raises(CorruptImageError, match=r"not a readable image of .*; 2 more can't be read; nothing is lost"):
        open_set(kind, home)
    assert len(open_set(kind, home, vet="none").train) == 12
    for attempt in range(2):
        caplog.clear()
        found = open_set(kind, home, on_corrupt="skip")
        assert found.train.index.tolist() == [0, 1, 3, 4, 5, 6, 8, 9, 10, 11]
        assert torch.equal(found.train.labels, complete.train.labels[found.train.index])
        assert found.test.index.tolist() == [1, 2, 3, 4, 5]
        assert (found.train.skipped, found.test.skipped) == (2, 1)
        assert "2 pictures of train can't be read: left out" in caplog.text
        if attempt == 0:
            monkeypatch.setattr("srp_exp.datasets.on_disk.vetted.vet", None)  # remembered


def test_a_set_that_is_no_copy_has_no_copy_side(tmp_path):
    make_cub200(tmp_path)
    with pytest.raises(ValueError, match=r"dataset\.copy_side=256: .* is no prepared copy"):
        open_set(Cub200, tmp_path, copy_side=256)


@pytest.fixture
def small_copy(tmp_path):
    """A prepared copy of CUB-200-2011 of shorter side 20, and the set that it was made of."""
    original = open_set(Cub200, make_cub200(tmp_path / "set"), crop_to_box=True)
    settings = CopySettings("cub200", original.class_names, resize=20)
    (tmp_path / "copy").mkdir()
    write_copy({"train": original.train, "test": original.test}, tmp_path / "copy", settings)
    return tmp_path / "copy", original


def test_a_prepared_copy_is_the_same_set(small_copy):
    folder, original = small_copy
    copy = open_set(Cub200, folder, copy_side=20, crop_to_box=True)
    assert copy.class_names == original.class_names
    for part, other in ((copy.train, original.train), (copy.test, original.test)):
        assert torch.equal(part.labels, other.labels) and torch.equal(part.index, other.index)
        torch.testing.assert_close(part.boxes, other.boxes / 2)  # the pictures' shorter side is 40
        shapes = [decode(part.source.read(row), part.source.name(row)).shape for row in part.rows.tolist()]
        assert set(shapes) == {(3, 20, 24)}
    assert open_set(Cub200, folder, copy_side=20).train.boxes is None


def test_a_prepared_copy_is_refused_unless_its_size_is_named(small_copy):
    for side in (None, 256):
        with pytest.raises(ValueError, match=rf"dataset\.copy_side={side}: .* shorter side of 20, .*copy_side=20"):
            open_set(Cub200, small_copy[0], copy_side=side)


def test_a_prepared_copy_of_another_set_is_refused(small_copy):
    with pytest.raises(ValueError, match="holds a copy of cub200, not of dogs"):
        open_set(Dogs, small_copy[0], copy_side=20)


def test_the_counts_of_a_prepared_copy_are_checked(small_copy, monkeypatch):
    with pytest.raises(ValueError, match="12 training images instead of 5,994"):
        open_set(Cub200, small_copy[0], copy_side=20, verify="strict")
    monkeypatch.setattr(Cub200, "facts", facts_of_a_copy(Cub200))
    assert len(open_set(Cub200, small_copy[0], copy_side=20, verify="strict").test) == 6


@pytest.mark.parametrize("name", ["cub200", "dogs"])
def test_a_crop_needs_boxes(tmp_path, name):
    kind, make = COPIES[name]
    home = make(tmp_path)
    assert kind.has_boxes(home)
    assert open_set(kind, home, crop_to_box=True).test.boxes.shape == (6, 4)
    if kind is Cub200:
        (home / "bounding_boxes.txt").unlink()
    else:
        shutil.rmtree(home / "Annotation")
    assert not kind.has_boxes(home)
    with pytest.raises(FileNotFoundError, match=r"dataset\.crop_to_box=true: .* has no bounding boxes"):
        open_set(kind, home, crop_to_box=True)
    assert len(open_set(kind, home).train) == 12


def test_the_official_numbers():
    for kind, numbers in (
        (ImageNet, (1_281_167, 50_000, 1_000)),
        (ImageNetParquet, (1_281_167, 50_000, 1_000)),
        (Cub200, (5_994, 5_794, 200)),
        (Cars, (8_144, 8_041, 196)),
        (Dogs, (12_000, 8_580, 120)),
    ):
        assert (kind.facts.train_size, kind.facts.test_size, kind.facts.num_classes) == numbers
