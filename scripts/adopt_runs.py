"""Put the finished runs of a published study back into its run folders, so that the grid continues from them.

    python scripts/adopt_runs.py study=NAME [the overrides of its grid] [--accept]

Reads docs/results/NAME/runs.parquet, which publish_report.py wrote on this or another machine. A run may come from an
older version of this package, whose settings were fewer or had other names: a setting that both versions have must have
the same value; settings that only one of them has are printed, and nothing is adopted until --accept says that they
change no result. An existing folder is left as it is.
An adopted run has results, configuration, origin and digests of its data, but no checkpoint.
"""

import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from srp_exp.commands.report.command import plan_study
from srp_exp.commands.report.kept import KEPT, read_kept
from srp_exp.config.failures.faults import ending_in_one_line
from srp_exp.config.identity import flattened, identity_of, plain_values
from srp_exp.errors import UserError
from srp_exp.files import write_atomically
from srp_exp.runs.folder.digests import record_data
from srp_exp.runs.folder.layout import CONFIG, PROVENANCE, RESULTS
from srp_exp.runs.folder.store import Run
from srp_exp.studies.grid import PlannedRun
from srp_exp.studies.results import metrics

ACCEPT = "--accept"
PUBLISHED = Path(__file__).parent.parent / "docs" / "results"


def settings(identity: dict[str, Any]) -> dict[str, Any]:
    """What the hash of a run covers by dotted names, without those of choices; classes by name, wherever they lie."""
    found = {name: value for name, value in flattened(identity) if name.rpartition(".")[2] != "name"}
    return {n: v and v.rpartition(".")[2] if n.endswith("._target_") else v for n, v in found.items()}


def differences(planned: PlannedRun, run: Run) -> list[str]:
    """What only one of the two configurations has. Raises UserError where they differ in what both have."""
    before, now = settings(run.config), settings(identity_of(planned.config))
    for name in sorted(before.keys() & now.keys()):
        if before[name] != now[name]:
            raise UserError(
                f"{run.folder.name} was trained with {name}={before[name]}, and {planned.label} has {name}={now[name]}"
            )
    told = [f"{name}={now[name]} is new" for name in now.keys() - before.keys()]
    return told + [f"{name}={before[name]} is gone" for name in before.keys() - now.keys()]


def adopt(planned: PlannedRun, run: Run) -> None:
    """Write the folder of `planned` from the kept `run`."""
    folder = planned.run.folder
    folder.mkdir(parents=True)
    write_atomically(folder / CONFIG, OmegaConf.to_yaml(OmegaConf.create(plain_values(planned.config))).encode())
    *earlier, last = run.starts
    write_atomically(folder / PROVENANCE, json.dumps({**last, "earlier_starts": earlier}, indent=1).encode())
    if run.data:
        record_data(folder, run.data)
    write_atomically(folder / RESULTS, json.dumps({**run.results, "run": folder.name}, indent=1).encode())


def main() -> None:
    arguments = [argument for argument in sys.argv[1:] if argument != ACCEPT]
    config, grid = plan_study(arguments)
    file = PUBLISHED / config.study.name / KEPT
    results = read_kept(file)
    if other := [name for name in metrics(results.study) if "." in name]:
        raise UserError(f"{file}: {other[0]} is measured by an evaluator, which needs the checkpoints")
    found = [(p, results.runs.get((p.method, p.cell), {}).get(p.seed)) for p in grid.distinct()]
    chosen = [(p, run) for p, run in found if run is not None and run.is_finished and not p.run.folder.exists()]
    told = Counter(line for planned, run in chosen for line in differences(planned, run))
    for line, count in sorted(told.items()):
        print(f"{line} ({count} runs)")
    if told and len(arguments) == len(sys.argv[1:]):
        raise UserError(f"{file}: nothing was adopted; if these settings change no result, give {ACCEPT} too")
    for planned, run in chosen:
        adopt(planned, run)
    print(f"adopted {len(chosen)} of {len(found)} runs from {file}")


if __name__ == "__main__":
    with ending_in_one_line("adopt_runs"):
        main()
