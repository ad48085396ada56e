"""What several commands do: refuse several processes, and print metrics."""

from typing import Any

from srp_exp.errors import UserError
from srp_exp.training.distributed import launched_as


def refuse_several_processes(mode: str) -> None:
    if launched_as().size > 1:
        raise UserError(f"mode={mode} is the work of one process: start it without torchrun")


def show_metrics(split: str, metrics: dict[str, Any]) -> None:
    shown = [f"{name} {metrics[name]:.2%}" for name in ("top1", "top5") if name in metrics]
    print(f"{split}  {'  '.join(shown)}  loss {metrics['loss']:.4f}")
