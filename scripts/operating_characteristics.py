"""How often each shipped study comes to each verdict, by simulation: the tables of docs/statistics.md.

    python scripts/operating_characteristics.py [--studies 10000] [study ...]

A run's metric is normal, so that the standard deviation of a paired difference is the smallest effect of interest.
null: no method differs from another; of `cost` the step takes longer by the smallest effect. effect: the claim is true,
every difference that it names being twice the smallest effect. It goes through the code of a report.
"""

import argparse
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from srp_exp.commands.report import plan_study, shipped_studies
from srp_exp.studies.measured import measure
from srp_exp.studies.pairs import plain_study, statements
from srp_exp.studies.statistics import Array, Mean
from srp_exp.studies.verdict import Outcome, decide, join

EFFECT = {
    "SRP + mixup": 4.0, "small, SRP": 2.0, "large, gap": 2.0, "falling": 2.0, "scheduled": 2.0, "SRP": 2.0,
    "mixup": 2.0, "inside": 2.0, "wrapped": 2.0,
}  # fmt: skip
"""Means of the methods where the claim is true, in smallest effects; 0 of the others."""

COSTS = ("fixed", "scheduled")
"""Methods of study=cost, whose claim is that they aren't worse."""


@dataclass(frozen=True)
class Simulated:
    """A run in many studies: `value` is an array with one of each."""

    folder: Path
    value: Callable[[str], Array]
    is_finished: bool = True


def simulate(name: str, scenario: str, count: int) -> dict[Outcome, float]:
    """Part of `count` simulated studies that come to each verdict."""
    config, grid = plan_study([f"study={name}"])
    study = plain_study(config.study)
    planned = {key: dict(runs) for key, runs in grid.entries.items()}
    found = statements(study, planned)
    smallest = {s.metric: s.smallest * (1 if s.higher_is_better else -1) for s in found}
    source = np.random.default_rng(zlib.crc32(f"{name} {scenario}".encode()))
    drawn: dict[tuple[Path, str], Array] = {}

    def value(method: str, folder: Path, metric: str) -> Array:
        if (folder, metric) not in drawn:
            mean = _mean(name, scenario, method)
            drawn[folder, metric] = smallest[metric] * (mean + source.standard_normal(count) / np.sqrt(2))
        return drawn[folder, metric]

    def run(method: str, folder: Path) -> Any:
        return Simulated(folder, lambda metric: value(method, folder, metric))

    runs = {key: {seed: run(key[0], of.folder) for seed, of in of_key.items()} for key, of_key in planned.items()}
    measured = measure(statements(study, runs))
    outcomes = [
        np.full(count, Outcome.supported) if of.statement.structural else decide(of)  # which no seed changes
        for of in measured
    ]
    claim = join([of.statement for of in measured], outcomes)
    return {outcome: float((claim == outcome).mean()) for outcome in Outcome}


def _mean(study: str, scenario: str, method: str) -> float:
    if (
        study == "cost"
    ):  # lower is better: "not worse" is false by the least where a step takes the smallest effect more
        return -1.0 if scenario == "null" and method in COSTS else 0.0
    return EFFECT.get(method, 0.0) if scenario == "effect" else 0.0


def stopping(most: int, count: int) -> float:
    """Part of null studies of one statement that a look after every seed from the sixth to `most` calls decided."""
    draws = np.random.default_rng(0).standard_normal((count, most))
    wrong = np.zeros(count, dtype=bool)
    for seeds in range(6, most + 1):
        wrong |= Mean([draws[:, :seeds]]).p() <= 0.05
    return float(wrong.mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--studies", type=int, default=10_000, help="simulated studies of each kind")
    parser.add_argument("names", nargs="*", metavar="study", help="those of conf/study by default")
    options = parser.parse_args()
    names = options.names or shipped_studies()
    print(f"| study | truth | {' | '.join(outcome.label for outcome in reversed(Outcome))} |")
    print("|---|---|---:|---:|---:|---:|")
    for name in names:
        for scenario in ("null", "effect"):
            found = simulate(name, scenario, options.studies)
            shown = " | ".join(f"{found[outcome]:.1%}" for outcome in reversed(Outcome))
            print(f"| `{name}` | {scenario} | {shown} |", flush=True)
    print(f"\nstopping at the first decision, a look after each of 6 to 20 seeds: {stopping(20, options.studies):.1%}")


if __name__ == "__main__":
    main()
