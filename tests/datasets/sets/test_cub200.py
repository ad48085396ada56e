"""CUB-200-2011 from its lists."""

import pytest
from official_copies import make_cub200

from srp_exp.datasets.augmentation import FileAugmentation
from srp_exp.datasets.sets.cub200 import Cub200


def open_cub200(root, crop_to_box=False):
    return Cub200(str(root), None, "stop", None, FileAugmentation(), "warn", crop_to_box)


def test_every_image_has_the_split_label_and_box_of_its_id(tmp_path):
    """Read again by hand, line by line."""
    home = make_cub200(tmp_path)
    lists = {
        name: dict(line.split(" ", 1) for line in (home / f"{name}.txt").read_text().splitlines())
        for name in ("images", "image_class_labels", "train_test_split", "bounding_boxes", "classes")
    }
    found = open_cub200(home, crop_to_box=True)
    seen = []
    for part, flag in ((found.train, "1"), (found.test, "0")):
        for row, label, box in zip(part.rows.tolist(), part.labels.tolist(), part.boxes.tolist(), strict=True):
            file = part.source.name(row)
            (image,) = (i for i, path in lists["images"].items() if file == str(home / "images" / path))
            x, y, width, height = map(float, lists["bounding_boxes"][image].split())
            assert lists["train_test_split"][image] == flag
            assert lists["classes"][lists["image_class_labels"][image]] == found.class_names[label]
            assert found.class_names[label] in file
            assert box == [x, y, x + width, y + height]
            seen.append(int(image))
    assert sorted(seen) == list(range(1, 19))
    assert seen[:12] == sorted(seen[:12])  # the order of the ids


def test_the_order_is_that_of_the_ids_not_of_the_lines(tmp_path):
    home = make_cub200(tmp_path)
    expected = open_cub200(home)
    for name in ("images", "image_class_labels", "train_test_split"):
        lines = (home / f"{name}.txt").read_text().splitlines()
        (home / f"{name}.txt").write_text("\n".join(reversed(lines)) + "\n")
    found = open_cub200(home)
    for part, other in ((found.train, expected.train), (found.test, expected.test)):
        assert part.labels.tolist() == other.labels.tolist()
        assert [part.source.name(r) for r in range(len(part))] == [other.source.name(r) for r in range(len(other))]


def test_a_missing_list_is_named(tmp_path):
    home = make_cub200(tmp_path)
    for name in ("images.txt", "image_class_labels.txt", "train_test_split.txt", "classes.txt", "images"):
        (home / name).rename(home / "elsewhere")
        with pytest.raises(FileNotFoundError) as error:
            open_cub200(home)
        assert str(error.value).startswith(f"{home}: {name} is missing; fetch CUB_200_2011.tgz")
        (home / "elsewhere").rename(home / name)


DAMAGED = [
    ("image_class_labels", "3 1\n", "3 4\n", r"1 labels are outside the 3 classes.*_0002_3\.jpg: 3\)"),
    ("image_class_labels", "3 1\n", "3 0\n", r"1 labels are outside the 3 classes.*_0002_3\.jpg: -1\)"),
    (
        "image_class_labels",
        "3 1\n",
        "",
        r"image_class_labels\.txt: image ids differ from those of images\.txt, as 3;",
    ),
    ("image_class_labels", "3 1\n", "3 one\n", r"image_class_labels\.txt: not 1 number for every image"),
    ("image_class_labels", "3 1\n", "3\n", r"image_class_labels\.txt, line 3: '3' is not a new id and a value"),
    ("images", "4 001", "3 001", r"images\.txt, line 4: .* is not a new id and a value"),
    ("train_test_split", "3 1\n", "", r"train_test_split\.txt: image ids differ"),
    ("train_test_split", "3 1\n", "3 2\n", r"train_test_split\.txt: 2 is neither 0 nor 1"),
    ("bounding_boxes", "3 3.0 2.0", "3 3.0", r"bounding_boxes\.txt: not 4 numbers for every image"),
    ("classes", "2 002.Some_Bird\n", "", r"classes\.txt: class ids must be 1, 2, \.\.\. without a gap"),
]


def test_damaged_lists_are_named(tmp_path):
    home = make_cub200(tmp_path)
    for name, old, new, message in DAMAGED:
        file = home / f"{name}.txt"
        text = file.read_text()
        assert old in text
        file.write_text(text.replace(old, new, 1))
        with pytest.raises(ValueError, match=message) as error:
            open_cub200(home, crop_to_box=True)
        assert "\n" not in str(error.value)
        file.write_text(text)
