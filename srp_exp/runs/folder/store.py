"""Run folders as they are on the disk: in which state each is, and what it holds."""

import hashlib
import json
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from srp_exp.files import write_atomically
from srp_exp.runs.folder.layout import (
    CONFIG,
    DATA,
    PROVENANCE,
    RESULTS,
    failure_files,
    read_starts,
    reading,
    refuse_other_run,
)
from srp_exp.runs.folder.lock import is_held

JOB = "slurm_job.txt"
"""In a run folder: the SLURM job that was last submitted for it, as squeue prints it."""


_ORIGIN = ("commit", "diff", "packages", "python", "device", "processes", "threads")


class State(Enum):
    finished = "finished"
    running = "running"
    queued = "queued"
    interrupted = "interrupted"
    failed = "failed"
    new = "new"


@dataclass(frozen=True)
class Run:
    """A run folder, in the state in which it was found. What a file of it holds is read on first use."""

    folder: Path
    state: State

    @property
    def is_finished(self) -> bool:
        return self.state == State.finished

    @cached_property
    def config(self) -> dict[str, Any]:
        """The resolved configuration; raises FileNotFoundError where no run began."""
        with reading(self.folder / CONFIG):
            values = OmegaConf.to_container(OmegaConf.load(self.folder / CONFIG))
            return {str(key): value for key, value in values.items()}  # type: ignore[union-attr]

    @property
    def settings(self) -> dict[str, str]:
        """The configuration in one level, values as text: {"recipe.lr": "0.1", "dataset": "cifar10"}; {} if not begun.

        A choice has the name of its file.
        """
        flat: dict[str, str] = {}

        def add(prefix: str, values: dict[str, Any]) -> None:
            for key, value in values.items():
                if isinstance(value, dict):
                    flat[f"{prefix}{key}"] = str(value.get("name"))
                    add(f"{prefix}{key}.", value)
                else:
                    flat[f"{prefix}{key}"] = str(value).lower() if isinstance(value, bool) else str(value)

        if (self.folder / CONFIG).exists():
            add("", self.config)
        return flat

    @cached_property
    def results(self) -> dict[str, Any]:
        """results.json: {"test": {"top1": ..., "loss": ...}, "parameters": ..., "training_seconds": ...}."""
        with reading(self.folder / RESULTS):
            results = dict(json.loads((self.folder / RESULTS).read_text()))
            test = {name: float(value) for name, value in results["test"].items()}
            results |= {"test": test, "training_seconds": float(results["training_seconds"])}
        refuse_other_run(self.folder / RESULTS, self.folder, str(results.get("run", "")))
        return results

    @cached_property
    def data(self) -> dict[str, str]:
        """The digest of each part of the data that it read; {} where none was noted."""
        file = self.folder / DATA
        with reading(file):
            return dict(json.loads(file.read_text())) if file.exists() else {}

    @cached_property
    def starts(self) -> list[dict[str, Any]]:
        """Where each start of the run came from, in their order."""
        return read_starts(self.folder)

    @cached_property
    def provenance(self) -> dict[str, Any]:
        """Where its last start came from."""
        with reading(self.folder / PROVENANCE):
            origin = dict(json.loads((self.folder / PROVENANCE).read_text()))
            return {**origin, **{name: origin[name] for name in _ORIGIN}, "packages": dict(origin["packages"])}

    @property
    def commit(self) -> str:
        """That of a finished run, with + and a digest where it had uncommitted changes; empty if not known."""
        if not self.is_finished:
            return ""
        commit = (self.provenance["commit"] or "unknown")[:10]
        diff = self.provenance["diff"]
        return f"{commit}+{hashlib.sha256(diff.encode()).hexdigest()[:6]}" if diff else commit

    @cached_property
    def history(self) -> list[dict[str, Any]]:
        """metrics.jsonl: one dict of metrics per epoch."""
        file = self.folder / "metrics.jsonl"
        with reading(file):
            return [dict(json.loads(line)) for line in file.read_text().splitlines()] if file.exists() else []

    @property
    def validated(self) -> float | None:
        """Top-1 on the validation part of the epoch whose weights are its result; None where it has no such part."""
        values = [metrics["val/top1"] for metrics in self.history if "val/top1" in metrics]
        return (max(values) if self.config["recipe"]["selection"] == "best" else values[-1]) if values else None

    @property
    def failure(self) -> str:
        """Why it failed, in one line; empty where it didn't."""
        files = failure_files(self.folder)
        return files[0].read_text(errors="replace").partition("\n")[0] if files else ""

    def value(self, metric: str) -> float | None:
        """A metric of the test split: one of results.json, or <evaluator>.<measure>; None where it isn't measured."""
        evaluator, dot, measure = metric.rpartition(".")  # the name of a user's evaluator has dots
        if not dot:
            values = {**self.results, **self.results["test"]}
        else:
            file = self.folder / "evaluation" / "test" / f"{evaluator}.json"
            with reading(file):
                values = dict(json.loads(file.read_text())["summary"]) if file.exists() else {}
        value: float | None = values.get(measure)
        return value


def find_run(folder: Path, queue: Callable[[], set[str]] | None = None) -> Run:
    """The run of `folder`, in the state in which it is now; `queue` tells the jobs that SLURM has (slurm_jobs)."""
    return Run(folder, _state(folder, queue))


def all_runs(parent: Path) -> list[Run]:
    """Every run folder in `parent`, by name; none if it doesn't exist."""
    queue = cache(slurm_jobs)
    folders = sorted(parent.iterdir()) if parent.is_dir() else []
    runs = [find_run(folder, queue) for folder in folders if folder.is_dir()]
    return [run for run in runs if run.state != State.new]


def _state(folder: Path, queue: Callable[[], set[str]] | None) -> State:
    if (folder / RESULTS).exists():
        return State.finished
    if not folder.is_dir():
        return State.new
    if is_held(folder):
        return State.running
    job = folder / JOB
    if job.exists() and job.read_text(errors="replace").strip() in (queue or slurm_jobs)():
        return State.queued
    if failure_files(folder):
        return State.failed
    return State.interrupted if (folder / CONFIG).exists() else State.new


def note_job(folder: Path, job: str) -> None:
    """Remember in `folder` that SLURM has taken `job` for it."""
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / JOB, f"{job}\n".encode())


def slurm_jobs() -> set[str]:
    """The jobs of this user that wait or run, such as 12_3; none where SLURM isn't installed.

    squeue is asked, since sacct needs an accounting data base. Raises OSError where the controller doesn't answer.
    """
    if shutil.which("squeue") is None:
        return set()
    asked = subprocess.run(["squeue", "--noheader", "--array", "--format=%i", "--me"], capture_output=True, text=True)
    if asked.returncode:
        raise OSError(f"squeue: {asked.stderr.strip() or 'no answer'}; is SLURM up?")
    return set(asked.stdout.split())
