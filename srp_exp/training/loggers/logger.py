"""What a logger is, and the run that it logs."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from torch import Tensor

from srp_exp.errors import UserError


@dataclass(frozen=True)
class LoggedRun:
    """A run as loggers see it.

    settings: what its hash covers, by dotted names. config: all of its configuration, as YAML. afresh: whether it is
    trained again from the beginning (rerun=true), so that what was logged under its name is of an earlier training.
    """

    folder: Path
    settings: Mapping[str, str | float | bool]
    config: str
    afresh: bool = False

    @property
    def id(self) -> str:
        """The name of its folder, such as mnist5k-resnet20-se-gap-0123456789."""
        return self.folder.name


class Logger(ABC):
    """Logs one run. The constructor takes the settings of its file in conf/logger/ and writes nothing.

    A step number, as LoggedRun's training counts optimizer steps, stands with each value. A method may raise: the
    run's log says so, the training continues without this logger, and `begin` is called again at the next checkpoint.
    """

    @abstractmethod
    def begin(self, run: LoggedRun, step: int) -> None:
        """Begin to log `run`, or resume the same run, which has made `step` steps.

        An earlier start may have logged later steps, which come again with the same values: replace them or keep them.
        """

    @abstractmethod
    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """Log values by name, such as {"train/loss": 0.7}. Steps never decrease between two calls of `begin`."""

    @abstractmethod
    def close(self) -> None:
        """The training has ended, or stops to be resumed."""

    def picture(self, name: str, image: Tensor, step: int, caption: str = "") -> None:  # noqa: B027
        """Log a picture, (3, H, W) uint8; a logger without pictures leaves it out."""

    def flush(self) -> None:  # noqa: B027
        """Bring everything to where it survives this process: a checkpoint is saved next."""

    def finish(self, metrics: Mapping[str, float], step: int) -> None:
        """Log the metrics of the finished run, such as {"final/top1": 0.9}; `step` is the one after the last."""
        self.scalars(metrics, step)


def check_installed(logger: str, package: str) -> None:
    """Raise UserError where `logger` needs a package that isn't installed."""
    if find_spec(package) is None:
        raise UserError(f"logger={logger} needs the package {package}: pip install 'srp-exp[{logger}]'")
