"""The chance of each verdict of a study, by simulation through the code of its report, before its hours are spent."""

import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from srp_exp.config.schemas.study import Expectation, Role
from srp_exp.runs.folder.store import State
from srp_exp.studies.measured import Measured, measure_statements
from srp_exp.studies.pairs import FEWEST_PAIRS, STRUCTURAL, Runs, Statement, statements
from srp_exp.studies.reports.report import Contents
from srp_exp.studies.reports.tables import Table, TableCell
from srp_exp.studies.statistics import Array
from srp_exp.studies.verdict import Outcome, walk_looks

COUNT = 2_000
"""Simulated studies of a row: a chance is good to two points."""

NEEDED = 2.0
"""The difference of a precondition or a control, in smallest effects, where the claim can be tested."""

SHOWN = (Outcome.supported, Outcome.no_relevant_difference, Outcome.contradicted, Outcome.not_testable)


@dataclass(frozen=True)
class Chances:
    """Part of the simulated studies that come to each verdict, and what part of the planned runs they train."""

    verdicts: dict[Outcome, float]
    trained: float


@dataclass(frozen=True)
class _Simulated:
    """A run in many studies: `value` gives an array with one of each."""

    folder: Path
    value: Callable[[str], Array]
    is_finished: bool = True
    state: State = State.finished


def simulate(
    study: Mapping[str, Any],
    planned: Runs,
    truth: Callable[[Statement], float],
    spread: Mapping[str, float] | None = None,
    count: int = COUNT,
) -> Chances:
    """Studies whose runs are normal, `truth` being the gain of each statement in smallest effects.

    spread: the standard deviation of a paired difference over the smallest effect, by metric; else study.spread.
    """
    found = statements(study, planned)
    noise = {s.metric: s.smallest * (spread or {}).get(s.metric, study["spread"]) / np.sqrt(2) for s in found}
    source = np.random.default_rng(zlib.crc32(str(study["name"]).encode()))
    drawn: dict[tuple[Path, str], Array] = {}

    def simulated(folder: Path) -> Any:
        def value(metric: str) -> Array:
            if (folder, metric) not in drawn:
                scale = 0.0 if metric in STRUCTURAL else noise[metric]
                drawn[folder, metric] = scale * source.standard_normal(count)
            return drawn[folder, metric]

        return _Simulated(folder, value)

    runs: Any = {key: {seed: simulated(run.folder) for seed, run in of.items() if run} for key, of in planned.items()}
    looks = list(study["looks"])
    of_looks = [
        [_moved(of, truth(of.statement)) for of in at_look]
        for at_look in measure_statements(statements(study, runs), looks)
    ]
    walked = walk_looks(of_looks, max(1, len(looks)))
    claim = np.broadcast_to(walked.claim, (count,))
    verdicts = {outcome: float((claim == outcome).mean()) for outcome in Outcome}
    seeds: dict[str, Any] = {}
    for statement, look in zip(found, walked.looks, strict=True):
        for name in (statement.method, statement.baseline, *statement.beyond):
            seeds[name] = np.maximum(seeds.get(name, 0), np.array(looks or [1])[look])
    cells = {name: sum(method == name for method, _ in planned) for name in seeds}
    trained = sum(float(np.mean(of)) * cells[name] for name, of in seeds.items())
    return Chances(verdicts, trained / (max(looks or [1]) * sum(cells.values())))


def _moved(measured: Measured, gain: float) -> Measured:
    statement = measured.statement
    difference = gain * statement.smallest * (1 if statement.higher_is_better else -1)
    cells = {cell: of + difference for cell, of in measured.cells.items()}
    return replace(measured, cells=cells, groups=[of + difference for of in measured.groups])


def measured_spreads(made: Contents) -> dict[str, float]:
    """The standard deviation of a paired difference over the smallest effect, by metric, where pairs were measured."""
    found: dict[str, list[float]] = {}
    for of in made.measured:
        mean, statement = of.mean, of.statement
        if mean is not None and mean.n >= FEWEST_PAIRS and mean.sd and statement.smallest and not statement.beyond:
            found.setdefault(statement.metric, []).append(float(mean.sd) / statement.smallest)
    return {metric: median(ratios) for metric, ratios in found.items()}


def power_table(study: Mapping[str, Any], planned: Runs, spreads: Mapping[str, float], hours: float = 0.0) -> Table:
    """The chances where the differences that the claim names are 0, one and two smallest effects.

    hours: of all planned runs; 0: not known.
    """
    rows = []
    expected = {s.expect for s in statements(study, planned) if s.role == Role.claim and not s.structural}
    for truth in (0.0, 1.0, 2.0):

        def gain(statement: Statement, truth: float = truth) -> float:
            if statement.expect == Expectation.equal and len(expected) > 1:
                return 0.0  # beside what the claim is about
            return truth if statement.role == Role.claim else NEEDED

        chances = simulate(study, planned, gain, spreads)
        shown = [f"{chances.verdicts[outcome]:.0%}" for outcome in (*SHOWN, Outcome.undecided)]
        took = f"{chances.trained:.0%}" + (f", {chances.trained * hours:.1f} h" if hours else "")
        rows.append(tuple(TableCell(text) for text in (f"{truth:g} e", *shown, took)))
    metrics = {s.metric for s in statements(study, planned) if not s.structural}
    told = [f"{spreads[m]:.2f} e of {m} (measured)" if m in spreads else f"{study['spread']:g} e of {m} (assumed)"
            for m in sorted(metrics)]  # fmt: skip
    caption = (
        f"Chance of each verdict in {COUNT:,} simulated studies with the true difference that the claim is about, e "
        f"being the smallest effect, and preconditions that hold by {NEEDED:g} e. Standard deviation of a paired "
        f"difference: {', '.join(told) or 'none'}. Runs: what part of the planned ones is trained on the average."
    )
    header = ("difference", *(outcome.label for outcome in (*SHOWN, Outcome.undecided)), "runs")
    return Table("Power", caption, (header,), 1, tuple(rows))
