"""The processes of one training: torchrun's, those of a SLURM job step, or a single one."""

import os
import subprocess
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from srp_exp.training.launch import launched_as


@dataclass(frozen=True)
class Processes:
    """This process, `rank`, among `size`; `local_rank` counts those of one machine. Rank 0 writes all files."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0

    @property
    def writes(self) -> bool:
        return self.rank == 0

    def sum(self, values: Tensor) -> Tensor:
        """The sum of `values` over all processes, in place."""
        if self.size > 1:
            dist.all_reduce(values)
        return values

    def highest(self, number: int, device: torch.device) -> int:
        """The highest `number` of any process."""
        if self.size == 1:
            return number
        value = torch.tensor(number, device=device)
        dist.all_reduce(value, dist.ReduceOp.MAX)
        return int(value)

    def share(self, tensors: Iterable[Tensor]) -> None:
        """Give `tensors` of all processes the values of rank 0's, in place."""
        if self.size > 1:
            for tensor in tensors:
                dist.broadcast(tensor, src=0)

    def gather(self, value: Any) -> list[Any]:
        """What each process passed, by rank."""
        if self.size == 1:
            return [value]
        gathered: list[Any] = [None] * self.size
        dist.all_gather_object(gathered, value)
        return gathered


SINGLE = Processes()


@contextmanager
def connected(device: torch.device) -> Iterator[Processes]:
    """Join the other processes of the training: nccl on CUDA devices, gloo on CPUs; leave them at the end.

    A CUDA device becomes the current one of its process: that is where nccl puts what `Processes.gather` sends.
    """
    processes = Processes(*launched_as())
    if processes.size == 1:
        yield processes
        return
    if "MASTER_ADDR" not in os.environ:
        os.environ |= _slurm_meeting_point()
    if device.type == "cuda":
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo", rank=processes.rank, world_size=processes.size)
    try:
        yield processes
    finally:
        dist.destroy_process_group()


def _slurm_meeting_point() -> dict[str, str]:
    """Address of the first machine of the job, and a port that follows from the job's number."""
    nodes = os.environ["SLURM_JOB_NODELIST"]
    hosts = subprocess.run(["scontrol", "show", "hostnames", nodes], capture_output=True, text=True, check=True)
    port = 20_000 + int(os.environ["SLURM_JOB_ID"]) % 20_000
    return {"MASTER_ADDR": hosts.stdout.split()[0], "MASTER_PORT": str(port)}
