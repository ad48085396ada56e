"""Trainings and evaluations of two processes, started by torchrun with gloo, against those of one."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from srp_exp.training.reporting.reporter import Reporter
from srp_exp.training.stopping.interruption import EXIT_CODE

ROOT = Path(__file__).resolve().parents[2]
TINY = (
    "dataset=synthetic", "dataset.train_size=88", "dataset.test_size=44", "dataset.image_size=[16,16]",
    "dataset.augmentation.crop_padding=2", "dataset.augmentation.flip=true",
    "recipe.batch_size=8", "recipe.epochs=2", "recipe.warmup_epochs=0",
    "recipe.lr=0.02", "log_every_steps=1", "device=cpu",
)  # fmt: skip
# The images of a batch see each other in batch norm only, whose statistics are those of one process.
NO_BATCH_NORM = ("backbone=group_norm", "attention=native", "srp=gap")

NETWORK = """
from timm.layers import SqueezeExcite
from torch import nn

def build(width, *, attention, conv, num_classes, in_channels):
    return nn.Sequential(
        nn.Conv2d(in_channels, width, 3, 2, 1), nn.GroupNorm(2, width), nn.ReLU(), SqueezeExcite(width, 0.5),
        nn.Conv2d(width, width, 3, 2, 1), nn.GroupNorm(2, width), nn.ReLU(), SqueezeExcite(width, 0.5),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, num_classes),
    )
"""
NETWORK_YAML = """
name: group_norm
_target_: my_network.build
width: 16
"""
# A training that tells what every rank saw and drew, and does what ACT says at a step.
OBSERVED = """
import json, os, signal, sys
from pathlib import Path
import torch
from srp_exp.__main__ import main
from srp_exp.srp import RegionPool
from srp_exp.training.learner import Learner

torch.set_num_threads(1)
rank, folder = int(os.environ["RANK"]), Path(os.environ["OBSERVATIONS"])
step, draw = Learner.train_step, RegionPool.draw
drawn = []

def observed_draw(self, *args):
    regions = draw(self, *args)
    if regions is not None:
        drawn.append(regions.numbers.flatten().tolist())
    return regions

def observed_step(self, batch, *args, **kwargs):
    drawn.clear()
    number = self.step + 1
    step(self, batch, *args, **kwargs)
    with (folder / f"rank{rank}.jsonl").open("a") as file:
        line = {"step": number, "epoch": self.epoch, "index": batch.index.tolist(), "regions": drawn,
                "images": [image.double().sum().item() for image in batch.images], "size": self.processes.size}
        file.write(json.dumps(line) + "\\n")
    exec(os.environ.get("ACT", ""), {"step": number, "rank": rank, "os": os, "signal": signal})

RegionPool.draw, Learner.train_step = observed_draw, observed_step
exec(os.environ.get("BEFORE", ""), {"rank": rank})
main()
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A folder with the network without batch norm, its configuration, and the observed training."""
    folder = tmp_path_factory.mktemp("distributed")
    (folder / "my_network.py").write_text(NETWORK)
    (folder / "observed.py").write_text(OBSERVED)
    (folder / "conf" / "backbone").mkdir(parents=True)
    (folder / "conf" / "backbone" / "group_norm.yaml").write_text(NETWORK_YAML)
    return folder


@pytest.fixture(scope="module")
def alone(command_line, place) -> Callable[..., Path]:
    """`alone(name, *overrides)`: train with one process, in this one, and return the run folder."""

    def train(name: str, *overrides: str) -> Path:
        with pytest.MonkeyPatch.context() as patch:
            patch.syspath_prepend(str(place))
            outcome = command_line("--config-dir", str(place / "conf"), *TINY, *overrides, f"output_dir={place / name}")
        assert outcome.code == 0, outcome.err
        return the_run(place / name)

    return train


def start_two(place: Path, *arguments: str, program: str = "srp_exp", **environment: str) -> subprocess.Popen[str]:
    """`torchrun --nproc-per-node=2 -m <program> <arguments>`, in a session of its own."""
    variables = {
        "PATH": os.environ["PATH"], "PYTHONPATH": f"{ROOT}:{place}", "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "",
        "OBSERVATIONS": str(place), **environment,
    }  # fmt: skip
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", program]
    command = [*torchrun, "--config-dir", str(place / "conf"), *arguments]
    return subprocess.Popen(
        command, cwd=place, env=variables, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        start_new_session=True,
    )  # fmt: skip


def end(process: subprocess.Popen[str], seconds: float = 400) -> str:
    """What it printed, after its end within `seconds`."""
    try:
        return process.communicate(timeout=seconds)[0]
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        raise AssertionError(f"still running after {seconds} s: {process.communicate()[0]}") from None


def two(place: Path, *arguments: str, program: str = "srp_exp", **environment: str) -> str:
    process = start_two(place, *arguments, program=program, **environment)
    printed = end(process)
    assert process.returncode == 0, printed
    return printed


def the_run(output_dir: Path) -> Path:
    (folder,) = (path for path in (output_dir / "runs").iterdir() if path.is_dir())
    return folder


def observations(place: Path, rank: int) -> list[dict[str, Any]]:
    """What a rank saw, step by step; the file is gone afterwards."""
    path = place / f"rank{rank}.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    path.unlink()
    return lines


def curve(folder: Path, tag: str) -> list[float]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    events.Reload()
    scalars = events.Scalars(tag)
    assert [event.step for event in scalars] == list(range(1, len(scalars) + 1))
    return [event.value for event in scalars]


def metrics(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def final_model(folder: Path) -> dict[str, torch.Tensor]:
    model: dict[str, torch.Tensor] = torch.load(folder / "checkpoints" / "final.pt", weights_only=True)["model"]
    return model


def evaluation(folder: Path, split: str = "test") -> list[bytes]:
    return [(folder / "evaluation" / split / name).read_bytes() for name in ("metrics.json", "predictions.parquet")]


def assert_nearly_equal(one: Path, other: Path) -> None:
    """The same training but for the order of the sums in floating point."""
    for name, tensor in final_model(one).items():
        torch.testing.assert_close(tensor, final_model(other)[name], rtol=1e-4, atol=1e-5)
    for line, other_line in zip(metrics(one), metrics(other), strict=True):
        assert line["train/loss"] == pytest.approx(other_line["train/loss"], rel=1e-4)


def test_two_processes_train_as_one(place, alone) -> None:
    one = alone("one", *NO_BATCH_NORM)
    printed = two(place, *TINY, *NO_BATCH_NORM, f"output_dir={place / 'two'}", program="observed")
    folder = the_run(place / "two")
    assert folder.name == one.name

    ranks = [observations(place, rank) for rank in range(2)]
    for epoch in range(2):
        of_epoch = [[line["index"] for line in lines if line["epoch"] == epoch] for lines in ranks]
        assert [len(steps) for steps in of_epoch] == [11, 11]
        seen = [sample for steps in of_epoch for step in steps for sample in step]
        assert sorted(seen) == list(range(88))  # each once

    losses = curve(one, "train/loss"), curve(folder, "train/loss")
    assert len(losses[0]) == len(losses[1]) == 22
    assert losses[1][:20] == pytest.approx(losses[0][:20], rel=1e-5)
    assert losses[0][0] != pytest.approx(losses[0][1], rel=1e-3)  # else nothing would have been compared
    assert curve(folder, "gradient_norm") == pytest.approx(curve(one, "gradient_norm"), rel=1e-3)
    assert_nearly_equal(one, folder)

    names = {path.relative_to(run).as_posix() for run in (one, folder) for path in run.rglob("*") if path.is_file()}
    assert {name for name in names if "tfevents" not in name} == {
        path.relative_to(one).as_posix() for path in one.rglob("*") if path.is_file() and "tfevents" not in path.name
    }
    assert len(list(folder.glob("events.out.tfevents.*"))) == len(list(one.glob("events.out.tfevents.*")))
    log = (folder / "run.log").read_text()
    assert "on 2 x cpu" in log
    for text in (log, printed):
        assert len(re.findall("epoch 1/2  ", text)) == 1
    assert printed.count("run folder  ") == 1
    assert json.loads((folder / "provenance.json").read_text())["processes"] == 2


def test_evaluation_of_two_is_that_of_one_to_the_bit(command_line, place, alone) -> None:
    """44 images in batches of 8: the ranks have three batches each, the last of them a smaller one."""
    folder = alone("batch norm", "backbone.depth=8")
    ours = evaluation(folder)
    for path in (folder / "evaluation" / "test").iterdir():
        path.unlink()
    two(place, "mode=eval", f"run={folder}", "device=cpu")
    assert evaluation(folder) == ours


def test_ranks_differ_in_regions_and_share_what_is_the_result(command_line, place) -> None:
    """With batch norm, whose running statistics each rank has of its own, results.json is still that of final.pt."""
    two(place, *TINY, "backbone.depth=8", "recipe.ema_decay=0.9", f"output_dir={place / 'srp'}", program="observed")
    ranks = [observations(place, rank) for rank in range(2)]
    for first, second in zip(*ranks, strict=True):
        assert first["step"] == second["step"]
        assert first["regions"] and first["regions"] != second["regions"]
    folder = the_run(place / "srp")
    training = evaluation(folder)
    outcome = command_line("mode=eval", f"run={folder}", "device=cpu")
    assert outcome.code == 0, outcome.err
    assert evaluation(folder) == training
    results = json.loads((folder / "results.json").read_text())
    assert results["test"]["loss"] == metrics(folder)[-1]["test/loss"]


@pytest.mark.parametrize("how", ["os.kill(os.getpid(), signal.SIGKILL)", "raise RuntimeError('a bad rank')"])
def test_a_rank_that_dies_ends_the_other(place, how) -> None:
    name = re.sub(r"\W", "", how)
    process = start_two(
        place, *TINY, *NO_BATCH_NORM, f"output_dir={place / name}", program="observed",
        ACT=f"if rank == 1 and step == 4: {how}",
    )  # fmt: skip
    printed = end(process)
    assert process.returncode != 0
    expected = {"os.kill(os.getpid(), signal.SIGKILL)": "Signal 9 (SIGKILL)"}
    assert expected.get(how, "RuntimeError: a bad rank") in printed
    assert not (the_run(place / name) / "results.json").exists()
    (place / "rank0.jsonl").unlink()
    (place / "rank1.jsonl").unlink()


def test_two_that_are_told_to_stop_save_and_one_goes_on(place, alone) -> None:
    """SIGTERM to torchrun, which passes it on and ends with an error of its own; then the same with one process."""
    one = alone("one", *NO_BATCH_NORM)
    name = "stopped"
    process = start_two(
        place, *TINY, *NO_BATCH_NORM, f"output_dir={place / name}", program="observed",
        ACT="if step == 14: import time; open('reached', 'w').close(); time.sleep(1 if rank == 0 else 0)",
    )  # fmt: skip
    while not (place / "reached").exists():
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.05)
    process.terminate()
    printed = end(process)
    assert process.returncode != 0, printed
    folder = the_run(place / name)
    saved = sorted(path.name for path in (folder / "checkpoints").glob("step-*.pt"))
    assert saved[-1] > "step-000000011.pt", printed  # of the second epoch, not that after the first one
    assert not (folder / "results.json").exists()
    before = [observations(place, rank) for rank in range(2)]
    last = int(saved[-1][5:14])
    assert [lines[-1]["step"] for lines in before] == [last, last]

    assert alone(name, *NO_BATCH_NORM) == folder
    assert f"resumed after step {last} " in (folder / "run.log").read_text()
    assert len(curve(folder, "train/loss")) == 22
    assert_nearly_equal(one, folder)


BLIND = """
if rank == 1:
    from srp_exp.training import checkpoints
    def refuse(path):
        raise OSError(f"{path} isn't seen from here")
    checkpoints.load = refuse
"""
"""A machine whose view of a shared disk is behind: rank 0 alone reads checkpoints."""


SLOW = """
if rank == 0:
    import time
    from srp_exp.training import checkpoints
    write = checkpoints.write
    def slowly(path, content):
        time.sleep(1.0)
        write(path, content)
    checkpoints.write = slowly
if rank == 1:
    from srp_exp.training.stopping.interruption import Interruption
    leave = Interruption.leave
    def telling(self, number):
        saved = [str(path) for path in Path(SAVED).glob("*/checkpoints/step-*")]
        Path(os.environ["OBSERVATIONS"], "left").write_text(" ".join(saved))
        leave(self, number)
    Interruption.leave = telling
"""
"""A disk that takes its time; rank 1 tells what was saved when it leaves, for which a cluster may end the job."""


def test_rank_0_saves_before_others_leave_and_reads_for_all(place, tmp_path) -> None:
    command = (
        *TINY, *NO_BATCH_NORM, "checkpoint.every_steps=4", "seed=6", "dataset.val_fraction=0.2",
        "recipe.selection=best", f"output_dir={tmp_path}",
    )  # fmt: skip
    process = start_two(
        place, *command, program="observed", ACT="if step == 10 and rank == 1: os.kill(os.getpid(), signal.SIGUSR1)",
        BEFORE=f"from pathlib import Path; import os; SAVED = {str(tmp_path / 'runs')!r}" + SLOW,
    )  # fmt: skip
    printed = end(process)
    assert process.returncode != 0
    folder = the_run(tmp_path)
    saved = max((folder / "checkpoints").glob("step-*.pt"))
    assert saved.name > "step-000000009.pt", printed
    assert str(saved) in (place / "left").read_text()
    two(place, *command, program="observed", BEFORE=BLIND)
    assert (folder / "results.json").exists()
    assert "resumed after step " in (folder / "run.log").read_text()


def test_one_that_is_told_to_stop_goes_on_as_two(command_line, place, alone, monkeypatch) -> None:
    one, report = alone("one", *NO_BATCH_NORM), Reporter.step

    def stop(self: Reporter, learner: Any, *args: Any) -> None:
        report(self, learner, *args)
        if learner.step == 14:
            os.kill(os.getpid(), signal.SIGUSR1)

    with monkeypatch.context() as patch:
        patch.syspath_prepend(str(place))
        patch.setattr(Reporter, "step", stop)
        overrides = (*TINY, *NO_BATCH_NORM, f"output_dir={place / 'grown'}")
        assert command_line("--config-dir", str(place / "conf"), *overrides).code == EXIT_CODE
    folder = the_run(place / "grown")
    two(place, *overrides)
    assert "resumed after step 15 " in (folder / "run.log").read_text()
    assert len(curve(folder, "train/loss")) == 22
    assert_nearly_equal(one, folder)
