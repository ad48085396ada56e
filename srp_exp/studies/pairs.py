"""The statements of a study, and the runs whose differences speak for or against each."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

from omegaconf import OmegaConf

from srp_exp.config.check_study import direction
from srp_exp.config.schemas.study import Expectation, Role, StudyConfig
from srp_exp.errors import UserError
from srp_exp.runs.folder.store import Run
from srp_exp.studies.grid import Cell

FEWEST_PAIRS = 4
"""Fewer decide nothing: two or three can agree by chance, and t trusts their spread."""

STRUCTURAL = frozenset({"parameters", "cost.parameters", "cost.macs"})
"""Metrics that the network's structure alone sets: no seed changes them, so that one run of each method decides."""

Runs: TypeAlias = Mapping[tuple[str, Cell], Mapping[int, Run | None]]
"""(method, cell) -> seed -> run, None where it is excluded."""

Pairs: TypeAlias = Mapping[int, tuple[Run, ...]]
"""Seed -> the runs of a difference, () where one is excluded: method - baseline, of an interaction less A - B."""


@dataclass(frozen=True)
class Statement:
    """One thing that a claim says: a comparison, where the study's `each` splits it, of one value of these axes.

    smallest: the smallest effect of interest, in the unit of the metric (accuracies in [0, 1]); 0 if it is structural.
    either: the name that it shares with those of which one is enough; empty if it must hold itself.
    """

    method: str
    baseline: str
    beyond: tuple[str, ...]
    expect: Expectation
    role: Role
    either: str
    smallest: float
    reason: str
    metric: str
    higher_is_better: bool
    where: Cell
    cells: Mapping[Cell, Pairs]

    @property
    def structural(self) -> bool:
        return self.metric in STRUCTURAL

    def first(self, seeds: int) -> "Statement":
        """The same of the first `seeds` of every cell."""
        cells = {cell: dict(list(pairs.items())[:seeds]) for cell, pairs in self.cells.items()}
        return replace(self, cells=cells)

    @property
    def groups(self) -> list[tuple[Cell, ...]]:
        """The cells; those that share a run are one group, with one difference for a seed: a folder counts once."""
        groups: list[tuple[set[Path], list[Cell]]] = []
        for cell, pairs in self.cells.items():
            folders = {run.folder for runs in pairs.values() for run in runs}
            sharing = [group for group in groups if group[0] & folders]
            groups = [group for group in groups if group not in sharing]
            merged = [c for _, cells in sharing for c in cells]
            groups.append((folders.union(*(f for f, _ in sharing)), [*merged, cell]))
        return [tuple(cells) for _, cells in groups]


def statements(study: Mapping[str, Any], runs: Runs) -> list[Statement]:
    """The statements of `study` (srp_exp.config.schemas.study as plain values), in the order of its comparisons.

    Raises ValueError where a comparison names a method that has no runs, or compares a training with itself.
    """
    found = []
    for comparison in study["comparisons"]:
        names = [comparison["method"], comparison["baseline"], *comparison["beyond"]]
        for name in names:
            if not any(method == name for method, _ in runs):
                raise UserError(f"study={study['name']}: comparisons name {name}; no run has this method")
        cells = {cell: _pairs(names, cell, runs) for method, cell in runs if method == names[0]}
        split: dict[Cell, dict[Cell, Pairs]] = {}
        for cell, pairs in cells.items():
            if pairs is not None:
                split.setdefault(tuple(p for p in cell if p[0] in study["each"]), {})[cell] = pairs
        found += [_statement(study, comparison, where, of_where) for where, of_where in split.items()]
    return found


def plain_study(study: StudyConfig) -> dict[str, Any]:
    """The configuration of a study as plain values, with the direction of its metric."""
    plain = OmegaConf.to_container(OmegaConf.create(study), resolve=True, enum_to_str=True)  # type: ignore[call-overload]
    assert isinstance(plain, dict)
    known = direction(study.metric, study.higher_is_better)
    return {**{str(key): value for key, value in plain.items()}, "higher_is_better": known}


def check_decidable(study: Mapping[str, Any], runs: Runs) -> None:
    """Raise ValueError where a statement can't come out in every way, and where the looks don't fit the seeds."""
    for statement in statements(study, runs):
        fewest = min(len(statement.cells[cell]) for group in statement.groups for cell in group)
        if study["looks"] and study["looks"][-1] != fewest:
            compared = f"study={study['name']}: {statement.method} and {statement.baseline}"
            raise UserError(f"{compared} have {fewest} seeds, and study.looks={study['looks']} ends otherwise")
    if (problem := too_few(study, runs)) and not study["pilot"]:
        raise UserError(problem)


def too_few(study: Mapping[str, Any], runs: Runs) -> str | None:
    """Why the seeds of the first look can't decide a statement; None where they can. Such a study is a pilot."""
    for statement in statements(study, runs):
        of_groups = [min(len(statement.cells[cell]) for cell in group) for group in statement.groups]
        first = study["looks"][0] if study["looks"] else max(of_groups)
        pairs = sum(min(seeds, first) for seeds in of_groups)
        if not statement.structural and (pairs < FEWEST_PAIRS or first <= 1):
            seeds = max(2, math.ceil(FEWEST_PAIRS / len(of_groups)))  # one tells nothing of their spread
            return (
                f"study={study['name']}: {statement.method} and {statement.baseline}: {pairs} pair{'s' * (pairs != 1)} "
                f"can't decide; it takes {FEWEST_PAIRS}, and two seeds of a cell: 'seed=range({seeds})', or "
                "study.pilot=true to run it so"
            )
    return None


def _pairs(names: list[str], cell: Cell, runs: Runs) -> Pairs | None:
    """The runs of each seed that all methods have in `cell`; None where one has no runs there."""
    if any((name, cell) not in runs for name in names):
        return None
    of_methods = [runs[name, cell] for name in names]
    pairs: dict[int, tuple[Run, ...]] = {}
    for seed in of_methods[0]:
        if all(seed in of for of in of_methods):
            of_seed = tuple(run for of in of_methods if (run := of[seed]) is not None)
            pairs[seed] = of_seed if len(of_seed) == len(names) else ()
    for of_seed in filter(None, pairs.values()):
        for a, b in ((0, 1), (2, 3))[: len(names) // 2]:
            if of_seed[a].folder == of_seed[b].folder:
                raise UserError(
                    f"{names[a]} and {names[b]} are the same training, {of_seed[a].folder}: there is nothing to compare"
                )
    return pairs


def _statement(
    study: Mapping[str, Any], comparison: Mapping[str, Any], where: Cell, cells: dict[Cell, Pairs]
) -> Statement:
    own, general = comparison["metric"], study["metric"]
    effect = comparison["smallest_effect"] or study["smallest_effect"]
    metric = general if own is None else own
    if metric not in STRUCTURAL and effect is None:
        raise UserError(
            f"study={study['name']}: name the smallest difference of {metric} that matters, and why: "
            "study.smallest_effect: {value: 0.002, reason: ...}"
        )
    return Statement(
        method=comparison["method"],
        baseline=comparison["baseline"],
        beyond=tuple(comparison["beyond"]),
        expect=Expectation(comparison["expect"]),
        role=Role(comparison["role"]),
        either=comparison["either"] or "",
        smallest=0.0 if metric in STRUCTURAL else effect["value"],
        reason="" if metric in STRUCTURAL else effect["reason"],
        metric=metric,
        higher_is_better=direction(metric, comparison["higher_is_better"], study["higher_is_better"]),
        where=where,
        cells=cells,
    )
