"""From the run folders of a grid to the entries of a study's table."""

from collections import Counter
from collections.abc import Iterable
from typing import Any

from omegaconf import OmegaConf

from srp_exp.config.study import StudyConfig
from srp_exp.studies.grid import Grid
from srp_exp.studies.results import Cell, Entry, StudyResults, counted
from srp_exp.studies.store import Run, State


def collect(grid: Grid, study: StudyConfig) -> StudyResults:
    """The entries of `grid` with the metric of `study` where a run is finished."""
    plain = OmegaConf.to_container(OmegaConf.create(study), resolve=True, enum_to_str=True)  # type: ignore[call-overload]
    assert isinstance(plain, dict)
    groups: dict[tuple[str, Cell], dict[int, Run]] = {}
    for planned in grid.runs:
        groups.setdefault((planned.method, planned.cell), {})[planned.seed] = planned.run
    entries = []
    for (method, cell), runs in groups.items():
        measured = {s: r.value(study.metric) for s, r in runs.items() if r.state == State.finished}
        values = {seed: value for seed, value in measured.items() if value is not None}
        entries.append(Entry(method, cell, runs, values))
    finished = {run.folder: run for runs in groups.values() for run in runs.values() if run.state == State.finished}
    warnings = [*_differences(finished.values()), *_unmeasured(finished.values(), _metrics(plain))]
    return StudyResults({str(k): v for k, v in plain.items()}, tuple(entries), grid.fixed, tuple(warnings))


def _differences(runs: Iterable[Run]) -> list[str]:
    """In what the runs of a table differ besides their configurations, one line each: code, versions, device."""
    origins = [_origin(run.provenance) for run in runs]
    lines = []
    for name in origins[0] if origins else ():
        counts = Counter(origin[name] for origin in origins)
        if len(counts) > 1:
            lines.append(f"runs of different {name} in one table: {counted(counts)}")
    return lines


def _origin(provenance: dict[str, Any]) -> dict[str, str]:
    packages = provenance["packages"]
    commit = (provenance["commit"] or "unknown")[:10]
    return {
        "commit": f"{commit} with uncommitted changes" if provenance["diff"] else commit,
        "torch": packages.get("torch", "unknown"),
        "timm": packages.get("timm", "unknown"),
        "device": provenance["device"],
        "number of processes": str(provenance["processes"]),
        "number of threads": str(provenance["threads"]),
    }


def _metrics(study: dict[Any, Any]) -> list[str]:
    return list(dict.fromkeys([study["metric"], *(c["metric"] for c in study["comparisons"] if c["metric"])]))


def _unmeasured(runs: Iterable[Run], metrics: list[str]) -> list[str]:
    lines = []
    for metric in metrics:
        missing = sum(run.value(metric) is None for run in runs)
        if missing:
            evaluator, dot, _ = metric.rpartition(".")
            remedy = f": evaluators=[{evaluator}] measures it" if dot else ""
            lines.append(f"{missing} finished run{'s have' if missing > 1 else ' has'} no {metric}{remedy}")
    return lines
