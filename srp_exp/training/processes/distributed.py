"""The processes of one training: torchrun's, those of a SLURM job step, or a single one.

torch is imported by what sends something: who only asks what process it is need not wait seconds for it.
"""

from __future__ import annotations

import os
import platform
import re
import sys
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from srp_exp.errors import UserError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

_PATIENCE = timedelta(hours=1)
"""How long a process waits for the others, such as for the one that prepares the data."""

_PATIENCE_IN_STEPS = timedelta(minutes=10)
"""How long it waits for gradients: who doesn't come has failed, and the GPUs are held for nothing."""


@dataclass(frozen=True)
class Processes:
    """This process, `rank`, among `size`; `local_rank` counts those of one machine. Rank 0 writes all files.

    group: of all, by gloo on the CPU: what isn't a gradient goes that way, and may take long.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    group: Any = field(default=None, compare=False, repr=False)

    @property
    def writes(self) -> bool:
        return self.rank == 0

    def gather(self, value: Any) -> list[Any]:
        """What each process passed, by rank."""
        if self.size == 1:
            return [value]
        import torch.distributed as dist

        gathered: list[Any] = [None] * self.size
        dist.all_gather_object(gathered, value, group=self.group)
        return gathered

    def gather_on_first(self, value: Any) -> list[Any] | None:
        """What each process passed, by rank, on rank 0; None on the others."""
        if self.size == 1:
            return [value]
        import torch.distributed as dist

        gathered: list[Any] | None = [None] * self.size if self.writes else None
        dist.gather_object(value, gathered, dst=0, group=self.group)
        return gathered

    def of_first(self, value: Any) -> Any:
        """What rank 0 passed, on all."""
        if self.size == 1:
            return value
        import torch.distributed as dist

        values = [value]
        dist.broadcast_object_list(values, src=0, group=self.group)
        return values[0]

    def gather_rows(self, own: list[float], values: Tensor) -> Tensor:
        """A row of each process, (size, n) float64 on the device of `values`, (m,): the numbers `own`, then the values.

        A single process leaves out its own. Nothing waits for the device.
        """
        if self.size == 1:
            return values[None]
        import torch
        import torch.distributed as dist

        numbers = torch.tensor(own, dtype=torch.float64)
        if values.is_cuda:
            numbers = numbers.pin_memory().to(values.device, non_blocking=True)
        row = torch.cat([numbers, values])
        rows = row.new_empty(self.size, len(row))
        dist.all_gather(list(rows), row)
        return rows

    def share(self, tensors: Iterable[Tensor]) -> None:
        """Give `tensors` of all processes the values of rank 0's, in place."""
        if self.size > 1:
            import torch.distributed as dist

            for tensor in tensors:
                dist.broadcast(tensor, src=0)

    @contextmanager
    def in_turns(self) -> Iterator[None]:
        """Rank 0 does what is inside first, then the first process of each other machine, then the rest.

        So one process prepares files, which the others find ready, on a disk that all share or on one of each machine.
        Where one fails the others raise an error that names it.
        """
        own = 0 if self.rank == 0 else 1 if self.local_rank == 0 else 2
        failure: Exception | None = None
        for turn in range(3):
            if turn == own:
                try:
                    yield
                except Exception as error:
                    failure = error
            failed = [rank for rank, fails in enumerate(self.gather(failure is not None)) if fails]
            if failure is not None:
                raise failure
            if failed:
                raise ProcessError(f"process {failed[0]} of {self.size} failed; its own message says why")

    @contextmanager
    def first_before_others(self) -> Iterator[None]:
        """Rank 0 does what is inside first, also where that ends the process; the others wait until it has."""
        if not self.writes:
            self.gather(None)
        try:
            yield
        finally:
            if self.writes:
                self.gather(None)

    def share_of_workers(self, workers: int | None, most: int) -> int:
        """How many of the `workers` of a machine are this process's; None: as many as it has CPUs, at most `most`.

        A CPU that several processes of the machine may use counts for each of them in part.
        """
        own = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set(range(os.cpu_count() or 1))
        here = [cpus for host, cpus in self.gather((platform.node(), own)) if host == platform.node()]
        if workers is not None:
            return workers and max(1, workers // len(here))
        return min(most, max(1, round(sum(1 / sum(cpu in cpus for cpus in here) for cpu in own))))


class ProcessError(RuntimeError):
    """Another process of the training failed, or isn't where this one is."""


SINGLE = Processes()


def launched_as() -> Processes:
    """What the environment of torchrun, or of a SLURM step with more than one task, says about this process."""
    if "WORLD_SIZE" in os.environ:
        names = ("RANK", "WORLD_SIZE", "LOCAL_RANK")
    elif by_slurm():
        names = ("SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID")
    else:
        return SINGLE
    try:
        return Processes(*(int(os.environ[name]) for name in names))
    except (KeyError, ValueError):
        told = " ".join(f"{name}={os.environ.get(name, '')}" for name in names)
        raise UserError(f"{told} in the environment: give all three whole numbers, or unset {names[1]}") from None


def by_slurm() -> bool:
    """Whether this process is one task among others in a SLURM step, and no process of torchrun."""
    several = int(os.environ.get("SLURM_NTASKS") or 1) > 1 and "SLURM_PROCID" in os.environ
    return several and "WORLD_SIZE" not in os.environ


def refuse_several(what: str) -> None:
    """Raise UserError if there are other processes, and `what` is the work of one."""
    if launched_as().size > 1:
        told = f"SLURM_NTASKS={os.environ.get('SLURM_NTASKS')}"
        how = f"as one task: {told} in the environment, so unset it or use srun --ntasks=1"
        raise UserError(f"{what} is the work of one process: start it {how if by_slurm() else 'without torchrun'}")


@contextmanager
def connected(device: torch.device) -> Iterator[Processes]:
    """Join the other processes of the training: nccl on CUDA devices, gloo on CPUs; leave them at the end.

    After an error the group is left to the end of the process, so that no other process hears of it, and fails too,
    before this one has said why.
    """
    processes = launched_as()
    if processes.size == 1:
        yield processes
        return
    import torch.distributed as dist

    if by_slurm():
        os.environ |= _slurm_meeting_point()
        if processes.writes:  # whom nobody may ever join: in a job's script each command is task 0 of all
            job = os.environ.get("SLURM_JOB_ID", "")
            print(
                f"srp-exp: waiting for {processes.size - 1} other tasks of SLURM's job {job} "
                f"at {os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}; if they don't exist, start srp-exp with "
                f"srun, or unset SLURM_NTASKS to train with one process",
                file=sys.stderr, flush=True,
            )  # fmt: skip
    if dist.is_initialized():
        dist.destroy_process_group()
    on_cuda = device.type == "cuda"
    dist.init_process_group(
        "nccl" if on_cuda else "gloo", rank=processes.rank, world_size=processes.size, timeout=_PATIENCE_IN_STEPS,
        device_id=device if on_cuda else None,
    )  # fmt: skip
    yield replace(processes, group=dist.new_group(backend="gloo", timeout=_PATIENCE))
    dist.destroy_process_group()


def _slurm_meeting_point() -> dict[str, str]:
    """Address of the first machine of the step, and a port that follows from job and step; what is set stays."""
    nodes = os.environ.get("SLURM_STEP_NODELIST") or os.environ.get("SLURM_JOB_NODELIST")
    job = os.environ.get("SLURM_JOB_ID", "")
    known = {name: os.environ[name] for name in ("MASTER_ADDR", "MASTER_PORT") if name in os.environ}
    if len(known) < 2 and not (nodes and job.isdigit()):
        raise UserError(
            f"SLURM_NTASKS={os.environ['SLURM_NTASKS']} SLURM_JOB_ID={job} SLURM_JOB_NODELIST={nodes or ''} in the "
            f"environment don't tell where the tasks meet: start them with srun, or unset SLURM_NTASKS"
        )
    step = f"{job}.{os.environ.get('SLURM_STEP_ID', '')}"  # a job may run several at once
    port = 20_000 + zlib.crc32(step.encode()) % 20_000
    return {"MASTER_ADDR": first_node(nodes or ""), "MASTER_PORT": str(port)} | known


def first_node(nodes: str) -> str:
    """The first machine of a list as SLURM writes it: node03 of "node[03-05,7],gpu1"."""
    return re.sub(r"\[(\w+)[^\]]*\]", r"\1", nodes).partition(",")[0]
