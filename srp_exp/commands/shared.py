"""What several commands do: refuse several processes, and print metrics."""

from typing import Any

from srp_exp.config.visible import visible


def show_metrics(split: str, metrics: dict[str, Any]) -> None:
    shown = [f"{name} {metrics[name]:.2%}" for name in ("top1", "top5") if name in metrics]
    print(visible(f"{split}  {'  '.join(shown)}  loss {metrics['loss']:.4f}"))
