"""Stanford Dogs from its .mat lists and XML annotations."""

import numpy as np
import pytest
from official_copies import cells, make_dogs
from scipy.io import loadmat, savemat

from srp_exp.datasets.augmentation import FileAugmentation
from srp_exp.datasets.sets.dogs import Dogs


def open_dogs(root, crop_to_box=True):
    return Dogs(str(root), None, "stop", None, FileAugmentation(), "warn", crop_to_box)


@pytest.mark.parametrize("lists", ["lists", ""], ids=["in lists", "beside Images"])
def test_the_lists_wherever_they_are(tmp_path, lists):
    home = make_dogs(tmp_path, lists)
    found = open_dogs(home)
    for part, name in ((found.train, "train_list.mat"), (found.test, "test_list.mat")):
        official = loadmat(home / lists / name)  # as scipy gives it: N x 1 cells, each with a text in an array
        expected = [
            (f"{home}/Images/{cell[0][0]}", int(label) - 1)
            for cell, label in zip(official["file_list"], official["labels"][:, 0], strict=True)
        ]
        assert [(part.source.name(row), label) for row, label in enumerate(part.labels.tolist())] == expected
    assert found.class_names == ("n02085621-Breed_1", "n02085622-Breed_2", "n02085623-Breed_3")


def test_the_box_is_around_all_dogs(tmp_path):
    found = open_dogs(make_dogs(tmp_path))
    numbers = [int(found.train.source.name(row).rpartition("_")[2].removesuffix(".jpg")) for row in range(12)]
    expected = [[2, 6, 39, 35] if number % 3 == 0 else [5, 6, 30, 35] for number in numbers]
    assert found.train.boxes.tolist() == expected
    assert [2, 6, 39, 35] in expected and [5, 6, 30, 35] in expected


def test_a_missing_list_is_named(tmp_path):
    home = make_dogs(tmp_path)
    for name in ("test_list.mat", "train_list.mat"):
        (home / "lists" / name).rename(tmp_path / name)
        with pytest.raises(FileNotFoundError, match=rf"lists: {name} is missing; fetch images\.tar, lists\.tar"):
            open_dogs(home)
        (tmp_path / name).rename(home / "lists" / name)


def test_missing_images_are_named(tmp_path):
    home = make_dogs(tmp_path)
    (home / "Images").rename(home / "elsewhere")
    with pytest.raises(FileNotFoundError, match="no Images or images/Images is in it; fetch"):
        open_dogs(home)


def change_label(home, position, label):
    content = loadmat(home / "lists" / "train_list.mat", squeeze_me=True)
    labels = content["labels"]
    labels[position] = label
    files = [str(file) for file in content["file_list"]]
    savemat(home / "lists" / "train_list.mat", {"file_list": cells(files, (len(files), 1)), "labels": labels[:, None]})


def test_a_folder_with_two_labels_is_named(tmp_path):
    home = make_dogs(tmp_path)
    change_label(home, 0, 2)
    with pytest.raises(ValueError, match=r"folders with more than one label in the lists \(n02085621-Breed_1\)"):
        open_dogs(home)


def test_labels_out_of_range_are_named(tmp_path):
    home = make_dogs(tmp_path)
    for name in ("train_list.mat", "test_list.mat"):
        content = loadmat(home / "lists" / name, squeeze_me=True)
        labels = content["labels"].astype(np.int64) + 1  # as if counted from 2
        files = [str(file) for file in content["file_list"]]
        savemat(home / "lists" / name, {"file_list": cells(files, (len(files), 1)), "labels": labels[:, None]})
    with pytest.raises(ValueError, match=r"4 labels are outside the 3 classes, counted from 0 \(.*Images/n02085623"):
        open_dogs(home)


DAMAGED = {
    "<annotation>": "not a readable annotation",
    "<annotation></annotation>": "has no complete bounding box",
    "<annotation><object><bndbox><xmin>3</xmin></bndbox></object></annotation>": "has no complete bounding box",
    "<a><bndbox><xmin>a</xmin><ymin>1</ymin><xmax>1</xmax><ymax>1</ymax></bndbox></a>": "not a readable",
    None: "this annotation is missing",
}


def test_damaged_annotations_are_named(tmp_path):
    home = make_dogs(tmp_path)
    file = home / "Annotation" / "n02085622-Breed_2" / "n02085622_9"
    assert file.is_file()
    for content, message in DAMAGED.items():
        file.unlink() if content is None else file.write_text(content)
        with pytest.raises((ValueError, FileNotFoundError), match=message) as error:
            open_dogs(home)
        assert str(error.value).startswith(f"{file}: ") and "remove the folder Annotation" in str(error.value)
        assert "\n" not in str(error.value)
