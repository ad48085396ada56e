"""The report of a study, in every format."""

import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from srp_exp.config.visible import visible, visible_cell
from srp_exp.files import write_together
from srp_exp.runs.folder.origins import counted, origins, training_time
from srp_exp.runs.folder.store import Run, State
from srp_exp.studies.measured import Measured, measure_statements
from srp_exp.studies.pairs import statements
from srp_exp.studies.reports.csv_rows import comparison_values, csv, entry_values, run_values
from srp_exp.studies.reports.plots import Plot, plots
from srp_exp.studies.reports.table_formats import escape_latex, escape_markdown, latex, markdown, spans
from srp_exp.studies.reports.tables import Table, cell_name, comparison_table, results_table, shared_pairs
from srp_exp.studies.results import StudyResults
from srp_exp.studies.verdict import Outcome, Verdict, conclude, judge, walk_looks

TEMPLATE = "page.html.jinja"


@dataclass(frozen=True)
class Contents:
    """A study's results with its statements, their verdicts, and that on the claim. look: "look 2 of 5", or empty."""

    results: StudyResults
    measured: list[Measured]
    verdicts: list[Verdict]
    verdict: Verdict
    look: str = ""

    @property
    def tables(self) -> list[Table]:
        compared = comparison_table(self.measured, self.verdicts)
        return [results_table(self.results), *([compared] if compared else [])]

    @property
    def failed(self) -> list[str]:
        runs = [run for entry in self.results.entries for run in entry.runs.values()]
        return sorted({run.folder.name for run in runs if run.state == State.failed})

    @property
    def marks(self) -> list[str]:
        """What stands beside the verdict wherever it is said."""
        results = self.results
        marks = [name for name, on in (("quick form", results.study["quick"]), ("pilot", results.study["pilot"])) if on]
        marks += [self.look] * bool(self.look)
        marks += [f"changed: {' '.join(results.changed)}"] * bool(results.changed)
        marks += [f"{results.left_out} finished runs of other seeds left out"] * bool(results.left_out)
        marks += [f"{len(results.excluded)} excluded"] * bool(results.excluded)
        return marks + ["preliminary"] * self.verdict.preliminary

    @property
    def outcome(self) -> str:
        """Such as "supported (quick form, preliminary)"."""
        return self.verdict.outcome.label + (f" ({', '.join(self.marks)})" if self.marks else "")

    @property
    def reason(self) -> str:
        """Why, in one line."""
        quick = self.results.study["quick"]
        parts = [self.verdict.reason, *([f"Quick form: {quick}."] if quick else [])]
        parts += [f"Excluded: {one}." for one in self.results.excluded]
        if self.failed:
            parts.append(
                f"Failed: {', '.join(self.failed)}; the same command tries again, or study.exclude leaves it out."
            )
        return " ".join(parts)

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
        return {**self.results.trained, **{n: counted(c) for n, c in origins(runs).items()}, **training_time(runs)}


def contents(results: StudyResults) -> Contents:
    """Look after look, until the claim is decided; every statement as it was when it was decided, or as it is now."""
    looks, lacking = results.study["looks"], ", ".join(results.lacking)
    of_looks = measure_statements(statements(results.study, results.runs), looks)
    if not of_looks[0]:
        return Contents(results, [], [], conclude([], []))
    walked = walk_looks(of_looks, max(1, len(looks)), bool(lacking))
    measured = [of_looks[int(look)][place] for place, look in enumerate(walked.looks)]
    verdicts = [
        judge(of, Outcome(int(outcome)), f"look {int(look) + 1} of {len(looks)}" if looks else "")
        for of, outcome, look in zip(measured, walked.outcomes, walked.looks, strict=True)
    ]
    verdict = conclude(measured, verdicts, Outcome(int(walked.claim)), lacking)
    return Contents(
        results, measured, verdicts, verdict, f"look {int(walked.look) + 1} of {len(looks)}" if looks else ""
    )


def due(results: StudyResults, look: int) -> set[str]:
    """The methods whose runs up to this look (from 0) are needed: of statements that the looks before left open."""
    found = statements(results.study, results.runs)
    of_looks = measure_statements(found, results.study["looks"])[:look]
    if not of_looks or not found:
        return {entry.method for entry in results.entries}
    walked = walk_looks(of_looks, len(results.study["looks"]), bool(results.lacking))
    going = walked.claim == Outcome.undecided
    is_open = [going and outcome == Outcome.undecided for outcome in walked.outcomes]
    return {
        name for s, wanted in zip(found, is_open, strict=True) if wanted for name in (s.method, s.baseline, *s.beyond)
    }


def write_report(made: Contents, folder: Path, power: Table | None = None) -> list[Path]:
    """Write the report to `folder`: a page (with its `power`), Markdown, LaTeX, CSV, JSON, figures; return the paths.

    The same runs give the same bytes. Everything is made before anything is written: a report that can't be made
    leaves the old one as it was, and where report.md exists the files are of one report.
    """
    results = made.results
    comparisons = comparison_values(made.measured, made.verdicts, "; ".join(made.marks), "; ".join(results.warnings))
    verdict = {"study": results.name, "claim": results.study["claim"], "verdict": made.verdict.outcome.label}
    marks = {"marks": made.marks, "warnings": results.warnings, "excluded": results.excluded, "failed": made.failed}
    decided = {**verdict, "reason": made.reason, **marks, "statements": comparisons}
    drawn = plots(results, made.measured)
    texts: Mapping[str, str | bytes] = {
        "report.html": page(made, drawn, power),
        "report.md": report_markdown(made, drawn),
        "tables.tex": report_latex(made),
        "entries.csv": csv(entry_values(results)),
        "comparisons.csv": csv(comparisons),
        "verdict.json": json.dumps(decided, indent=1) + "\n",
        "runs.csv": csv(run_values(results)),
        **({"study.yaml": results.file} if results.file else {}),
        **{name: file for plot in drawn for panel in plot.panels for name, file in panel.files().items()},
    }
    folder.mkdir(parents=True, exist_ok=True)
    files = {name: text.encode() if isinstance(text, str) else text for name, text in texts.items()}
    write_together(folder, dict(sorted(files.items(), key=lambda file: file[0] == "report.md")))  # which is the last
    return [folder / name for name in texts]


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
    if made.results.file:
        lines = (f"    {visible(line)}".rstrip() + "\n" for line in made.results.file.splitlines())
        parts.append("## The study's file\n\n" + "".join(lines))
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


def page(made: Contents, drawn: list[Plot], power: Table | None = None) -> str:
    """One HTML page: readable in light and dark, on a phone, without a network or a script."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    loader = FileSystemLoader(Path(__file__).parent)
    options: dict[str, Any] = {"trim_blocks": True, "lstrip_blocks": True}
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, finalize=_shown, **options)
    environment.filters["svg"] = Markup  # the pictures are our own and escape what they show
    environment.globals.update(spans=spans)
    values: dict[str, Any] = {"contents": made, "study": made.results.study}
    return environment.get_template(TEMPLATE).render(**values, plots=drawn, power=power)
