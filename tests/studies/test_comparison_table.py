"""The table of comparisons shows what was compared, cell by cell and over the cells."""

from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from srp_exp.studies.comparisons import compare
from srp_exp.studies.results import StudyResults
from srp_exp.studies.store import Run, State
from srp_exp.studies.tables import Table, comparison_table
from srp_exp.studies.verdict import Outcome, Verdict


def table_of(results: StudyResults, *verdicts: Verdict) -> Table:
    table = comparison_table(results, compare(results), verdicts)
    assert table is not None
    return table


def texts(table: Table) -> list[list[str]]:
    return [[f"{cell.text} {cell.note}".strip() for cell in row] for row in table.rows]


def test_one_cell_is_one_row_with_the_verdict(make_results: Any, comparison: Any) -> None:
    results = make_results(
        {("fixed", ()): {0: 0.91, 1: 0.92, 2: 0.93}, ("gap", ()): {0: 0.90, 1: 0.90, 2: 0.90}},
        comparisons=[comparison("fixed", "gap")],
    )
    table = table_of(results, Verdict(Outcome.supported, "why"))
    # Differences of 1, 2 and 3 points: mean 2, sd 1, half an interval of 4.3027 / sqrt(3) = 2.4841; all eight sign
    # flips but two lie nearer to 0: p = 2/8, and one test needs no correction.
    assert texts(table) == [
        ["fixed against gap: better", "3", "+2.00", "[-0.48, +4.48]", "0.250", "0.250", "supported"]
    ]
    assert table.rows[0][-1].bold


def test_several_cells_end_with_a_row_for_all(full_study: StudyResults) -> None:
    table = table_of(full_study, Verdict(Outcome.undecided, "", preliminary=True), Verdict(Outcome.contradicted, ""))
    assert table.header[0] == (
        "comparison", "backbone", "pairs", "difference", "95 % interval", "p", "p (Holm)", "verdict",
    )  # fmt: skip
    rows = texts(table)
    assert [row[1] for row in rows] == ["resnet20", "resnet56", "all"] * 2
    assert [row[2] for row in rows] == ["3", "2 (1 missing)", "5"] * 2
    # Cells: (1.3 + 1.3 + 1.6)/3 = 1.40 and (1.0 + 1.2)/2 = 1.10; both with the same weight: 1.25.
    assert [row[3] for row in rows[:3]] == ["+1.40", "+1.10", "+1.25"]
    assert [row[-1] for row in rows] == ["", "", "undecided (preliminary)", "", "", "contradicted"]
    assert rows[3][0] == "scheduled against fixed: worse by less than 0.50 points"


@pytest.mark.parametrize(
    ("expect", "margin", "metric", "words"),
    [
        ("better", 0.0, None, "fixed against gap: better"),
        ("better", 0.01, None, "fixed against gap: better by more than 1.00 points"),
        ("not_worse", 0.0, None, "fixed against gap: not worse"),
        ("equal", 0.0, "parameters", "fixed against gap: equal in parameters"),
        ("equal", 0.002, "top1", "fixed against gap: equal within 0.20 points"),
    ],
)
def test_expectations_in_words(
    make_results: Any, comparison: Any, expect: str, margin: float, metric: str | None, words: str
) -> None:
    results = make_results(
        {("fixed", ()): {0: 0.91}, ("gap", ()): {0: 0.90}},
        comparisons=[comparison("fixed", "gap", expect, margin, metric)],
    )
    assert texts(table_of(results, Verdict(Outcome.undecided, "")))[0][0] == words


def write_predictions(run: Run, predicted: list[int], labels: list[int]) -> None:
    folder = run.folder / "evaluation" / "test"
    folder.mkdir(parents=True)
    columns = {"index": list(range(len(labels))), "label": labels, "prediction": predicted}
    pq.write_table(pa.table(columns), folder / "predictions.parquet")


def test_one_seed_shows_mcnemar(make_results: Any, comparison: Any) -> None:
    results = make_results({("fixed", ()): {0: 0.9}, ("gap", ()): {0: 0.4}}, comparisons=[comparison("fixed", "gap")])
    labels = [0] * 10
    write_predictions(results.entry("fixed", ()).runs[0], [0] * 9 + [1], labels)
    write_predictions(results.entry("gap", ()).runs[0], [0] * 3 + [1] * 6 + [0], labels)
    row = texts(table_of(results, Verdict(Outcome.undecided, "")))[0]
    # 6 and 1 discordant samples: p = 2 * (1 + 7) / 2^7
    assert row[1:] == [
        "1", "+50.00", "", "0.125 (McNemar: 6 and 1 samples right in one alone)", "0.125", "undecided",
    ]  # fmt: skip


def test_without_a_pair_there_is_no_number(make_results: Any, comparison: Any) -> None:
    results = make_results(
        {("fixed", ()): {0: 0.9, 1: State.new}, ("gap", ()): {0: State.failed, 1: 0.8}},
        comparisons=[comparison("fixed", "gap")],
    )
    row = texts(table_of(results, Verdict(Outcome.undecided, "", preliminary=True)))[0]
    assert row[1:] == ["0 (2 missing)", "-", "", "", "", "undecided (preliminary)"]


def test_a_study_that_compares_nothing_has_no_such_table(make_results: Any) -> None:
    assert comparison_table(make_results({("gap", ()): {0: 0.9}}), [], []) is None
