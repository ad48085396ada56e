"""Processes: who they are by their environment, and what they tell each other."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from srp_exp.training.processes.distributed import SINGLE, Processes, connected, first_node, launched_as

VARIABLES = ("WORLD_SIZE", "RANK", "LOCAL_RANK", "SLURM_NTASKS", "SLURM_PROCID", "SLURM_LOCALID")


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, Processes(0, 1, 0)),
        ({"WORLD_SIZE": "4", "RANK": "3", "LOCAL_RANK": "1"}, Processes(3, 4, 1)),
        ({"SLURM_NTASKS": "4", "SLURM_PROCID": "2", "SLURM_LOCALID": "0"}, Processes(2, 4, 0)),
        ({"SLURM_NTASKS": "4"}, Processes(0, 1, 0)),  # salloc: the shell is no task
        (  # torchrun within a task of SLURM
            {"WORLD_SIZE": "2", "RANK": "1", "LOCAL_RANK": "1", "SLURM_NTASKS": "8", "SLURM_PROCID": "5"},
            Processes(1, 2, 1),
        ),
    ],
)
def test_who_a_process_is(monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], expected: Processes) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert launched_as() == expected


@pytest.mark.parametrize("environment", [{"WORLD_SIZE": "2"}, {"WORLD_SIZE": "2", "RANK": "x", "LOCAL_RANK": "0"}])
def test_half_of_an_environment_is_one_line(monkeypatch: pytest.MonkeyPatch, environment: dict[str, str]) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("SLURM_NTASKS", "")
    assert launched_as() == SINGLE
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match=r"RANK=x? WORLD_SIZE=2 LOCAL_RANK=0? in the environment: .* unset WORLD_SIZE"):
        launched_as()


def test_tasks_meet_at_the_first_node() -> None:
    """As `scontrol show hostnames` expands them."""
    assert first_node("node7") == "node7"
    assert first_node("a,b") == "a"
    assert first_node("node[03-05,7],gpu1") == "node03"
    assert first_node("gpu-[12,14].rack") == "gpu-12.rack"
    assert first_node("rack[0-1]node[08-11],rack2") == "rack0node08"


ALONE = """
import os, socket
os.environ |= {"MASTER_PORT": str(socket.create_server(("127.0.0.1", 0)).getsockname()[1]), "MASTER_ADDR": "127.0.0.1"}
import torch, torch.distributed
from srp_exp.training.processes.distributed import connected
torch.distributed.init_process_group = lambda *_, **__: exit(7)  # which would wait
with connected(torch.device("cpu")):
    pass
"""


def test_one_task_of_several_says_for_whom_it_waits() -> None:
    """A script of sbatch that asks for four tasks, and starts its command without srun."""
    environment = {"SLURM_NTASKS": "4", "SLURM_PROCID": "0", "SLURM_LOCALID": "0"}
    job = {"SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": "node[1-2]", "PATH": "/nowhere"}
    for code, more, parts in (
        (7, job, ("waiting for 3 ", "job 7 ", "srun", "unset SLURM_NTASKS")),
        (1, {}, ("SLURM_NTASKS=4", "SLURM_JOB_ID=", "srun")),
    ):
        start = ALONE if more else ALONE.replace("os.environ |=", "_ =")
        done = subprocess.run(
            [sys.executable, "-c", start], env={**os.environ, **environment, **more}, capture_output=True, text=True
        )
        assert done.returncode == code, done.stderr
        line = done.stderr.splitlines()[-1]
        assert [part for part in parts if part not in line] == [], line


def test_what_one_process_does_is_refused_to_several(monkeypatch: pytest.MonkeyPatch, command_line) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    for environment, remedy in (
        ({"SLURM_NTASKS": "4", "SLURM_PROCID": "0", "SLURM_LOCALID": "0"}, "unset it"),
        ({"WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "0"}, "torchrun"),
    ):
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        outcome = command_line("-m", "dataset=synthetic", "seed=0,1")
        assert (outcome.code, outcome.err.count("\n")) == (1, 1)
        assert remedy in outcome.err
        assert ("torchrun" in outcome.err) == (remedy == "torchrun")


def test_a_single_process_asks_nobody() -> None:
    assert SINGLE.gather_rows([7.0], torch.tensor([1.0, 2.0])).tolist() == [[1.0, 2.0]]
    assert SINGLE.gather("own") == SINGLE.gather_on_first("own") == ["own"]
    assert SINGLE.of_first("own") == "own"
    assert SINGLE.writes
    with connected(torch.device("cpu")) as processes:
        assert processes == SINGLE
        assert not torch.distributed.is_initialized()


SCRIPT = """
import os, sys, torch
from srp_exp.training.processes.distributed import ProcessError, connected
from srp_exp.training.totals import Totals
cpu = torch.device("cpu")
with connected(cpu) as processes:
    rank = processes.rank
    assert processes.size == 2 and processes.writes == (rank == 0)
    rows = processes.gather_rows([5 - rank, rank], torch.full((1,), 0.1 * rank, dtype=torch.float64))
    assert rows.tolist() == [[5, 0, 0], [4, 1, 0.1]]
    assert processes.gather({"rank": rank}) == [{"rank": 0}, {"rank": 1}]
    assert processes.gather_on_first(rank) == (None if rank else [0, 1])
    assert processes.of_first(7 + rank) == 7
    totals = Totals(cpu)
    steps = (8, 3) if rank else (5, 9)  # where the loss goes bad
    for step in range(12):
        loss = torch.tensor(float("nan") if step in steps else 1.0)
        totals.add(loss, torch.eye(3), torch.tensor([0, 1, rank]), step)
    found = totals.join(processes.gather(list(totals.read().values())))
    assert found["samples"] == 72 and found["correct"] == 48 and found["bad_step"] == 4, found
    totals.of_ranks = processes.gather_rows([], totals.values)
    again, alone = Totals(cpu), Totals(cpu)
    again.load(totals.state(), rank, 2)  # the same processes go on with their own
    assert torch.equal(again.values[1:], totals.values[1:]) and torch.equal(again.state()[:, 1:], totals.state()[:, 1:])
    alone.load(totals.state(), 0, 1)
    assert alone.values[1:].tolist() == [48, 72, 4]
    again.load(alone.state(), rank, 2)
    assert again.read()["samples"] == (0 if rank else 72)
    assert processes.share_of_workers(3, 16) == 1 and processes.share_of_workers(0, 16) == 0
    cpus = len(os.sched_getaffinity(0))
    assert processes.share_of_workers(None, 16) == min(16, max(1, cpus // 2))
    left = os.path.join(sys.argv[1], "left")
    with processes.first_before_others():
        assert os.path.exists(left) == (rank == 1)
        open(left, "w").close()
    done = []
    with processes.in_turns():  # the second finds what the first has made
        done = sorted(name for name in os.listdir(sys.argv[1]) if name.startswith("made"))
        open(os.path.join(sys.argv[1], f"made{rank}"), "w").close()
    assert done == ["made0"][:rank], done
    try:
        with processes.in_turns():
            if rank == 0:
                raise OSError("no such data")
    except (OSError, ProcessError) as error:
        assert str(error) == ("process 0 of 2 failed; its own message says why" if rank else "no such data")
    else:
        raise AssertionError("a failure must reach all")
assert not torch.distributed.is_initialized()
"""


def test_two_processes_of_torchrun_agree(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    done = subprocess.run([*torchrun, script, tmp_path], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
