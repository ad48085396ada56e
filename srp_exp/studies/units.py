"""How the values of a metric are shown."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

from srp_exp.studies.results import StudyResults
from srp_exp.studies.statistics import Paired, Pooled, Summary

ACCURACIES = ("top1", "top5")
"""Metrics in [0, 1] that are shown in percent, their differences in percentage points."""


@dataclass(frozen=True)
class Unit:
    """How the values of a metric are shown: accuracies in percent with two decimals, others with four digits."""

    name: str
    factor: float
    decimals: int

    def show(self, value: float, signed: bool = False) -> str:
        return f"{value * self.factor:{'+' if signed else ''},.{self.decimals}f}"


def unit_of(metric: str, values: Iterable[float]) -> Unit:
    """The unit of `metric`; `values` are those shown together, whose largest decides how many decimals."""
    if metric in ACCURACIES:
        return Unit(f"{metric[:3]}-{metric[3:]} (%)", 100, 2)
    largest = max((abs(value) for value in values), default=0.0)
    digits = math.floor(math.log10(largest)) if largest > 0 else 0
    return Unit(metric, 1, max(0, 3 - digits))


def unit_of_study(results: StudyResults) -> Unit:
    return unit_of(results.study["metric"], (v for entry in results.entries for v in entry.values.values()))


def interval(statistics: Summary | Paired | Pooled | None, unit: Unit, signed: bool = False) -> str:
    """The 95 % interval of a mean; empty where it has none."""
    if statistics is None or statistics.low is None or statistics.high is None:
        return ""
    return f"[{unit.show(statistics.low, signed)}, {unit.show(statistics.high, signed)}]"
