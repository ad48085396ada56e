"""Tables as Markdown, LaTeX and on the terminal: read back, they have the same texts."""

import io
import re
from dataclasses import replace

from rich.console import Console

from srp_exp.commands.listing import print_table
from srp_exp.studies.reports.table_formats import escape_latex, escape_markdown, latex, markdown, spans
from srp_exp.studies.reports.tables import Table, TableCell

TABLE = Table(
    title="Results",
    caption="Accuracy (%) of a_b",
    header=(("", "50% & more", "50% & more", "_x_"), ("method", "a|b", "c_d", "{e}")),
    labels=1,
    rows=(
        (
            TableCell("srp.last=0.5"),
            TableCell("98.30 ± 0.12", "(n=3)", True),
            TableCell("-0.50"),
            TableCell("[+0.1, -2]", "(n=3)"),
        ),
        (TableCell("#1 ~ ^ \\ $"), TableCell("<0.001"), TableCell("wrn-28-10*"), TableCell("")),
    ),
    notes=("Source: A & B",),
)


def test_neighbours_are_one_heading_except_in_the_last_row() -> None:
    header = (("", "a", "a", "b", "b"), ("", "x", "x", "x", "y"), ("m", "1", "1", "1", "1"))
    assert spans(header, 0) == [("", 1), ("a", 2), ("b", 2)]
    assert spans(header, 1) == [("", 1), ("x", 2), ("x", 1), ("y", 1)]
    assert spans(header, 2) == [("m", 1), ("1", 1), ("1", 1), ("1", 1), ("1", 1)]


def read_markdown(text: str) -> list[list[str]]:
    """The cells of a pipe table, without its rule, with escapes undone."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    cells = [re.split(r"(?<!\\) ?\|", line)[1:-1] for line in lines]
    return [[re.sub(r"\\(.)", r"\1", cell.strip()) for cell in row] for row in [cells[0], *cells[2:]]]


def test_markdown_read_back() -> None:
    text = markdown(TABLE)
    assert read_markdown(text) == [
        ["method", "50% & more / a|b", "50% & more / c_d", "_x_ / {e}"],
        ["srp.last=0.5", "**98.30 ± 0.12** (n=3)", "-0.50", "[+0.1, -2] (n=3)"],
        ["#1 ~ ^ \\ $", "<0.001", "wrn-28-10*", ""],
    ]
    assert text.startswith("Accuracy (%) of a_b\n\n|")
    assert "\n\n[1] Source: A & B" in text
    assert "| --- | ---: | ---: | ---: |" in text


IN_MARKDOWN = [
    ("_y_ a_b", r"\_y\_ a_b"),
    ("~~s~~", r"\~\~s\~\~"),
    ("[l](http://x) [1, 2]", r"[l\](http://x) [1, 2]"),
    ("&lt;b&gt; A & B", r"\&lt;b\&gt; A & B"),
    ("two\nlines", "two lines"),
]


def test_what_markdown_would_read_as_its_own_is_escaped() -> None:
    for text, escaped in IN_MARKDOWN:
        assert escape_markdown(text) == escaped


def test_a_row_of_latex_that_begins_with_a_star_keeps_it() -> None:
    row = (TableCell("*SE*"), *TABLE.rows[0][1:])
    text = latex(replace(TABLE, rows=(TABLE.rows[0], row)), "tab:a")
    assert "\n{}*SE* &" in text  # \\\\ before a star is another command


def test_latex_has_the_structure_of_a_booktabs_table() -> None:
    text = latex(TABLE, "tab:a")
    assert re.findall(r"\\(begin|end)\{(\w+)\}", text) == [
        ("begin", "table"), ("begin", "tabular"), ("end", "tabular"), ("end", "table"),
    ]  # fmt: skip
    assert [text.count(rf"\{rule}") for rule in ("toprule", "midrule", "bottomrule")] == [1, 1, 1]
    assert r"\begin{tabular}{lrrr}" in text
    assert r" & \multicolumn{2}{c}{50\% \& more} & \_x\_ \\\cmidrule(lr){2-3}\cmidrule(lr){4-4}" in text
    assert r"srp.last=0.5 & \textbf{98.30 $\pm$ 0.12} {\scriptsize (n=3)} & $-$0.50 &" in text
    assert r"\label{tab:a}" in text
    body = text[text.index(r"\midrule") : text.index(r"\bottomrule")]
    assert [len(re.findall(r"(?<!\\)&", line)) for line in body.splitlines()[1:]] == [3, 3]


def test_latex_is_balanced_and_leaves_nothing_special() -> None:
    text = latex(TABLE, "tab:a")
    plain = re.sub(r"\\[\\{}$&#%_]", "", text)  # without escaped characters
    assert plain.count("{") == plain.count("}")
    assert plain.count("$") % 2 == 0
    assert not set("#%_~^<>±") & set(re.sub(r"\$[<>]\$", "", plain))


IN_LATEX = [
    ("+0.42", "$+$0.42"),
    ("[-0.1, +2]", "[$-$0.1, $+$2]"),
    ("wrn-28-10", "wrn-28-10"),
    ("1e-05", "1e-05"),
    ("p <= 0.05 >= x < y", r"p $\leq$ 0.05 $\geq$ x $<$ y"),
    ("100 % & #1_a", r"100 \% \& \#1\_a"),
    ("\\{}~^$", r"\textbackslash{}\{\}\textasciitilde{}\textasciicircum{}\$"),
]


def test_escaped_for_latex() -> None:
    for text, escaped in IN_LATEX:
        assert escape_latex(text) == escaped


def test_a_note_of_all_values_goes_to_the_caption_in_latex() -> None:
    rows = ((TableCell("a"), TableCell("1", "(n=3)")), (TableCell("b"), TableCell("2", "(n=3)")))
    text = latex(Table("T", "Caption.", (("m", "v"),), 1, rows), "tab:t")
    assert r"\caption{Caption. (n=3)}" in text
    assert text.count("(n=3)") == 1


def test_the_terminal_shows_brackets_as_they_are() -> None:
    file = io.StringIO()
    print_table(TABLE, Console(file=file, width=200))
    shown = file.getvalue()
    for text in ("98.30 ± 0.12 (n=3)", "[+0.1, -2] (n=3)", "50% & more", "a|b", "[1] Source: A & B"):
        assert text in shown
