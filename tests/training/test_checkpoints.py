"""Checkpoints: whole or absent, the last two and the best, and no code of a file is ever run."""

import os
import pickle
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import pytest
import torch
from torch import nn
from torch.optim import SGD, AdamW, Optimizer

from srp_exp.datasets import BatchLoader
from srp_exp.training import lr_schedule
from srp_exp.training.checkpoints import Checkpoints, load
from srp_exp.training.learner import Learner, StepSettings

MakeLearner = Callable[..., Learner]
AssertSame = Callable[[Any, Any], None]


@pytest.fixture
def checkpoints(tmp_path: Path) -> Checkpoints:
    return Checkpoints(tmp_path / "checkpoints", "seed: 3\n")


@pytest.fixture
def learner(make_learner: MakeLearner) -> Learner:
    return make_learner(ema_decay=0.9)


def names(checkpoints: Checkpoints) -> list[str]:
    return sorted(path.name for path in checkpoints.folder.iterdir())


def save_at(checkpoints: Checkpoints, learner: Learner, step: int, is_best: bool = False) -> None:
    learner.step = step
    checkpoints.save(learner, is_best)


def test_the_last_two_and_the_best_are_kept(checkpoints: Checkpoints, learner: Learner) -> None:
    assert checkpoints.latest() is None
    for step, is_best in [(5, False), (10, True), (1000, False), (2000, False)]:
        save_at(checkpoints, learner, step, is_best)
        assert checkpoints.latest() == checkpoints.folder / f"step-{step:09d}.pt"
    assert names(checkpoints) == ["best.pt", "step-000001000.pt", "step-000002000.pt"]
    assert load(checkpoints.best)["learner"]["step"] == 10
    save_at(checkpoints, learner, 3000, is_best=True)
    assert load(checkpoints.best)["learner"]["step"] == 3000
    assert checkpoints.best.read_bytes() == (checkpoints.folder / "step-000003000.pt").read_bytes()


def test_resuming_takes_the_newest(
    checkpoints: Checkpoints, make_learner: MakeLearner, batches: BatchLoader, assert_same_state: AssertSame
) -> None:
    learner = make_learner(ema_decay=0.9)
    for batch in batches.epoch(0):
        learner.train_step(batch)
        checkpoints.save(learner, is_best=False)
    other = make_learner(ema_decay=0.9)
    Checkpoints(checkpoints.folder, "seed: 3\n").resume(other)
    assert_same_state(other.state_dict(), learner.state_dict())
    untouched = make_learner(ema_decay=0.9)
    expected = make_learner(ema_decay=0.9).state_dict()
    Checkpoints(checkpoints.folder / "empty", "").resume(untouched)
    assert_same_state(untouched.state_dict(), expected)


def test_a_checkpoint_can_be_evaluated_alone(
    checkpoints: Checkpoints, learner: Learner, batches: BatchLoader, assert_same_state: AssertSame
) -> None:
    for batch in batches.epoch(0):
        learner.train_step(batch)
    checkpoints.save(learner, is_best=True)
    checkpoints.finish(learner.evaluated_model.state_dict())
    for path in (checkpoints.latest(), checkpoints.best, checkpoints.final):
        assert path is not None
        content = load(path)
        assert content["config"] == "seed: 3\n"
        assert_same_state(content["model"], learner.evaluated_model.state_dict())
    assert not torch.equal(content["model"]["0.weight"], learner.model.state_dict()["0.weight"])


def test_the_final_one_holds_the_result_alone_and_is_not_resumed(checkpoints: Checkpoints, learner: Learner) -> None:
    checkpoints.finish(learner.evaluated_model.state_dict())
    assert load(checkpoints.final).keys() == {"config", "model"}
    assert checkpoints.latest() is None


@pytest.mark.parametrize(
    "make_optimizer",
    [partial(SGD, lr=0.1, momentum=0.9, nesterov=True), partial(AdamW, lr=1e-3)],
    ids=["sgd", "adamw"],
)
@pytest.mark.parametrize(
    "make_schedule",
    [
        partial(lr_schedule.cosine, warmup_epochs=1, final_factor=0.0),
        partial(lr_schedule.step, warmup_epochs=0, milestones=[0.3, 0.6], gamma=0.1),
        partial(lr_schedule.step, warmup_epochs=1, milestones=[0.5, 0.8], gamma=0.1),
        partial(lr_schedule.one_cycle, peak_at=0.3, start_factor=0.04, final_factor=0.0),
    ],
    ids=["cosine", "step", "step with warm-up", "one_cycle"],
)
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_the_state_of_every_choice_can_be_read_back(
    checkpoints: Checkpoints,
    batches: BatchLoader,
    assert_same_state: AssertSame,
    make_optimizer: Callable[..., Optimizer],
    make_schedule: Callable[..., Any],
    precision: str,
) -> None:
    def make() -> Learner:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Flatten(), nn.Linear(192, 3))
        optimizer = make_optimizer(model.parameters())
        schedule = make_schedule(optimizer, epochs=4, steps_per_epoch=5)
        settings = StepSettings(0, 20, precision=precision)
        learner = Learner(model, optimizer, schedule, settings, device=torch.device("cpu"))
        learner.scaler = torch.amp.GradScaler("cpu", init_scale=8.0, enabled=precision == "fp16")
        return learner

    straight, stopped, resumed = make(), make(), make()
    for epoch in range(4):
        for batch in batches.epoch(epoch):
            straight.train_step(batch)
            (stopped if straight.step <= 7 else resumed).train_step(batch)
            if straight.step == 7:
                checkpoints.save(stopped, is_best=False)
                checkpoints.resume(resumed)
    assert_same_state(resumed.state_dict(), straight.state_dict())


# A disk that fails


@pytest.mark.parametrize("written", [0, 1000])
@pytest.mark.parametrize("existing", [True, False])
def test_a_write_that_fails_leaves_the_old_file_and_no_other(
    checkpoints: Checkpoints, learner: Learner, monkeypatch: pytest.MonkeyPatch, existing: bool, written: int
) -> None:
    if existing:
        save_at(checkpoints, learner, 5, is_best=True)
        checkpoints.finish(learner.model.state_dict())
    before = {path.name: path.read_bytes() for path in checkpoints.folder.iterdir()}

    def failing(state: object, file: BinaryIO) -> None:
        file.write(b"x" * written)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", failing)
    for write in (
        lambda: save_at(checkpoints, learner, 5, is_best=True),
        lambda: save_at(checkpoints, learner, 10, is_best=True),
        lambda: checkpoints.finish(learner.model.state_dict()),
    ):
        with pytest.raises(OSError, match="No space left"):
            write()
    assert {path.name: path.read_bytes() for path in checkpoints.folder.iterdir()} == before


# Files that are no checkpoints


def refusal(path: Path) -> str:
    """The message of the refusal, a single line that names the file."""
    with pytest.raises(ValueError) as caught:
        load(path)
    message = str(caught.value)
    assert message.startswith(f"checkpoint {path}: ")
    assert "\n" not in message
    return message


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    for path in (tmp_path / "absent.pt", tmp_path):
        with pytest.raises(FileNotFoundError, match="no such file") as caught:
            load(path)
        assert str(path) in str(caught.value)


@pytest.mark.parametrize("part", [0.0, 0.01, 0.5, 0.9, 0.999])
def test_a_truncated_file_is_refused(checkpoints: Checkpoints, learner: Learner, part: float) -> None:
    checkpoints.save(learner, is_best=True)
    content = checkpoints.best.read_bytes()
    checkpoints.best.write_bytes(content[: int(len(content) * part)])
    assert "can't be read" in refusal(checkpoints.best)


@pytest.mark.parametrize("content", [b"", b"\x00" * 5000, b"PK\x03\x04 not a zip", b"config: 1\nmodel: 2\n"])
def test_a_file_of_something_else_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "other.pt"
    path.write_bytes(content)
    assert "can't be read" in refusal(path)


@pytest.mark.parametrize("content", [{"model": {}}, {"config": ""}, [1, 2], torch.zeros(2), {}])
def test_a_file_of_torch_without_config_and_model_is_refused(tmp_path: Path, content: object) -> None:
    path = tmp_path / "other.pt"
    torch.save(content, path)
    assert "isn't one of srp_exp" in refusal(path)


class Malicious:
    """Makes a folder when it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return os.mkdir, (str(self.folder),)


@pytest.mark.parametrize("save", [torch.save, lambda content, path: path.write_bytes(pickle.dumps(content))])
def test_code_in_a_file_is_refused_and_not_run(tmp_path: Path, save: Callable[[object, Path], object]) -> None:
    path, made = tmp_path / "malicious.pt", tmp_path / "made"
    content = {"config": "", "model": {"weight": torch.zeros(1)}, "learner": Malicious(made)}
    save(content, path)
    assert "can't be read" in refusal(path)
    assert not made.exists()
    if save is torch.save:
        torch.load(path, weights_only=False)  # the file does what it says where it is trusted
        assert made.exists()


def test_resuming_from_a_damaged_file_is_refused_and_changes_nothing(
    checkpoints: Checkpoints, learner: Learner, make_learner: MakeLearner, assert_same_state: AssertSame
) -> None:
    checkpoints.save(learner, is_best=False)
    latest = checkpoints.latest()
    assert latest is not None
    latest.write_bytes(latest.read_bytes()[:-100])
    other, expected = make_learner(ema_decay=0.9), make_learner(ema_decay=0.9).state_dict()
    with pytest.raises(ValueError, match="can't be read"):
        checkpoints.resume(other)
    assert_same_state(other.state_dict(), expected)
