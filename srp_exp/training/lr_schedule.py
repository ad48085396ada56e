"""Learning rate schedules over a whole training, made of torch's schedulers, which step once per optimizer step.

Each function takes an optimizer whose groups hold the peak rates, the length of the training in epochs, and the
optimizer steps of an epoch.
"""

import math

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LinearLR, LRScheduler, MultiStepLR, OneCycleLR, SequentialLR

from srp_exp.errors import UserError


def cosine(
    optimizer: Optimizer, *, epochs: int, steps_per_epoch: int, warmup_epochs: float, final_factor: float
) -> LRScheduler:
    """After the warm-up half a cosine from the peak to `final_factor` times the peak. arXiv:1608.03983, eq. 5."""
    warmup = round(warmup_epochs * steps_per_epoch)
    steps = epochs * steps_per_epoch - warmup
    if steps <= 0:
        raise UserError(f"lr_schedule.warmup_epochs={warmup_epochs}: its {warmup} steps are all of the training")

    def factor(step: int) -> float:
        return final_factor + (1 - final_factor) * (1 + math.cos(math.pi * min(1.0, step / steps))) / 2

    return _after_warmup(optimizer, warmup, LambdaLR(optimizer, factor))  # of each group's own peak


def step(
    optimizer: Optimizer,
    *,
    epochs: int,
    steps_per_epoch: int,
    warmup_epochs: float,
    milestones: list[float],
    gamma: float,
) -> LRScheduler:
    """Times `gamma` at each of `milestones`, given as parts of the training in (0, 1)."""
    warmup = round(warmup_epochs * steps_per_epoch)
    at = [round(milestone * epochs * steps_per_epoch) - warmup for milestone in milestones]
    if warmup and min(at, default=1) <= 0:
        raise UserError(
            f"lr_schedule.warmup_epochs={warmup_epochs} reaches beyond the first of lr_schedule.milestones={milestones}"
        )
    return _after_warmup(optimizer, warmup, MultiStepLR(optimizer, at, gamma))


def one_cycle(
    optimizer: Optimizer, *, epochs: int, steps_per_epoch: int, peak_at: float, start_factor: float, final_factor: float
) -> LRScheduler:
    """Up to the peak at `peak_at` of the training, then down, both along half a cosine. arXiv:1708.07120.

    The momentum stays as it is. It starts at `start_factor` and ends at `final_factor` times the peak.
    """
    return OneCycleLR(
        optimizer,
        max_lr=[group["lr"] for group in optimizer.param_groups],
        total_steps=epochs * steps_per_epoch,
        pct_start=peak_at if peak_at * epochs * steps_per_epoch > 1 else 0.0,  # torch divides by zero at 1
        div_factor=1 / start_factor,
        final_div_factor=start_factor / final_factor if final_factor else float("inf"),
        cycle_momentum=False,
    )


def _after_warmup(optimizer: Optimizer, warmup: int, main: LRScheduler) -> LRScheduler:
    """`main` after `warmup` steps in which the rate rises in a straight line, reaching the peak with the next step."""
    if warmup == 0:
        return main
    rising = LinearLR(optimizer, start_factor=1 / (warmup + 1), total_iters=warmup)
    return SequentialLR(optimizer, [rising, main], milestones=[warmup])
