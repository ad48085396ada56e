"""Stanford Cars: 8,144 training and 8,041 test photographs of 196 models of cars, with bounding boxes.

The official download (https://ai.stanford.edu/~jkrause/cars/car_dataset.html) is gone: copies of its files must do.

Source: Krause, Stark, Deng and Fei-Fei, "3D Object Representations for Fine-Grained Categorization", 3dRR 2013.
"""

from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from srp_exp.datasets.on_disk.catalogue import Catalogue, Facts, Listing, listing
from srp_exp.datasets.on_disk.picture_set import PictureSet
from srp_exp.datasets.on_disk.search import first_there
from srp_exp.datasets.sets.matlab import field, load_mat
from srp_exp.errors import MissingFileError

_META, _TRAIN, _TEST = "cars_meta.mat", "cars_train_annos.mat", "cars_test_annos_withlabels.mat"
_SINGLE = "cars_annos.mat"
_DEVKITS = ("devkit", ".", "car_devkit/devkit", "devkit/devkit", "car_devkit")  # where the first three may lie


class Cars(PictureSet):
    """Either layout in which the set was published.

    1. cars_train/, cars_test/, and devkit/ with cars_meta.mat, cars_train_annos.mat and the labels of the test images,
       cars_test_annos_withlabels.mat, each in devkit/ or beside it. The pictures may lie one folder deeper, in
       cars_train/cars_train/, as in copies of the set.
    2. car_ims/ and cars_annos.mat, which says of every image whether it is a test image. It numbers the pictures of
       car_ims/ only: those of cars_train/ have other numbers.

    Classes are counted from 1 in the files, pixels of boxes too. The order is that of the annotations.
    """

    set_name = "cars"
    facts = Facts(train_size=8_144, test_size=8_041, num_classes=196)
    remedy = (
        f"the official download is gone: find a copy with cars_train/, cars_test/, devkit/{_META}, devkit/{_TRAIN} "
        f"and {_TEST}, or with car_ims/ and {_SINGLE}"
    )
    usual_names: ClassVar = ("cars", "stanfordcars", "stanfordcarsdataset", "car196", "cars196")
    layouts: ClassVar = (("car_ims", _SINGLE), ("cars_train", "cars_test"))

    @classmethod
    def read(cls, home: Path) -> Catalogue:
        if (home / "car_ims").exists() and (home / _SINGLE).exists():
            return _read_single(home / _SINGLE)
        places = (tuple(f"{kit}/{name}" for kit in _DEVKITS) for name in (_META, _TRAIN, _TEST))
        meta, train, test = (first_there(home, *choices) for choices in places)
        for name, place in ((_META, meta), (_TRAIN, train), (_TEST, test)):
            if place is None:
                beside = f"; {_SINGLE} is for the pictures of car_ims/" if (home / _SINGLE).exists() else ""
                beside += "; cars_test_annos.mat has no labels" if name == _TEST else ""
                raise MissingFileError(f"{home / 'devkit' / name} is missing{beside}; {cls.remedy}")
        assert meta and train and test
        (names,) = load_mat(meta, ("class_names",))
        return Catalogue(
            _read_part(train, home, "cars_train"),
            _read_part(test, home, "cars_test"),
            tuple(str(name) for name in names),
            (home, home / "devkit", meta, train, test),
        )

    @classmethod
    def has_boxes(cls, root: Path) -> bool:
        return True


def _read_part(file: Path, home: Path, part: str) -> Listing:
    folder = f"{part}/{part}" if (home / part / part).is_dir() else part
    (annotations,) = load_mat(file, ("annotations",))
    return _listing(annotations, file, [f"{folder}/{name}" for name in field(annotations, "fname", file).tolist()])


def _read_single(file: Path) -> Catalogue:
    annotations, names = load_mat(file, ("annotations", "class_names"))
    is_test = field(annotations, "test", file).astype(bool)
    train, test = (
        _listing(chosen, file, field(chosen, "relative_im_path", file).tolist())
        for chosen in (annotations[~is_test], annotations[is_test])
    )
    return Catalogue(train, test, tuple(str(name) for name in names), (file,))


def _listing(annotations: NDArray[Any], file: Path, paths: list[str]) -> Listing:
    """Boxes are corners as pixels counted from 1, both inside, and become left, top, right and bottom edges."""
    names = ("bbox_x1", "bbox_y1", "bbox_x2", "bbox_y2")
    corners = np.stack([field(annotations, name, file).astype(np.float32) for name in names], 1) - (1, 1, 0, 0)
    return listing(paths, field(annotations, "class", file).astype(np.int64) - 1, corners)
