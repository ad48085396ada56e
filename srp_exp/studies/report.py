"""The report of a study, written in every format or printed on the terminal."""

import csv
import io
import shlex
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig
from rich.console import Console
from rich.text import Text

from srp_exp.files import write_atomically
from srp_exp.studies.comparisons import compare
from srp_exp.studies.formats import escape_latex, escape_markdown, latex, markdown, print_table, spans
from srp_exp.studies.grid import METHOD, Grid
from srp_exp.studies.plots import plots
from srp_exp.studies.results import Entry, StudyResults, collect, counted
from srp_exp.studies.store import Run, State
from srp_exp.studies.tables import (
    Table,
    best,
    comparison_table,
    entries_table,
    parameters,
    published,
    results_table,
    summary,
)
from srp_exp.studies.verdict import Outcome, Verdict, conclude, judge

PACKAGES = ("torch", "timm", "torchvision")
"""Packages whose versions a report names."""

STYLES = {Outcome.supported: "green", Outcome.contradicted: "red", Outcome.undecided: "yellow"}


@dataclass(frozen=True)
class Contents:
    """A study's results with their tables. verdict: on the claim; None where the study compares nothing."""

    results: StudyResults
    verdict: Verdict | None
    main: Table
    comparisons: Table | None
    entries: Table

    @property
    def tables(self) -> tuple[Table, ...]:
        return tuple(table for table in (self.main, self.comparisons, self.entries) if table is not None)

    @property
    def summary(self) -> str:
        """The verdict in one line."""
        if self.verdict is None:
            return "The study compares nothing, so there is no verdict."
        preliminary = " (preliminary)" if self.verdict.preliminary else ""
        return f"{self.verdict.outcome.value}{preliminary}: {self.verdict.reason}"

    @property
    def runs(self) -> list[tuple[str, str, int, Run]]:
        """(method, cell, seed, run) of every planned run, in the order of the grid."""
        return [
            (entry.method, ", ".join(f"{axis}={value}" for axis, value in entry.cell), seed, run)
            for entry in self.results.entries
            for seed, run in entry.runs.items()
        ]

    @property
    def commands(self) -> tuple[str, str]:
        """What trains the runs of the study that are not finished, and what writes the report anew."""
        arguments = shlex.join([f"study={self.results.name}", *self.results.fixed])
        return f"srp-exp {arguments}", f"srp-report {arguments}"

    @property
    def provenance(self) -> dict[str, str]:
        """From what the finished runs come: commits, versions, devices, each with the number of its runs."""
        runs = {run.folder: run for *_, run in self.runs if run.state == State.finished}.values()
        origins = {
            "commit (+: uncommitted changes)": Counter(commit_of(run) for run in runs),
            **{name: Counter(run.provenance["packages"].get(name, "unknown") for run in runs) for name in PACKAGES},
            "Python": Counter(run.provenance["python"] for run in runs),
            "device": Counter(run.provenance["device"] for run in runs),
            "threads": Counter(str(run.provenance["threads"]) for run in runs),
        }
        return {name: counted(counts) for name, counts in origins.items() if counts}


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


def contents(results: StudyResults) -> Contents:
    compared = compare(results)
    verdicts = [judge(result, len(compared)) for result in compared]
    return Contents(
        results,
        conclude(compared) if compared else None,
        results_table(results),
        comparison_table(results, compared, verdicts),
        entries_table(results),
    )


def commit_of(run: Run) -> str:
    """Commit of a finished run, with a + where there were uncommitted changes; empty where none is known."""
    if run.state != State.finished:
        return ""
    commit = (run.provenance["commit"] or "unknown")[:10]
    return f"{commit}+" if run.provenance["diff"] else commit


def entries_csv(results: StudyResults) -> str:
    """A line for every entry: its statistics over the seeds, and what is published."""
    bests, warnings = best(results), "; ".join(results.warnings)
    lines = []
    for entry in results.entries:
        values, numbers = summary(entry), published(results, entry)
        lines.append(
            {
                **_place(entry),
                "metric": results.study["metric"],
                "mean": values and values.mean,
                "sd": values and values.sd,
                "n": len(entry.values),
                "planned": len(entry.runs),
                "low": values and values.low,
                "high": values and values.high,
                "best": int((entry.method, entry.cell) in bests),
                "parameters": parameters(entry).replace(",", ""),
                "published": "; ".join(str(number["value"]) for number in numbers),
                "source": "; ".join(number["source"] for number in numbers),
                "warnings": warnings,
            }
        )
    return _csv(lines)


def runs_csv(results: StudyResults) -> str:
    """A line for every planned run: its state, the metrics of the test split, and where it comes from."""
    runs = [run for entry in results.entries for run in entry.runs.values()]
    named = [results.study["metric"], *(c["metric"] for c in results.study["comparisons"] if c["metric"])]
    metrics = dict.fromkeys([*named, *(name for run in runs if _finished(run) for name in run.results["test"])])
    return _csv(
        {
            **_place(entry),
            "seed": seed,
            "state": run.state.value,
            **{metric: run.value(metric) if _finished(run) else None for metric in metrics},
            **_origin(run),
            "folder": str(run.folder),
            "failure": run.failure,
            "warnings": "; ".join(results.warnings),
        }
        for entry in results.entries
        for seed, run in entry.runs.items()
    )


def _place(entry: Entry) -> dict[str, Any]:
    return {METHOD: entry.method, **dict(entry.cell)}


def _origin(run: Run) -> dict[str, Any]:
    names = ("parameters", "training_seconds", "commit", "torch", "device")
    if not _finished(run):
        return dict.fromkeys(names)
    results, origin = run.results, run.provenance
    values = (results.get("parameters"), results.get("training_seconds"), commit_of(run))
    return dict(zip(names, (*values, origin["packages"].get("torch"), origin["device"]), strict=True))


def _finished(run: Run) -> bool:
    return run.state == State.finished


def _csv(lines: Iterable[dict[str, Any]]) -> str:
    rows = list(lines)
    text = io.StringIO()
    writer = csv.DictWriter(text, rows[0] if rows else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


TEMPLATE = "page.html.jinja"


def page(contents: Contents) -> str:
    """The whole page, as a self-contained HTML document."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    loader = FileSystemLoader(Path(__file__).parent)
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["svg"] = Markup  # the pictures are our own and escape what they show
    environment.globals.update(spans=spans, commit_of=commit_of)
    return environment.get_template(TEMPLATE).render(
        contents=contents,
        study=contents.results.study,
        plots=plots(contents.results),
    )


def show_report(grid: Grid, config: DictConfig, console: Console) -> None:
    """Print the report of a study, and write it."""
    results = collect(grid, config.study)
    print_report(results, console)
    folder = Path(config.output_dir) / "reports" / config.study.name
    for path in write_report(results, folder):
        console.print(f"wrote {path}", markup=False, highlight=False, soft_wrap=True)
