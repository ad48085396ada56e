"""A profile of some steps of a training: what the CPU, and a GPU, spent its time on."""

from collections.abc import Iterator
from pathlib import Path

from torch.profiler import profile, schedule, tensorboard_trace_handler

from srp_exp.datasets import Batch, TrainingBatches
from srp_exp.training.reporting.dispensable import Dispensable

_SKIPPED, _WARMUP, _ACTIVE = 5, 2, 3


class Profiled:
    """Passes on batches, and writes a trace of three steps, the eighth to tenth that are trained.

    The trace goes into `folder`, of which TensorBoard's profile plugin, or Perfetto, shows it. It has the loading of
    the batches in it. The first steps are left out: they compile, and fill caches; two more warm the profiler up.
    """

    def __init__(self, batches: TrainingBatches, folder: Path) -> None:
        self.steps_per_epoch = batches.steps_per_epoch
        self._batches, self._folder, self._profiled = batches, folder, False
        self._state = Dispensable("the profile")

    def epoch(self, epoch: int, first_step: int = 0) -> Iterator[Batch]:
        batches = self._batches.epoch(epoch, first_step)
        if self._profiled:
            yield from batches
            return
        self._profiled = True
        when = schedule(skip_first=_SKIPPED, wait=0, warmup=_WARMUP, active=_ACTIVE, repeat=1)
        with profile(schedule=when, on_trace_ready=self._write) as profiler:
            for batch in batches:
                yield batch
                profiler.step()  # the loop asks for a batch when the step of the one before is made

    def _write(self, profiler: profile) -> None:
        with self._state.written():
            tensorboard_trace_handler(str(self._folder))(profiler)
