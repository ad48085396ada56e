"""The report of a study, written in every format or printed on the terminal."""

import json
import shlex
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig
from rich.console import Console
from rich.text import Text

from srp_exp.config.identity import output_folder
from srp_exp.config.visible import visible, visible_cell
from srp_exp.files import write_together
from srp_exp.runs.store import Run
from srp_exp.studies.formats import escape_latex, escape_markdown, latex, markdown, print_table, spans
from srp_exp.studies.grid import Grid
from srp_exp.studies.measured import Measured, measure
from srp_exp.studies.pairs import statements
from srp_exp.studies.plots import Plot, plots
from srp_exp.studies.results import StudyResults, collect, counted, origins
from srp_exp.studies.tables import Table, cell_name, comparison_table, entries_table, results_table, shared_pairs
from srp_exp.studies.values import comparison_values, csv, entry_values, run_values
from srp_exp.studies.verdict import Outcome, Verdict, conclude, judge

STYLES = {Outcome.supported: "green", Outcome.contradicted: "red"}

TEMPLATE = "page.html.jinja"


@dataclass(frozen=True)
class Contents:
    """A study's results with its statements, their verdicts, and that on the claim."""

    results: StudyResults
    measured: list[Measured]
    verdicts: list[Verdict]
    verdict: Verdict

    @property
    def tables(self) -> list[Table]:
        compared = comparison_table(self.measured, self.verdicts)
        return [results_table(self.results), *([compared] if compared else []), entries_table(self.results)]

    @property
    def outcome(self) -> str:
        """Such as "supported (quick form, preliminary)"."""
        study = self.results.study
        marks = [name for name, on in (("quick form", study["quick"]), ("pilot", study["pilot"])) if on]
        marks += ["preliminary"] * self.verdict.preliminary
        return self.verdict.outcome.label + (f" ({', '.join(marks)})" if marks else "")

    @property
    def reason(self) -> str:
        """Why, in one line."""
        quick = self.results.study["quick"]
        return f"{self.verdict.reason}{f' Quick form: {quick}.' if quick else ''}"

    @property
    def runs(self) -> list[tuple[str, str, int, Run]]:
        """(method, cell, seed, run) of every planned run, in the order of the grid; of the cell what tells it apart."""
        shared = shared_pairs(self.results.cells)
        return [
            (entry.method, cell_name(entry.cell, without=shared), seed, run)
            for entry in self.results.entries
            for seed, run in entry.runs.items()
        ]

    @property
    def commands(self) -> list[str]:
        """What trains the runs of the study that are not finished, and what writes the report anew."""
        return [shlex.join([program, *self.results.arguments]) for program in ("srp-exp", "srp-report")]

    @property
    def provenance(self) -> dict[str, str]:
        """From what the finished runs come: commits, versions, devices, each with the number of its runs."""
        runs = {run.folder: run for *_, run in self.runs if run.is_finished}.values()
        return {name: counted(counts) for name, counts in origins(runs).items()} | training_time(runs)


def training_time(runs: Iterable[Run]) -> dict[str, str]:
    """What the finished runs took: GPU-hours, or hours of a processor's cores (processes times threads).

    "at least" where one was interrupted: results.json has the seconds of its last start.
    """
    hours: dict[str, float] = defaultdict(float)
    runs = list(runs)
    for run in runs:
        origin, on_gpu = run.provenance, run.provenance.get("cudnn") is not None
        devices = origin["processes"] * (1 if on_gpu else origin["threads"])
        hours["GPU-hours" if on_gpu else "core-hours"] += devices * run.results["training_seconds"] / 3600
    took = ", ".join(f"{count:.2f} {unit}" for unit, count in hours.items())
    interrupted = any(len(run.starts) > 1 for run in runs)
    return {"training": f"at least {took}" if interrupted else took} if took else {}


def contents(results: StudyResults) -> Contents:
    measured = measure(statements(results.study, results.runs))
    verdicts = [judge(statement) for statement in measured]
    return Contents(results, measured, verdicts, conclude(measured, verdicts))


def show_report(grid: Grid, config: DictConfig, console: Console) -> None:
    """Print the report of a study, and write it to <output_dir>/reports/<study and what the command line changed>."""
    made = contents(collect(grid, config.study))
    print_report(made, console)
    reports = output_folder(config) / "reports"
    for path in write_report(made, reports / f"{config.study.name}{grid.variant}"):
        console.print(f"wrote {path}", markup=False, highlight=False, soft_wrap=True)


def write_report(made: Contents, folder: Path) -> list[Path]:
    """Write the report to `folder`: a page, Markdown, LaTeX, CSV, JSON, and its figures; return the paths.

    The same runs give the same bytes. Everything is made before anything is written: a report that can't be made
    leaves the old one as it was, and where report.md exists the files are of one report.
    """
    results, comparisons = made.results, comparison_values(made.measured, made.verdicts)
    verdict = {"study": results.name, "claim": results.study["claim"], "verdict": made.outcome, "reason": made.reason}
    decided = {**verdict, "seeds": made.verdict.seeds, "statements": comparisons}
    drawn = plots(results, made.measured)
    texts: Mapping[str, str | bytes] = {
        "report.html": page(made, drawn),
        "report.md": report_markdown(made, drawn),
        "tables.tex": report_latex(made),
        "entries.csv": csv(entry_values(results)),
        "comparisons.csv": csv(comparisons),
        "verdict.json": json.dumps(decided, indent=1) + "\n",
        "runs.csv": csv(run_values(results)),
        **{name: file for plot in drawn for panel in plot.panels for name, file in panel.files().items()},
    }
    folder.mkdir(parents=True, exist_ok=True)
    files = {name: text.encode() if isinstance(text, str) else text for name, text in texts.items()}
    write_together(folder, dict(sorted(files.items(), key=lambda file: file[0] == "report.md")))  # which is the last
    return [folder / name for name in texts]


def print_report(made: Contents, console: Console) -> None:
    """Print question, warnings, results, comparisons and verdict."""
    console.print(Text(str(made.results.study["question"]), "bold"))
    for warning in made.results.warnings:
        console.print(Text(f"warning: {warning}", "yellow"))
    for table in made.tables[:-1]:
        print_table(table, console)
    console.print(Text(f"claim: {made.results.study['claim']}"))
    console.print(Text(f"{made.outcome}: {made.reason}", STYLES.get(made.verdict.outcome, "yellow")))


def report_markdown(made: Contents, drawn: list[Plot]) -> str:
    """Question, warnings, verdict with the plot that it rests on, all tables, and where they come from."""
    study = made.results.study
    warnings = "".join(f"> **Warning:** {escape_markdown(warning)}\n>\n" for warning in made.results.warnings)
    parts = [
        f"# {escape_markdown(study['question'])}\n",
        *([warnings.removesuffix(">\n")] if warnings else []),
        f"Study {escape_markdown(study['name'])}. Claim: {escape_markdown(study['claim'])}\n",
        f"**Verdict:** {escape_markdown(f'{made.outcome}: {made.reason}')}\n",
        *(f"![{escape_markdown(panel.described)}]({panel.name}.png)\n" for plot in drawn[:1] for panel in plot.panels),
        *(f"## {table.title}\n\n{markdown(table)}" for table in made.tables),
        "## How to reproduce\n\n" + "".join(f"    {visible_cell(command)}\n" for command in made.commands),
    ]
    if made.provenance:
        origins = (f"- {name}: {escape_markdown(value)}\n" for name, value in made.provenance.items())
        parts.append("## Where the results come from\n\n" + "".join(origins))
    return "\n".join(parts)


def report_latex(made: Contents) -> str:
    """All tables; a warning stands in a comment, and under the first table, so that it isn't overlooked in print."""
    warnings = made.results.warnings
    head = [r"% \usepackage{booktabs,graphicx}", *(f"% Warning: {visible_cell(warning)}" for warning in warnings)]
    tables = [latex(table, f"tab:{made.results.name}-{table.title.lower()}") for table in made.tables]
    visible = "".join(f"\\par\\footnotesize Warning: {escape_latex(warning)}\n" for warning in warnings)
    first, *others = tables
    marked = first.replace("\\end{table}\n", f"{visible}\\end{{table}}\n")
    return "\n".join(["\n".join(head) + "\n", marked, *others])


def _shown(value: Any) -> Any:
    """What a page shows of a value: markup of our own as it is."""
    return visible(value) if type(value) is str else value


def page(made: Contents, drawn: list[Plot]) -> str:
    """One HTML page: readable in light and dark, on a phone, without a network or a script."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    loader = FileSystemLoader(Path(__file__).parent)
    options: dict[str, Any] = {"trim_blocks": True, "lstrip_blocks": True}
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, finalize=_shown, **options)
    environment.filters["svg"] = Markup  # the pictures are our own and escape what they show
    environment.globals.update(spans=spans)
    values: dict[str, Any] = {"contents": made, "study": made.results.study}
    return environment.get_template(TEMPLATE).render(**values, plots=drawn)
