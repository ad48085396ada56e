"""The device of a run, and how torch is to use it."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from omegaconf import DictConfig

from srp_exp.errors import UserError
from srp_exp.runs.free_device import FREE_CUDA, free_cuda
from srp_exp.training.processes.distributed import by_slurm, launched_as


def choose_kernels(config: DictConfig) -> None:
    """Whether torch rounds fp32 in TF32, tries cuDNN's kernels, and takes those alone that repeat their bits.

    Where `deterministic` finds no such kernel torch raises.
    """
    if config.deterministic:
        os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"  # cuBLAS asks for it
    torch.use_deterministic_algorithms(config.deterministic)
    torch.set_float32_matmul_precision("high" if config.tf32 else "highest")
    torch.backends.cudnn.allow_tf32 = config.tf32
    torch.backends.cudnn.benchmark = config.cudnn_benchmark


def build_device(name: str) -> torch.device:
    """The device of `name`; "auto" is CUDA if available, else the CPU. Raises UserError if it isn't available.

    With several processes on a machine each takes the CUDA device of its number, or the only one that SLURM shows it;
    with "free_cuda" every process, of whichever run, takes one that no other has taken so. A CUDA device becomes the
    current one of the process: else what names none, such as nccl, would go to the first.
    """
    if name == FREE_CUDA:
        name = str(free_cuda())
    elif name.startswith("cuda:") and launched_as().size > 1:
        raise UserError(f"device={name} with several processes: set device=cuda, and each takes one of its own")
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and torch.cuda.is_available():
        name = f"cuda:{_own_number(torch.cuda.device_count())}"
    if name.startswith("cuda") and not torch.cuda.is_available():
        why = "finds no NVIDIA driver with a device" if torch.version.cuda else "was installed without CUDA"
        raise UserError(f"device={name}: there is no CUDA device here (torch {why}); try device=auto")
    try:
        device = torch.device(name)
        if device.type == "cuda":
            torch.cuda.set_device(device)
        if torch.zeros(1, device=device).item():  # which a device without memory, such as meta, can't answer
            raise RuntimeError("it doesn't compute")
    except (RuntimeError, AssertionError, ValueError) as error:
        why = str(error).partition("\n")[0].partition(". ")[0][:100]
        raise UserError(
            f"device={name} can't be used here ({why}); choose cpu, cuda, cuda:1, free_cuda or mps, or try device=auto"
        ) from error
    return device


def slow_precision(precision: str, device: torch.device) -> str | None:
    """A warning where `device` has no instructions for `precision` and so takes several times as long as in fp32."""
    if device.type == "cpu" and torch.backends.mkldnn.is_available():
        supported = {
            "bf16": torch.ops.mkldnn._is_mkldnn_bf16_supported,
            "fp16": torch.ops.mkldnn._is_mkldnn_fp16_supported,
        }
        slow = precision in supported and not supported[precision]()
    else:
        slow = device.type == "cuda" and precision == "bf16" and not torch.cuda.is_bf16_supported(False)
    return f"{device} has no {precision} instructions: precision=fp32 is several times faster" if slow else None


def _own_number(devices: int) -> int:
    """Which of the CUDA devices that this process sees is its own. Raises UserError where there are too few."""
    processes = launched_as()
    if devices == 1 and by_slurm():
        return 0  # SLURM shows each task another one, as the first
    if processes.local_rank >= devices:
        raise UserError(
            f"process {processes.rank} is number {processes.local_rank + 1} of its machine, where it sees {devices} "
            "CUDA devices: start fewer processes on a machine, or set device=cpu"
        )
    return processes.local_rank


@contextmanager
def memory_suffices(device: torch.device, config: DictConfig) -> Iterator[None]:
    """Raise UserError, with what to do, where the device's memory does not."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        batch_size, remedy = config.recipe.batch_size, _less_memory(config)
        raise UserError(f"out of memory on {device} with recipe.batch_size={batch_size}: {remedy}") from error


def _less_memory(config: DictConfig) -> str:
    """What the user can do to need less, without what is done already."""
    remedies = ["lower it", "raise recipe.accumulate_steps (the batch stays)"]
    if config.precision == "fp32":
        remedies.append("set precision=bf16")
    if not config.activation_checkpointing:
        remedies.append("set activation_checkpointing=true")
    return f"{', '.join(remedies[:-1])} or {remedies[-1]}"
