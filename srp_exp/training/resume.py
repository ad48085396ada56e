"""All processes of a training go on from the same checkpoint: rank 0 chooses the file, the others follow or fail."""

from pathlib import Path
from typing import Any

from srp_exp.errors import UserError
from srp_exp.training.checkpoints import Checkpoints
from srp_exp.training.learner import Learner


def resume(checkpoints: Checkpoints, learner: Learner) -> None:
    """Bring `learner` to the state of the newest whole checkpoint that rank 0 finds, if there is one.

    Raises UserError, in every process, where one of them doesn't find that file, or finds another content in it.
    """
    found = checkpoints.newest() if learner.processes.writes else None
    name: str | None = learner.processes.gather(found and found[0].name)[0]
    if name is not None:
        _load(checkpoints, checkpoints.folder / name, learner, found and found[1])


def load_best(checkpoints: Checkpoints, learner: Learner) -> None:
    """Bring `learner` to the best epoch. Raises UserError where one of the processes can't load it."""
    checkpoints.wait()  # it is on the disk of rank 0, which writes it
    unsaved = learner.processes.gather(checkpoints.best_is_unsaved)[0]
    if unsaved:
        raise UserError(
            f"checkpoint {checkpoints.best} could not be saved: make room on the disk, and run the command again"
        )
    try:
        _load(checkpoints, checkpoints.best, learner)
    except UserError as error:
        raise UserError(f"{error}; rerun=true trains the run afresh") from error


def _load(checkpoints: Checkpoints, path: Path, learner: Learner, content: dict[str, Any] | None = None) -> None:
    """Let every process load `path`, which rank 0 may have read, and compare what each has found."""
    failure = ""
    try:
        content = checkpoints.read(path) if content is None else content
    except (UserError, OSError) as error:
        failure = str(error)
    found = learner.processes.gather((failure, "" if content is None else content["digest"]))
    for rank, (why, digest) in enumerate(found):
        at = f"process {rank}: " if learner.processes.size > 1 else ""
        if why:
            raise UserError(f"{at}{why}" + ("; all processes need the same folder" if at else ""))
        if digest != found[0][1]:
            raise UserError(f"{at}checkpoint {path} is not the one of process 0; all processes need the same folder")
    assert content is not None
    learner.load_state_dict(content["learner"])
