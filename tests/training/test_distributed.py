"""Processes: who they are by their environment, and what they tell each other."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from srp_exp.training.distributed import SINGLE, connected
from srp_exp.training.launch import Launch, launched_as

VARIABLES = ("WORLD_SIZE", "RANK", "LOCAL_RANK", "SLURM_NTASKS", "SLURM_PROCID", "SLURM_LOCALID")


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, Launch(0, 1, 0)),
        ({"WORLD_SIZE": "4", "RANK": "3", "LOCAL_RANK": "1"}, Launch(3, 4, 1)),
        ({"WORLD_SIZE": "1", "RANK": "0", "LOCAL_RANK": "0"}, Launch(0, 1, 0)),
        ({"SLURM_NTASKS": "4", "SLURM_PROCID": "2", "SLURM_LOCALID": "0"}, Launch(2, 4, 0)),
        ({"SLURM_NTASKS": "1", "SLURM_PROCID": "0", "SLURM_LOCALID": "0"}, Launch(0, 1, 0)),
        ({"SLURM_NTASKS": "4"}, Launch(0, 1, 0)),  # salloc: the shell is no task
        (  # torchrun within a task of SLURM
            {"WORLD_SIZE": "2", "RANK": "1", "LOCAL_RANK": "1", "SLURM_NTASKS": "8", "SLURM_PROCID": "5"},
            Launch(1, 2, 1),
        ),
    ],
)
def test_who_a_process_is(monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], expected: Launch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert launched_as() == expected


def test_a_single_process_asks_nobody() -> None:
    values = torch.tensor([1.0, 2.0])
    assert SINGLE.sum(values) is values
    assert SINGLE.highest(3, torch.device("cpu")) == 3
    assert SINGLE.gather("own") == ["own"]
    assert SINGLE.writes
    with connected(torch.device("cpu")) as processes:
        assert processes == SINGLE
        assert not torch.distributed.is_initialized()


SCRIPT = """
import torch
from srp_exp.training.distributed import connected
from srp_exp.training.learner import Totals
cpu = torch.device("cpu")
with connected(cpu) as processes:
    rank = processes.rank
    assert processes.size == 2 and processes.writes == (rank == 0)
    assert processes.sum(torch.tensor([1.0 + rank, 10.0])).tolist() == [3.0, 20.0]
    assert processes.highest(5 - rank, cpu) == 5
    assert processes.gather({"rank": rank}) == [{"rank": 0}, {"rank": 1}]
    totals = Totals(cpu)
    totals.add(torch.tensor(float("nan") if rank else 1.0), torch.eye(3), torch.tensor([0, 1, rank]), 6)
    found = totals.read(processes)
    assert found["samples"] == 6 and found["correct"] == 4 and found["bad_step"] == 7, found
assert not torch.distributed.is_initialized()
"""


def test_two_processes_of_torchrun_agree(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", str(script)],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
