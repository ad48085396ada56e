"""The files that the official data sets are distributed as, and their checksums: MD5 (32 digits) or SHA-256 (64).

Sources: ImageNet: torchvision.datasets.imagenet. Cars: torchvision.datasets.StanfordCars as it was before the download
went, and for car_ims.tgz and cars_annos.mat public metric-learning data sets that fetched them. CUB: public loaders
that fetch it from CaltechDATA. Dogs: tensorflow_datasets/url_checksums/stanford_dogs.txt. None was compared with a
download of ours.
"""

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

from srp_exp.datasets.prepare.archives import Advance
from srp_exp.errors import MissingFileError

OFFICIAL: dict[str, dict[str, str]] = {
    "imagenet": {
        "ILSVRC2012_img_train.tar": "1d675b47d978889d74fa0da5fadfb00e",
        "ILSVRC2012_img_val.tar": "29b22e2961454d5413ddabcf34fc5622",
        "ILSVRC2012_devkit_t12.tar.gz": "fa75699e90414af021442c21a62c3abf",
    },
    "cub200": {"CUB_200_2011.tgz": "97eceeb196236b17998738112f37df78"},
    "cars": {
        "cars_train.tgz": "065e5b463ae28d29e77c1b4b166cfe61",
        "cars_test.tgz": "4ce7ebf6a94d07f1952d94dd34c4d501",
        "car_devkit.tgz": "c3b158d763b6e2245038c8ad08e45376",
        "cars_test_annos_withlabels.mat": "b0a2b23655a3edd16d84508592a98d10",
        "car_ims.tgz": "d5c8f0aa497503f355e17dc7886c3f14",
        "cars_annos.mat": "b407c6086d669747186bd1d764ff9dbc",
    },
    "dogs": {
        "images.tar": "a443fc2f9a851aa1a7b8e4fa4af94b8459fce2c9f5a2f4dd4669cf9673a4ec58",
        "lists.tar": "34b47cacd9a98b5d150e084f24d29391c084c55272295ec65c85651bc35f4d6c",
        "annotation.tar": "662ed36f707be6b195c2fda392d8e153e83af28cedc8e2134a649f198def30fd",
    },
}
"""By set and file. Any other archive is taken as well, without a checksum to compare."""


def archive_files(set_name: str, paths: Sequence[Path]) -> list[Path]:
    """`paths`, where a folder stands for the official files of the set that are in it.

    Raises MissingFileError where a path is missing, or a folder holds no such file.
    """
    official = OFFICIAL.get(set_name, {})
    files: list[Path] = []
    for path in paths:
        inside = [path / name for name in official if (path / name).is_file()] if path.is_dir() else [path]
        if not inside:
            raise MissingFileError(f"archive={path}: none of {', '.join(official)} is in that folder")
        files += inside
    for file in files:
        if not file.is_file():
            raise MissingFileError(f"archive={file}: there is no such file; give the path of a downloaded archive")
    return files


def checksum_fault(set_name: str, path: Path, track: Callable[[str, int], Advance]) -> str | None:
    """What is wrong with the checksum of an official file, or None. track: shows the progress of reading it."""
    expected = OFFICIAL.get(set_name, {}).get(path.name)
    if expected is None:
        return None
    digest = hashlib.md5(usedforsecurity=False) if len(expected) == 32 else hashlib.sha256()
    advance = track(f"verifying {path.name}", path.stat().st_size)
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
            advance(len(block))
    found = digest.hexdigest()
    if found == expected:
        return None
    return f"{path}: {digest.name.upper()} {found}, the official file has {expected}"
