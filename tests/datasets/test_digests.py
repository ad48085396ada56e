"""Data of every class are told apart by their content, and are the same wherever they lie."""

import math
import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from official_copies import (
    encoded,
    make_cars,
    make_cars_single,
    make_cub200,
    make_dogs,
    make_imagenet,
    make_parquet,
)

from srp_exp.datasets.augmentation import Augmentation, FileAugmentation
from srp_exp.datasets.data_set import with_statistics
from srp_exp.datasets.prepare.copy import CopySettings, write_copy
from srp_exp.datasets.sets.cars import Cars
from srp_exp.datasets.sets.cub200 import Cub200
from srp_exp.datasets.sets.dogs import Dogs
from srp_exp.datasets.sets.folder import Folder
from srp_exp.datasets.sets.imagenet import ImageNet
from srp_exp.datasets.sets.mnist5k import Mnist5k
from srp_exp.datasets.sets.parquet import ImageNetParquet, Parquet
from srp_exp.datasets.sets.synthetic import Synthetic
from srp_exp.runs.folder.digests import digests_of

KINDS = {
    "imagenet": (ImageNet, make_imagenet),
    "imagenet_parquet": (ImageNetParquet, make_parquet),
    "parquet": (Parquet, make_parquet),
    "folder": (Folder, make_imagenet),
    "cub200": (Cub200, make_cub200),
    "cars": (Cars, make_cars),
    "cars in one file": (Cars, make_cars_single),
    "dogs": (Dogs, make_dogs),
}


def open_set(kind, root, **others):
    arguments = {"cache_dir": None, "verify": "warn", "on_corrupt": "stop", "copy_side": None} | others
    return kind(str(root), augmentation=FileAugmentation(), **arguments)


def changed(one, other):
    assert one.keys() == other.keys()
    return {part for part in one if one[part] != other[part]}


@pytest.mark.parametrize(("name", "memory_mb"), [*((name, 0) for name in KINDS), ("folder", 10), ("parquet", 10)])
def test_a_moved_set_is_the_same_and_other_pictures_are_another(tmp_path, name, memory_mb):
    kind, make = KINDS[name]
    first = digests_of(open_set(kind, make(tmp_path / "one"), memory_mb=memory_mb))
    shutil.copytree(tmp_path / "one", tmp_path / "moved")
    assert digests_of(open_set(kind, tmp_path / "moved", memory_mb=memory_mb)) == first
    if name.endswith("parquet"):
        (file,) = (tmp_path / "moved").rglob("validation-*.parquet")
        table = pq.read_table(file)
        images = [{"bytes": encoded("rgb", 99), "path": None}, *table.column("image").to_pylist()[1:]]
        pq.write_table(table.set_column(0, "image", pa.array(images, table.schema.field("image").type)), file)
    else:
        opened = open_set(kind, tmp_path / "moved")
        path = tmp_path / "moved" / opened.test.source.name(int(opened.test.rows[0]))
        path.write_bytes(encoded("rgb", 99))  # in place: no folder changes its time
    assert changed(first, digests_of(open_set(kind, tmp_path / "moved", memory_mb=memory_mb))) == {"test pictures"}


@pytest.mark.parametrize("name", ["imagenet_parquet", "cars", "folder"])
def test_nothing_is_written_beside_the_data(tmp_path, name):
    """Many people read them: what is found out, and what is unpacked, is kept in the cache folder."""
    kind, make = KINDS[name]
    make(tmp_path / "set")
    for file in (tmp_path / "set").rglob("*.parquet"):
        pq.write_table(pq.read_table(file), file, compression="zstd")
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    opened = open_set(kind, tmp_path / "set", on_corrupt="skip")
    digests_of(opened)
    assert all(opened.test.source.read(row) for row in opened.test.rows.tolist())
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_permuted_labels_are_other_data(tmp_path):
    home = make_cub200(tmp_path / "one")
    first = digests_of(open_set(Cub200, home))
    file = home / "image_class_labels.txt"
    lines = [line.split() for line in file.read_text().splitlines()]
    file.write_text("".join(f"{image} {int(label) % 3 + 1}\n" for image, label in lines))
    assert changed(first, digests_of(open_set(Cub200, home))) == {"training labels", "test labels"}


def test_moved_boxes_are_other_data_where_they_are_used(tmp_path):
    home = make_cub200(tmp_path / "one")
    plain, boxed = digests_of(open_set(Cub200, home)), digests_of(open_set(Cub200, home, crop_to_box=True))
    file = home / "bounding_boxes.txt"
    file.write_text(file.read_text().replace(" 2.0 ", " 3.0 "))
    assert digests_of(open_set(Cub200, home)) == plain
    assert changed(boxed, digests_of(open_set(Cub200, home, crop_to_box=True))) == {"training boxes", "test boxes"}


def test_other_class_names_are_other_data(tmp_path):
    first = digests_of(open_set(Folder, make_imagenet(tmp_path)))
    for part in ("train", "val"):
        (tmp_path / part / "n01440764").rename(tmp_path / part / "n00000001")
    assert changed(first, digests_of(open_set(Folder, tmp_path))) == {"class names"}


def test_copies_of_two_qualities_are_two_sets_of_data(tmp_path):
    original = open_set(Cub200, make_cub200(tmp_path / "set"))
    found = []
    for quality in (95, 5, 95):
        folder = tmp_path / f"copy{len(found)}"
        folder.mkdir()
        settings = CopySettings("cub200", original.class_names, resize=20, quality=quality)
        write_copy({"train": original.train, "test": original.test}, folder, settings)
        found.append(digests_of(open_set(Cub200, folder, copy_side=20)))
    assert changed(found[0], found[1]) == {"training pictures", "test pictures"}
    assert found[0] == found[2]


def test_statistics_are_finite():
    for name, value in (("mean", math.nan), ("mean", math.inf), ("std", math.inf), ("std", math.nan), ("std", 0.0)):
        given = {"mean": None, "std": None} | {name: [value]}
        with pytest.raises(ValueError, match=rf"dataset\.{name}=.*: choose finite numbers"):
            with_statistics(Mnist5k(Augmentation()), **given)


def test_sets_in_memory():
    assert digests_of(Mnist5k(Augmentation())) == digests_of(Mnist5k(Augmentation()))
    sizes = {"num_classes": 3, "train_size": 6, "test_size": 3, "image_size": (16, 16), "channels": 1}
    sizes |= {"parts_per_class": 1, "part_size": 4, "augmentation": Augmentation()}
    one, other = (digests_of(Synthetic(data_seed=seed, **sizes)) for seed in (0, 1))
    assert changed(one, other) == {"training pictures", "test pictures"}
