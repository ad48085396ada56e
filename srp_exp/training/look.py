"""A look at a training: what all processes say at a step, started there and read when the device has it.

On a CPU that is at once. A GPU isn't waited for: what was started at one look is read at the next, by which time the
device has long made the step. Where steps are slow, or the training is to save or to stop, it is read at once.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from srp_exp.training.learner import Learner
from srp_exp.training.processes.distributed import ProcessError
from srp_exp.training.totals import Totals

_SECONDS = 0.4
"""Between two looks of a training with several processes, which agree there on a signal and obey it two looks later."""


@dataclass(frozen=True)
class Seen:
    """What all processes say at `step`.

    lr: of the step. waited: seconds that this process waited for data in the epoch. time: when the look was started.
    is_report: whether it is to be reported. totals: of the epoch so far. gradient_norm: of the last step that was
    watched. scale: of the loss, with fp16. saves: whether the time has come to save. signal: 0 for none.
    rates: by process, images per second of a forward pass; 0 where it isn't known yet.
    """

    step: int
    lr: float
    waited: float
    time: float
    is_report: bool
    totals: dict[str, float]
    gradient_norm: float
    scale: float
    saves: bool
    signal: int
    rates: tuple[float, ...]


class Looks:
    """The looks of a training."""

    def __init__(self, learner: Learner) -> None:
        self._learner = learner
        self._begun: list[_Look] = []
        self._last = (learner.step, time.perf_counter())
        self._every = 1 if learner.processes.size > 1 else 2
        """Steps between two looks, with several processes: as many as rank 0 makes in _SECONDS."""

    def is_due(self) -> bool:
        """Whether several processes are to agree on a signal; one obeys by itself."""
        return self._learner.processes.size > 1 and self._learner.step - self._last[0] >= self._every

    def begin(self, signal: int, saves: bool, lr: float, waited: float, is_report: bool) -> None:
        """Start a look at the step just made; with several processes all do so at the same step."""
        step, now = self._learner.step, time.perf_counter()
        last_step, last_time = self._last
        every = max(1, int(_SECONDS * (step - last_step) / max(now - last_time, 1e-9)))
        self._last = (step, now)
        self._begun.append(
            _Look(
                self._learner, [signal, saves, step, every, self._learner.stopwatch.rate()], lr, waited, now, is_report
            )
        )

    def read(self, at_once: bool) -> Iterator[Seen]:
        """What is known by now: all that was started where it's needed `at_once`, or else all but the last look."""
        at_once = at_once or not _lags(self._learner.device) or self._every == 1
        while self._begun and (at_once or len(self._begun) > 1):
            seen, self._every = self._begun.pop(0).read()
            at_once = at_once or seen.saves or seen.signal != 0
            yield seen


class _Look:
    def __init__(
        self, learner: Learner, own: list[float], lr: float, waited: float, now: float, is_report: bool
    ) -> None:
        self._of_host = lr, waited, now, is_report
        self._own = own
        scale = getattr(learner.scaler, "_scale", None)  # get_scale() would wait for the device
        norm = learner.gradient_norm
        values = [
            learner.totals.values.double(),
            *(v.double().view(1) for v in (norm, norm if scale is None else scale)),
        ]
        rows = learner.processes.gather_rows(own, torch.cat(values))
        self._is_one = learner.processes.size == 1
        if not self._is_one:
            learner.totals.of_ranks = rows[:, -len(values[0]) - 2 : -2].float()
        self._numbers, self._arrived = _start_copy(rows)

    def read(self) -> tuple[Seen, int]:
        """What was seen, and after how many steps to look again. Raises ProcessError where the steps differ."""
        if self._arrived is not None:
            self._arrived.synchronize()
        rows = self._numbers.tolist()
        if self._is_one:
            rows = [[*self._own, *rows[0]]]
        signals, saves, steps, every, rates = zip(*(row[:5] for row in rows), strict=True)
        if len(set(steps)) > 1:
            raise ProcessError(f"the processes are at different steps: {', '.join(f'{step:.0f}' for step in steps)}")
        *totals, norm, scale = zip(*(row[5:] for row in rows), strict=True)
        joined = Totals.join(list(zip(*totals, strict=True)))
        seen = Seen(
            int(steps[0]), *self._of_host, totals=joined, gradient_norm=norm[0], scale=scale[0],
            saves=any(saves), signal=int(max(signals)), rates=rates,
        )  # fmt: skip
        return seen, int(every[0])


def _lags(device: torch.device) -> bool:
    """Whether the host is ahead of the device."""
    return device.type == "cuda"


def _start_copy(values: Tensor) -> tuple[Tensor, torch.cuda.Event | None]:
    """The values on the CPU, there as soon as the event has come to pass."""
    if values.device.type != "cuda":
        return values.cpu(), None
    copy = values.to("cpu", non_blocking=True)  # into pinned memory
    return copy, torch.cuda.current_stream(values.device).record_event()
