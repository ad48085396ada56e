"""Signals: noted, answered at the end of a step, and everything as before afterwards."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from srp_exp.datasets import Batch, BatchLoader
from srp_exp.training.checkpoints import Checkpoints
from srp_exp.training.learner import Learner
from srp_exp.training.loop import Training, fit
from srp_exp.training.resume import resume
from srp_exp.training.stopping.interruption import EXIT_CODE, SIGNALS, Interruption


@pytest.fixture(autouse=True)
def _handlers_stay_as_they_were() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in SIGNALS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def fit_and_signal(
    tmp_path: Path, make_learner: Callable[..., Learner], batches: BatchLoader
) -> Callable[[int], Learner]:
    """Trains, sends itself a signal within step 7, and returns the learner."""

    def run(number: int) -> Learner:
        learner = make_learner()
        step = learner.train_step

        def signalled(batch: Batch, watch: bool) -> None:
            if learner.step == 6:
                os.kill(os.getpid(), number)
            step(batch, watch)

        learner.train_step = signalled  # type: ignore[method-assign]
        checkpoints = Checkpoints(tmp_path / "checkpoints", "")
        with Interruption().watch() as interruption, pytest.raises(SystemExit) as left:
            fit(Training(learner, batches, checkpoints, interruption, None, epochs=3), lambda _: {})
        assert left.value.code == EXIT_CODE == 75
        return learner

    return run


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_finishes_the_step_and_saves(
    fit_and_signal: Callable[[int], Learner], tmp_path: Path, make_learner: Any, assert_same_state: Any, number: int
) -> None:
    before = [signal.getsignal(other) for other in SIGNALS]
    learner = fit_and_signal(number)
    assert [signal.getsignal(other) for other in SIGNALS] == before
    assert learner.step == 7
    resumed = make_learner()
    resume(Checkpoints(tmp_path / "checkpoints", ""), resumed)
    assert_same_state(resumed.state_dict(), learner.state_dict())


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGUSR2])
def test_the_handler_that_was_there_is_called_after_the_save(
    fit_and_signal: Callable[[int], Learner], tmp_path: Path, number: int
) -> None:
    calls: list[tuple[int, list[str]]] = []

    def requeue(received: int, frame: FrameType | None) -> None:
        calls.append((received, [path.name for path in (tmp_path / "checkpoints").iterdir()]))

    signal.signal(number, requeue)
    fit_and_signal(number)
    assert calls == [(number, ["step-000000007.pt", "step-000000005.pt"])] or calls == [
        (number, ["step-000000005.pt", "step-000000007.pt"])
    ]
    assert signal.getsignal(number) is requeue


def test_a_handler_that_exits_decides_the_exit_code() -> None:
    def exits(received: int, frame: FrameType | None) -> None:
        raise SystemExit(-1)

    signal.signal(signal.SIGUSR2, exits)
    with Interruption().watch() as interruption, pytest.raises(SystemExit) as left:
        interruption.leave(signal.SIGUSR2)
    assert left.value.code == -1


def test_of_sigterm_submitit_only_takes_note_and_is_not_called(fit_and_signal: Callable[[int], Learner]) -> None:
    calls: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, frame: calls.append(number))
    fit_and_signal(signal.SIGTERM)
    assert calls == []


def test_the_last_of_several_signals_is_noted_and_none_kills() -> None:
    with Interruption().watch() as interruption:
        assert interruption.signal is None
        for number in SIGNALS:
            os.kill(os.getpid(), number)
            assert interruption.signal == number


def test_in_another_thread_nothing_is_caught() -> None:
    before = [signal.getsignal(number) for number in SIGNALS]
    seen: list[Any] = []

    def watch() -> None:
        with Interruption().watch():
            seen.extend(signal.getsignal(number) for number in SIGNALS)

    thread = threading.Thread(target=watch)
    thread.start()
    thread.join()
    assert seen == before


def test_a_signal_that_comes_too_late_to_stop_for_goes_to_the_handler_before() -> None:
    """In the last evaluation, say: the run ends as it would have, and the sweep that it belongs to stops."""
    with Interruption().watch() as of_sweep:
        with Interruption().watch() as of_run:
            os.kill(os.getpid(), signal.SIGTERM)
            assert of_run.signal == signal.SIGTERM
            assert of_sweep.signal is None
        assert of_sweep.signal == signal.SIGTERM


def test_a_signal_that_is_ignored_stays_ignored() -> None:
    """As nohup has SIGHUP ignored."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with Interruption().watch() as interruption:
        os.kill(os.getpid(), signal.SIGHUP)
        assert interruption.signal is None
    assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
