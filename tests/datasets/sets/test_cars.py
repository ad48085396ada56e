"""Stanford Cars in both of its layouts, from real .mat files."""

import shutil

import numpy as np
import pytest
from official_copies import car, make_cars, make_cars_single, structs
from scipy.io import loadmat, savemat

from srp_exp.datasets.augmentation import FileAugmentation
from srp_exp.datasets.sets.cars import Cars


def open_cars(root, crop_to_box=True):
    return Cars(str(root), None, "stop", None, FileAugmentation(), "warn", crop_to_box)


def rows(part, home):
    """Path, label and box of every sample."""
    names = [part.source.name(row).removeprefix(f"{home}/") for row in part.rows.tolist()]
    return list(zip(names, part.labels.tolist(), part.boxes.tolist(), strict=True))


@pytest.mark.parametrize("beside", [False, True])
def test_the_devkit_layout(tmp_path, beside):
    home = make_cars(tmp_path, beside=beside)
    found = open_cars(home)
    assert found.class_names == ("Make Model 1 2012", "Make Model 2 2012", "Make Model 3 2012")
    train = [
        (f"cars_train/{n + 1:05d}.jpg", n * 2 % 3, [n % 3, 3, 40, 35]) for n in range(12)
    ]  # x1 = 1 + n % 3 and y1 = 4, counted from 1
    assert rows(found.train, home) == train
    assert rows(found.test, home) == [(f"cars_test/{n + 1:05d}.jpg", n * 2 % 3, [n % 3, 3, 40, 35]) for n in range(6)]


def test_the_layout_of_one_file(tmp_path):
    home = make_cars_single(tmp_path)
    found = open_cars(home)
    everything = [(f"car_ims/{n + 1:06d}.jpg", n // 3 % 3, [n % 3, 3, 40, 35]) for n in range(18)]
    assert rows(found.train, home) == [row for n, row in enumerate(everything) if n % 3 != 2]
    assert rows(found.test, home) == [row for n, row in enumerate(everything) if n % 3 == 2]


def test_the_copy_has_the_nested_structs_of_the_devkit(tmp_path):
    """As scipy reads the official file: one row of structs whose fields are arrays of their own."""
    annotations = loadmat(make_cars(tmp_path) / "devkit" / "cars_train_annos.mat")["annotations"]
    assert annotations.shape == (1, 12)
    assert annotations[0, 4]["fname"].tolist() == ["00005.jpg"]
    assert annotations["class"][0, 4].shape == (1, 1)


def test_what_is_missing_is_named(tmp_path):
    home = make_cars(tmp_path)
    for name, message in (
        ("cars_test", ": cars_test is missing; the official download is gone"),
        ("devkit/cars_meta.mat", "/devkit/cars_meta.mat is missing; the official download is gone"),
        ("devkit/cars_test_annos_withlabels.mat", "is missing; cars_test_annos.mat has no labels"),
    ):
        (home / name).rename(tmp_path / "elsewhere")
        with pytest.raises(FileNotFoundError, match=message) as error:
            open_cars(home)
        assert "\n" not in str(error.value)
        (tmp_path / "elsewhere").rename(home / name)


def test_annotations_without_labels_are_refused(tmp_path):
    """cars_test_annos.mat under the name of the file that has labels."""
    home = make_cars(tmp_path)
    records = [car(number, fname=f"{number + 1:05d}.jpg") for number in range(6)]
    savemat(home / "devkit" / "cars_test_annos_withlabels.mat", {"annotations": structs(records)})
    with pytest.raises(ValueError, match="annotations have no class, but bbox_x1, bbox_y1, bbox_x2, bbox_y2, fname"):
        open_cars(home)


def test_a_label_out_of_range_is_named(tmp_path):
    home = make_cars(tmp_path)
    for label in (0, 4):
        labels = [label if number == 2 else 1 for number in range(6)]
        records = [car(number, **{"class": labels[number]}, fname=f"{number + 1:05d}.jpg") for number in range(6)]
        savemat(home / "devkit" / "cars_test_annos_withlabels.mat", {"annotations": structs(records)})
        with pytest.raises(ValueError, match=rf"1 labels are outside the 3 classes.*test/00003\.jpg: {label - 1}\)"):
            open_cars(home)


def test_a_damaged_mat_file_is_named(tmp_path):
    home = make_cars(tmp_path)
    file = home / "devkit" / "cars_train_annos.mat"
    cut = file.read_bytes()[:300]
    savemat(file, {"labels": np.arange(3)})
    for content in (file.read_bytes(), cut, b"<html>404 not found</html>" * 20, b""):
        file.write_bytes(content)
        with pytest.raises(ValueError, match=str(file)) as error:
            open_cars(home)
        assert "\n" not in str(error.value)


def test_the_single_file_is_taken_first(tmp_path):
    home = make_cars(tmp_path)
    make_cars_single(home)
    assert open_cars(home).train.source.name(0).endswith("car_ims/000001.jpg")
    (home / "cars_annos.mat").unlink()
    shutil.rmtree(home / "car_ims")
    assert open_cars(home).train.source.name(0).endswith("cars_train/00001.jpg")
