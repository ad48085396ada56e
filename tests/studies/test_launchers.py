"""Launchers and sweepers other than SLURM's: processes of one machine with a device each, and a search."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from srp_exp.commands.search import objective
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
    assert command_line("-m", *TINY, "seed=0,1", both[1]).code == 0
    assert len(outcomes(tmp_path / "alone")) == 2
    origins = [json.loads(file.read_text()) for file in (tmp_path / "processes").glob("runs/*/provenance.json")]
    assert [origin["threads"] for origin in origins] == [1, 1]  # two processes share two CPUs
    assert outcomes(tmp_path / "processes") == outcomes(tmp_path / "alone")


@pytest.mark.parametrize(
    ("overrides", "error"),
    [
        (["hydra/launcher=slurm", "hydra.launcher.gpu=1"], "hydra.launcher.gpu is not a setting; "),
        (["hydra/launcher=slrum"], "hydra/launcher=slrum: there is no such choice; did you mean slurm?"),
        (["hydra/launcher=slurm"], "hydra/launcher=slurm: SLURM is not installed here (no sbatch, srun, squeue); "),
    ],
)
def test_a_launcher_that_cannot_work_is_one_line(tmp_path, overrides, error) -> None:
    done = srp_exp(*TINY, *overrides, f"output_dir={tmp_path}", PATH=str(tmp_path))
    assert done.returncode == 1
    assert done.stderr.startswith(f"srp-exp: {error}")
    assert len(done.stderr.splitlines()) == 1
    assert list(tmp_path.glob("runs/*/*")) == []


# --- Search --------------------------------------------------------------------------------------

# hydra-optuna-sweeper asks for optuna 2, which uses what SQLAlchemy 2 has moved.
OLD_OPTUNA = pytest.mark.filterwarnings("ignore:The ``declarative_base:DeprecationWarning")
SEARCH = (*TINY, "hydra/sweeper=search", "srp.last=interval(0.2,1)", "hydra.sweeper.n_trials=2")


@OLD_OPTUNA
def test_a_search_maximises_the_validation_part_and_trains_nothing_twice(command_line, tmp_path) -> None:
    overrides = ("-m", *SEARCH, "recipe.epochs=2", "dataset.val_fraction=0.5", f"output_dir={tmp_path}")
    done = command_line(*overrides)
    assert done.code == 0, done.err
    folders = [folder for folder in (tmp_path / "runs").iterdir() if folder.is_dir()]
    assert len(folders) == 2
    last = [json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])["val/top1"] for run in folders]
    best = (tmp_path / "runs" / "optimization_results.yaml").read_text()
    assert f"best_value: {max(last)}\n" in best

    again = command_line(*overrides)
    assert again.code == 0, again.err
    assert again.out.count("finished already: ") == 2
    assert (tmp_path / "runs" / "optimization_results.yaml").read_text() == best


@OLD_OPTUNA
@pytest.mark.parametrize(
    ("overrides", "error"),
    [
        ([], "hydra/sweeper=search needs a validation part, "),
        (["dataset.val_fraction=0.5", "mode=cost"], "mode=cost: "),
        (["dataset.val_fraction=0.5", "dry=true"], "dry=true: "),
        (["dataset.val_fraction=0.5", "hydra/launcher=slurm"], "hydra/launcher=slurm: "),
    ],
)
def test_a_search_that_cannot_be_is_one_line(command_line, tmp_path, overrides, error) -> None:
    done = command_line("-m", *SEARCH, *overrides, f"output_dir={tmp_path}")
    assert done.code == 1
    assert done.err.startswith(f"srp-exp: {error}")
    assert len(done.err.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_the_objective_is_that_of_the_epoch_that_is_kept(compose, tmp_path) -> None:
    lines = [{"val/top1": 0.25}, {"val/top1": 0.75}, {"train/top1": 1.0}, {"val/top1": 0.5}]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (tmp_path / "results.json").write_text("{}")
    validated = compose("dataset.val_fraction=0.1")
    assert objective(validated, tmp_path) == 0.5
    assert objective(compose("dataset.val_fraction=0.1", "recipe.selection=best"), tmp_path) == 0.75
    assert objective(compose(), tmp_path) is None
