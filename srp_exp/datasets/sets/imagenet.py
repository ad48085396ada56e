"""ImageNet-1k (ILSVRC 2012): 1,281,167 training and 50,000 validation images of 1,000 classes.

The labels of its test images were never published. As everywhere, the official validation set is what results are
reported on: it is `test` here, and `dataset.val_fraction` takes a validation part out of the training images.

Source: Russakovsky et al., "ImageNet Large Scale Visual Recognition Challenge", IJCV 2015, arXiv:1409.0575.
"""

import csv
from pathlib import Path
from typing import ClassVar

from srp_exp.datasets.labels import refuse_unknown
from srp_exp.datasets.on_disk.catalogue import Catalogue, Facts, Listing, listing
from srp_exp.datasets.on_disk.picture_set import PictureSet
from srp_exp.datasets.on_disk.search import first_there
from srp_exp.datasets.sets.folder import class_folders, list_pictures, loose_pictures
from srp_exp.errors import UserError, first_few

FACTS = Facts(train_size=1_281_167, test_size=50_000, num_classes=1_000)
_SOLUTION = "LOC_val_solution.csv"


class ImageNet(PictureSet):
    """train/<wnid>/*.JPEG and val/<wnid>/*.JPEG in the folder of the set; or Kaggle's, whose val is flat.

    A class's label is the place of its wnid in sorted order and class_names are the wnids, as in torchvision's
    ImageFolder and in the weights of timm; the files of a class are in sorted order too. The classes of a flat val are
    those of LOC_val_solution.csv, in the folder or up to three above it.
    """

    set_name = "imagenet"
    facts = FACTS
    remedy = (
        "lay ImageNet out as train/<wnid>/*.JPEG and val/<wnid>/*.JPEG, or let scripts/prepare_data.py do it "
        "from the official archives (https://image-net.org)"
    )
    usual_names: ClassVar = (
        "imagenet", "imagenet1k", "ilsvrc", "ilsvrc2012", "data", "clsloc", "imagenetobjectlocalizationchallenge",
    )  # fmt: skip
    layouts: ClassVar = (("train", "val"),)

    @classmethod
    def read(cls, home: Path) -> Catalogue:
        classes = class_folders(home / "train")
        refuse_unknown(class_folders(home / "val"), classes, "val", home)
        train, folders, notes = list_pictures(home, "train", classes)
        test, more, other = list_pictures(home, "val", classes)
        read_from = [*folders, *more]
        if loose := loose_pictures(home / "val"):
            solution = first_there(home, *("../" * up + _SOLUTION for up in range(4)))
            if solution is None or len(test):
                raise UserError(
                    f"{home / 'val'}: {len(loose):,} images are in no class folder ({first_few(loose)}), so their "
                    f"labels aren't known without {_SOLUTION} of Kaggle; {cls.remedy}"
                )
            test = _flat(home, loose, classes, solution)
            read_from.append(solution)
        return Catalogue(train, test, tuple(classes), tuple(read_from), (*notes, *other))


def _flat(home: Path, names: list[str], classes: list[str], solution: Path) -> Listing:
    """The images of a flat val in the order that class folders would give them."""
    with solution.open(newline="") as file:
        # A line: ImageId, and "<wnid> x1 y1 x2 y2" for every box, all of the image's class.
        wnids = {row["ImageId"]: row["PredictionString"].split()[0] for row in csv.DictReader(file)}
    label_of = {wnid: label for label, wnid in enumerate(classes)}
    missing = [name for name in names if wnids.get(name.partition(".")[0]) not in label_of]
    if missing:
        raise UserError(f"{solution}: gives no class of train to {len(missing):,} images ({first_few(missing)})")
    found = sorted((label_of[wnids[name.partition(".")[0]]], name) for name in names)
    return listing([f"val/{name}" for _, name in found], [label for label, _ in found])
