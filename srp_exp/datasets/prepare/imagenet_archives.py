"""ImageNet's official archives, brought into the layout train/<wnid>/, val/<wnid>/.

ILSVRC2012_img_train.tar holds a tar for each class, named by its wnid. ILSVRC2012_img_val.tar is flat: the class of
its image number n is on line n of the development kit's ground truth, as an ILSVRC2012_ID that the kit's meta.mat
translates into a wnid. Source: readme.txt of ILSVRC2012_devkit_t12.
"""

import io
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from srp_exp.datasets.on_disk.search import require
from srp_exp.datasets.prepare.archives import Advance, extract, read_archive, read_nested_tar
from srp_exp.errors import MissingFileError, UserError

TRAIN, VAL, DEVKIT = "ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar", "ILSVRC2012_devkit_t12.tar.gz"

_WNID = r"n\d{8}"


def extract_imagenet(archives: Sequence[Path], folder: Path, advance: Advance) -> None:
    """Extract the three archives; the kit as it is. advance: is called with the bytes done.

    Raises MissingFileError where one of them isn't given, and UserError where they don't fit together.
    """
    named = {archive.name: archive for archive in archives}
    missing = {TRAIN, VAL, DEVKIT} - named.keys()
    if missing:
        raise MissingFileError(
            f"archive: {', '.join(sorted(missing))} not among {', '.join(named)}; give the three official files, or "
            f"their folder, under these names"
        )
    extract([named[DEVKIT]], folder, advance)
    kit, needed = folder / "ILSVRC2012_devkit_t12" / "data", ("ILSVRC2012_validation_ground_truth.txt", "meta.mat")
    require(kit, needed, f"fetch {DEVKIT} again")
    _extract_val(named[VAL], val_wnids(*((kit / name).read_bytes() for name in needed)), folder, advance)
    _extract_train(named[TRAIN], folder, advance)


def val_wnids(ground_truth: bytes, meta: bytes) -> list[str]:
    """The wnid of every validation image, in their order, from the contents of the ground truth and of meta.mat.

    Raises UserError where a line isn't the ILSVRC2012_ID of a class.
    """
    from scipy.io import loadmat  # takes long to import

    synsets = np.atleast_1d(loadmat(io.BytesIO(meta), squeeze_me=True)["synsets"])
    # Those with children are inner nodes of WordNet's tree, and no classes.
    leaves = {str(synset["ILSVRC2012_ID"]): str(synset["WNID"]) for synset in synsets if synset["num_children"] == 0}
    lines = ground_truth.decode("ascii").split()
    for number, line in enumerate(lines, 1):
        if not re.fullmatch(_WNID, leaves.get(line, "")):
            raise UserError(
                f"{DEVKIT}: line {number} of the ground truth, {line!r}, is no class of meta.mat; fetch it again"
            )
    return [leaves[line] for line in lines]


def _extract_val(archive: Path, wnids: Sequence[str], folder: Path, advance: Advance) -> None:
    count = 0
    for entry in read_archive(archive, folder):
        match = re.fullmatch(r"ILSVRC2012_val_(\d{8})\.JPEG", entry.name)
        if match is None or not 1 <= int(match[1]) <= len(wnids):
            raise UserError(
                f"{archive}: {entry.name} isn't one of ILSVRC2012_val_00000001.JPEG to number {len(wnids)}, the images "
                f"of the ground truth; give the official {VAL} and {DEVKIT}"
            )
        entry.write(folder / "val" / wnids[int(match[1]) - 1] / entry.name)
        advance(entry.size)
        count += 1
    if count != len(wnids):
        raise UserError(f"{archive}: holds {count:,} images, the ground truth {len(wnids):,}; fetch both again")


def _extract_train(archive: Path, folder: Path, advance: Advance) -> None:
    for class_tar in read_archive(archive, folder):
        match = re.fullmatch(rf"({_WNID})\.tar", class_tar.name)
        if match is None:
            raise UserError(f"{archive}: {class_tar.name} isn't the tar of a class, as n01440764.tar; give {TRAIN}")
        for entry in read_nested_tar(class_tar, folder / "train" / match[1]):
            entry.write(folder / "train" / match[1] / entry.name)
        advance(class_tar.size)
