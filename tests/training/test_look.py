"""When several processes look, and what they hear of each other there."""

import itertools
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from srp_exp.training import look as look_module
from srp_exp.training.look import Looks, Seen
from srp_exp.training.processes.distributed import ProcessError
from srp_exp.training.totals import Totals

CPU = torch.device("cpu")


@pytest.fixture
def learner() -> Any:
    """What a look reads of a learner; the other of two processes says `other` of signal, save, step, every and rate."""
    learner = SimpleNamespace(
        step=0, device=CPU, gradient_norm=torch.tensor(2.0), scaler=None, totals=Totals(CPU),
        stopwatch=SimpleNamespace(rate=lambda: 30.0), other=lambda own: own,
    )  # fmt: skip

    def gather_rows(own: list[float], values: Tensor) -> Tensor:
        return torch.stack([torch.cat([torch.tensor(row).double(), values]) for row in (own, learner.other(own))])

    learner.processes = SimpleNamespace(size=2, writes=True, gather_rows=gather_rows)
    return learner


def look(looks: Looks, signal: int = 0) -> Seen:
    looks.begin(signal, False, 0.1, 0.0, False)
    (seen,) = looks.read(at_once=True)
    return seen


@pytest.mark.parametrize(("seconds", "between"), [(0.0099, 40), (0.095, 4), (0.3, 1), (5.0, 1)])
def test_processes_look_as_often_as_a_signal_wants(
    learner: Any, monkeypatch: pytest.MonkeyPatch, seconds: float, between: int
) -> None:
    now = [100.0]
    monkeypatch.setattr(look_module, "time", SimpleNamespace(perf_counter=lambda: now[0]))
    looks, looked = Looks(learner), []
    for _ in range(100):
        learner.step += 1
        now[0] += seconds
        if looks.is_due():
            look(looks)
            looked.append(learner.step)
    assert looked[0] == 1
    assert {b - a for a, b in itertools.pairwise(looked[1:])} == {between}


def test_a_signal_to_one_is_heard_by_all_and_different_steps_are_an_error(learner: Any) -> None:
    looks = Looks(learner)
    learner.step = 7
    learner.other = lambda own: [10, *own[1:4], 20.0]
    seen = look(looks)
    assert (seen.step, seen.signal, seen.saves, seen.rates) == (7, 10, False, (30.0, 20.0))
    assert seen.gradient_norm == 2.0
    learner.other = lambda own: [*own[:2], 8, *own[3:]]
    with pytest.raises(ProcessError, match="at different steps: 7, 8"):
        look(looks)
