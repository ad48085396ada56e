"""CIFAR-10 and CIFAR-100, read from the official Python archives.

Each has 50,000 training and 10,000 test images, (3, 32, 32).
Source: Krizhevsky, "Learning multiple layers of features from tiny images", 2009;
https://www.cs.toronto.edu/~kriz/cifar.html. File names and MD5 sums are those that torchvision keeps.
"""

import hashlib
import io
import pickle
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch

from srp_exp.datasets.augmentation import Augmentation
from srp_exp.datasets.memory.image_set import ImageSet
from srp_exp.datasets.split import Split
from srp_exp.errors import MissingFileError, UnreachableError, UserError

# What a pickled numpy array may name. Python 2 wrote the archives, with numbers where numpy wants booleans.
_ARRAY_PARTS: dict[str, Any] = {
    "_reconstruct": np.empty(0).__reduce__()[0],
    "ndarray": np.ndarray,
    "dtype": lambda code, align, copy: np.dtype(code, align=bool(align), copy=bool(copy)),
}


class _Cifar(ImageSet):
    """What CIFAR-10 and CIFAR-100 share. `index` counts the samples of each split in the order of the files.

    root: the folder that holds the archive or the folder extracted from it, which is taken first. download:
    fetch and extract the archive where the folder is missing or damaged. Raises MissingFileError or
    UserError where a file is missing or its MD5 is wrong, and UnreachableError where a download fails.
    """

    _torchvision_name: ClassVar[str]
    _label_key: ClassVar[str]
    _mean: ClassVar[tuple[float, ...]]
    _std: ClassVar[tuple[float, ...]]

    def __init__(self, root: str, download: bool, augmentation: Augmentation):
        # torchvision takes seconds to import: only who uses CIFAR waits for it.
        import torchvision

        official = getattr(torchvision.datasets, self._torchvision_name)
        root = str(Path(root).expanduser())
        try:
            files = _verified_files(official, Path(root))
        except (FileNotFoundError, ValueError):
            if not download:
                raise
            _download(official, root)
            files = _verified_files(official, Path(root))
        meta = _unpickle(files[official.meta["filename"]])
        super().__init__(
            train=_join([files[name] for name, _ in official.train_list], self._label_key),
            test=_join([files[name] for name, _ in official.test_list], self._label_key),
            class_names=tuple(meta[official.meta["key"]]),
            mean=self._mean,
            std=self._std,
            augmentation=augmentation,
            read_from=tuple(str(path) for path in _places(official, Path(root))),
        )


class Cifar10(_Cifar):
    """CIFAR-10: ten classes, 6,000 images of each."""

    _torchvision_name = "CIFAR10"
    _label_key = "labels"
    _mean = (0.4914, 0.4822, 0.4465)
    _std = (0.2470, 0.2435, 0.2616)


class Cifar100(_Cifar):
    """CIFAR-100 with its fine labels: a hundred classes, 600 images of each."""

    _torchvision_name = "CIFAR100"
    _label_key = "fine_labels"
    _mean = (0.5071, 0.4865, 0.4409)
    _std = (0.2673, 0.2564, 0.2762)


def _download(official: Any, root: str) -> None:
    """Let torchvision fetch the archive, unless an intact one is there, and extract it."""
    from torchvision.datasets.utils import download_and_extract_archive

    try:
        download_and_extract_archive(official.url, root, filename=official.filename, md5=official.tgz_md5)
    except (OSError, RuntimeError) as error:
        raise UnreachableError(
            f"{official.filename}: the download from {official.url} to {root} failed ({error}); "
            f"fetch it by other means, put it there and set dataset.download=false"
        ) from None


def _verified_files(official: Any, root: Path) -> dict[str, bytes]:
    """The contents of the batch files and the file of class names, by name, each with the official MD5."""
    folder, archive = root / official.base_folder, root / official.filename
    expected = dict(official.train_list + official.test_list)
    expected[official.meta["filename"]] = official.meta["md5"]
    if folder.is_dir():
        place = folder
        files = {name: (folder / name).read_bytes() for name in expected if (folder / name).is_file()}
    elif archive.is_file():
        place = archive
        files = _read_archive(archive, official.base_folder)
    else:
        raise MissingFileError(
            f"{official.filename}: not in {root.resolve()}, nor is its folder {official.base_folder}; "
            f"put one there (from {official.url}), or set dataset.download=true, or point data_root elsewhere"
        )
    for name, md5 in expected.items():
        if name not in files:
            raise MissingFileError(f"{name}: not in {place.resolve()}; fetch it again, or set dataset.download=true")
        found = hashlib.md5(files[name], usedforsecurity=False).hexdigest()
        if found != md5:
            raise UserError(
                f"{name} in {place.resolve()}: MD5 {found}, expected {md5}; "
                f"fetch it again, or set dataset.download=true"
            )
    return files


def _places(official: Any, root: Path) -> list[Path]:
    """The archive, the folder, and the files in it, whichever are there."""
    names = [name for name, _ in official.train_list + official.test_list] + [official.meta["filename"]]
    folder = root / official.base_folder
    return [root / official.filename, folder, *(folder / name for name in names)]


def _read_archive(path: Path, folder: str) -> dict[str, bytes]:
    """The files in `folder` of a .tar.gz, by name, in one pass: going back would decompress it again."""
    files = {}
    try:
        with tarfile.open(path, "r:gz") as archive:
            for member in archive:
                content = archive.extractfile(member)
                if content is not None and member.name.startswith(f"{folder}/"):
                    files[member.name.removeprefix(f"{folder}/")] = content.read()
    except (tarfile.TarError, OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path.resolve()}: damaged ({error}); fetch it again, or set dataset.download=true") from None
    return files


class _ArrayUnpickler(pickle.Unpickler):
    """Builds numpy arrays, numbers, strings and containers, and refuses every other class or function."""

    def find_class(self, module: str, name: str) -> Callable[..., Any]:
        if module.partition(".")[0] != "numpy" or name not in _ARRAY_PARTS:
            raise UserError(f"{module}.{name}: only numpy arrays are read; this is no CIFAR file")
        part: Callable[..., Any] = _ARRAY_PARTS[name]
        return part


def _join(files: list[bytes], label_key: str) -> Split:
    """Join batch files, each a pickled dict of N labels and pixels (N, 3072): red, then green, then blue."""
    batches = [_unpickle(content) for content in files]
    pixels = torch.from_numpy(np.concatenate([batch["data"] for batch in batches]))
    labels = torch.tensor([label for batch in batches for label in batch[label_key]])
    return Split(pixels.view(-1, 3, 32, 32), labels, torch.arange(len(labels)))


def _unpickle(content: bytes) -> dict[str, Any]:
    """Load a dict that Python 2 pickled. Its strings become str, byte for character, as the arrays need."""
    batch: dict[str, Any] = _ArrayUnpickler(io.BytesIO(content), encoding="latin1").load()
    return batch
