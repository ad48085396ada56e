"""The tables of results and entries: known numbers, the layout, what is marked."""

import statistics
from typing import Any

from srp_exp.runs.folder.store import State
from srp_exp.studies.reports.tables import Table, results_table, shown_p
from srp_exp.studies.results import StudyResults, unit_of


def texts(table: Table) -> list[list[str]]:
    return [[f"{cell.text} {cell.note}".strip() for cell in row] for row in table.rows]


SHOWN_VALUES = [
    ("top1", [0.983, 0.98449], "top-1 (%)", ["98.30", "98.45"]),
    ("top5", [1.0, 0.0], "top-5 (%)", ["100.00", "0.00"]),
    ("balanced_top1", [0.5], "balanced top-1 (%)", ["50.00"]),
    ("macro_f1", [0.25], "macro F1 (%)", ["25.00"]),
    ("loss", [0.48943, 0.012], "loss", ["0.4894", "0.0120"]),
    ("descriptors.effective_rank", [12.3456, 9.0], "descriptors.effective_rank", ["12.35", "9.00"]),
    ("parameters", [271807, 860000], "parameters", ["271,807", "860,000"]),
    ("loss", [0.0], "loss", ["0.000"]),
]


def test_values_are_shown_in_the_unit_of_their_metric() -> None:
    for metric, values, name, shown in SHOWN_VALUES:
        unit = unit_of(metric, values)
        assert unit.name == name
        assert [unit.show(value) for value in values] == shown


def test_differences_have_their_sign() -> None:
    unit = unit_of("top1", [])
    assert [unit.show(value, signed=True) for value in (0.0042, -0.0042, 0.0)] == ["+0.42", "-0.42", "+0.00"]


def test_results_are_means_and_sample_standard_deviations(make_results: Any) -> None:
    values = [0.981, 0.984, 0.986]
    results = make_results({("gap", ()): dict(enumerate(values)), ("fixed", ()): {0: 0.99}})
    mean, sd = 100 * statistics.mean(values), 100 * statistics.stdev(values)
    table = results_table(results)
    assert table.header == (("method", "top-1 (%)"),)
    assert texts(table) == [["gap", f"{mean:.2f} ± {sd:.2f} (n=3)"], ["fixed", "99.00 (n=1)"]]
    assert not any(cell.bold for row in table.rows for cell in row)  # which is for a verdict


def test_unfinished_entries_are_marked(make_results: Any) -> None:
    results = make_results(
        {("gap", ()): {0: 0.5, 1: 0.7, 2: State.failed}, ("fixed", ()): {0: State.new, 1: State.running, 2: State.new}}
    )
    table = results_table(results)
    assert texts(table) == [["gap", "60.00 ± 14.14 (n=2 of 3)"], ["fixed", "- (0 of 3)"]]
    assert "Partial: 2 of 6 runs have finished." in table.caption


def grid(make_results: Any, **study: Any) -> StudyResults:
    """Two methods on two backbones and two data sets, one seed each: 0.90, 0.91, ... in the order of the grid."""
    places = [(d, b, m) for d in ("mnist5k", "cifar10") for b in ("small", "big") for m in ("gap", "fixed")]
    values = {
        (method, (("dataset", dataset), ("backbone", backbone), ("srp.share", "batch"))): {0: 0.90 + number / 100}
        for number, (dataset, backbone, method) in enumerate(places)
    }
    result = make_results(values, **study)
    assert isinstance(result, StudyResults)
    return result


def test_axes_in_neither_rows_nor_columns_become_rows(make_results: Any) -> None:
    table = results_table(grid(make_results, columns=["backbone"]))
    assert table.header == (("method", "dataset", "small", "big"),)
    assert texts(table) == [
        ["gap", "mnist5k", "90.00 (n=1)", "92.00 (n=1)"],
        ["fixed", "mnist5k", "91.00 (n=1)", "93.00 (n=1)"],
        ["gap", "cifar10", "94.00 (n=1)", "96.00 (n=1)"],
        ["fixed", "cifar10", "95.00 (n=1)", "97.00 (n=1)"],
    ]
    assert "srp.share: batch." in table.caption  # one value: not worth a column


def test_columns_can_have_two_levels(make_results: Any) -> None:
    table = results_table(grid(make_results, rows=["backbone"], columns=["dataset", "method"]))
    assert table.header == (
        ("", "mnist5k", "mnist5k", "cifar10", "cifar10"),
        ("backbone", "gap", "fixed", "gap", "fixed"),
    )
    assert texts(table) == [
        ["small", "90.00 (n=1)", "91.00 (n=1)", "94.00 (n=1)", "95.00 (n=1)"],
        ["big", "92.00 (n=1)", "93.00 (n=1)", "96.00 (n=1)", "97.00 (n=1)"],
    ]


def test_a_place_without_an_entry_stays_empty(make_results: Any) -> None:
    results = make_results(
        {("gap", (("backbone", "small"),)): {0: 0.5}, ("fixed", (("backbone", "big"),)): {0: 0.6}}, columns=["backbone"]
    )
    assert texts(results_table(results)) == [["gap", "50.00 (n=1)", ""], ["fixed", "", "60.00 (n=1)"]]


def test_published_numbers_stand_apart(make_results: Any) -> None:
    published = [
        {"method": "gap", "cell": {"dataset": "cifar10"}, "value": 0.953, "source": "Luo, Table 1"},
        {"method": "gap", "cell": {"dataset": "dogs"}, "value": 0.8, "source": "Luo, Table 2"},
    ]
    results = make_results(
        {("gap", (("dataset", d),)): {0: 0.9} for d in ("mnist5k", "cifar10")}, published=published, columns=["dataset"]
    )
    table = results_table(results)
    assert texts(table) == [["gap", "90.00 (n=1)", "90.00 (n=1) [1]"]]
    assert table.notes == (
        "Published, not ours: gap, dataset cifar10: 95.30 (Luo, Table 1)",
        "Published, not ours: gap, dataset dogs: 80.00 (Luo, Table 2)",
    )


SHOWN_P = [
        (0.05049, (0.05,), "0.0505"), (0.0505, (0.05,), "0.051"), (0.0496, (0.05,), "0.050"), (0.05, (0.05,), "0.050"),
        (0.05000001, (0.05,), "0.05000001"), (0.01666, (0.05, 0.05 / 3), "0.01666"), (0.0004, (0.05,), "<0.001"),
        (0.25, (), "0.250"), (None, (), ""),
    ]  # fmt: skip


def test_p_is_not_rounded_over_a_level() -> None:
    for value, levels, shown in SHOWN_P:
        assert shown_p(value, levels) == shown
