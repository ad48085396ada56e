"""Stanford Cars: 8,144 training and 8,041 test photographs of 196 models of cars, with bounding boxes.

The official download (https://ai.stanford.edu/~jkrause/cars/car_dataset.html) is gone: copies of its files must do.

Source: Krause, Stark, Deng and Fei-Fei, "3D Object Representations for Fine-Grained Categorization", 3dRR 2013.
"""

from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from srp_exp.datasets.sets.catalogue import Catalogue, Facts, Listing, listing
from srp_exp.datasets.sets.matlab import field, load_mat
from srp_exp.datasets.sets.official_set import OfficialSet, require
from srp_exp.errors import MissingFileError

_TEST_ANNOTATIONS = "cars_test_annos_withlabels.mat"
_FOLDERS = ("cars_train", "cars_test", "devkit")


class Cars(OfficialSet):
    """Either layout in which the set was published.

    1. cars_train/, cars_test/ and devkit/ with cars_meta.mat and cars_train_annos.mat; the labels of the test
       images, cars_test_annos_withlabels.mat, in devkit/ or beside it.
    2. car_ims/ and cars_annos.mat, which says of every image whether it is a test image. Taken where it is there.

    Classes are counted from 1 in the files, pixels of boxes too. The order is that of the annotations.
    """

    set_name = "cars"
    facts = Facts(
        train_size=8_144,
        test_size=8_041,
        num_classes=196,
        remedy="the official download is gone: find a copy with cars_train/, cars_test/, devkit/cars_meta.mat, "
        f"devkit/cars_train_annos.mat and {_TEST_ANNOTATIONS}, or with car_ims/ and cars_annos.mat",
    )
    folders: ClassVar = ("stanford_cars", "cars")
    marks: ClassVar = ("cars_annos.mat", "car_ims", "cars_train", "devkit")

    @classmethod
    def stamped(cls, home: Path) -> list[Path]:
        lists = ("cars_annos.mat", _TEST_ANNOTATIONS, f"devkit/{_TEST_ANNOTATIONS}", "devkit/cars_train_annos.mat")
        return [home / name for name in (*lists, "devkit/cars_meta.mat", "car_ims", "cars_train", "cars_test")]

    @classmethod
    def read(cls, home: Path) -> Catalogue:
        if (home / "cars_annos.mat").exists():
            return _read_single(home / "cars_annos.mat")
        require(home, (*_FOLDERS, "devkit/cars_meta.mat", "devkit/cars_train_annos.mat"), cls.facts)
        test = next((place for place in (home / "devkit", home) if (place / _TEST_ANNOTATIONS).exists()), None)
        if test is None:
            raise MissingFileError(
                f"{home / 'devkit' / _TEST_ANNOTATIONS}: missing, and cars_test_annos.mat has no labels; "
                f"find a copy of it and put it there"
            )
        (names,) = load_mat(home / "devkit" / "cars_meta.mat", ("class_names",))
        return Catalogue(
            _read_part(home / "devkit" / "cars_train_annos.mat", "cars_train"),
            _read_part(test / _TEST_ANNOTATIONS, "cars_test"),
            tuple(str(name) for name in names),
        )

    @classmethod
    def _has_boxes(cls, home: Path) -> bool:
        return True


def _read_part(file: Path, folder: str) -> Listing:
    (annotations,) = load_mat(file, ("annotations",))
    paths = [f"{folder}/{name}" for name in field(annotations, "fname", file).tolist()]
    return listing(paths, field(annotations, "class", file).astype(np.int64) - 1, _boxes(annotations, file))


def _read_single(file: Path) -> Catalogue:
    annotations, names = load_mat(file, ("annotations", "class_names"))
    is_test = field(annotations, "test", file).astype(bool)
    train, test = (
        listing(
            field(chosen, "relative_im_path", file).tolist(),
            field(chosen, "class", file).astype(np.int64) - 1,
            _boxes(chosen, file),
        )
        for chosen in (annotations[~is_test], annotations[is_test])
    )
    return Catalogue(train, test, tuple(str(name) for name in names))


def _boxes(annotations: NDArray[Any], file: Path) -> NDArray[np.float32]:
    """Corners of the boxes as pixels counted from 1, both inside, to left, top, right and bottom edges, (N, 4)."""
    names = ("bbox_x1", "bbox_y1", "bbox_x2", "bbox_y2")
    corners = [field(annotations, name, file).astype(np.float32) for name in names]
    return np.stack(corners, 1) - np.array([1, 1, 0, 0], np.float32)
