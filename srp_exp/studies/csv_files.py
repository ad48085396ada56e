"""A study as CSV, in full precision and the unit of results.json: one file of its entries, one of its runs.

The last column of both says why lines may not be comparable (StudyResults.warnings); a comment would break readers.
"""

import csv
import io
from collections.abc import Iterable
from typing import Any

from srp_exp.studies.contents import commit_of
from srp_exp.studies.results import METHOD, Entry, StudyResults
from srp_exp.studies.store import Run, State
from srp_exp.studies.tables import best, parameters, published, summary


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
