"""What a study's comparisons are made of: which runs form pairs, the family of Holm, predictions, missing runs."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf

from srp_exp.config.study import ComparisonConfig, Expectation, StudyConfig
from srp_exp.evaluation import Evaluation
from srp_exp.studies.comparisons import compare
from srp_exp.studies.grid import Cell
from srp_exp.studies.results import Entry, StudyResults
from srp_exp.studies.statistics import holm, mcnemar, paired, pooled
from srp_exp.studies.store import Run, State

A, B = (("mixing", "none"),), (("mixing", "mixup"),)


def results_of(
    values: dict[tuple[str, Cell], dict[int, float | None]], folder: Path, *comparisons: ComparisonConfig, **study: Any
) -> StudyResults:
    """A study with these values by (method, cell) and seed; None: the run isn't finished."""
    chosen = comparisons or (ComparisonConfig("srp", "gap"),)
    config = StudyConfig(name="test", question="?", claim="!", comparisons=list(chosen), **study)
    plain = OmegaConf.to_container(OmegaConf.structured(config), enum_to_str=True)
    assert isinstance(plain, dict)
    entries = []
    for (method, cell), of_entry in values.items():
        name = "-".join([method, *(value for _, value in cell)])
        runs = {
            seed: Run(folder / f"{name}-{seed}", State.new if value is None else State.finished)
            for seed, value in of_entry.items()
        }
        entries.append(Entry(method, cell, runs, {s: v for s, v in of_entry.items() if v is not None}))
    return StudyResults({str(key): value for key, value in plain.items()}, tuple(entries))


def write_predictions(run: Run, labels: list[int], predictions: list[int], first: int = 0, step: int = 1) -> None:
    """predictions.parquet as evaluation writes it; with step=-1 the samples in descending order of their index."""
    index = torch.arange(first, first + len(labels))
    answers = torch.eye(3)[torch.tensor(predictions)]
    columns = [column if step == 1 else column.flip(0) for column in (index, torch.tensor(labels), answers)]
    evaluation = Evaluation(("a", "b", "c"), *columns, losses=torch.zeros(len(labels)))
    evaluation.save(run.folder / "evaluation" / "test")


def test_runs_with_the_same_seed_and_cell_form_pairs(tmp_path: Path) -> None:
    (result,) = compare(
        results_of(
            {
                ("srp", A): {0: 0.91, 1: 0.93, 2: 0.95, 3: None},
                ("srp", B): {3: 0.80, 2: 0.70},
                ("gap", A): {1: 0.90, 0: 0.90, 3: 0.99, 7: 0.5},
                ("gap", B): {2: 0.71, 3: 0.76},
            },
            tmp_path,
        )
    )
    first, second = result.cells
    assert (first.cell, first.seeds, second.cell, second.seeds) == (A, (0, 1), B, (3, 2))
    assert first.differences == (pytest.approx(0.01), pytest.approx(0.03))
    assert second.differences == (pytest.approx(0.04), pytest.approx(-0.01))
    assert first.paired == paired([0.91, 0.93], [0.90, 0.90])
    assert result.pooled == pooled([first.differences, second.differences])
    assert (first.unfinished, second.unfinished, result.unfinished) == (1, 0, 1)


def test_a_cell_without_a_common_seed_is_left_out_of_the_mean(tmp_path: Path) -> None:
    values = {("srp", A): {0: 0.9, 1: 0.8}, ("gap", A): {0: 0.7, 1: 0.7}}
    (result,) = compare(results_of({**values, ("srp", B): {0: 0.9}, ("gap", B): {0: None}}, tmp_path))
    empty = result.cells[1]
    assert (empty.seeds, empty.differences, empty.paired, empty.p, empty.adjusted) == ((), (), None, None, None)
    assert result.pooled == pooled([result.cells[0].differences])
    assert len(result.gains) == 1


def test_nothing_in_common_has_no_result(tmp_path: Path) -> None:
    (result,) = compare(results_of({("srp", ()): {0: 0.9}, ("gap", ()): {1: 0.8}}, tmp_path))
    assert result.pooled is None and result.gains == []


def test_holm_corrects_over_all_cells_and_comparisons(tmp_path: Path) -> None:
    gap = dict.fromkeys(range(8), 0.5)
    values: dict[tuple[str, Cell], dict[int, float | None]] = {
        ("gap", A): dict(gap),
        ("gap", B): dict(gap),
        ("fixed", A): dict.fromkeys(range(8), 0.6),
        ("fixed", B): {seed: 0.6 if seed else 0.3 for seed in range(8)},
        ("linear", A): {seed: 0.6 if seed > 3 else 0.4 for seed in range(8)},
        ("linear", B): dict.fromkeys(range(7), 0.6),
    }
    pairs = (ComparisonConfig("fixed", "gap"), ComparisonConfig("linear", "gap"))
    cells = [cell for result in compare(results_of(values, tmp_path, *pairs)) for cell in result.cells]
    # All of one sign; a sum of 5 with seven of 1 and one of -2, which 29 + 1 flips reach; four of eight; all of seven.
    p = [2 / 256, 2 * (29 + 1) / 256, 1.0, 2 / 128]
    assert [cell.p for cell in cells] == p
    assert [cell.adjusted for cell in cells] == list(holm(p))


def test_one_common_seed_is_mcnemars(tmp_path: Path) -> None:
    results = results_of({("srp", ()): {4: 0.6}, ("gap", ()): {4: 0.4}}, tmp_path)
    labels, of_srp, of_gap = [0, 1, 2, 0, 1], [0, 1, 2, 1, 2], [0, 2, 1, 1, 1]
    write_predictions(results.entry("srp", ()).runs[4], labels, of_srp)
    write_predictions(results.entry("gap", ()).runs[4], labels, of_gap, step=-1)
    (cell,) = compare(results)[0].cells
    assert cell.mcnemar == mcnemar([True, True, True, False, False], [True, False, False, False, True])
    assert (cell.mcnemar.only_a, cell.mcnemar.only_b) == (2, 1)
    assert cell.p == cell.adjusted == 1.0


def test_two_seeds_or_another_metric_have_no_mcnemar(tmp_path: Path) -> None:
    for values, metric in (({0: 0.5, 1: 0.5}, "top1"), ({0: 0.5}, "top5")):
        results = results_of({("srp", ()): dict(values), ("gap", ()): dict(values)}, tmp_path, metric=metric)
        for entry in results.entries:
            write_predictions(entry.runs[0], [0, 1], [0, 0])
        assert compare(results)[0].cells[0].mcnemar is None


def test_without_predictions_there_is_no_mcnemar(tmp_path: Path) -> None:
    results = results_of({("srp", ()): {0: 0.6}, ("gap", ()): {0: 0.4}}, tmp_path)
    write_predictions(results.entry("srp", ()).runs[0], [0, 1], [0, 0])
    (cell,) = compare(results)[0].cells
    assert cell.mcnemar is None and cell.p == 1.0


@pytest.mark.parametrize(("labels", "first"), [([0, 2], 0), ([0, 1], 5), ([0, 1, 1], 0)])
def test_predictions_of_other_samples_are_refused(tmp_path: Path, labels: list[int], first: int) -> None:
    results = results_of({("srp", ()): {0: 0.6}, ("gap", ()): {0: 0.4}}, tmp_path)
    write_predictions(results.entry("srp", ()).runs[0], [0, 1], [0, 0])
    write_predictions(results.entry("gap", ()).runs[0], labels, [0] * len(labels), first)
    with pytest.raises(ValueError, match="predict other samples or labels"):
        compare(results)


def test_a_comparison_can_have_its_own_metric(tmp_path: Path) -> None:
    own = ComparisonConfig("srp", "gap", Expectation.equal, metric="parameters")
    values: dict[tuple[str, Cell], dict[int, float | None]] = {
        ("srp", ()): {0: 0.9, 1: 0.9, 2: None, 3: 0.9},
        ("gap", ()): {0: 0.8, 1: 0.8, 2: 0.8, 3: 0.8},
    }
    results = results_of(values, tmp_path, own, ComparisonConfig("srp", "gap"))
    for entry in results.entries:
        for seed, run in entry.runs.items():
            run.folder.mkdir()
            measured = {} if seed == 3 else {"parameters": 1000 + seed}
            (run.folder / "results.json").write_text(json.dumps({"test": {"top1": 0.1}, **measured}))
    parameters, accuracy = compare(results)
    assert (parameters.metric, parameters.expect) == ("parameters", Expectation.equal)
    assert parameters.cells[0].differences == (0, 0)
    # Seed 2 of srp isn't finished, seed 3 of neither has this metric.
    assert (parameters.cells[0].seeds, parameters.unfinished) == ((0, 1), 3)
    assert (accuracy.metric, accuracy.cells[0].seeds, accuracy.unfinished) == ("top1", (0, 1, 3), 1)


def test_lower_is_better_turns_the_gains_round(tmp_path: Path) -> None:
    values: dict[tuple[str, Cell], dict[int, float | None]] = {("srp", ()): {0: 0.2}, ("gap", ()): {0: 0.5}}
    (result,) = compare(results_of(values, tmp_path, metric="loss", higher_is_better=False))
    assert result.cells[0].differences == (pytest.approx(-0.3),)
    assert result.gains == [[pytest.approx(0.3)]]


def test_an_unknown_method_is_named(tmp_path: Path) -> None:
    results = results_of({("srp", ()): {0: 0.2}}, tmp_path)
    with pytest.raises(ValueError, match="study=test: comparisons name gap; its methods are srp"):
        compare(results)


def test_a_value_that_is_not_finite_is_named(tmp_path: Path) -> None:
    results = results_of({("srp", ()): {0: float("nan")}, ("gap", ()): {0: 0.1}}, tmp_path)
    with pytest.raises(ValueError, match=r"top1=nan in .*srp-0"):
        compare(results)
