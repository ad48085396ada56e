"""Which epoch is the result, and when no better one is expected: read from the metrics of the epochs so far."""

from collections.abc import Sequence
from typing import Any


def is_best(history: Sequence[dict[str, Any]], metric: str | None) -> bool:
    """Whether the last epoch has the highest value of `metric`, the first of equal ones counting as the best."""
    if metric is None or metric not in history[-1]:
        return False
    return all(history[-1][metric] > earlier[metric] for earlier in history[:-1] if metric in earlier)


def is_hopeless(history: Sequence[dict[str, Any]], metric: str, patience: int | None) -> bool:
    """Whether the last `patience` values of `metric` are no higher than the best before them; None: never."""
    values = [float(metrics[metric]) for metrics in history if metric in metrics]
    if patience is None or len(values) <= patience:
        return False
    return max(values[-patience:]) <= max(values[:-patience])
