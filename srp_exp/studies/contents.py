"""What the report of a study contains, before it gets a format."""

import shlex
from collections import Counter
from dataclasses import dataclass

from srp_exp.studies.comparison_table import comparison_table
from srp_exp.studies.comparisons import compare
from srp_exp.studies.results import StudyResults, counted
from srp_exp.studies.store import Run, State
from srp_exp.studies.tables import Table, entries_table, results_table
from srp_exp.studies.verdict import Verdict, conclude, judge

PACKAGES = ("torch", "timm", "torchvision")
"""Packages whose versions a report names."""


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
