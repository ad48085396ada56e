"""A run folder: what lies in it under which name, and how it looks to who passes by."""

from pathlib import Path

RESULTS = "results.json"
"""Written when everything else of the training is there: where it is, the run is finished."""

CONFIG = "config.yaml"
PROVENANCE = "provenance.json"
EVALUATION = Path("evaluation") / "test"
"""What was found on the test split: metrics, predictions, and a file of each evaluator."""

_FAILURE = "failure"


def failure_file(folder: Path, rank: int = 0) -> Path:
    """Where process `rank` of a training says why the last start of the run failed; the first line is for a table."""
    return folder / (f"{_FAILURE}.txt" if rank == 0 else f"{_FAILURE}-rank{rank}.txt")


def failure_files(folder: Path) -> list[Path]:
    """Those that are there, of all processes, that of the process that failed first at the front."""
    return sorted(folder.glob(f"{_FAILURE}*.txt"), key=lambda file: (file.stat().st_mtime_ns, file.name))
