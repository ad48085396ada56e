"""Launchers other than SLURM's: processes of one machine with a device each."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from srp_exp.runs.device import build_device
from srp_exp.runs.free_device import free_cuda, take_first_free

TINY = (
    "dataset=synthetic", "dataset.train_size=40", "dataset.test_size=20", "dataset.image_size=[16,16]",
    "backbone.depth=8", "recipe=quick", "recipe.batch_size=8", "recipe.epochs=1",
    "recipe.warmup_epochs=0", "device=cpu",
)  # fmt: skip
TAKE = """
import sys, time
from srp_exp.runs.free_device import take_first_free
print(take_first_free(["one", "two"]), flush=True)
sys.stdin.read()
"""


# --- A device for each process -------------------------------------------------------------------


@pytest.fixture
def taker(tmp_path, monkeypatch):
    """`taker()`: a process that takes one of two devices and keeps it, and the number that it took."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    processes = []

    def start() -> tuple[subprocess.Popen[str], str]:
        pipe = subprocess.PIPE
        process = subprocess.Popen([sys.executable, "-c", TAKE], text=True, stdin=pipe, stdout=pipe, stderr=pipe)
        processes.append(process)
        assert process.stdout is not None
        return process, process.stdout.readline().strip()

    yield start
    for process in processes:
        process.kill()
        process.communicate()


def test_processes_take_different_devices_until_they_die(taker) -> None:
    first, second = taker(), taker()
    assert (first[1], second[1]) == ("0", "1")
    third, took = taker()
    assert took == ""
    error = third.communicate()[1].splitlines()[-1]
    assert "UserError: device=free_cuda: other runs have taken all of the 2 CUDA devices; " in error
    first[0].send_signal(signal.SIGKILL)
    first[0].wait()
    assert taker()[1] == "0"


def test_a_process_keeps_its_device(monkeypatch, tmp_path) -> None:
    """Device 0 is another process's; this one asks twice, as a run does that trains and measures."""

    class Properties:
        def __init__(self, number: int) -> None:
            self.uuid = f"fake-{os.getpid()}-{number}"

    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_properties", Properties)
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: None)
    monkeypatch.setattr(torch, "zeros", lambda size, device: torch.ones(1) - 1)
    free_cuda.cache_clear()
    assert build_device("free_cuda") == build_device("free_cuda") == torch.device("cuda:0")
    free_cuda.cache_clear()
    (lock,) = tmp_path.iterdir()
    assert lock.name == f"srp_exp-{os.getuid()}-fake-{os.getpid()}-0.lock"


def test_without_cuda_none_is_free() -> None:
    with pytest.raises(ValueError, match="device=free_cuda: there is no CUDA device here; try device=auto"):
        take_first_free([])


# --- Launchers -----------------------------------------------------------------------------------


def srp_exp(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """In a new process; an `environment` variable of "" isn't set at all."""
    variables = {"PATH": os.environ["PATH"], "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1", **environment}
    variables = {name: value for name, value in variables.items() if value or name == "CUDA_VISIBLE_DEVICES"}
    return subprocess.run(
        [sys.executable, "-m", "srp_exp", "-m", *arguments], env=variables, capture_output=True, text=True
    )


def outcomes(output_dir: Path) -> dict[str, bytes]:
    return {run.name: (run / "evaluation/test/metrics.json").read_bytes() for run in (output_dir / "runs").iterdir()}


def test_processes_give_what_one_after_the_other_gives(command_line, tmp_path) -> None:
    both = [f"output_dir={tmp_path / name}" for name in ("processes", "alone")]
    done = srp_exp(*TINY, "seed=0,1", both[0], "hydra/launcher=processes", OMP_NUM_THREADS="", LOKY_MAX_CPU_COUNT="2")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 runs: 2 finished" in done.stdout
    alone = command_line("-m", *TINY, "seed=0,1", both[1])
    assert alone.code == 0
    assert re.search(
        r"┃ test top-1 \(%\) ┃ n +┃\n.*\n│ +[\d.]+ ± [\d.]+ │ 2 +│", alone.out
    )  # a sweep ends in its table
    assert len(outcomes(tmp_path / "alone")) == 2
    origins = [json.loads(file.read_text()) for file in (tmp_path / "processes").glob("runs/*/provenance.json")]
    assert [origin["threads"] for origin in origins] == [1, 1]  # two processes share two CPUs
    assert outcomes(tmp_path / "processes") == outcomes(tmp_path / "alone")


def test_a_launcher_that_cannot_work_is_one_line(command_line, monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    for overrides, error in (
        (["hydra/launcher=slurm", "hydra.launcher.gpu=1"], "hydra.launcher.gpu is not a setting; "),
        (["hydra/launcher=slrum"], "hydra/launcher=slrum: there is no such choice; did you mean slurm?"),
        (["hydra/launcher=slurm"], "hydra/launcher=slurm: SLURM is not installed here (no sbatch, srun, squeue); "),
    ):
        done = command_line("-m", *TINY, *overrides, f"output_dir={tmp_path}")
        assert done.code == 1
        assert done.err.startswith(f"srp-exp: {error}")
        assert len(done.err.splitlines()) == 1
        assert list(tmp_path.glob("runs/*/*")) == []
