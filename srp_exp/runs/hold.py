"""The folder of a run, held by one training over the data that it has read before."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

from omegaconf import DictConfig

from srp_exp.datasets import DataSet
from srp_exp.errors import UserError
from srp_exp.runs.folder.digests import digests_of, digests_of_data, record_data, record_unread, refuse_other_data
from srp_exp.runs.folder.layout import clear, remove_unfinished
from srp_exp.runs.folder.lock import LOCK, only_writer
from srp_exp.training.processes.distributed import Processes
from srp_exp.training.reporting.logs import LOG, log_to


@contextmanager
def hold(folder: Path, afresh: bool, processes: Processes) -> Iterator[Callable[[], None]]:
    """Be the only training in `folder` and log there; `afresh`, clear it of an earlier one.

    Yields a function that raises, before something is saved, if this process has lost the folder.
    """
    folder.mkdir(parents=True, exist_ok=True)  # which Hydra has made, unless a file gives hydra.run.dir
    with ExitStack() as stack:
        held = stack.enter_context(only_writer(folder)) if processes.writes else None
        if held is not None:
            remove_unfinished(folder)
            if afresh:
                clear(folder, keep=LOCK)
        processes.gather(None)  # nobody reads the folder before that
        stack.enter_context(log_to(folder, processes.writes))
        if held is not None and held.died:
            LOG.info("previous process (%s) died; taking over its lock", held.died)
        yield (lambda: None) if held is None else held.confirm


def keep_to_its_data(config: DictConfig, folder: Path, dataset: DataSet, processes: Processes) -> None:
    """Record what the run reads. Raises UserError if it read different data before, or another process reads them."""
    digests = digests_of_data(config, dataset)
    if any(other != digests for other in processes.gather(digests)):
        raise UserError("the processes read different data: give all of them the same files, and begin again")
    refuse_other_data(folder, digests, partial(digests_of, dataset))
    processes.gather(None)  # all have read the record before it is written
    if processes.writes:
        record_data(folder, digests)


def note_unreadable(folder: Path, dataset: DataSet, file: str) -> None:
    """Record a file of the data that can't be read, and forget what was remembered of them."""
    record_unread(folder, file, digests_of(dataset, file))
    dataset.forget()
