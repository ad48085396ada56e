"""Giving up the runs of a search that are behind, by their validation part.

The search writes a bar: for each epoch the median of what its finished runs had reached then. A run whose best so far
is below it ends there, with its checkpoint, so that it can be resumed. The rule is that of Optuna's MedianPruner; by a
file it reaches the runs of any launcher, and no training needs Optuna.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from srp_exp.files import write_atomically

METRIC = "val/top1"

Bar = Mapping[int, float]
"""Epoch (from 1) -> validation top-1 in [0, 1]."""


class GivenUpError(Exception):
    """The run is given up: no failure, and no result."""


def validations(history: Sequence[Mapping[str, Any]]) -> dict[int, float]:
    """Epoch -> validation top-1, of the epochs in which it was measured; {} without a validation part."""
    return {int(metrics["epoch"]): float(metrics[METRIC]) for metrics in history if METRIC in metrics}


def bar_of(finished: Sequence[Mapping[int, float]], fewest: int) -> dict[int, float]:
    """The medians over the validations of `finished` runs, of the epochs that at least `fewest` of them measured."""
    epochs = {epoch for of_run in finished for epoch in of_run}
    reached = {epoch: [of_run[epoch] for of_run in finished if epoch in of_run] for epoch in sorted(epochs)}
    return {epoch: median(values) for epoch, values in reached.items() if len(values) >= fewest}


def is_behind(history: Sequence[Mapping[str, Any]], bar: Bar) -> bool:
    """Whether the best validation so far is below the bar of the last epoch that was validated."""
    reached = validations(history)
    return bool(reached) and max(reached.values()) < bar.get(max(reached), 0.0)


def write_bar(file: Path, bar: Bar) -> None:
    write_atomically(file, json.dumps(bar).encode())


def read_bar(file: Path) -> dict[int, float]:
    """{} where there is no such file: no run is behind then."""
    values = json.loads(file.read_text()) if file.exists() else {}
    return {int(epoch): float(value) for epoch, value in values.items()}
