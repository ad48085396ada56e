"""Steps of one SLURM job, of several tasks each: where they meet, and what becomes of them when one task fails."""

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from slurm_cluster import Cluster, private_cluster, why_not

pytestmark = [pytest.mark.long, pytest.mark.skipif(bool(why_not()), reason=why_not())]

STEP = """
import os, sys, time, torch
from pathlib import Path
from srp_exp.training.processes.distributed import connected
os.environ["PATH"] = "/nowhere"  # as in a container, which has no scontrol
with connected(torch.device("cpu")) as processes:
    of_all = processes.gather((processes.rank, os.environ["SLURM_STEP_ID"], os.environ["MASTER_PORT"]))
    if sys.argv[2:] == ["fails"] and processes.rank == 1:
        os._exit(3)
    if sys.argv[2:] == ["fails"]:
        time.sleep(600)  # in a step that waits for nobody, such as one on a GPU
    if processes.rank == 0:
        Path(sys.argv[1]).write_text(repr(of_all))
    processes.gather(None)
"""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with private_cluster(tmp_path_factory.mktemp("slurm")) as running:
        yield running


def test_two_steps_of_one_job_meet_at_different_ports(cluster: Cluster, tmp_path: Path) -> None:
    script = tmp_path / "step.py"
    script.write_text(STEP)
    step = "srun --ntasks=2 --overlap --overcommit --kill-on-bad-exit=1 python"
    lines = ["#!/bin/sh", *(f"{step} {script} {tmp_path}/{name} &" for name in "ab"), "wait"]
    (tmp_path / "job.sh").write_text("\n".join(lines))
    cluster.command("sbatch", "--wait", "--ntasks=2", f"--output={tmp_path}/printed", str(tmp_path / "job.sh"))
    found = [eval((tmp_path / name).read_text()) for name in "ab"]
    for step_of in found:
        assert [rank for rank, _, _ in step_of] == [0, 1]
        assert len({port for _, _, port in step_of}) == len({number for _, number, _ in step_of}) == 1
    assert found[0][0][2] != found[1][0][2]


def test_a_task_that_fails_ends_the_others_as_the_launcher_starts_them(cluster: Cluster, tmp_path: Path) -> None:
    script = tmp_path / "step.py"
    script.write_text(STEP)
    command = ["srun", "--ntasks=2", "--overcommit", "--kill-on-bad-exit=1", "python", str(script), str(tmp_path / "a")]
    started = time.monotonic()
    done = subprocess.run([*command, "fails"], env=cluster.environment, capture_output=True, text=True, timeout=120)
    assert done.returncode != 0
    assert time.monotonic() - started < 90
    assert "exited with exit code 3" in done.stderr.lower(), done.stderr
