"""The statements of a study, and the runs whose differences speak for or against each."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from omegaconf import OmegaConf

from srp_exp.config.study import Expectation, StudyConfig
from srp_exp.errors import UserError
from srp_exp.runs.store import Run
from srp_exp.studies.grid import Cell

ALPHA = 0.05
"""Level of every interval and test."""

STRUCTURAL = frozenset({"parameters", "cost.parameters", "cost.macs"})
"""Metrics that the network's structure alone sets: no seed changes them, so that one run of each method decides."""

Runs: TypeAlias = Mapping[tuple[str, Cell], Mapping[int, Run]]
"""(method, cell) -> seed -> run."""

Pairs: TypeAlias = Mapping[int, tuple[Run, ...]]
"""Seed -> the runs of a difference: method - baseline, and of an interaction less A - B: four runs."""


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


@dataclass(frozen=True)
class Levels:
    """Levels at which a statement counts as shown, or as refuted."""

    support: float
    refute: float

    @property
    def fewest_pairs(self) -> int:
        """Of n pairs the sign flips have p >= 2 / 2^n: the fewest with which every outcome can come."""
        return math.ceil(math.log2(2 / min(self.support, self.refute)))


def statements(study: Mapping[str, Any], runs: Runs) -> list[Statement]:
    """The statements of `study` (srp_exp.config.study as plain values), in the order of its comparisons.

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


def levels(all_statements: list[Statement]) -> list[Levels]:
    """The levels of each statement, so that the whole claim is wrongly supported or refuted in 5 % of cases at most.

    All must hold (intersection-union), so each is shown at 0.05; but one refutes the claim, so that each is refuted at
    0.05 / their number. Of m of which one is enough each is shown at 0.05 / m (Bonferroni).
    """
    chance = [statement for statement in all_statements if not statement.structural]
    together = [(s.where, s.either) if s.either else id(s) for s in chance]
    alternatives = {id(s): together.count((s.where, s.either)) if s.either else 1 for s in chance}
    refute = ALPHA / max(1, len(set(together)))
    return [Levels(ALPHA / alternatives.get(id(s), 1), refute) for s in all_statements]


def plain_study(study: StudyConfig) -> dict[str, Any]:
    """The configuration of a study as plain values."""
    plain = OmegaConf.to_container(OmegaConf.create(study), resolve=True, enum_to_str=True)  # type: ignore[call-overload]
    assert isinstance(plain, dict)
    return {str(key): value for key, value in plain.items()}


def check_decidable(study: Mapping[str, Any], runs: Runs) -> None:
    """Raise ValueError where a statement can't come out in every way, with the seeds that it takes."""
    found = statements(study, runs)
    for statement, level in zip(found, levels(found), strict=True):
        of_groups = [min(len(statement.cells[cell]) for cell in group) for group in statement.groups]
        pairs = sum(of_groups)
        if statement.structural or study["pilot"] or (pairs >= level.fewest_pairs and max(of_groups) > 1):
            continue
        seeds = max(2, math.ceil(level.fewest_pairs / len(of_groups)))  # one tells nothing of their spread
        many, needed = f"{pairs} pair{'s' * (pairs != 1)}", f"{level.fewest_pairs}"
        if pairs >= level.fewest_pairs:
            many, needed = f"{many}, one of each cell,", "two seeds of a cell"
        raise UserError(
            f"study={study['name']}: {many} of {statement.method} and {statement.baseline} can't decide, it takes "
            f"{needed}: 'seed=range({seeds})', or study.pilot=true to run it so"
        )


def _pairs(names: list[str], cell: Cell, runs: Runs) -> Pairs | None:
    """The runs of each seed that all methods have in `cell`; None where one has no runs there."""
    if any((name, cell) not in runs for name in names):
        return None
    of_methods = [runs[name, cell] for name in names]
    pairs = {
        seed: tuple(of[seed] for of in of_methods) for seed in of_methods[0] if all(seed in of for of in of_methods)
    }
    for of_seed in pairs.values():
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
    direction = comparison["higher_is_better"]
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
        either=comparison["either"] or "",
        smallest=0.0 if metric in STRUCTURAL else effect["value"],
        reason="" if metric in STRUCTURAL else effect["reason"],
        metric=metric,
        higher_is_better=study["higher_is_better"] if direction is None else direction,
        where=where,
        cells=cells,
    )
