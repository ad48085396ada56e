"""logger=wandb: a run at Weights & Biases."""

import time
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from srp_exp.training.loggers.logger import LoggedRun, Logger, check_installed
from srp_exp.training.reporting.logs import LOG

_ID = "wandb-id"
"""File in the run folder: the id at wandb, which a run that is trained afresh doesn't share with the earlier one."""


class Wandb(Logger):
    """Curves, pictures and settings; the id at wandb is the run's.

    project, entity: where the run goes. mode: online, offline (`wandb sync` uploads it later) or disabled; None:
    what WANDB_MODE says, or online.
    """

    def __init__(self, project: str, entity: str | None, mode: str | None) -> None:
        check_installed("wandb", "wandb")
        self._place = {"project": project, "entity": entity, "mode": mode}

    def begin(self, run: LoggedRun, step: int) -> None:
        """Resume the run of that id where there is one: wandb keeps the first of two values of a step, which agree."""
        import wandb  # takes seconds

        noted = run.folder / _ID
        if not noted.exists():
            noted.write_text(f"{run.id}-{time.time():.0f}" if run.afresh else run.id)
        quiet = wandb.Settings(console="off", silent=True, disable_git=True)
        self._image = wandb.Image
        self._run: Any = wandb.init(
            id=noted.read_text(), name=run.id, resume="allow", reinit="finish_previous",
            config=dict(run.settings), dir=str(run.folder), settings=quiet, **self._place,
        )  # fmt: skip
        if not (self._run.offline or self._run.disabled):
            LOG.info("logged at %s", self._run.url)

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        self._run.log(dict(values), step=step)

    def picture(self, name: str, image: Tensor, step: int, caption: str = "") -> None:
        self._run.log({name: self._image(image.permute(1, 2, 0).numpy(), caption=caption)}, step=step)

    def finish(self, metrics: Mapping[str, float], step: int) -> None:
        self._run.summary.update(dict(metrics))

    def close(self) -> None:
        self._run.finish()
