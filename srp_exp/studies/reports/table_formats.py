"""A table as Markdown, and as LaTeX with booktabs."""

import itertools
import re

from srp_exp.config.visible import visible
from srp_exp.studies.reports.tables import Table, TableCell

LATEX = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#", "%": r"\%", "_": r"\_",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": "$<$", ">": "$>$", "±": r"$\pm$",
    "<=": r"$\leq$", ">=": r"$\geq$",
}  # fmt: skip

LONGEST_LABEL, LINE = 40, 64
"""Characters of a label that isn't broken, and of a line of an article, in LaTeX."""


def spans(header: tuple[tuple[str, ...], ...], level: int) -> list[tuple[str, int]]:
    """(heading, number of columns) of one row of a header; neighbours equal down to this level are one heading.

    The last row has a heading for every column.
    """
    last = level == len(header) - 1
    paths = list(zip(*header[: level + 1], strict=True))
    groups = itertools.groupby(enumerate(paths), key=lambda place: (place[1], place[0] if last else 0))
    return [(path[-1], len(list(columns))) for (path, _), columns in groups]


def markdown(table: Table) -> str:
    """A pipe table, its caption above and its footnotes below; the levels of the header are joined."""
    header = [" / ".join(filter(None, column)) for column in zip(*table.header, strict=True)]
    rule = ["---" if place < table.labels else "---:" for place in range(len(header))]
    rows = [[_markdown_cell(cell) for cell in row] for row in table.rows]
    lines = [f"| {' | '.join(row)} |" for row in [list(map(escape_markdown, header)), rule, *rows]]
    notes = "".join(f"\n[{number}] {escape_markdown(note)}  " for number, note in enumerate(table.notes, 1))
    return f"{escape_markdown(table.caption)}\n\n" + "\n".join(lines) + "\n" + notes + ("\n" if notes else "")


def escape_markdown(text: str) -> str:
    """Text for Markdown: nothing of it is a tag, a link, an entity or emphasis, and it stays in its row."""
    return re.sub(r"([\\`*<|~]|\b_\B|\B_\b|\](?=[(\[])|&(?=#?\w+;))", r"\\\1", visible(text).replace("\n", " "))


def latex(table: Table, label: str) -> str:
    """A table environment for a document that uses the packages booktabs and graphicx.

    A note that all values share goes to the caption. Long labels are broken, what is wider than a line is made smaller.
    """
    notes = {cell.note for row in table.rows for cell in row[table.labels :] if cell.text}
    shared = next(iter(notes)) if len(notes) == 1 else ""
    texts = [table.header[-1], *([f"{c.text} {c.note}" for c in row] for row in table.rows)]
    widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
    first = "l" if widths[0] <= LONGEST_LABEL else rf"p{{{LONGEST_LABEL / 2:g}em}}"
    chars = sum(widths) - max(0, widths[0] - LONGEST_LABEL) + 2 * len(widths)  # with the gaps
    fit = (r"\resizebox{\linewidth}{!}{", "}") if chars > LINE else ()
    body = [" & ".join(_latex_cell(cell, shared) for cell in row) for row in table.rows]
    foot = [rf"\par\footnotesize [{number}] {escape_latex(note)}" for number, note in enumerate(table.notes, 1)]
    lines = [
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{escape_latex(f'{table.caption} {shared}'.strip())}}}",
        rf"\label{{{label}}}",
        *fit[:1],
        rf"\begin{{tabular}}{{{first}{'l' * (table.labels - 1)}{'r' * (len(widths) - table.labels)}}}",
        r"\toprule",
        *_latex_header(table),
        r"\midrule",
        # What begins like an option would be one of the rule or row above.
        *(rf"{'{}' * row.startswith(('[', '*'))}{row} \\" for row in body),
        r"\bottomrule",
        r"\end{tabular}",
        *fit[1:],
        *foot,
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


def escape_latex(text: str) -> str:
    """Text for LaTeX; signs of numbers become mathematical ones."""
    escaped = re.sub(r"[<>]=|.", lambda found: LATEX.get(found[0], found[0]), visible(text).replace("\n", " "))
    return re.sub(r"(?<![\w.$])([+-])(?=\d)", r"$\1$", escaped)


def _note(cell: TableCell) -> str:
    return f" {cell.note}" if cell.note else ""


def _markdown_cell(cell: TableCell) -> str:
    text = escape_markdown(cell.text)
    return (f"**{text}**" if cell.bold else text) + escape_markdown(_note(cell))


def _latex_cell(cell: TableCell, shared: str) -> str:
    text = escape_latex(cell.text)
    note = "" if cell.note in ("", shared) else rf" {{\scriptsize {escape_latex(cell.note)}}}"
    return (rf"\textbf{{{text}}}" if cell.bold else text) + note


def _latex_header(table: Table) -> list[str]:
    lines = []
    for level in range(len(table.header)):
        headings, rules, column = [], [], 1
        for heading, width in spans(table.header, level):
            text = escape_latex(heading)
            headings.append(text if width == 1 else rf"\multicolumn{{{width}}}{{c}}{{{text}}}")
            if heading and level < len(table.header) - 1:
                rules.append(rf"\cmidrule(lr){{{column}-{column + width - 1}}}")
            column += width
        lines.append(" & ".join(headings) + r" \\" + "".join(rules))
    return lines
