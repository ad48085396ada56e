"""ImageNet-1k (ILSVRC 2012): 1,281,167 training and 50,000 validation images of 1,000 classes.

The labels of its test images were never published. As everywhere, the official validation set is what results are
reported on: it is `test` here, and `dataset.val_fraction` takes a validation part out of the training images.

Source: Russakovsky et al., "ImageNet Large Scale Visual Recognition Challenge", IJCV 2015, arXiv:1409.0575.
"""

import os
from pathlib import Path
from typing import ClassVar

from srp_exp.datasets.sets.catalogue import Catalogue, Facts, Listing, first_few, listing
from srp_exp.datasets.sets.official_set import OfficialSet, require, with_subfolders
from srp_exp.errors import UserError

FACTS = Facts(
    train_size=1_281_167,
    test_size=50_000,
    num_classes=1_000,
    remedy="lay ImageNet out as train/<wnid>/*.JPEG and val/<wnid>/*.JPEG, or let scripts/prepare_data.py do it "
    "from the official archives (https://image-net.org)",
)
_IMAGE_ENDINGS = (".jpeg", ".jpg", ".png")


class ImageNet(OfficialSet):
    """train/<wnid>/*.JPEG and val/<wnid>/*.JPEG in the folder of the set.

    A class's label is the place of its wnid in sorted order and class_names are the wnids, as in torchvision's
    ImageFolder and in the weights of timm; the files of a class are in sorted order too. Folders whose names begin
    with a dot, and files that aren't .JPEG, .jpg or .png, are passed over.
    """

    set_name = "imagenet"
    facts = FACTS
    folders: ClassVar = ("imagenet", "ILSVRC2012", "ILSVRC/Data/CLS-LOC")
    marks: ClassVar = ("train", "val")
    has_lists = False

    @classmethod
    def stamped(cls, home: Path) -> list[Path]:
        return with_subfolders(home / "train") + with_subfolders(home / "val")

    @classmethod
    def read(cls, home: Path) -> Catalogue:
        require(home, ("train", "val"), cls.facts)
        classes = _folders(home / "train")
        unknown = sorted(set(_folders(home / "val")) - set(classes))
        if unknown:
            raise UserError(
                f"{home}: val has classes that train lacks ({first_few(unknown)}), so they have no label; "
                f"put their images into train, or remove them from val"
            )
        loose = _images(home / "val")
        if loose:
            raise UserError(
                f"{home / 'val'}: {len(loose):,} images are in no class folder ({first_few(loose)}), so their labels "
                f"aren't known; {cls.facts.remedy}"
            )
        return Catalogue(_list_images(home, "train", classes), _list_images(home, "val", classes), tuple(classes))


def _list_images(home: Path, part: str, classes: list[str]) -> Listing:
    files = [(f"{part}/{wnid}", _images(home / part / wnid)) for wnid in classes]
    paths = [f"{folder}/{name}" for folder, names in files for name in names]
    return listing(paths, [label for label, (_, names) in enumerate(files) for _ in names])


def _folders(place: Path) -> list[str]:
    with os.scandir(place) as entries:
        return sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith("."))


def _images(place: Path) -> list[str]:
    """The names of the images in a folder, sorted; none where it doesn't exist."""
    if not place.is_dir():
        return []
    with os.scandir(place) as entries:
        return sorted(entry.name for entry in entries if entry.name.lower().endswith(_IMAGE_ENDINGS))
