"""Grids of tests/conf/study/three.yaml on small generated images, and run folders as trainings would leave them."""

import json
from pathlib import Path

from omegaconf import OmegaConf

from srp_exp.commands.report.command import plan_study
from srp_exp.config.identity import plain_values
from srp_exp.studies.grid import Cell, Grid, PlannedRun
from srp_exp.studies.results import Entry, StudyResults

THREE = ("study=three", f"hydra.searchpath=[file://{Path(__file__).parent / 'conf'}]")

TINY = (
    "dataset=synthetic", "dataset.train_size=64", "dataset.test_size=32", "dataset.image_size=[16,16]",
    "recipe.batch_size=16", "recipe.epochs=1", "recipe.warmup_epochs=0", "backbone.depth=8", "device=cpu",
)  # fmt: skip


def plan(*overrides: str, output_dir: Path) -> Grid:
    return plan_study([*THREE, *TINY, *overrides, f"output_dir={output_dir}"])[1]


def begin(planned: PlannedRun, **provenance: object) -> Path:
    """Leave what a training leaves when it begins."""
    folder = planned.run.folder
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.yaml").write_text(OmegaConf.to_yaml(OmegaConf.create(plain_values(planned.config))))
    origin = {
        "commit": "0123456789abcdef", "diff": "", "python": "3.11.7", "packages": {"torch": "2.14.1", "timm": "1.0.31"},
        "device": "AMD EPYC", "host": "here", "command": ["srp-exp"], "processes": 1, "threads": 1, **provenance,
    }  # fmt: skip
    (folder / "provenance.json").write_text(json.dumps(origin))
    return folder


def finish(planned: PlannedRun, top1: float = 0.5, **provenance: object) -> Path:
    """Leave what a finished training leaves, without checkpoints and predictions."""
    folder = begin(planned, **provenance)
    (folder / "metrics.jsonl").write_text(json.dumps({"epoch": 1, "train/top1": top1, "test/top1": top1}) + "\n")
    test = {"top1": top1, "top5": 1.0, "loss": 1 - top1}
    results = {"test": test, "epoch": 1, "parameters": 75_000, "training_seconds": 60.0}
    (folder / "results.json").write_text(json.dumps(results))
    return folder


def fail(planned: PlannedRun, why: str) -> Path:
    """Leave what a training that failed leaves."""
    folder = begin(planned)
    (folder / "failure.txt").write_text(f"{why}\nTraceback ...\n")
    return folder


def contents(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Time and content of every file and folder below `folder`."""
    return {
        str(path.relative_to(folder)): (path.stat().st_mtime_ns, path.read_bytes() if path.is_file() else b"")
        for path in folder.rglob("*")
    }


def entry_of(results: StudyResults, method: str, cell: Cell = ()) -> Entry:
    return next(e for e in results.entries if (e.method, e.cell) == (method, cell))
