"""The loop: which epoch is the best, where a loss goes bad, and that an interruption anywhere leaves no trace."""

import copy
import json
import math
import signal
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from srp_exp.datasets import Batch, BatchLoader
from srp_exp.training import checkpoints as checkpoints_module
from srp_exp.training import look as look_module
from srp_exp.training.checkpoints import Checkpoints, load
from srp_exp.training.learner import Learner
from srp_exp.training.loggers.guarded import Loggers
from srp_exp.training.loggers.logger import LoggedRun
from srp_exp.training.loggers.tensorboard import TensorBoard
from srp_exp.training.loop import NonFiniteLossError, Training, fit
from srp_exp.training.mixing import MixUpOrCutMix
from srp_exp.training.reporting import reporter as reporter_module
from srp_exp.training.reporting.reporter import Reporter
from srp_exp.training.stopping.interruption import Interruption

MakeLearner = Callable[..., Learner]
AssertSame = Callable[[Any, Any], None]

EPOCHS, STEPS = 3, 5


def epoch_of(model: nn.Module) -> int:
    """The epochs that `model` has seen, told by its batch norm's count of batches."""
    count = model.get_submodule("1").num_batches_tracked
    assert isinstance(count, torch.Tensor)
    assert int(count) % STEPS == 0
    return int(count) // STEPS


class Run:
    """A run in a folder; every `fit` is made of new objects, as in a new process."""

    def __init__(self, folder: Path, make_learner: MakeLearner, batches: BatchLoader) -> None:
        self.folder, self.make_learner, self.batches = folder, make_learner, batches
        self.top1 = [0.5, 0.7, 0.6]
        self.intervals: dict[str, Any] = {}
        self.interruption = Interruption()

    def fit(self, learner: Learner | None = None, epochs: int = EPOCHS, **settings: Any) -> Learner:
        if learner is None:
            mix = MixUpOrCutMix(mixup_alpha=0.4, cutmix_alpha=1.0, num_classes=3)
            learner = self.make_learner(mix=mix)
        loggers = Loggers(LoggedRun(self.folder, {}, ""), [TensorBoard()])
        reporter = Reporter(self.folder, loggers, lambda _: None, epochs, self.batches.batch_size, progress=False)
        checkpoints = self.checkpoints
        settings = {"log_every_steps": 2, "select_by": "val/top1", **settings}
        training = Training(learner, self.batches, checkpoints, self.interruption, reporter, epochs=epochs, **settings)
        try:
            fit(training, self.evaluate)
        finally:
            checkpoints.wait()
            reporter.close()
        return learner

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        return {"val/top1": self.top1[epoch_of(model) - 1]}

    @property
    def checkpoints(self) -> Checkpoints:
        return Checkpoints(self.folder / "checkpoints", "config: 1", **self.intervals)

    def metrics(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.folder / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture
def make_run(tmp_path: Path, make_learner: MakeLearner, batches: BatchLoader) -> Callable[[str], Run]:
    def make(name: str) -> Run:
        (tmp_path / name).mkdir()
        return Run(tmp_path / name, make_learner, batches)

    return make


@pytest.fixture
def run(make_run: Callable[[str], Run]) -> Run:
    return make_run("run")


@pytest.fixture(scope="module")
def undisturbed(
    tmp_path_factory: pytest.TempPathFactory, make_learner: MakeLearner, batches: BatchLoader
) -> dict[str, Any]:
    """The final state of a run that nothing disturbed."""
    straight = Run(tmp_path_factory.mktemp("straight"), make_learner, batches)
    return final_state(straight, straight.fit())


# Best epoch


def test_without_a_metric_no_epoch_is_the_best(run: Run) -> None:
    run.fit(select_by=None, epochs=1)
    assert not run.checkpoints.best.exists()


def test_early_stopping_ends_at_the_same_epoch_however_often_it_was_resumed(
    make_run: Callable[[str], Run], assert_same_state: Any
) -> None:
    learners = []
    for name, parts in (("straight", [6]), ("resumed", [1, 3, 6, 6])):  # the last resumes what has ended
        run = make_run(name)
        run.top1 = [0.5, 0.7, 0.6, 0.7, 0.9, 0.9]
        for epochs in parts:
            learner = run.fit(epochs=epochs, patience=2)
        assert [metrics["epoch"] for metrics in run.metrics()] == [1, 2, 3, 4]
        best = load(run.checkpoints.best)["learner"]
        assert (best["epoch"], best["step"]) == (2, 2 * STEPS)
        learners.append(learner.state_dict())
    assert_same_state(*learners)


# History


def test_history_tells_each_epoch(run: Run) -> None:
    learner = run.make_learner()
    seen: list[tuple[float, float]] = []
    lrs: list[float] = []
    step = learner.train_step

    def recording(batch: Batch, watch: bool) -> None:
        lrs.append(learner.lr)
        before = learner.totals.values.clone()
        step(batch, watch)
        loss, correct = (learner.totals.values - before)[:2].tolist()
        seen.append((loss, correct))

    learner.train_step = recording  # type: ignore[method-assign]
    run.fit(learner)
    assert [metrics["epoch"] for metrics in learner.history] == [1, 2, 3]
    assert [metrics["step"] for metrics in learner.history] == [5, 10, 15]
    assert [metrics["lr"] for metrics in learner.history] == [lrs[4], lrs[9], lrs[14]]
    assert [metrics["val/top1"] for metrics in learner.history] == run.top1
    for epoch, metrics in enumerate(learner.history):
        losses, corrects = zip(*seen[epoch * STEPS : (epoch + 1) * STEPS], strict=True)
        assert metrics["train/loss"] == pytest.approx(sum(losses) / (STEPS * 4), rel=1e-5)
        assert metrics["train/top1"] == pytest.approx(sum(corrects) / (STEPS * 4))
    assert run.metrics() == learner.history


@pytest.mark.parametrize("every, evaluated", [(2, [2, 3]), (10, [3])])
def test_evaluation_every_few_epochs_and_at_the_end(run: Run, every: int, evaluated: list[int]) -> None:
    run.fit(evaluate_every_epochs=every)
    assert [metrics["epoch"] for metrics in run.metrics() if "val/top1" in metrics] == evaluated


@pytest.mark.parametrize("log_every_steps", [1, 100])
def test_how_often_it_logs_changes_no_result(run: Run, log_every_steps: int, assert_same_state: AssertSame) -> None:
    # 100: an epoch has one log point only, at its end.
    learner = run.fit(run.make_learner(), log_every_steps=log_every_steps)
    reference = run.make_learner()
    for epoch in range(EPOCHS):
        for batch in run.batches.epoch(epoch):
            reference.train_step(batch)
    assert_same_state(learner.model.state_dict(), reference.model.state_dict())
    assert len(run.metrics()) == EPOCHS


def test_the_moving_average_is_what_is_evaluated(run: Run) -> None:
    learner = run.make_learner(ema_decay=0.9)
    evaluated: list[nn.Module] = []
    run.evaluate = lambda model: evaluated.append(model) or {}  # type: ignore[func-returns-value,method-assign]
    run.fit(learner, select_by=None)
    assert learner.ema is not None
    assert len(evaluated) == EPOCHS
    assert all(model is learner.ema.module for model in evaluated)


# Non-finite loss


class Poisoned:
    """The batches of a loader, that of one step of the training holding a pixel that isn't finite."""

    def __init__(self, batches: BatchLoader, bad_step: int, value: float) -> None:
        self.batch_size, self.steps_per_epoch = batches.batch_size, batches.steps_per_epoch
        self._batches, self._bad_step, self._value = batches, bad_step, value

    def epoch(self, epoch: int, first_step: int = 0) -> Iterator[Batch]:
        for step, batch in enumerate(self._batches.epoch(epoch, first_step), epoch * STEPS + first_step):
            if step == self._bad_step:
                batch.images[0, 0, 0, 0] = self._value
            yield batch


@pytest.mark.parametrize(
    "bad_step, place, last_good, log_every_steps, lags",
    [
        (0, "step 1 of epoch 1", None, 2, True),
        (4, "step 5 of epoch 1", None, 5, False),
        (5, "step 1 of epoch 2", 5, 2, False),
        (12, "step 3 of epoch 3", 10, 100, False),
        (13, "step 4 of epoch 3", 10, 2, True),
    ],
)
def test_a_loss_that_is_not_finite_is_placed_exactly(
    run: Run, bad_step: int, place: str, last_good: int | None, log_every_steps: int, lags: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(look_module, "_lags", lambda device: lags)
    healthy = run.make_learner()
    for step in range(bad_step):
        healthy.train_step(list(run.batches.epoch(step // STEPS))[step % STEPS])
    run.batches = Poisoned(run.batches, bad_step, math.inf if bad_step % 2 else math.nan)  # type: ignore[assignment]
    with pytest.raises(NonFiniteLossError) as caught:
        run.fit(run.make_learner(), log_every_steps=log_every_steps)
    message = str(caught.value)
    assert place in message
    assert f"learning rate {healthy.lr:.3g})" in message
    name = "none" if last_good is None else str(run.folder / "checkpoints" / f"step-{last_good:09d}.pt")
    assert f"last good checkpoint: {name};" in message
    assert "\n" not in message
    assert len(run.metrics()) == bad_step // STEPS  # nothing of the bad epoch is kept


def test_weights_that_are_not_finite_are_no_good_checkpoint(run: Run) -> None:
    learner = run.make_learner()
    step = learner.train_step

    def diverging(batch: Batch, watch: bool) -> None:
        if learner.step == 9:  # the last of epoch 2: its loss is finite still, and none after it tells
            learner.optimizer.param_groups[0]["lr"] = math.inf
        step(batch, watch)

    learner.train_step = diverging  # type: ignore[method-assign]
    with pytest.raises(NonFiniteLossError, match=r"of epoch 2 .*last good checkpoint: .*step-000000005\.pt"):
        run.fit(learner, select_by=None)
    assert run.checkpoints.latest() == run.folder / "checkpoints" / "step-000000005.pt"


@pytest.mark.parametrize("clip_norm", [None, 1.0])
def test_a_gradient_that_is_not_finite_is_placed(run: Run, clip_norm: float | None) -> None:
    class Steep(torch.autograd.Function):
        """Keeps its input, but not the gradient."""

        @staticmethod
        def forward(_: Any, value: torch.Tensor) -> torch.Tensor:
            return value.clone()

        @staticmethod
        def backward(_: Any, gradient: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
            return gradient * (math.inf if learner.step == 7 else 1.0)

    learner = run.make_learner(clip_norm=clip_norm)
    learner.model.register_forward_hook(lambda _, __, output: Steep.apply(output))
    with pytest.raises(NonFiniteLossError) as caught:
        run.fit(learner, log_every_steps=1)
    assert str(caught.value).startswith("the gradient is not finite at step 3 of epoch 2 (learning rate ")
    assert f"last good checkpoint: {run.folder}/checkpoints/step-000000005.pt;" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "what", "every_steps"),
    [
        ("model.1.running_var", "the model's statistics are", None),
        ("ema.module.0.weight", "the moving average is", 1),
    ],
)
def test_neither_statistics_nor_an_average_that_are_not_finite_are_saved(
    run: Run, name: str, what: str, every_steps: int | None
) -> None:
    run.intervals = {"every_steps": every_steps}
    learner = run.make_learner(ema_decay=0.9)
    step = learner.train_step

    def spoiling(batch: Batch, watch: bool) -> None:
        step(batch, watch)
        if learner.step == 8:
            part, _, rest = name.partition(".")
            getattr(learner, part).state_dict()[rest].view(-1)[0] = math.inf

    learner.train_step = spoiling  # type: ignore[method-assign]
    with pytest.raises(NonFiniteLossError, match=f"^{what} not finite at step {3 if every_steps else 5} of epoch 2"):
        run.fit(learner, select_by=None)
    assert run.checkpoints.latest() == run.folder / "checkpoints" / f"step-{7 if every_steps else 5:09d}.pt"


def test_fp16_does_not_skip_steps_for_ever(run: Run) -> None:
    learner = run.make_learner(precision="fp16")
    learner.scaler = torch.amp.GradScaler("cpu", init_scale=16.0)
    learner.model[0].weight.register_hook(lambda gradient: gradient * math.nan)
    with pytest.raises(NonFiniteLossError, match="^after one skipped step after another the unscaled gradient is not"):
        run.fit(learner, log_every_steps=1)
    assert learner.step == 5  # 16, 8, 4, 2, 1: also the gradient that isn't scaled overflows


def test_spoilt_weights_are_not_saved_in_the_middle_of_an_epoch(run: Run) -> None:
    run.intervals = {"every_steps": 1}
    learner = run.make_learner()
    step = learner.train_step

    def diverging(batch: Batch, watch: bool) -> None:
        if learner.step == 6:
            learner.optimizer.param_groups[0]["lr"] = math.inf
        step(batch, watch)

    learner.train_step = diverging  # type: ignore[method-assign]
    with pytest.raises(NonFiniteLossError, match=r"weights .* step 2 of epoch 2 .*step-000000006\.pt"):
        run.fit(learner)
    assert run.checkpoints.latest() == run.folder / "checkpoints" / "step-000000006.pt"


# Interruption


def final_state(run: Run, learner: Learner) -> dict[str, Any]:
    return {
        "learner": learner.state_dict(),
        "best": load(run.checkpoints.best)["learner"],
        "latest": str(run.checkpoints.latest()).removeprefix(str(run.folder)),
        "metrics": run.metrics(),
    }


class AtOnce:
    """A thread that does its work when it is started, so that what kills it kills the training too."""

    def __init__(self, target: Callable[..., None], args: tuple[Any, ...]) -> None:
        self.start = partial(target, *args)

    def join(self) -> None:
        pass


class Killed(BaseException):
    """Stands for a signal: nothing catches it."""


def test_resumed_in_the_middle_of_an_epoch(make_run: Callable[[str], Run], assert_same_state: AssertSame) -> None:
    straight, resumed = make_run("straight"), make_run("resumed")
    learner = straight.make_learner(ema_decay=0.9)
    step = learner.train_step
    states = []

    def recording(batch: Batch, watch: bool) -> None:
        step(batch, watch)
        states.append(copy.deepcopy(learner.state_dict()))

    learner.train_step = recording  # type: ignore[method-assign]
    for either in (straight, resumed):  # a moving average of the weights has no count of batches to tell its epoch
        either.evaluate = lambda model: {"val/top1": model.get_submodule("0").weight.sum().item()}  # type: ignore[method-assign]
    straight.fit(learner, select_by=None)
    for state in (states[6], states[7], states[11]):
        other = resumed.make_learner(ema_decay=0.9)
        other.load_state_dict(copy.deepcopy(state))
        (resumed.folder / "checkpoints").mkdir(exist_ok=True)
        for path in (resumed.folder / "checkpoints").iterdir():
            path.unlink()
        resumed.fit(other, select_by=None)
        assert_same_state(other.state_dict(), learner.state_dict())
        assert resumed.metrics() == straight.metrics()


@pytest.mark.parametrize("at_step", [0, 5, 8])
def test_killed_in_a_step(
    run: Run,
    undisturbed: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    assert_same_state: AssertSame,
    at_step: int,
) -> None:
    with monkeypatch.context() as patch:
        step = Learner.train_step

        def dying(learner: Learner, batch: Batch, watch: bool) -> None:
            if learner.step == at_step:
                raise Killed
            step(learner, batch, watch)

        patch.setattr(Learner, "train_step", dying)
        with pytest.raises(Killed):
            run.fit()
    assert_same_state(final_state(run, run.fit()), undisturbed)


@pytest.mark.parametrize(("top1", "moment"), [([0.5, 0.7, 0.6], "before"), ([0.7, 0.5, 0.6], "after")])
def test_killed_at_any_write(
    make_run: Callable[[str], Run],
    monkeypatch: pytest.MonkeyPatch,
    assert_same_state: AssertSame,
    top1: list[float],
    moment: str,
) -> None:
    straight = make_run("straight")
    straight.top1 = top1
    expected = final_state(straight, straight.fit())
    write = checkpoints_module.write_atomically
    deaths = 0
    for number in range(100):
        killed = make_run(f"killed-{number}")
        killed.top1 = top1
        count = iter(range(1000))

        def dying(path: Path, content: Any, number: int = number, count: Iterator[int] = count) -> None:
            dies = next(count) == number
            if dies and moment == "before":
                raise Killed
            write(path, content)
            if dies:
                raise Killed

        with monkeypatch.context() as patch:
            patch.setattr(checkpoints_module, "write_atomically", dying)
            patch.setattr(reporter_module, "write_atomically", dying)
            patch.setattr(checkpoints_module, "threading", SimpleNamespace(Thread=AtOnce))
            try:
                killed.fit()
            except Killed:
                deaths += 1
            else:
                break
        assert_same_state(final_state(killed, killed.fit()), expected)
    assert deaths >= 2 * EPOCHS + 1  # metrics.jsonl at the start, then a checkpoint and metrics.jsonl an epoch


def test_a_finished_training_is_not_trained_again(
    run: Run, monkeypatch: pytest.MonkeyPatch, assert_same_state: AssertSame
) -> None:
    expected = run.fit().state_dict()
    monkeypatch.setattr(Learner, "train_step", None)
    assert_same_state(run.fit().state_dict(), expected)


@pytest.mark.parametrize(("at_step", "log_every_steps"), [(1, 100), (5, 2), (6, 1), (14, 100), (15, 2)])
def test_a_signal_after_any_step_leaves_no_trace(
    run: Run, undisturbed: dict[str, Any], assert_same_state: AssertSame, at_step: int, log_every_steps: int
) -> None:
    learner = run.make_learner(mix=MixUpOrCutMix(mixup_alpha=0.4, cutmix_alpha=1.0, num_classes=3))
    step = learner.train_step

    def signalled(batch: Batch, watch: bool) -> None:
        step(batch, watch)
        if learner.step == at_step:
            run.interruption.signal = signal.SIGUSR1

    learner.train_step = signalled  # type: ignore[method-assign]
    with pytest.raises(SystemExit) as left:
        run.fit(learner, log_every_steps=log_every_steps)
    assert left.value.code == 75
    assert learner.step == at_step
    assert run.checkpoints.latest() == run.folder / "checkpoints" / f"step-{at_step:09d}.pt"
    run.interruption = Interruption()
    again = run.fit(log_every_steps=log_every_steps)
    assert_same_state(final_state(run, again), undisturbed)


def test_a_signal_does_not_save_a_loss_that_is_not_finite(run: Run) -> None:
    run.batches = Poisoned(run.batches, 7, math.nan)  # type: ignore[assignment]
    learner = run.make_learner()
    step = learner.train_step

    def signalled(batch: Batch, watch: bool) -> None:
        step(batch, watch)
        if learner.step == 8:
            run.interruption.signal = signal.SIGTERM

    learner.train_step = signalled  # type: ignore[method-assign]
    with pytest.raises(NonFiniteLossError, match="step 3 of epoch 2"):
        run.fit(learner, log_every_steps=100)
    assert run.checkpoints.latest() == run.folder / "checkpoints" / "step-000000005.pt"


@pytest.mark.parametrize("intervals", [{"every_steps": 3}, {"every_minutes": 0.0}])
def test_saving_within_an_epoch_changes_nothing(
    run: Run,
    undisturbed: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    assert_same_state: AssertSame,
    intervals: dict[str, Any],
) -> None:
    run.intervals = intervals
    saved: list[int] = []
    save = Checkpoints.save

    def recording(checkpoints: Checkpoints, learner: Learner, is_best: bool = False) -> None:
        saved.append(learner.step)
        save(checkpoints, learner, is_best)

    monkeypatch.setattr(Checkpoints, "save", recording)
    assert_same_state(final_state(run, run.fit()), undisturbed)
    assert (
        saved
        == {
            "every_steps": [3, 5, 6, 9, 10, 12, 15],
            "every_minutes": [2, 4, 5, 7, 9, 10, 12, 14, 15],  # looked at where it logs
        }[next(iter(intervals))]
    )
