"""The table of comparisons shows what was compared, statement by statement, and the cells of each."""

from dataclasses import replace
from typing import Any

from srp_exp.runs.folder.store import State
from srp_exp.studies.reports.report import contents
from srp_exp.studies.reports.tables import Table
from srp_exp.studies.results import StudyResults


def table_of(results: StudyResults) -> Table:
    made = contents(results)
    (table,) = [table for table in made.tables if table.title == "Comparisons"]
    return table


def texts(table: Table) -> list[list[str]]:
    return [[f"{cell.text} {cell.note}".strip() for cell in row] for row in table.rows]


def test_one_cell_is_one_row_with_the_verdict(make_results: Any, comparison: Any) -> None:
    results = make_results(
        {("fixed", ()): {0: 0.91, 1: 0.92, 2: 0.93}, ("gap", ()): {0: 0.90, 1: 0.90, 2: 0.90}},
        comparisons=[comparison("fixed", "gap")],
    )
    table = table_of(results)
    # Differences of 1, 2 and 3 points: mean 2, sd 1, half an interval of 4.3027 / sqrt(3) = 2.4841; all eight sign
    # flips but two lie nearer to 0: p = 2/8 beside the t-test's 0.074.
    assert texts(table) == [
        [
            "fixed against gap: better in top1",
            "3",
            "+2.00",
            "[-0.48, +4.48]",
            "0.074 (flips 0.250)",
            "0.50 [1]",
            "undecided (fewer than 4 pairs)",
        ]
    ]
    assert table.rows[0][-1].bold
    assert table.notes == ("Smallest effect: five of 1,000 images",)
    assert "Shown at p <= 0.05, refuted at p <= 0.05." in table.caption


def test_several_cells_stand_below_their_statement(full_study: StudyResults) -> None:
    table = table_of(full_study)
    rows = texts(table)
    assert [row[1] for row in rows] == ["all", "backbone=resnet20", "backbone=resnet56"] * 2
    assert [row[2] for row in rows] == ["5 (1 run missing)", "3", "2"] * 2
    # Cells: (1.3 + 1.3 + 1.6)/3 = 1.40 and (1.0 + 1.2)/2 = 1.10; both with the same weight: 1.25.
    assert [row[3] for row in rows[:3]] == ["+1.25", "+1.40", "+1.10"]
    assert [row[-1] for row in rows] == ["shown (preliminary)", "", ""] * 2
    assert rows[3][0] == "scheduled against fixed: worse by less than 0.50 points in top1"
    assert "refuted at p <= 0.025" in table.caption


def test_no_column_says_what_the_others_say(make_results: Any, comparison: Any) -> None:
    values = {
        (method, (("dataset", name), ("recipe.epochs", "3"))): {0: 0.9, 1: top1}
        for method, top1 in (("fixed", 0.92), ("gap", 0.91))
        for name in ("cifar10", "cifar100")
    }
    results = make_results(values, comparisons=[comparison("fixed", "gap")])
    together = table_of(results)
    assert [row[1] for row in texts(together)] == ["all", "dataset=cifar10", "dataset=cifar100"]
    apart = table_of(replace(results, study={**results.study, "each": ["dataset"]}))
    assert apart.labels == 1 and apart.header[0][:2] == ("statement", "pairs")
    assert [row[0] for row in texts(apart)] == [
        f"fixed against gap at dataset={name}: better in top1" for name in ("cifar10", "cifar100")
    ]


def test_without_a_pair_there_is_no_number(make_results: Any, comparison: Any) -> None:
    results = make_results(
        {("fixed", ()): {0: 0.9, 1: State.new}, ("gap", ()): {0: State.failed, 1: 0.8}},
        comparisons=[comparison("fixed", "gap")],
    )
    (row,) = texts(table_of(results))
    assert row[1:] == ["0 (2 runs missing)", "-", "", "", "0.50 [1]", "undecided (preliminary)"]
