"""What a training leaves behind for its reader: metrics.jsonl, TensorBoard's events, and the bar on a terminal."""

import json
import shutil
import signal
import time
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from rich.console import Console
from tensorboard.backend.event_processing.data_provider import MultiplexerDataProvider
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer
from tensorboard.context import RequestContext
from tensorboard.plugins.base_plugin import TBContext
from tensorboard.plugins.hparams.backend_context import Context
from tensorboard.summary.writer.record_writer import RecordWriter
from torch import nn

from srp_exp.datasets import Batch, BatchLoader
from srp_exp.training import look as look_module
from srp_exp.training import loop as loop_module
from srp_exp.training.checkpoints import Checkpoints
from srp_exp.training.learner import Learner
from srp_exp.training.loggers.guarded import Loggers
from srp_exp.training.loggers.logger import LoggedRun
from srp_exp.training.loggers.tensorboard import TensorBoard
from srp_exp.training.loop import Training, fit
from srp_exp.training.reporting import reporter as reporter_module
from srp_exp.training.reporting.reporter import Reporter
from srp_exp.training.stopping.interruption import Interruption

EPOCHS, STEPS, BATCH = 3, 5, 4
LOG_STEPS = [2, 4, 5, 7, 9, 10, 12, 14, 15]

Fit = Callable[..., Learner]
Points = list[tuple[int, float]]


def _order_by_start(folder: Path) -> None:
    """Name the events as writers of different seconds do; TensorBoard reads them in the order of their names."""
    done = len(list(folder.glob("events.out.tfevents.*.test")))
    written = sorted(folder.glob("events.out.tfevents.*.[0-9]*"), key=lambda path: path.stat().st_mtime_ns)
    for number, path in enumerate(written, done):
        path.rename(folder / f"events.out.tfevents.{number:010d}.test")


class Killed(BaseException):
    """Stands for the end of the process."""


@pytest.fixture
def fit_in(tmp_path: Path, make_learner: Callable[..., Learner], batches: BatchLoader) -> Fit:
    """Trains in tmp_path, logging every two steps, and returns the learner."""

    def run(
        learner: Learner | None = None,
        evaluate: Callable[[nn.Module], dict[str, float]] = lambda _: {"val/loss": 0.25, "val/top1": 0.5},
        epochs: int = EPOCHS,
        progress: bool = False,
        stop_at: int | None = None,
        signal_at: int | None = None,
        every_steps: int | None = None,
    ) -> Learner:
        learner = make_learner(ramp_until=0.5) if learner is None else learner
        loggers = Loggers(LoggedRun(tmp_path, {}, ""), [TensorBoard()])
        reporter = Reporter(tmp_path, loggers, lambda loggers: None, epochs, BATCH, progress)
        checkpoints = Checkpoints(tmp_path / "checkpoints", "", every_steps=every_steps)
        step, interruption = learner.train_step, Interruption()

        def dying(batch: Batch, watch: bool) -> None:
            step(batch, watch)
            if learner.step == stop_at:
                raise Killed
            if learner.step == signal_at:
                interruption.signal = signal.SIGUSR1

        learner.train_step = dying  # type: ignore[method-assign]
        try:
            fit(
                Training(learner, batches, checkpoints, interruption, reporter, epochs=epochs, log_every_steps=2),
                evaluate,
            )
        except (Killed, SystemExit):
            checkpoints.wait()
        finally:
            reporter.close()
            _order_by_start(tmp_path)
        return learner

    return run


def scalars(folder: Path) -> dict[str, Points]:
    """Every curve in TensorBoard: (step, value) by tag."""
    accumulator = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    accumulator.Reload()
    return {
        tag: [(event.step, event.value) for event in accumulator.Scalars(tag)] for tag in accumulator.Tags()["scalars"]
    }


def values(points: Points) -> list[float]:
    return [value for _, value in points]


def test_a_resumed_run_mends_the_metrics_file(fit_in: Fit, tmp_path: Path) -> None:
    history = fit_in(epochs=2).history
    file = tmp_path / "metrics.jsonl"
    file.write_text(file.read_text() + '{"epoch": 3, "half a li')
    learner = fit_in()
    assert [json.loads(line) for line in file.read_text().splitlines()] == learner.history
    assert learner.history[:2] == history


def test_curves_have_the_values_of_the_training(fit_in: Fit, tmp_path: Path, make_learner: Any) -> None:
    learner = make_learner(ramp_until=0.5)
    steps: list[tuple[float, float, float]] = []
    step = learner.train_step

    def recording(batch: Batch, watch: bool) -> None:
        lr, before = learner.lr, learner.totals.values.clone()
        step(batch, watch)
        loss, correct = (learner.totals.values - before)[:2].tolist()
        steps.append((lr, loss / BATCH, correct / BATCH))

    learner.train_step = recording
    fit_in(learner)
    curves = scalars(tmp_path)
    starts = [0, *LOG_STEPS[:-1]]
    windows = [steps[start:end] for start, end in zip(starts, LOG_STEPS, strict=True)]
    for tag, index in (("train/loss", 1), ("train/top1", 2)):
        expected = [sum(step[index] for step in window) / len(window) for window in windows]
        assert [step for step, _ in curves[tag]] == LOG_STEPS
        assert values(curves[tag]) == pytest.approx(expected, rel=1e-4)
    assert curves["lr"] == [(end, pytest.approx(window[-1][0])) for end, window in zip(LOG_STEPS, windows, strict=True)]
    assert curves["val/loss"] == [(5, 0.25), (10, 0.25), (15, 0.25)]
    assert curves["val/top1"] == [(5, 0.5), (10, 0.5), (15, 0.5)]
    assert [step for step, _ in curves["speed/images_per_second"]] == LOG_STEPS
    assert min(values(curves["speed/images_per_second"])) > 0


@pytest.mark.parametrize("signal_at", [3, 6])
def test_a_run_that_went_on_between_two_reports_has_the_same_curves(
    fit_in: Fit, tmp_path: Path, signal_at: int
) -> None:
    names = "train/loss", "train/top1", "lr"
    assert fit_in(signal_at=signal_at).step == signal_at
    fit_in()
    disturbed = scalars(tmp_path)
    shutil.rmtree(tmp_path / "checkpoints")
    for file in tmp_path.glob("events*"):
        file.unlink()
    fit_in()
    undisturbed = scalars(tmp_path)
    assert {name: disturbed[name] for name in names} == {name: undisturbed[name] for name in names}


def test_a_clock_that_went_back_is_warned_of(fit_in: Fit, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    fit_in(stop_at=3, every_steps=1)
    (tmp_path / f"events.out.tfevents.{int(time.time()) + 60}.other.1.0").touch()
    fit_in()
    assert "the clock is behind that of an earlier start" in caplog.text


def test_a_full_disk_costs_curves_and_nothing_else(
    fit_in: Fit, tmp_path: Path, make_learner: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Full from step 3 to the end of the second epoch: there are curves from the next save on, and lines of all."""
    learner = make_learner()
    replace, write, step = Path.replace, RecordWriter.write, learner.train_step
    full = [False]

    def of_full(instead: Callable[..., Any]) -> Callable[..., Any]:
        def attempt(*arguments: Any) -> Any:
            if full[0]:
                raise OSError(28, "No space left on device")
            return instead(*arguments)

        return attempt

    def filling(batch: Batch, watch: bool) -> None:
        full[0] = 2 <= learner.step < 10
        step(batch, watch)

    monkeypatch.setattr(Path, "replace", of_full(replace))
    monkeypatch.setattr(RecordWriter, "write", of_full(write))
    learner.train_step = filling
    fit_in(learner, every_steps=3)
    assert learner.step == EPOCHS * STEPS
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["epoch"] for line in lines] == [1, 2, 3]
    curve = [step for step, _ in scalars(tmp_path)["train/loss"]]
    assert [step for step in curve if step > 10] == [14, 15]
    assert all(file.stat().st_size for file in tmp_path.glob("events*"))
    said = [record.getMessage() for record in caplog.records if "No space left" in record.getMessage()]
    for what in ("metrics.jsonl", "TensorBoard"):
        assert len([line for line in said if line.startswith(what)]) == 1


def test_the_scale_of_every_attention_layer_is_shown(fit_in: Fit, tmp_path: Path) -> None:
    fit_in()
    curves = scalars(tmp_path)
    for tag, final in (("srp_scale/3", 0.75), ("srp_scale/5", 0.25)):
        ramps = [min(1, last_step / 15 / 0.5) for last_step in (4, 9, 14)]
        expected = [1 - (1 - final) * ramp for ramp in ramps]
        assert curves[tag] == [(end, pytest.approx(value)) for end, value in zip((5, 10, 15), expected, strict=True)]
    assert len([tag for tag in curves if tag.startswith("srp_scale/")]) == 2


def test_speed_counts_the_steps_and_not_the_evaluation(
    fit_in: Fit, tmp_path: Path, make_learner: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    clock = SimpleNamespace(perf_counter=lambda: now[0], time=lambda: 0.0)
    for module in (reporter_module, look_module):
        monkeypatch.setattr(module, "time", clock)
    learner = make_learner()
    step = learner.train_step

    def half_a_second(batch: Batch, watch: bool) -> None:
        step(batch, watch)
        now[0] += 0.5

    def an_hour(model: nn.Module) -> dict[str, float]:
        now[0] += 3600
        return {}

    learner.train_step = half_a_second
    fit_in(learner, an_hour)
    assert values(scalars(tmp_path)["speed/images_per_second"]) == pytest.approx([BATCH / 0.5] * len(LOG_STEPS))


def test_a_bar_on_a_terminal_and_none_elsewhere(
    fit_in: Fit, make_learner: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = []
    for is_terminal in (True, False):
        console = Console(file=StringIO(), force_terminal=is_terminal, width=120)
        monkeypatch.setattr(reporter_module, "CONSOLE", console)
        fit_in(make_learner(epochs=EPOCHS), epochs=1 if is_terminal else 2, progress=True)
        shown.append(console.file.getvalue())  # type: ignore[attr-defined]
    terminal, file = shown
    assert "epoch 1/1" in terminal
    assert "5/5" in terminal
    assert "img/s" in terminal
    assert "img/s" not in file


def test_numbers_survive_the_way_to_the_file(fit_in: Fit, tmp_path: Path) -> None:
    third = torch.tensor(1 / 3, dtype=torch.float64).item()
    fit_in(evaluate=lambda _: {"val/top1": third}, epochs=1)
    assert json.loads((tmp_path / "metrics.jsonl").read_text())["val/top1"] == third


@pytest.mark.parametrize(("stops", "every_steps"), [([2, 7, 13], 1), ([5, 10, 15], None), ([3, 4, 4, 12], 3)])
def test_the_curves_of_a_resumed_run_have_no_step_twice_and_none_missing(
    fit_in: Fit, tmp_path: Path, stops: list[int], every_steps: int | None
) -> None:
    for stop in stops:
        fit_in(stop_at=stop, every_steps=every_steps)
    fit_in(every_steps=every_steps)
    curves = scalars(tmp_path)
    logged = {None: LOG_STEPS, 1: [*range(1, 16)], 3: sorted({*LOG_STEPS, 3, 6, 9, 12, 15})}[every_steps]
    for tag in ("train/loss", "train/top1", "lr", "gradient_norm", "speed/images_per_second", "speed/data_wait"):
        assert [step for step, _ in curves[tag]] == logged, tag
    for tag in ("val/loss", "val/top1", "srp_scale/3", "srp_scale/5"):
        assert [step for step, _ in curves[tag]] == [5, 10, 15], tag


@pytest.mark.parametrize("stop_at", [None, 8])
def test_what_is_read_late_from_a_gpu_gives_the_same_curves(
    fit_in: Fit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop_at: int | None
) -> None:
    fit_in()
    at_once = scalars(tmp_path)
    for path in (*tmp_path.glob("events*"), *(tmp_path / "checkpoints").iterdir()):
        path.unlink()
    reported: list[tuple[int, int]] = []
    report = Reporter.step

    def note(self: Reporter, learner: Learner, seen: Any) -> None:
        reported.append((learner.step, seen.step))
        report(self, learner, seen)

    monkeypatch.setattr(Reporter, "step", note)
    monkeypatch.setattr(look_module, "_lags", lambda device: True)
    for stop in (stop_at, None) if stop_at else (None,):
        fit_in(stop_at=stop)
    at_ends = [seen for seen in reported if seen[0] > 4]  # an epoch's end needs all
    assert at_ends[:4] == [(5, 4), (5, 5), (9, 7), (10, 9)]
    assert reported[0] == (4, 2)
    late = scalars(tmp_path)
    for tag in at_once.keys() - {"speed/images_per_second", "speed/data_wait"}:
        assert late[tag] == at_once[tag], tag


def test_waiting_for_data_is_shown(
    fit_in: Fit, tmp_path: Path, batches: BatchLoader, make_learner: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    clock = SimpleNamespace(perf_counter=lambda: now[0], time=lambda: 0.0)
    for module in (reporter_module, loop_module, look_module):
        monkeypatch.setattr(module, "time", clock)
    console = Console(file=StringIO(), force_terminal=True, width=200)
    monkeypatch.setattr(reporter_module, "CONSOLE", console)
    epoch = batches.epoch

    def slow(number: int, first_step: int = 0) -> Any:
        for batch in epoch(number, first_step):
            now[0] += 3.0
            yield batch

    monkeypatch.setattr(batches, "epoch", slow)
    learner = make_learner()
    step = learner.train_step

    def a_second(batch: Batch, watch: bool) -> None:
        step(batch, watch)
        now[0] += 1.0

    learner.train_step = a_second
    fit_in(learner, progress=True)
    curves = scalars(tmp_path)
    assert values(curves["speed/data_wait"]) == pytest.approx([0.75] * len(LOG_STEPS))
    assert values(curves["speed/images_per_second"]) == pytest.approx([BATCH / 4] * len(LOG_STEPS))
    assert "waiting for data 75%" in console.file.getvalue()  # type: ignore[attr-defined]


def test_the_gradient_norm_is_that_of_all_parameters(fit_in: Fit, tmp_path: Path, make_learner: Any) -> None:
    learner = make_learner()
    norms: dict[int, float] = {}

    def note(optimizer: Any, *_: object) -> None:
        squares = [p.grad.double().square().sum() for p in learner.model.parameters() if p.grad is not None]
        norms[learner.step + 1] = float(torch.stack(squares).sum().sqrt())

    learner.optimizer.register_step_pre_hook(note)
    fit_in(learner)
    curve = dict(scalars(tmp_path)["gradient_norm"])
    assert list(curve) == LOG_STEPS
    assert curve == pytest.approx({step: norms[step] for step in LOG_STEPS}, rel=1e-4)


def test_the_hparams_page_has_the_settings_of_all_runs_those_that_differ_first(tmp_path, make_learner) -> None:
    """Read by TensorBoard's own code, which takes one run's list of settings for that of all where it finds one."""
    settings = {
        "gap": {"attention.rd_divisor": 1, "seed": 0, "srp.name": "gap"},
        "scheduled": {"attention.rd_divisor": 1, "seed": 0, "srp.name": "scheduled", "srp.last": 0.5},
    }
    for name, hparams in settings.items():
        (tmp_path / name).mkdir()
        loggers = Loggers(LoggedRun(tmp_path / name, hparams, ""), [TensorBoard()])
        reporter = Reporter(tmp_path / name, loggers, lambda loggers: None, EPOCHS, BATCH, progress=False)
        reporter.start(make_learner(), STEPS)
        reporter.finish({"final/top1": 0.5})
        reporter.close()
    multiplexer = EventMultiplexer().AddRunsFromDirectory(str(tmp_path))
    multiplexer.Reload()
    provider = MultiplexerDataProvider(multiplexer, str(tmp_path))
    page, request = Context(TBContext(data_provider=provider, logdir=str(tmp_path))), RequestContext()
    content = page.hparams_metadata(request, "")
    experiment = page.experiment_from_metadata(request, "", True, content, [])
    names = [info.name for info in experiment.hparam_infos]
    assert names[0] == "srp.name"
    assert sorted(names) == sorted({*settings["gap"], *settings["scheduled"]})
    assert "final/top1" in {info.name.tag for info in experiment.metric_infos}
