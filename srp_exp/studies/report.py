"""The report of a study, written in every format or printed on the terminal."""

from pathlib import Path

from rich.console import Console
from rich.text import Text

from srp_exp.files import write_atomically
from srp_exp.studies.contents import Contents, contents
from srp_exp.studies.csv_files import entries_csv, runs_csv
from srp_exp.studies.formats import escape_latex, escape_markdown, latex, markdown, print_table
from srp_exp.studies.page import page
from srp_exp.studies.results import StudyResults
from srp_exp.studies.verdict import Outcome

STYLES = {Outcome.supported: "green", Outcome.contradicted: "red", Outcome.undecided: "yellow"}


def write_report(results: StudyResults, folder: Path) -> list[Path]:
    """Write report.html, report.md, table.tex, table.csv and runs.csv to `folder`; return their paths.

    Everything is made before anything is written: a report that can't be made leaves the old one as it was.
    """
    made = contents(results)
    texts = {
        "report.html": page(made),
        "report.md": report_markdown(made),
        "table.tex": report_latex(made),
        "table.csv": entries_csv(results),
        "runs.csv": runs_csv(results),
    }
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        write_atomically(folder / name, text.encode())
    return [folder / name for name in texts]


def print_report(results: StudyResults, console: Console) -> None:
    """Print question, warnings, verdict, results and comparisons."""
    made = contents(results)
    console.print(Text(str(results.study["question"]), "bold"))
    for warning in results.warnings:
        console.print(Text(f"warning: {warning}", "yellow"))
    for table in filter(None, (made.main, made.comparisons)):
        print_table(table, console)
    console.print(Text(f"claim: {results.study['claim']}"))
    console.print(Text(made.summary, STYLES[made.verdict.outcome] if made.verdict else ""))


def report_markdown(made: Contents) -> str:
    """Question, warnings, verdict, all tables, and where they come from."""
    study = made.results.study
    warnings = "".join(f"> **Warning:** {escape_markdown(warning)}\n>\n" for warning in made.results.warnings)
    parts = [
        f"# {escape_markdown(study['question'])}\n",
        *([warnings.removesuffix(">\n")] if warnings else []),
        f"Study {escape_markdown(study['name'])}. Claim: {escape_markdown(study['claim'])}\n",
        f"**Verdict:** {escape_markdown(made.summary)}\n",
        *(f"## {table.title}\n\n{markdown(table)}" for table in made.tables),
        "## How to reproduce\n\n" + "".join(f"    {command}\n" for command in made.commands),
    ]
    if made.provenance:
        origins = (f"- {name}: {escape_markdown(value)}\n" for name, value in made.provenance.items())
        parts.append("## Where the results come from\n\n" + "".join(origins))
    return "\n".join(parts)


def report_latex(made: Contents) -> str:
    """All tables; a warning stands in a comment, and under the first table, so that it isn't overlooked in print."""
    warnings = made.results.warnings
    head = [r"% \usepackage{booktabs}", *(f"% Warning: {warning}" for warning in warnings)]
    tables = [latex(table, f"tab:{made.results.name}-{table.title.lower()}") for table in made.tables]
    visible = "".join(f"\\par\\footnotesize Warning: {escape_latex(warning)}\n" for warning in warnings)
    first, *others = tables
    marked = first.replace("\\end{table}\n", f"{visible}\\end{{table}}\n")
    return "\n".join(["\n".join(head) + "\n", marked, *others])
