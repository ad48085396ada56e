"""What a report needs of its runs in one file, so that srp-report writes it again where the runs are gone."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from srp_exp.config.identity import identity_of
from srp_exp.config.schemas.study import METHOD
from srp_exp.errors import UserError
from srp_exp.runs.folder.origins import PACKAGES
from srp_exp.runs.folder.store import Run, State
from srp_exp.studies.grid import Grid
from srp_exp.studies.results import Entry, StudyResults, metrics

KEPT = "runs.parquet"

_ORIGIN = ("commit", "diff", "python", "device", "driver", "processes", "threads", "cudnn")
_OF_RESULTS = ("parameters", "training_seconds")


@dataclass(frozen=True)
class KeptRun(Run):
    """A run of which `kept` has all that a report reads, and what it takes to put the run back (scripts/adopt_runs)."""

    kept: Mapping[str, Any]

    def __post_init__(self) -> None:
        starts = self.kept["starts"]
        values = {name: self.kept[name] for name in ("config", "results", "data")}
        vars(self).update(values, starts=starts, provenance=starts[-1] if starts else {}, history=[])  # Run reads files

    @property
    def failure(self) -> str:
        return str(self.kept["failure"])

    def value(self, metric: str) -> Any:
        return self.kept["values"].get(metric)


def keep_runs(results: StudyResults, grid: Grid, file: Path) -> None:
    """Write the runs of a study, one a row, with the study itself as metadata."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    configs = {planned.run.folder: planned.config for planned in grid.runs}
    rows = []
    for entry in results.entries:
        for seed, run in ((seed, entry.runs.get(seed)) for seed in entry.seeds or entry.runs):
            kept = (
                json.dumps(_kept(results, run, configs[run.folder])) if run else None
            )  # an excluded one has its seed alone
            found = (
                {"state": run.state.value, "folder": run.folder.name} if run else {"state": "excluded", "folder": ""}
            )
            rows.append({**entry.place, "seed": seed, **found, "run": kept})
    known = {field.name: getattr(results, field.name) for field in fields(results) if field.name != "entries"}
    table = pa.Table.from_pylist(rows).replace_schema_metadata({"study": json.dumps(known)})
    pq.write_table(table, file, compression="zstd")


def _kept(results: StudyResults, run: Run, config: DictConfig) -> dict[str, Any]:
    """What a report reads of a run: no place, since the configuration is that part which the run's hash covers."""
    if not run.is_finished:
        return {"config": {}, "results": {}, "data": {}, "starts": [], "failure": run.failure, "values": {}}
    names = {name: {"name": run.config[name]["name"]} for name in ("dataset", "backbone", "srp")}
    identity = {
        key: {**value, **names.get(key, {})} if isinstance(value, dict) else value
        for key, value in identity_of(config).items()
    }
    return {
        "config": identity,
        "results": run.results,
        "data": run.data,
        "starts": [_origin(start) for start in run.starts],
        "failure": "",
        "values": {name: run.value(name) for name in [*metrics(results.study), *run.results["test"], *_OF_RESULTS]},
    }


def _origin(start: Mapping[str, Any]) -> dict[str, Any]:
    packages = {name: start["packages"].get(name, "unknown") for name in PACKAGES}
    return {**{name: start.get(name) for name in _ORIGIN}, "packages": packages}


def read_kept(file: Path) -> StudyResults:
    """The study whose runs were kept in `file`. Raises UserError where it is none."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(file)
        known = json.loads(table.schema.metadata[b"study"])
    except (OSError, pa.ArrowException, KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{file}: holds no runs of a study ({error}); scripts/publish_report.py writes such a file"
        ) from None
    runs: dict[tuple[str, Any], dict[int, Run | None]] = {}
    for row in table.to_pylist():
        kept, state, folder, seed = (row.pop(name) for name in ("run", "state", "folder", "seed"))
        cell = tuple((axis, value) for axis, value in row.items() if axis != METHOD and value is not None)
        run = None if kept is None else KeptRun(Path(folder), State(state), json.loads(kept))
        runs.setdefault((row[METHOD], cell), {})[seed] = run
    metric = known["study"]["metric"]
    entries = []
    for key, of in runs.items():
        there = {seed: run for seed, run in of.items() if run is not None}
        values = {seed: run.value(metric) for seed, run in there.items()}
        finite = {seed: value for seed, value in values.items() if value is not None}
        entries.append(Entry(*key, there, finite, tuple(of)))
    lists: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in known.items()}
    return StudyResults(entries=tuple(entries), **lists)
