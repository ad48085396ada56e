"""A CUDA device of its own for each process that asks, with no scheduler to hand them out."""

import fcntl
import os
import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TextIO

import torch

from srp_exp.errors import UserError

FREE_CUDA = "free_cuda"

_held: list[TextIO] = []
"""Open as long as this process lives: closing one would let go of its device."""


@cache
def free_cuda() -> torch.device:
    """The first CUDA device that no other process of this user has taken by this function; this one keeps it.

    A process gets the same device each time, and lets go of it by ending, however it ends. Raises ValueError where
    there is no CUDA device, or all are taken.
    """
    names = [str(torch.cuda.get_device_properties(number).uuid) for number in range(torch.cuda.device_count())]
    return torch.device("cuda", take_first_free(names))


def take_first_free(names: Sequence[str]) -> int:
    """The number of the first of `names` that no other process has taken. Raises ValueError where there is none.

    A name tells a device from all others of the machine, whatever CUDA_VISIBLE_DEVICES makes of its number. The lock is
    the kernel's, on a file in the temporary directory; workers of a data loader don't inherit it.
    """
    if not names:
        raise UserError(f"device={FREE_CUDA}: there is no CUDA device here; try device=auto")
    for number, name in enumerate(names):
        file = (Path(tempfile.gettempdir()) / f"srp_exp-{os.getuid()}-{name}.lock").open("a")
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            file.close()
            continue
        _held.append(file)
        return number
    raise UserError(
        f"device={FREE_CUDA}: other runs have taken all of the {len(names)} CUDA devices; wait for them, start fewer "
        "(hydra.launcher.n_jobs), or name a device, as device=cuda:0"
    )
