"""What is known of the metrics that a run measures: which are parts of 1, and which a console shows."""

import math
from collections.abc import Mapping

SHARE_METRICS = ("top1", "top5", "macro_f1")
"""Ends of the names of metrics in [0, 1], of which higher is better: accuracies, and F1."""

_OF_CLASSES = ("balanced_top1", "macro_f1")


def is_share(metric: str) -> bool:
    """Whether `metric` lies in [0, 1], higher is better, and percent is how people read it."""
    return metric.endswith(SHARE_METRICS)


def worth_showing(metrics: Mapping[str, float]) -> dict[str, float]:
    """`metrics` of one or several splits, as "top1" or "val/top1", without those that repeat others.

    Where all classes have equally many pictures balanced accuracy is top-1; it is left out there, and macro F1 with it.
    """
    shown = {}
    for name, value in metrics.items():
        split, slash, metric = name.rpartition("/")
        top1, balanced = (metrics.get(f"{split}{slash}{of}", math.nan) for of in ("top1", "balanced_top1"))
        if metric not in _OF_CLASSES or not math.isclose(top1, balanced, abs_tol=1e-9):
            shown[name] = value
    return shown
