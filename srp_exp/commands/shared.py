"""What several commands print."""

from collections.abc import Mapping, Sequence
from typing import Any

from srp_exp.config.metrics import is_share, worth_showing
from srp_exp.config.visible import visible
from srp_exp.errors import first_few


def show_metrics(split: str, metrics: Mapping[str, Any], classes: int, never_predicted: Sequence[str]) -> None:
    """Print the shares among the `metrics` of a split, and the loss; and which of the `classes` are never predicted."""
    shown = worth_showing({name: value for name, value in metrics.items() if is_share(name)})
    shares = "  ".join(f"{name} {value:.2%}" for name, value in shown.items())
    print(visible(f"{split}  {shares}  loss {metrics['loss']:.4f}"))
    if never_predicted:
        number = len(never_predicted)
        are = "is" if number == 1 else "are"
        print(visible(f"{number} of {classes} classes {are} never predicted: {first_few(never_predicted)}"))
