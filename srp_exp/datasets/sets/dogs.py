"""Stanford Dogs: 12,000 training and 8,580 test photographs of 120 breeds, with bounding boxes.

Source: Khosla, Jayadevaprakash, Yao and Fei-Fei, "Novel Dataset for Fine-Grained Image Categorization", FGVC 2011;
http://vision.stanford.edu/aditya86/ImageNetDogs/.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray

from srp_exp.datasets.on_disk.catalogue import Catalogue, Facts, listing
from srp_exp.datasets.on_disk.picture_set import PictureSet
from srp_exp.datasets.on_disk.search import first_there, require
from srp_exp.datasets.sets.matlab import load_mat
from srp_exp.errors import MissingFileError, UserError, first_few

_LISTS = ("train_list.mat", "test_list.mat")
_CORNERS = ("xmin", "ymin", "xmax", "ymax")


class Dogs(PictureSet):
    """Images/<wnid>-<breed>/, and train_list.mat and test_list.mat in lists/ or beside Images.

    Annotation/<wnid>-<breed>/<image> (XML) is needed for the crop only. Both folders may lie in one more, as in copies
    of the set: images/Images, annotations/Annotation. A picture with several dogs has several boxes:
    it is cut to the smallest box around all of them. Labels are counted from 1 in the lists; class_names are the
    folders.
    """

    set_name = "dogs"
    facts = Facts(train_size=12_000, test_size=8_580, num_classes=120)
    remedy = (
        "fetch images.tar, lists.tar and annotation.tar from http://vision.stanford.edu/aditya86/ImageNetDogs/ "
        "and give them to scripts/prepare_data.py dataset=dogs"
    )
    usual_names: ClassVar = ("dogs", "stanforddogs", "stanforddogsdataset", "imagenetdogs")
    layouts: ClassVar = (("Images",), ("images/Images",))
    asks: ClassVar = ("boxes",)

    @classmethod
    def read(cls, home: Path, boxes: bool) -> Catalogue:
        images = "Images" if (home / "Images").is_dir() else "images/Images"
        lists = home / "lists" if (home / "lists").is_dir() else home
        require(lists, _LISTS, cls.remedy)
        splits = []
        for name in _LISTS:
            files, labels = load_mat(lists / name, ("file_list", "labels"))
            splits.append(([str(file) for file in files], labels.astype(np.int64) - 1))
        class_names = _class_names(splits, lists)
        annotations = _annotations(home) if boxes else None
        train, test = (
            listing([f"{images}/{file}" for file in files], labels, _boxes(annotations, files))
            for files, labels in splits
        )
        places = (*(lists / name for name in _LISTS), *([annotations] if annotations else []))
        return Catalogue(train, test, class_names, places)

    @classmethod
    def has_boxes(cls, root: Path) -> bool:
        return _annotations(cls.locate(root)) is not None


def _annotations(home: Path) -> Path | None:
    return first_there(home, "Annotation", "annotations/Annotation")


def _class_names(splits: Sequence[tuple[list[str], NDArray[np.int64]]], lists: Path) -> tuple[str, ...]:
    """The folder of each label. Raises UserError unless labels and folders belong together one to one."""
    rows = [row for files, labels in splits for row in zip(labels, files, strict=True)]
    folders = [folder for _, folder in sorted({(label, file.partition("/")[0]) for label, file in rows})]
    if several := sorted({folder for folder in folders if folders.count(folder) > 1}):
        raise UserError(
            f"{lists}: folders with more than one label in the lists ({first_few(several)}); fetch the lists again"
        )
    return tuple(folders)


def _boxes(annotations: Path | None, files: Sequence[str]) -> NDArray[np.float32] | None:
    """The smallest box around all objects of each image, (N, 4) left, top, right, bottom; None without annotations."""
    if annotations is None:
        return None
    return np.array([_box(annotations / file.rpartition(".")[0]) for file in files], np.float32).reshape(-1, 4)


def _box(path: Path) -> tuple[float, float, float, float]:
    remedy = "fetch annotation.tar again, or remove the folder Annotation, which only dataset.crop_to_box needs"
    try:
        objects = [
            [float(box.findtext(corner) or "nan") for corner in _CORNERS]
            for box in ElementTree.fromstring(path.read_bytes()).iter("bndbox")
        ]
    except FileNotFoundError:
        raise MissingFileError(f"{path}: this annotation is missing; {remedy}") from None
    except (ElementTree.ParseError, ValueError) as error:
        raise UserError(f"{path}: not a readable annotation ({error}); {remedy}") from None
    if not objects or np.isnan(objects).any():
        raise UserError(f"{path}: has no complete bounding box; {remedy}")
    lefts, tops, rights, bottoms = zip(*objects, strict=True)
    return min(lefts), min(tops), max(rights), max(bottoms)
