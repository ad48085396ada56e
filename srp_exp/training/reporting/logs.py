"""The log of a run: lines on the console, and with time and level in run.log."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from logging.handlers import MemoryHandler
from pathlib import Path

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from srp_exp.config.visible import visible
from srp_exp.training.reporting.dispensable import Dispensable, console_is_gone
from srp_exp.training.stopping.pruning import GivenUpError

LOG = logging.getLogger("srp_exp")


class Terminal(Console):
    """rich's console, in which no text steers the terminal, whoever chose it."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterator[Segment]:
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=visible(segment.text))


CONSOLE = Terminal(soft_wrap=True, highlight=False, markup=False)


class _ConsoleHandler(logging.Handler):
    """Prints above the progress bar, which a plain stream handler would tear."""

    def emit(self, record: logging.LogRecord) -> None:
        if not console_is_gone():
            CONSOLE.print(record.getMessage())


class _RunLogHandler(logging.Handler):
    """Appends to `file`, line by line: one that can't be written is left out."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        self._file, self._state = file.absolute(), Dispensable(file.name)

    def emit(self, record: logging.LogRecord) -> None:
        torn = self._state.fails  # there may be half a line
        with self._state.written(), self._file.open("a", encoding="utf-8", errors="backslashreplace") as file:
            file.write("\n" * torn + visible(self.format(record)) + "\n")


@contextmanager
def log_from_the_start(writes: bool = True) -> Iterator[None]:
    """Log to the console; within it, `log_to` writes to run.log also what was said before there was a folder.

    With several processes only the one that `writes` logs anything.
    """
    kept = MemoryHandler(capacity=0, flushLevel=logging.CRITICAL + 1, flushOnClose=False)  # without a target it keeps
    LOG.setLevel(logging.INFO)
    LOG.propagate = False
    before = LOG.handlers
    LOG.handlers = [*before, kept, _ConsoleHandler()] if writes else [logging.NullHandler()]
    try:
        yield
    finally:
        LOG.handlers = before


@contextmanager
def log_to(folder: Path, writes: bool = True) -> Iterator[None]:
    """Log to the console and to run.log in `folder`, which also gets the traceback of an exception that leaves.

    With several processes only the one that `writes` logs anything.
    """
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)  # warns of no CUDA where a step is compiled
    LOG.propagate = False
    if not writes:
        LOG.handlers = [logging.NullHandler()]
        yield
        return
    file = _RunLogHandler(folder / "run.log")
    for handler in LOG.handlers:
        if isinstance(handler, MemoryHandler):
            handler.setTarget(file)
            handler.flush()
    LOG.setLevel(logging.INFO)
    LOG.handlers = [file, _ConsoleHandler()]
    try:
        yield
    except (SystemExit, GivenUpError):
        raise  # who leaves so has said why, or says it
    except BaseException:
        LOG.handlers = [file]
        LOG.exception("stopped")
        raise
    finally:
        LOG.handlers = []
