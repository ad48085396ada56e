"""Sets as people have them on their disks: layouts of mirrors, each written here as it is described where it is given.

Cars: torchvision's StanfordCars (issue 7545 of pytorch/vision) and Kaggle's stanford-cars-dataset, whose cars_annos.mat
numbers the pictures of car_ims.tgz ("file names in .mat not consistent with those in car_test/car_train": the mirror's
users). ImageNet: Kaggle's imagenet-object-localization-challenge. Dogs: Kaggle's stanford-dogs-dataset with lists.tar.
"""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from srp_exp.datasets.augmentation import FileAugmentation
from srp_exp.datasets.on_disk.picture_set import PictureSet
from srp_exp.datasets.sets.cars import Cars
from srp_exp.datasets.sets.cub200 import Cub200
from srp_exp.datasets.sets.dogs import Dogs
from srp_exp.datasets.sets.folder import Folder
from srp_exp.datasets.sets.imagenet import ImageNet

BUFFER = io.BytesIO()
Image.new("RGB", (12, 10), (200, 30, 90)).save(BUFFER, "JPEG")


def write(*places: Path) -> None:
    for place in places:
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(BUFFER.getvalue())


def open_set(kind: type[PictureSet], root: Path | str, **others: object) -> PictureSet:
    arguments = {"cache_dir": None, "verify": "warn", "on_corrupt": "stop", "copy_side": None} | others
    return kind(str(root), augmentation=FileAugmentation(), **arguments)


def samples(found: PictureSet, part: str, below: Path) -> list[tuple[str, int]]:
    split = getattr(found, part)
    names = [Path(split.source.name(row)).relative_to(below).as_posix() for row in split.rows.tolist()]
    return list(zip(names, split.labels.tolist(), strict=True))


def car_annotations(file: Path, rows: list[tuple[str, int]], name: str = "fname", **more: list[int]) -> None:
    """MATLAB's 1 x N struct array; classes from 1."""
    kinds = [*((corner, object) for corner in ("bbox_x1", "bbox_y1", "bbox_x2", "bbox_y2")), ("class", object)]
    found = np.empty((1, len(rows)), np.dtype([*kinds, (name, object), *((key, object) for key in more)]))
    for number, (path, label) in enumerate(rows):
        found[0, number] = (1, 1, 12, 10, label, path, *(values[number] for values in more.values()))
    file.parent.mkdir(parents=True, exist_ok=True)
    savemat(file, {"annotations": found, "class_names": np.array([["AM General Hummer", "Acura RL"]], object)})


TRAIN, TEST = [("00001.jpg", 2), ("00002.jpg", 1), ("00003.jpg", 2)], [("00001.jpg", 1), ("00002.jpg", 2)]


def torchvisions_cars(home: Path, nested: bool = False) -> None:
    """devkit/ with cars_test_annos.mat, which has no labels; those that have lie beside it."""
    for part, rows in (("cars_train", TRAIN), ("cars_test", TEST)):
        write(*(home / part / (part if nested else "") / name for name, _ in rows))
    car_annotations(home / "devkit" / "cars_train_annos.mat", TRAIN)
    car_annotations(home / "cars_test_annos_withlabels.mat", TEST)
    savemat(home / "devkit" / "cars_meta.mat", {"class_names": np.array([["AM General Hummer", "Acura RL"]], object)})
    (home / "devkit" / "cars_test_annos.mat").write_bytes(b"without labels: not to be read")
    (home / "devkit" / "train_perfect_preds.txt").write_text("14\n3\n")


def kaggles_annotations(home: Path) -> None:
    """Of all pictures in the order of car_ims.tgz, which is not that of cars_train/."""
    rows = [(f"car_ims/{number:06d}.jpg", label) for number, label in enumerate((1, 1, 2, 2, 2), 1)]
    car_annotations(home / "cars_annos.mat", rows, name="relative_im_path", test=[0, 1, 0, 0, 1])


@pytest.mark.parametrize(
    ("folder", "nested"),
    [("cars", False), ("stanford_cars", True), ("stanford-cars-dataset", True), ("Stanford Cars", False)],
)
def test_cars_of_torchvision_and_kaggle(tmp_path, folder, nested) -> None:
    """data_root/<any usual name>; where cars_annos.mat lies there too, the labels are those of the pictures there."""
    torchvisions_cars(tmp_path / folder, nested)
    kaggles_annotations(tmp_path / folder)
    found = open_set(Cars, tmp_path / "cars")  # what conf/dataset/cars.yaml asks for: ${data_root}/cars
    inside = {part: f"{part}/{part}" if nested else part for part in ("cars_train", "cars_test")}
    expected = [(f"{inside['cars_train']}/{name}", label - 1) for name, label in TRAIN]
    assert samples(found, "train", tmp_path / folder) == expected
    assert samples(found, "test", tmp_path / folder) == [
        (f"{inside['cars_test']}/{name}", label - 1) for name, label in TEST
    ]
    assert found.class_names == ("AM General Hummer", "Acura RL")


def test_cars_of_kaggle_without_the_devkit_are_refused_with_the_reason(tmp_path) -> None:
    """cars_annos.mat has the classes of other numbers: to read it would give most pictures a wrong label."""
    torchvisions_cars(tmp_path / "cars", nested=True)
    kaggles_annotations(tmp_path / "cars")
    (tmp_path / "cars" / "devkit" / "cars_train_annos.mat").unlink()
    (tmp_path / "cars" / "cars_test_annos_withlabels.mat").unlink()
    message = r"cars_train_annos.mat is missing; cars_annos.mat is for the pictures of car_ims/; .*cars_test_annos_with"
    with pytest.raises(FileNotFoundError, match=message) as error:
        open_set(Cars, tmp_path / "cars")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("above", ["imagenet", "imagenet-object-localization-challenge", "ILSVRC2012", ""])
def test_imagenet_of_kaggle(tmp_path, above) -> None:
    """ILSVRC/Data/CLS-LOC with a flat val; its labels are in a list beside ILSVRC/, with boxes, in no order."""
    top = tmp_path / above
    home = top / "ILSVRC" / "Data" / "CLS-LOC"
    wnids = ["n01440764", "n01443537", "n03995372"]
    for wnid in reversed(wnids):
        write(home / "train" / wnid / f"{wnid}_2.JPEG", home / "train" / wnid / f"{wnid}_10.JPEG")
    truth = {8: "n03995372", 1: "n01443537", 5: "n03995372", 3: "n01440764"}
    write(*(home / "val" / f"ILSVRC2012_val_{number:08d}.JPEG" for number in truth))
    write(home / "test" / "ILSVRC2012_test_00000001.JPEG")
    lines = [f"ILSVRC2012_val_{number:08d},{wnid} 85 1 499 272 {wnid} 3 4 50 60 \n" for number, wnid in truth.items()]
    (top / "LOC_val_solution.csv").write_text("ImageId,PredictionString\n" + "".join(lines))
    (top / "LOC_synset_mapping.txt").write_text("".join(f"{wnid} a name\n" for wnid in wnids))
    (top / "ILSVRC" / "ImageSets" / "CLS-LOC").mkdir(parents=True)
    found = open_set(ImageNet, tmp_path / "imagenet")
    assert found.class_names == tuple(wnids)
    assert samples(found, "train", home / "train") == [
        (f"{wnid}/{wnid}_{number}.JPEG", label) for label, wnid in enumerate(wnids) for number in (10, 2)
    ]
    assert dict(samples(found, "test", home / "val")) == {
        f"ILSVRC2012_val_{number:08d}.JPEG": wnids.index(wnid) for number, wnid in truth.items()
    }


def test_a_picture_that_the_solution_lacks_is_named(tmp_path) -> None:
    home = tmp_path / "imagenet" / "ILSVRC" / "Data" / "CLS-LOC"
    write(home / "train" / "n01440764" / "a.JPEG", home / "val" / "ILSVRC2012_val_00000002.JPEG")
    (tmp_path / "imagenet" / "LOC_val_solution.csv").write_text(
        "ImageId,PredictionString\nILSVRC2012_val_00000001,n01440764 1 1 2 2\n"
    )
    with pytest.raises(ValueError, match=r"LOC_val_solution.csv: gives no class of train to 1 images \(ILSVRC2012_val"):
        open_set(ImageNet, tmp_path / "imagenet")


def test_dogs_of_kaggle(tmp_path) -> None:
    home = tmp_path / "stanford-dogs-dataset"
    chihuahua, spaniel = "n02085620-Chihuahua/n02085620_7.jpg", "n02085782-Japanese_spaniel/n02085782_2.jpg"
    for part, names in (("train", [chihuahua, spaniel]), ("test", [spaniel])):
        write(*(home / "images" / "Images" / name for name in names))
        savemat(
            home / f"{part}_list.mat",
            {
                "file_list": np.array([[name] for name in names], object),
                "labels": np.array([[1], [2]][-len(names) :], np.uint8),
            },
        )
        for name in names:
            annotation = home / "annotations" / "Annotation" / name.removesuffix(".jpg")
            annotation.parent.mkdir(parents=True, exist_ok=True)
            annotation.write_text(
                "<annotation><object><bndbox><xmin>2</xmin><ymin>1</ymin><xmax>9</xmax><ymax>8</ymax></bndbox></object>"
                "</annotation>"
            )
    found = open_set(Dogs, tmp_path / "dogs", crop_to_box=True)
    assert samples(found, "train", home / "images" / "Images") == [(chihuahua, 0), (spaniel, 1)]
    assert samples(found, "test", home / "images" / "Images") == [(spaniel, 1)]
    assert found.test.boxes.tolist() == [[2, 1, 9, 8]]


def cub200(home: Path) -> None:
    names = ("001.Albatross/a.jpg", "001.Albatross/b.jpg", "002.Auklet/c.jpg")
    write(*(home / "images" / name for name in names))
    lists = {"images": "".join(f"{number} {name}\n" for number, name in enumerate(names, 1))}
    lists |= {"image_class_labels": "1 1\n2 1\n3 2\n", "train_test_split": "1 0\n2 1\n3 1\n"}
    lists["classes"] = "1 001.Albatross\n2 002.Auklet\n"
    for name, text in lists.items():
        (home / f"{name}.txt").write_text(text)


@pytest.mark.parametrize("folder", ["cub200/CUB_200_2011", "CUB_200_2011", "CUB-200-2011/CUB_200_2011"])
def test_cub_under_its_usual_names(tmp_path, folder) -> None:
    cub200(tmp_path / folder)
    found = open_set(Cub200, tmp_path / "cub200")
    assert samples(found, "train", tmp_path / folder) == [
        ("images/001.Albatross/b.jpg", 0),
        ("images/002.Auklet/c.jpg", 1),
    ]


def test_the_home_folder_may_be_written_as_a_tilde(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    cub200(tmp_path / "data" / "cub200")
    for part in ("train", "val"):
        write(tmp_path / "own" / part / "a" / "1.jpg", tmp_path / "own" / part / "b" / "2.jpg")
    assert len(open_set(Cub200, "~/data/cub200", cache_dir="~/kept").train) == 2
    assert len(open_set(Folder, "~/own", cache_dir="~/kept").train) == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "kept", "own"]
