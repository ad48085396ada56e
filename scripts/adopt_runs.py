"""Put the finished runs of a published study back into its run folders, so that the grid continues from them.

    python scripts/adopt_runs.py study=NAME [the overrides of its grid]

Reads docs/results/NAME/runs.parquet, which publish_report.py wrote on this or another machine. A run may come from an
older version of this package, whose settings were fewer or had other names: a setting that both versions have must have
the same value; settings that only one of them has are printed, for you to judge. An existing folder is left as it is.
An adopted run has results, configuration, origin and digests of its data, but no checkpoint.
"""

import json
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from srp_exp.commands.kept import KEPT, read_kept
from srp_exp.commands.report import plan_study
from srp_exp.config.faults import ending_in_one_line
from srp_exp.config.identity import identity_of, plain_values
from srp_exp.errors import UserError
from srp_exp.files import write_atomically
from srp_exp.runs.data import record_data
from srp_exp.runs.folder import CONFIG, PROVENANCE, RESULTS
from srp_exp.runs.store import Run
from srp_exp.studies.grid import PlannedRun
from srp_exp.studies.results import metrics

PUBLISHED = Path(__file__).parent.parent / "docs" / "results"


def settings(values: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Each setting that the hash of a run covers, by dotted name, but for the places of classes."""
    for key, value in values.items():
        if isinstance(value, dict):
            yield from settings(value, f"{prefix}{key}.")
        elif key not in ("name", "_target_"):
            yield f"{prefix}{key}", value


def adopt(planned: PlannedRun, run: Run) -> list[str]:
    """Write the folder of `planned` from the kept `run`; returns what only one of the two configurations has.

    Raises UserError where they differ in what both have.
    """
    before, now = (dict(settings(values)) for values in (run.config, identity_of(planned.config)))
    for name in sorted(before.keys() & now.keys()):
        if before[name] != now[name]:
            raise UserError(
                f"{run.folder.name} was trained with {name}={before[name]}, and {planned.label} has {name}={now[name]}"
            )
    folder = planned.run.folder
    folder.mkdir(parents=True)
    write_atomically(folder / CONFIG, OmegaConf.to_yaml(OmegaConf.create(plain_values(planned.config))).encode())
    *earlier, last = run.starts
    write_atomically(folder / PROVENANCE, json.dumps({**last, "earlier_starts": earlier}, indent=1).encode())
    if run.data:
        record_data(folder, run.data)
    write_atomically(folder / RESULTS, json.dumps({**run.results, "run": folder.name}, indent=1).encode())
    told = [f"{name}={now[name]} is new" for name in now.keys() - before.keys()]
    return told + [f"{name}={before[name]} is gone" for name in before.keys() - now.keys()]


def main() -> None:
    config, grid = plan_study(sys.argv[1:])
    file = PUBLISHED / config.study.name / KEPT
    results = read_kept(file)
    if other := [name for name in metrics(results.study) if "." in name]:
        raise UserError(f"{file}: {other[0]} is measured by an evaluator, which needs the checkpoints")
    kept = results.runs
    told = Counter[str]()
    adopted = 0
    for planned in grid.distinct():
        run = kept.get((planned.method, planned.cell), {}).get(planned.seed)
        if run is not None and run.is_finished and not planned.run.folder.exists():
            told.update(adopt(planned, run))
            adopted += 1
    for line, count in sorted(told.items()):
        print(f"{line} ({count} runs)")
    print(f"adopted {adopted} of {len(grid.distinct())} runs from {file}")


if __name__ == "__main__":
    with ending_in_one_line("adopt_runs"):
        main()
