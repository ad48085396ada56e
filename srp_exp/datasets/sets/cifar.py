"""CIFAR-10 and CIFAR-100, read from the official Python archives by torchvision, once their MD5 sums are the official.

Each has 50,000 training and 10,000 test images, (3, 32, 32).
Source: Krizhevsky, "Learning multiple layers of features from tiny images", 2009;
https://www.cs.toronto.edu/~kriz/cifar.html.
"""

import gzip
import tarfile
import warnings
import zlib
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar

import torch

from srp_exp.datasets.augmentation import Augmentation
from srp_exp.datasets.memory.image_set import ImageSet
from srp_exp.datasets.split import Split
from srp_exp.errors import MissingFileError, UnreachableError, UserError


class _Cifar(ImageSet):
    """What CIFAR-10 and CIFAR-100 share. `index` counts the samples of each split in the order of the files.

    root: the folder that holds the archive or the folder extracted from it, which is taken first. download:
    fetch and extract the archive where the folder is missing or damaged. Raises MissingFileError or
    UserError where a file is missing or its MD5 is wrong, and UnreachableError where a download fails.
    """

    _name: ClassVar[str]
    _mean: ClassVar[tuple[float, ...]]
    _std: ClassVar[tuple[float, ...]]

    def __init__(self, root: str, download: bool, augmentation: Augmentation):
        from torchvision import datasets  # takes seconds: only who uses CIFAR waits for it

        official, place = getattr(datasets, self._name), Path(root).expanduser()
        with TemporaryDirectory() as temporary, warnings.catch_warnings():
            try:
                home = _verified(official, place, Path(temporary))
            except UserError:
                if not download:
                    raise
                _download(official, place)
                home = _verified(official, place, Path(temporary))
            warnings.simplefilter("ignore")  # numbers are where numpy wants booleans, as Python 2 wrote them
            train, test = (official(home, train=is_train) for is_train in (True, False))
        folder = place / official.base_folder
        read_from = place / official.filename, folder, *(folder / name for name, _ in _md5(official))
        super().__init__(
            train=_split(train),
            test=_split(test),
            class_names=tuple(train.classes),
            mean=self._mean,
            std=self._std,
            augmentation=augmentation,
            read_from=tuple(map(str, read_from)),
        )


class Cifar10(_Cifar):
    """CIFAR-10: ten classes, 6,000 images of each."""

    _name = "CIFAR10"
    _mean = (0.4914, 0.4822, 0.4465)
    _std = (0.2470, 0.2435, 0.2616)


class Cifar100(_Cifar):
    """CIFAR-100 with its fine labels: a hundred classes, 600 images of each."""

    _name = "CIFAR100"
    _mean = (0.5071, 0.4865, 0.4409)
    _std = (0.2673, 0.2564, 0.2762)


def _split(found: Any) -> Split:
    images = torch.from_numpy(found.data).permute(0, 3, 1, 2).contiguous()
    return Split(images, torch.tensor(found.targets), torch.arange(len(images)))


def _md5(official: Any) -> list[list[str]]:
    """The files of a set and their MD5 sums."""
    return [*official.train_list, *official.test_list, [official.meta["filename"], official.meta["md5"]]]


def _verified(official: Any, root: Path, temporary: Path) -> Path:
    """The folder that holds the official one: `root`, or `temporary`, into which the archive in `root` is extracted."""
    from torchvision.datasets.utils import check_integrity

    place, archive, remedy = root / official.base_folder, root / official.filename, "or set dataset.download=true"
    if not place.is_dir():
        if not archive.is_file():
            raise MissingFileError(
                f"{archive.name}: not in {root.resolve()}, nor is its folder {place.name}; put one there (from "
                f"{official.url}), {remedy}, or point data_root elsewhere"
            )
        place, root = archive, temporary
        try:
            with tarfile.open(archive, "r:gz") as opened:
                opened.extractall(root, filter="data")
        except (tarfile.TarError, gzip.BadGzipFile, EOFError, zlib.error) as error:
            raise UserError(f"{archive.resolve()}: damaged ({error}); fetch it again, {remedy}") from None
    for name, md5 in _md5(official):
        file = root / official.base_folder / name
        if not file.is_file():
            raise MissingFileError(f"{name}: not in {place.resolve()}; fetch it again, {remedy}")
        if not check_integrity(file, md5):
            raise UserError(f"{name} in {place.resolve()}: its MD5 isn't {md5}; fetch it again, {remedy}")
    return root


def _download(official: Any, root: Path) -> None:
    """Let torchvision download the archive, unless an intact one exists, and extract it."""
    from torchvision.datasets.utils import download_and_extract_archive

    try:
        download_and_extract_archive(official.url, root, filename=official.filename, md5=official.tgz_md5)
    except (OSError, RuntimeError) as error:
        raise UnreachableError(
            f"{official.filename}: the download from {official.url} to {root} failed ({error}); "
            f"fetch it by other means, put it there and set dataset.download=false"
        ) from None
