"""Reading the .mat files that come with a data set, and saying plainly what one of them lacks."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from srp_exp.errors import UserError


def load_mat(path: Path, names: tuple[str, ...]) -> list[NDArray[Any]]:
    """The variables `names` of a MATLAB file, flattened to one axis: cells as objects, structs with their fields.

    Raises UserError where the file can't be read or lacks one of them.
    """
    from scipy.io import loadmat  # takes a quarter of a second, which a remembered set doesn't need

    try:
        content = loadmat(path, squeeze_me=True)
    except Exception as error:  # on damaged files scipy raises nearly anything
        raise UserError(f"{path}: not a readable MATLAB file ({error}); fetch it again") from None
    missing = [name for name in names if name not in content]
    if missing:
        there = ", ".join(name for name in content if not name.startswith("__")) or "nothing"
        raise UserError(f"{path}: has no variable {missing[0]}, but {there}; fetch the official file")
    return [np.atleast_1d(content[name]) for name in names]


def field(structs: NDArray[Any], name: str, path: Path) -> NDArray[Any]:
    """One field of an array of structs. Raises UserError where the structs have no such field."""
    there = structs.dtype.names or ()
    if name not in there:
        raise UserError(
            f"{path}: annotations have no {name}, but {', '.join(there) or 'no fields'}; fetch the official file"
        )
    return np.array(structs[name].tolist())
