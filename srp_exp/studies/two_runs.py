"""Two finished runs side by side, from what lies in their folders."""

import json
from collections.abc import Iterator

from rich.console import Console
from rich.table import Table

from srp_exp.runs.folder import reading
from srp_exp.studies.comparisons import compare_predictions
from srp_exp.studies.store import Run

_UNLIKE = frozenset({"output_dir", "data_root", "progress", "mode", "run", "other"})
"""Settings of the machine, in which two runs may differ without being different."""


def print_comparison(first: Run, second: Run, console: Console) -> None:
    """Print in what two runs differ: settings, origin, metrics and measures, and which images one alone has right."""
    settings = _table("setting", first, second)
    one, two = first.settings, second.settings
    for name in sorted({*one, *two} - _UNLIKE):
        if one.get(name) != two.get(name) and not name.endswith("_target_"):
            settings.add_row(name, one.get(name, "-"), two.get(name, "-"))
    for name in ("commit", "device", "host"):
        if first.provenance.get(name) != second.provenance.get(name):
            settings.add_row(name, str(first.provenance.get(name))[:40], str(second.provenance.get(name))[:40])
    console.print(settings)
    console.print()
    metrics = _table("metric", first, second, "difference")
    measured, other = dict(_measures(first)), dict(_measures(second))
    for name in dict.fromkeys([*measured, *other]):
        a, b = measured.get(name), other.get(name)
        difference = f"{b - a:+.4g}" if a is not None and b is not None else ""
        metrics.add_row(name, *("-" if v is None else f"{v:.6g}" for v in (a, b)), difference)
    console.print(metrics)
    if first.config["dataset"]["name"] != second.config["dataset"]["name"]:
        console.print("the predictions are of different data sets")
        return
    test = compare_predictions(first.folder, second.folder)
    if test is not None:
        console.print(
            f"right on one side only: {test.only_a} and {test.only_b} images; McNemar's exact test p = {test.p:.3g}"
        )


def _table(heading: str, first: Run, second: Run, *more: str) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column(heading)
    for name in (first.folder.name, second.folder.name, *more):
        table.add_column(name, overflow="fold")
    return table


def _measures(run: Run) -> Iterator[tuple[str, float]]:
    """Metrics of the test split, size and time, and what evaluators measured."""
    yield from run.results["test"].items()
    for name in ("parameters", "training_seconds", "epoch"):
        if name in run.results:
            yield name, run.results[name]
    for file in sorted((run.folder / "evaluation" / "test").glob("*.json")):
        with reading(file):
            summary = dict(json.loads(file.read_text()).get("summary", {}))
        for name, value in summary.items():
            yield f"{file.stem}.{name}", value
