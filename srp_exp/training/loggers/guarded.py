"""All loggers of a run as one. A logger that fails ends no training."""

from collections.abc import Callable, Mapping, Sequence

from torch import Tensor

from srp_exp.training.loggers.logger import LoggedRun, Logger
from srp_exp.training.reporting.dispensable import Dispensable


class Loggers:
    """The loggers of `run`. One that raises is left out until `flush`, where it begins again; the log says so."""

    def __init__(self, run: LoggedRun, loggers: Sequence[Logger]) -> None:
        self._run = run
        self._states = {logger: Dispensable(type(logger).__name__, Exception) for logger in loggers}
        self._open: set[Logger] = set()

    def begin(self, step: int) -> None:
        """Begin or resume to log, after `step` steps."""
        for logger, state in self._states.items():
            if logger not in self._open:
                with state.written():
                    logger.begin(self._run, step)
                    self._open.add(logger)

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        self._each(lambda logger: logger.scalars(values, step))

    def picture(self, name: str, image: Tensor, step: int, caption: str = "") -> None:
        """Log a picture, (3, H, W) uint8."""
        self._each(lambda logger: logger.picture(name, image, step, caption))

    def flush(self, step: int) -> None:
        """Bring everything to where it survives this process; a logger that failed begins again after `step`."""
        self._each(lambda logger: logger.flush())
        self.begin(step)

    def finish(self, metrics: Mapping[str, float], step: int) -> None:
        self._each(lambda logger: logger.finish(metrics, step))

    def close(self) -> None:
        self._each(lambda logger: logger.close())
        self._open.clear()

    def _each(self, call: Callable[[Logger], None]) -> None:
        for logger, state in self._states.items():
            if logger in self._open:
                self._open.remove(logger)
                with state.written():
                    call(logger)
                    self._open.add(logger)
