"""Which runs form the pairs of a statement, what counts once, and which studies are refused."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from srp_exp.runs.folder.store import Run, State
from srp_exp.studies.grid import Cell
from srp_exp.studies.levels import levels
from srp_exp.studies.measured import measure_statements
from srp_exp.studies.pairs import check_decidable, statements

A: Cell = (("dataset", "a"),)
B: Cell = (("dataset", "b"),)


def study(*comparisons: dict[str, Any], **changes: Any) -> dict[str, Any]:
    effect = {"value": 0.005, "reason": "why"}
    return {
        "name": "s", "comparisons": list(comparisons), "each": [], "smallest_effect": effect, "metric": "top1",
        "higher_is_better": True, "pilot": False, "looks": [], **changes,
    }  # fmt: skip


@pytest.fixture
def better(comparison: Any) -> dict[str, Any]:
    made: dict[str, Any] = comparison("srp", "gap")
    return made


def runs(*names: str, seeds: int = 6, cells: tuple[Cell, ...] = (A,)) -> dict[tuple[str, Cell], dict[int, Run]]:
    """Planned runs, each in a folder of its own but where `names` says otherwise: "gap=shared"."""
    made = {}
    for cell in cells:
        for name in names:
            method, _, folder = name.partition("=")
            place = folder or f"{method}-{cell[0][1]}"
            made[method, cell] = {s: Run(Path(f"{place}-{s}"), State.new) for s in range(seeds)}
    return made


def test_a_claim_is_split_by_each(better: Any) -> None:
    together = statements(study(better), runs("srp", "gap", cells=(A, B)))
    assert [list(s.cells) for s in together] == [[A, B]]
    split = statements(study(better, each=["dataset"]), runs("srp", "gap", cells=(A, B)))
    assert [(s.where, list(s.cells)) for s in split] == [(A, [A]), (B, [B])]
    assert [level.refute for level in levels(split, [6])[0]] == [0.025, 0.025]


def test_a_folder_counts_once(better: Any) -> None:
    """Row 5: device=cpu,cuda names every run twice, and a baseline may stand in several cells."""
    twice = {(m, c): r for c in (A, B) for (m, _), r in runs("srp", "gap", seeds=3).items()}
    (same,) = statements(study(better), twice)
    assert same.groups == [(A, B)]
    (shared,) = statements(study(better), runs("srp", "gap=shared", cells=(A, B)))
    assert shared.groups == [(A, B)]
    (apart,) = statements(study(better), runs("srp", "gap", cells=(A, B)))
    assert apart.groups == [(A,), (B,)]


def test_differences_that_share_a_run_are_averaged(make_results: Any, better: Any) -> None:
    values = {("srp", A): {0: 0.91, 1: 0.92}, ("srp", B): {0: 0.93, 1: 0.96}, ("gap", A): {0: 0.90, 1: 0.90}}
    results = make_results(values, comparisons=[better])
    shared = {**results.runs, ("gap", B): results.runs["gap", A]}
    ((found,),) = measure_statements(statements(results.study, shared))
    assert [group.tolist() for group in found.groups] == [pytest.approx([0.02, 0.04])]
    assert found.mean is not None and found.mean.n == 2
    assert [cell.tolist() for cell in found.cells.values()] == [
        pytest.approx([0.01, 0.02]),
        pytest.approx([0.03, 0.06]),
    ]


def test_a_pair_needs_both_runs(make_results: Any, better: Any) -> None:
    values = {("srp", ()): {0: 0.91, 1: State.failed, 2: 0.95}, ("gap", ()): {0: 0.90, 1: 0.90, 3: 0.91, 2: State.new}}
    results = make_results(values, comparisons=[better])
    ((found,),) = measure_statements(statements(results.study, results.runs))
    assert np.concatenate(found.groups).tolist() == pytest.approx([0.01])
    assert found.unfinished == 2


def test_an_interaction_is_a_difference_of_differences(make_results: Any, comparison: Any) -> None:
    values = {"both": 0.95, "mixup": 0.93, "srp": 0.92, "gap": 0.91}
    crossed = comparison("both", "mixup", "not_worse", beyond=["srp", "gap"])
    results = make_results({(m, ()): {0: v, 1: v} for m, v in values.items()}, comparisons=[crossed])
    ((found,),) = measure_statements(statements(results.study, results.runs))
    assert found.groups[0].tolist() == pytest.approx([0.01, 0.01])  # (0.95 - 0.93) - (0.92 - 0.91)


def test_a_value_that_is_not_finite_is_refused_with_its_folder(make_results: Any, better: Any) -> None:
    results = make_results({("srp", ()): {0: float("nan")}, ("gap", ()): {0: 0.9}}, comparisons=[better])
    with pytest.raises(ValueError, match=r"top1=nan in .*run-0-0 can't be compared"):
        measure_statements(statements(results.study, results.runs))


SEEDS_OF_STUDIES = [
    ("a", 4, [], None),
    ("a", 3, [], r"3 pairs can't decide; it takes 4, .* 'seed=range\(4\)'"),
    ("ab", 2, [], None),
    ("abcdef", 1, [], r"6 pairs can't decide; .* two seeds of a cell: 'seed=range\(2\)'"),
    ("a", 9, [3, 9], "3 pairs can't decide"),  # not at the first look
    ("ab", 9, [2, 9], None),
    ("a", 9, [4, 8], r"have 9 seeds, and study.looks=\[4, 8\] ends otherwise"),
]


def test_a_study_that_can_not_decide_is_refused_with_the_seeds_that_it_takes(better: Any) -> None:
    for cells, seeds, looks, refused in SEEDS_OF_STUDIES:
        planned = runs("srp", "gap", seeds=seeds, cells=tuple((("dataset", name),) for name in cells))
        if refused is None:
            check_decidable(study(better, looks=looks), planned)
            return
        with pytest.raises(ValueError, match=refused) as caught:
            check_decidable(study(better, looks=looks), planned)
        assert "\n" not in str(caught.value)
        if "looks" not in refused:
            check_decidable(study(better, looks=looks, pilot=True), planned)


def test_pairs_that_share_runs_are_one(better: Any) -> None:
    with pytest.raises(ValueError, match="3 pairs can't decide"):
        check_decidable(study(better), runs("srp", "gap=shared", seeds=3, cells=(A, B)))


def test_a_training_is_not_compared_with_itself(better: Any) -> None:
    with pytest.raises(ValueError, match="srp and gap are the same training, shared-0"):
        statements(study(better), runs("srp=shared", "gap=shared"))


def test_a_smallest_effect_must_be_named(comparison: Any) -> None:
    bare = {**comparison("srp", "gap"), "smallest_effect": None}
    with pytest.raises(ValueError, match="smallest difference of top1 that matters"):
        statements(study(bare, smallest_effect=None), runs("srp", "gap"))
    (found,) = statements(study({**bare, "metric": "parameters"}, smallest_effect=None), runs("srp", "gap"))
    assert found.smallest == 0


def test_a_method_without_runs_is_named(comparison: Any) -> None:
    with pytest.raises(ValueError, match="comparisons name mixup"):
        statements(study(comparison("srp", "mixup")), runs("srp", "gap"))
