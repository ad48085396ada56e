"""CUB-200-2011: 5,994 training and 5,794 test photographs of 200 species of birds, with bounding boxes.

Source: Wah, Branson, Welinder, Perona and Belongie, "The Caltech-UCSD Birds-200-2011 Dataset", CNS-TR-2011-001, 2011;
https://www.vision.caltech.edu/datasets/cub_200_2011/.
"""

from collections.abc import Collection
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from srp_exp.datasets.on_disk.catalogue import Catalogue, Facts, listing
from srp_exp.datasets.on_disk.picture_set import PictureSet
from srp_exp.datasets.on_disk.search import require
from srp_exp.errors import UserError

_LISTS = ("images.txt", "image_class_labels.txt", "train_test_split.txt", "classes.txt")
_BOXES = "bounding_boxes.txt"


class Cub200(PictureSet):
    """The folder CUB_200_2011 of the archive: images/, and beside it the lists.

    Lines are "<image id> <value>": images.txt (path below images/), image_class_labels.txt (class id from 1),
    train_test_split.txt (1: training), bounding_boxes.txt (x, y, width, height in pixels; needed for the crop only),
    and classes.txt, "<class id> <name>". The order is that of the image ids.
    """

    set_name = "cub200"
    facts = Facts(train_size=5_994, test_size=5_794, num_classes=200)
    remedy = (
        "fetch CUB_200_2011.tgz from https://www.vision.caltech.edu/datasets/cub_200_2011/ and give it to "
        "scripts/prepare_data.py dataset=cub200 archive=FILE"
    )
    usual_names: ClassVar = ("cub200", "cub2002011", "cub", "cubbirds")
    layouts: ClassVar = (("images", "images.txt"),)
    asks: ClassVar = ("boxes",)

    @classmethod
    def read(cls, home: Path, boxes: bool) -> Catalogue:
        require(home, _LISTS, cls.remedy)
        paths, classes = _read_list(home / "images.txt"), _read_list(home / "classes.txt")
        if sorted(classes) != list(range(1, len(classes) + 1)):
            raise UserError(f"{home / 'classes.txt'}: class ids must be 1, 2, ... without a gap; {cls.remedy}")
        files = np.array([f"images/{paths[image]}" for image in sorted(paths)], dtype=object)
        labels = _read_numbers(home / "image_class_labels.txt", 1, paths)[:, 0].astype(np.int64) - 1
        split = _read_numbers(home / "train_test_split.txt", 1, paths)[:, 0]
        odd = np.flatnonzero((split != 0) & (split != 1))
        if len(odd):
            raise UserError(f"{home / 'train_test_split.txt'}: {split[odd[0]]:g} is neither 0 nor 1; {cls.remedy}")
        corners = None
        if boxes and cls.has_boxes(home):
            corners = _read_numbers(home / _BOXES, 4, paths)
            corners[:, 2:] += corners[:, :2]  # from width and height to right and bottom
            corners = corners.astype(np.float32)
        train, test = (
            listing(files[chosen].tolist(), labels[chosen], None if corners is None else corners[chosen])
            for chosen in (split == 1, split == 0)
        )
        names = tuple(classes[class_id] for class_id in sorted(classes))
        return Catalogue(train, test, names, tuple(home / name for name in (*_LISTS, _BOXES)))

    @classmethod
    def has_boxes(cls, root: Path) -> bool:
        return (cls.locate(root) / _BOXES).exists()


def _read_list(path: Path) -> dict[int, str]:
    """Lines "<id> <value>" as a dict. Raises UserError, with the line's number, for any other."""
    values: dict[int, str] = {}
    for number, line in enumerate(path.read_text().splitlines(), 1):
        identifier, _, value = line.strip().partition(" ")
        if not identifier.isdecimal() or not value or int(identifier) in values:
            raise UserError(f"{path}, line {number}: {line!r} is not a new id and a value; fetch the file again")
        values[int(identifier)] = value
    return values


def _read_numbers(path: Path, count: int, images: Collection[int]) -> NDArray[np.float64]:
    """`count` numbers for each of `images`, in the order of the ids, (N, count)."""
    values = _read_list(path)
    odd = sorted(values.keys() ^ set(images))
    if odd:
        raise UserError(f"{path}: image ids differ from those of images.txt, as {odd[0]}; fetch the file again")
    try:
        return np.array([values[image].split() for image in sorted(images)], np.float64).reshape(-1, count)
    except ValueError:
        raise UserError(
            f"{path}: not {count} number{'s' * (count > 1)} for every image; fetch the file again"
        ) from None
