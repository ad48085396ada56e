"""All processes of a training resume from one checkpoint, which rank 0 reads and sends to the others."""

from collections.abc import Callable
from typing import Any

from srp_exp.errors import UserError
from srp_exp.training.checkpoints import Checkpoints
from srp_exp.training.learner import Learner


def resume(checkpoints: Checkpoints, learner: Learner) -> None:
    """Bring `learner` to the state of the newest whole checkpoint that rank 0 finds, if there is one."""

    def newest() -> dict[str, Any] | None:
        found = checkpoints.newest()
        return None if found is None else found[1]["learner"]

    _load(newest, learner)


def load_best(checkpoints: Checkpoints, learner: Learner) -> None:
    """Bring `learner` to the best epoch. Raises UserError, in every process, where it can't be read."""

    def best() -> dict[str, Any] | None:
        checkpoints.wait()
        if checkpoints.best_is_unsaved:
            raise UserError(
                f"checkpoint {checkpoints.best} could not be saved: make room on the disk, and run the command again"
            )
        try:
            state: dict[str, Any] = checkpoints.read(checkpoints.best)["learner"]
        except UserError as error:
            raise UserError(f"{error}; rerun=true trains the run afresh") from error
        return state

    _load(best, learner)


def _load(read: Callable[[], dict[str, Any] | None], learner: Learner) -> None:
    """Load what `read` returns on rank 0, if anything, or raise in every process what it raises there."""
    failure, state = "", None
    if learner.processes.writes:
        try:
            state = read()
        except (UserError, OSError) as error:
            failure = str(error)
    failure, state = learner.processes.of_first((failure, state))
    if failure:
        raise UserError(failure)
    if state is not None:
        learner.load_state_dict(state)
