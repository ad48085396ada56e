"""How this process was launched; read without importing torch."""

import os
from typing import NamedTuple


class Launch(NamedTuple):
    """This process, `rank`, among `size` of one training; `local_rank` counts those of one machine."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0


def launched_as() -> Launch:
    """What the environment of torchrun, or of a SLURM step of several tasks, says about this process."""
    if "WORLD_SIZE" in os.environ:
        names = ("RANK", "WORLD_SIZE", "LOCAL_RANK")
    elif int(os.environ.get("SLURM_NTASKS", 1)) > 1 and "SLURM_PROCID" in os.environ:
        names = ("SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID")
    else:
        return Launch()
    return Launch(*(int(os.environ[name]) for name in names))
