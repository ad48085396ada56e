"""Studies on a real SLURM of one node or two, whose jobs are requeued, told to make room, and killed."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from slurm_cluster import Cluster, private_cluster, wait_until, why_not

pytestmark = [pytest.mark.long, pytest.mark.skipif(bool(why_not()), reason=why_not())]

PATIENCE = 400
"""Seconds until a test gives up; a job takes about ten on a machine that does nothing else."""
SLURM = (
    "hydra/launcher=slurm", "hydra.launcher.gpus_per_node=null", "hydra.launcher.cpus_per_task=1",
    "hydra.launcher.mem_gb=null",
)  # fmt: skip
TINY = (
    "dataset=synthetic", "dataset.num_classes=50", "dataset.train_size=480", "dataset.test_size=200",
    "dataset.image_size=[16,16]", "backbone.depth=8", "recipe=quick", "recipe.batch_size=8",
    "recipe.epochs=3", "recipe.warmup_epochs=0", "recipe.lr=0.005", "device=cpu",
)  # fmt: skip
THREE = ("study=three", f"hydra.searchpath=[file://{Path(__file__).parents[1] / 'conf'}]")
STUDY = (*THREE, *TINY, "seed=0,1")  # three methods and two seeds
CAUGHT = "checkpoint.every_steps=1"  # slow enough to be caught in the middle, and to see it


@pytest.fixture(scope="module")
def cluster(tmp_path_factory) -> Iterator[Cluster]:
    with private_cluster(tmp_path_factory.mktemp("slurm")) as running:
        yield running


def command(cluster: Cluster, *arguments: str, code: int = 0) -> str:
    """What srp-exp prints with these arguments, in a process of the cluster's environment."""
    done = subprocess.run(
        [sys.executable, "-m", "srp_exp", *arguments], env=cluster.environment, capture_output=True, text=True,
        timeout=PATIENCE,
    )  # fmt: skip
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout if code == 0 else done.stderr


def runs_by_job(output_dir: Path) -> dict[str, Path]:
    return {file.read_text().strip(): file.parent for file in output_dir.glob("runs/*/slurm_job.txt")}


def caught(cluster: Cluster, job: str, run: Path) -> None:
    """Wait until `job` is in the middle of its training."""

    def in_the_middle() -> bool:
        steps = [int(path.stem[5:]) for path in (run / "checkpoints").glob("step-*.pt")]
        return bool(steps) and max(steps) >= 3

    wait_until(in_the_middle, PATIENCE, lambda: f"job {job}: {output(run)}")
    assert not (run / "results.json").exists(), "too quick to be caught"


def kill(run: Path) -> None:
    """SIGKILL to the process that trains in `run`; scancel would first let it save."""
    process = re.match(r"process (\d+) on ", (run / "lock").read_text())
    assert process is not None
    os.kill(int(process[1]), signal.SIGKILL)


def output(run: Path) -> str:
    """What the jobs of the cluster printed."""
    files = sorted((run.parent.parent / "slurm").rglob("*_log.*"))
    return "\n".join(f"{file.name}: {file.read_text()[-1500:]}" for file in files)


def resumed_after(run: Path) -> list[int]:
    return [int(step) for step in re.findall(r"resumed after step (\d+)", (run / "run.log").read_text())]


def test_a_disturbed_study_ends_with_the_table_of_an_undisturbed_one(cluster, tmp_path) -> None:
    there = tmp_path / "cluster"
    study = (*STUDY, CAUGHT, *SLURM, f"output_dir={there}")
    printed = command(cluster, *study, "wait=false")
    assert "submitted 6 runs" in printed
    assert "6 runs: 6 queued" in printed
    runs = runs_by_job(there)
    requeued, killed, told = sorted(runs, key=lambda job: int(job.rpartition("_")[2]))[:3]

    caught(cluster, requeued, runs[requeued])
    cluster.command("scontrol", "requeue", requeued)
    caught(cluster, killed, runs[killed])
    kill(runs[killed])
    caught(cluster, told, runs[told])
    # The steps alone, as SLURM does before the time limit; asked for the job, scancel tells the requeued one again.
    cluster.command("scancel", "--signal=USR2", f"{told}.0")
    wait_until(lambda: not cluster.jobs(), PATIENCE, lambda: f"{cluster.jobs()} {output(runs[told])}")

    printed = command(cluster, *study, "dry=true")
    assert "6 runs: 5 finished, 1 interrupted" in printed
    for job, run in runs.items():
        assert (run / "results.json").exists() == (job != killed), output(run)
        assert len(resumed_after(run)) == (job in (requeued, told)), job
    ends = {run: (run / "checkpoints" / "final.pt").stat() for job, run in runs.items() if job != killed}

    printed = command(cluster, *study)
    assert "submitted 1 run as" in printed
    assert "6 runs: 6 finished" in printed
    assert len(resumed_after(runs[killed])) == 1
    for run, end in ends.items():  # nothing is trained twice
        assert (run / "checkpoints" / "final.pt").stat().st_mtime_ns == end.st_mtime_ns

    here = tmp_path / "here"
    assert "6 runs: 6 finished" in command(cluster, *STUDY, f"output_dir={here}")
    for run in runs.values():
        undisturbed = here / "runs" / run.name
        assert resumed_after(undisturbed) == []
        for name in ("metrics.jsonl", "evaluation/test/metrics.json", "evaluation/test/predictions.parquet"):
            assert (run / name).read_bytes() == (undisturbed / name).read_bytes(), name
        ours, theirs = (torch.load(folder / "checkpoints/final.pt")["model"] for folder in (run, undisturbed))
        assert {name: tensor.tolist() for name, tensor in ours.items()} == {n: t.tolist() for n, t in theirs.items()}
    reports = [next((folder / "reports").glob("three*")) for folder in (there, here)]
    assert (reports[0] / "entries.csv").read_bytes() == (reports[1] / "entries.csv").read_bytes()


def test_the_tasks_of_a_job_train_together_and_go_on_together(cluster, tmp_path) -> None:
    """Two tasks; SIGUSR2 lets them save and the job be requeued."""
    overrides = ("-m", *TINY, "recipe.epochs=2", CAUGHT, f"output_dir={tmp_path}")
    command(cluster, *overrides, *SLURM, "hydra.launcher.tasks_per_node=2", "wait=false")
    ((job, run),) = runs_by_job(tmp_path).items()
    caught(cluster, job, run)
    cluster.command("scancel", "--signal=USR2", f"{job}.0")
    wait_until(lambda: not cluster.jobs(), PATIENCE, lambda: output(run))
    results = json.loads((run / "results.json").read_text()) if (run / "results.json").exists() else None
    assert results is not None, output(run)
    assert json.loads((run / "provenance.json").read_text())["processes"] == 2
    assert len(resumed_after(run)) == 1
    epochs = [json.loads(line)["epoch"] for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert epochs == [1, 2]


def test_two_nodes_train_together_as_two_tasks_of_one_do(tmp_path) -> None:
    """A task on each node; SIGUSR2 lets them save and the job be requeued, and the undisturbed tasks give the same."""
    (tmp_path / "slurm").mkdir()
    runs = {}
    with private_cluster(tmp_path / "slurm", nodes=2) as cluster:
        for place in ("nodes", "tasks_per_node"):
            there = tmp_path / place
            overrides = ("-m", *TINY, "recipe.epochs=2", CAUGHT, f"output_dir={there}")
            command(cluster, *overrides, *SLURM, f"hydra.launcher.{place}=2", "wait=false")
            ((job, run),) = runs_by_job(there).items()
            if place == "nodes":
                caught(cluster, job, run)
                assert cluster.command("squeue", "--noheader", "--format=%D %C").split() == ["2", "2"]
                cluster.command("scancel", "--signal=USR2", f"{job}.0")
            wait_until(lambda: not cluster.jobs(), PATIENCE, lambda run=run: output(run))
            assert (run / "results.json").exists(), output(run)
            assert json.loads((run / "provenance.json").read_text())["processes"] == 2
            runs[place] = run
    nodes, tasks = runs.values()
    assert (len(resumed_after(nodes)), len(resumed_after(tasks))) == (1, 0)
    for name in ("metrics.jsonl", "evaluation/test/predictions.parquet"):
        assert (nodes / name).read_bytes() == (tasks / name).read_bytes(), name


def test_what_slurm_does_not_take_is_one_line(cluster, tmp_path) -> None:
    overrides = ("-m", *TINY, *SLURM, f"output_dir={tmp_path}")
    error = command(cluster, *overrides, "hydra.launcher.partition=nowhere", code=1)
    assert re.fullmatch(r"srp-exp: SLURM did not take the jobs: .*invalid partition specified: nowhere.*\n", error)
    assert list(tmp_path.glob("runs/*/*")) == []
