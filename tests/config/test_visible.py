"""Names that would steer a terminal, a page, a table or a spreadsheet are shown as text."""

import io
import logging

import pandas as pd
import pytest

from srp_exp.config.failures.explain import explain
from srp_exp.config.visible import visible, visible_cell
from srp_exp.errors import UserError
from srp_exp.studies.reports import csv_rows as values
from srp_exp.studies.reports import report
from srp_exp.studies.reports import table_formats as formats
from srp_exp.training.reporting.logs import Terminal, log_to

RED = "\x1b[31mred\x1b[0m\x1b]0;title\x07\x9b2J"
SHOWN = r"\x1b[31mred\x1b[0m\x1b]0;title\x07\x9b2J"


def test_what_acts_is_spelled_out() -> None:
    for text, shown in (
        (RED, SHOWN),
        ("a\u202egnp.exe", r"a\u202egnp.exe"),
        ("a\rb\x08\x7f\x00", r"a\x0db\x08\x7f\x00"),
        ("caf\udce9", r"caf\xe9"),  # a name of a file in latin-1, as Python reads it
        ("Käfer 虫 🐞 a\tb\nc", "Käfer 虫 🐞 a\tb\nc"),
        (r"\x1b", r"\x1b"),
    ):
        assert visible(text) == visible(shown) == shown
        visible(text).encode()


def test_a_cell_is_no_formula() -> None:
    for text, shown in (
        ("=1+1", "'=1+1"), ("@SUM(A1)", "'@SUM(A1)"), ("+cmd|' /C calc'!A0", "'+cmd|' /C calc'!A0"), ("-x", "'-x"),
        ("\t=1", "' =1"), ("  =1", "'  =1"), ("a\n=1", "a =1"), ("-0.5", "-0.5"), ("+1e-3", "+1e-3"), ("a=b", "a=b"),
    ):  # fmt: skip
        assert visible_cell(text) == shown


def test_errors_logs_and_tables_on_the_terminal(tmp_path) -> None:
    assert SHOWN in explain(UserError(f"dataset.name={RED}: no"))
    console = Terminal(file=io.StringIO(), force_terminal=True, width=200, markup=False, highlight=False)
    console.print(f"run {RED}", style="bold")
    printed = console.file.getvalue()
    assert r"\x1b[31mred\x1b[0m\x1b]0;title" in printed and printed.startswith(
        "\x1b[1m"
    )  # a style is the console's own
    with log_to(tmp_path):
        logging.getLogger("srp_exp").warning("class %s", RED)
    assert SHOWN in (tmp_path / "run.log").read_text()
    assert "\x1b" not in (tmp_path / "run.log").read_text()


def test_reports(monkeypatch) -> None:
    assert formats.escape_markdown("\x1b[1m\na") == r"\x1b[1m a".replace("\\", "\\\\")
    assert formats.escape_latex("\x1b[1m\n%x") == r"\textbackslash{}x1b[1m \%x"
    assert report._shown("\x1b<b>") == r"\x1b<b>"
    text = values.csv([{"=name": "=1+1", "b": -1.5, "c": RED, "d": None}])
    assert pd.read_csv(io.StringIO(text)).to_dict("records") == [
        {"'=name": "'=1+1", "b": -1.5, "c": SHOWN, "d": pytest.approx(float("nan"), nan_ok=True)}
    ]
