"""The learning rate of every step against closed formulas. A warning of torch's schedulers is an error (pytest)."""

import math
from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch.optim import SGD, Optimizer
from torch.optim.lr_scheduler import LRScheduler

from srp_exp.training.lr_schedule import cosine, one_cycle, step

PEAK = 0.4
EPOCHS, STEPS_PER_EPOCH = 6, 7
TOTAL = EPOCHS * STEPS_PER_EPOCH

MakeSchedule = Callable[..., LRScheduler]


def rates(make: MakeSchedule, epochs: int = EPOCHS, steps_per_epoch: int = STEPS_PER_EPOCH) -> list[float]:
    """The rate of each optimizer step, and last the one after the end."""
    optimizer: Optimizer = SGD(
        [{"params": [torch.zeros(1, requires_grad=True)]}, {"params": [torch.zeros(1, requires_grad=True)]}],
        lr=PEAK,
        momentum=0.9,
    )
    schedule = make(optimizer, epochs=epochs, steps_per_epoch=steps_per_epoch)
    seen = [optimizer.param_groups[0]["lr"]]
    for _ in range(epochs * steps_per_epoch):
        optimizer.step()
        schedule.step()
        first, second = optimizer.param_groups
        assert first["lr"] == second["lr"]
        assert first["momentum"] == second["momentum"] == 0.9
        seen.append(first["lr"])
    return seen


def half_cosine(start: float, end: float, part: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * part)) / 2


@pytest.mark.parametrize("warmup_epochs, warmup, final_factor", [(0, 0, 0.1), (0.15, 1, 0.0), (2.5, 18, 0.1)])
def test_cosine_at_every_step(warmup_epochs: float, warmup: int, final_factor: float) -> None:
    found = rates(partial(cosine, warmup_epochs=warmup_epochs, final_factor=final_factor))
    expected = [PEAK * (t + 1) / (warmup + 1) for t in range(warmup)] + [
        half_cosine(PEAK, PEAK * final_factor, (t - warmup) / (TOTAL - warmup)) for t in range(warmup, TOTAL + 1)
    ]
    assert found == pytest.approx(expected, rel=1e-9, abs=1e-12)
    assert found[warmup] == pytest.approx(PEAK)
    assert found[-1] == pytest.approx(PEAK * final_factor, abs=1e-12)


@pytest.mark.parametrize(
    "warmup_epochs, warmup, milestones", [(0, 0, [0.5, 0.5001]), (1.5, 10, [0.9, 0.4]), (1.5, 10, [])]
)
def test_step_at_every_step(warmup_epochs: float, warmup: int, milestones: list[float]) -> None:
    found = rates(partial(step, warmup_epochs=warmup_epochs, milestones=milestones, gamma=0.2))
    passed = [sum(t >= round(milestone * TOTAL) for milestone in milestones) for t in range(TOTAL + 1)]
    expected = [PEAK * (t + 1) / (warmup + 1) if t < warmup else PEAK * 0.2**count for t, count in enumerate(passed)]
    assert found == pytest.approx(expected, rel=1e-9)


def test_a_warmup_beyond_the_first_milestone_is_refused() -> None:
    with pytest.raises(ValueError, match=r"warmup_epochs=3 .*milestones=\[0.8, 0.5\]"):
        rates(partial(step, warmup_epochs=3, milestones=[0.8, 0.5], gamma=0.1))


def test_a_warmup_of_all_steps_is_refused() -> None:
    with pytest.raises(ValueError, match=r"warmup_epochs=1.99: its 4 steps are all of the training"):
        rates(partial(cosine, warmup_epochs=1.99, final_factor=0.0), epochs=2, steps_per_epoch=2)


@pytest.mark.parametrize("peak_at, start_factor, final_factor", [(0.3, 0.04, 0.0), (0.9, 0.5, 0.1), (0.25, 1.0, 1e-4)])
def test_one_cycle_at_every_step(peak_at: float, start_factor: float, final_factor: float) -> None:
    found = rates(partial(one_cycle, peak_at=peak_at, start_factor=start_factor, final_factor=final_factor))
    peak_step = peak_at * TOTAL - 1  # torch counts the steps that are made; it may lie between two of them
    expected = [
        half_cosine(PEAK * start_factor, PEAK, t / peak_step)
        if t <= peak_step
        else half_cosine(PEAK, PEAK * final_factor, (t - peak_step) / (TOTAL - 1 - peak_step))
        for t in range(TOTAL)
    ]
    assert found[:-1] == pytest.approx(expected, rel=1e-9, abs=1e-12)
    assert found[0] == pytest.approx(PEAK * start_factor)
    assert found[TOTAL - 1] == pytest.approx(PEAK * final_factor, abs=1e-12)


@pytest.mark.parametrize("total", [10, 3])
def test_a_cycle_whose_peak_lies_in_its_first_step_only_falls(total: int) -> None:
    # Ten steps and a peak at 0.1 put the peak on step 0, where torch divides by the zero steps before it.
    found = rates(partial(one_cycle, peak_at=0.1, start_factor=0.04, final_factor=0.0), epochs=1, steps_per_epoch=total)
    assert found[0] > PEAK / 2
    assert found[:-1] == sorted(found[:-1], reverse=True)
    assert found[total - 1] == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize(
    "make",
    [
        partial(cosine, warmup_epochs=0, final_factor=0.0),
        partial(step, warmup_epochs=0, milestones=[0.5], gamma=0.1),
        partial(one_cycle, peak_at=0.3, start_factor=0.04, final_factor=0.0),
    ],
    ids=["cosine", "step", "one_cycle"],
)
def test_a_training_of_one_step_is_possible(make: MakeSchedule) -> None:
    assert len(rates(make, epochs=1, steps_per_epoch=1)) == 2
