"""Checkpoints of a run: written whole or not at all, read without running code."""

from pathlib import Path
from typing import Any

import torch

from srp_exp.files import write_atomically
from srp_exp.training.learner import Learner

FINAL = "final.pt"


class Checkpoints:
    """The checkpoints in one folder: the latest ones by step, `best.pt`, and at the end `final.pt`.

    Every file also holds `config`, the run's configuration as YAML, so that it can be evaluated alone.
    """

    def __init__(self, folder: Path, config: str, keep: int = 2) -> None:
        self.folder = folder
        self.best = folder / "best.pt"
        self.final = folder / FINAL
        self._config = config
        self._keep = keep
        folder.mkdir(parents=True, exist_ok=True)

    def latest(self) -> Path | None:
        """The newest checkpoint of an unfinished training."""
        return max(self._by_step(), default=None)

    def resume(self, learner: Learner) -> None:
        """Bring `learner` to the state of the newest checkpoint, if there is one."""
        path = self.latest()
        if path is not None:
            learner.load_state_dict(load(path)["learner"])

    def save(self, learner: Learner, is_best: bool) -> None:
        """Save the state of `learner`, also as the best where it is, and drop all but the last `keep` files."""
        path = self.folder / f"step-{learner.step:09d}.pt"
        state = {"config": self._config, "learner": learner.state_dict(), "model": learner.evaluated_model.state_dict()}
        # The best first: a run killed between the two makes the epoch again and writes both.
        for target in (self.best, path) if is_best else (path,):
            write_atomically(target, lambda file: torch.save(state, file))
        for old in self._by_step()[: -self._keep]:
            old.unlink()

    def finish(self, model: dict[str, Any]) -> None:
        """Save the state_dict that is the result of the run."""
        write_atomically(self.final, lambda file: torch.save({"config": self._config, "model": model}, file))

    def _by_step(self) -> list[Path]:
        return sorted(self.folder.glob("step-*.pt"))


def load(path: Path) -> dict[str, Any]:
    """Read a checkpoint; only tensors and plain values are accepted, so that no code of the file runs.

    Raises FileNotFoundError, or ValueError where the file isn't a checkpoint of srp_exp.
    """
    if not path.is_file():
        raise FileNotFoundError(f"checkpoint {path}: there is no such file")
    try:
        content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever a damaged file makes torch raise
        raise ValueError(f"checkpoint {path}: can't be read ({type(error).__name__}); choose another one") from error
    if not isinstance(content, dict) or not {"config", "model"} <= content.keys():
        raise ValueError(f"checkpoint {path}: holds no config and model, so it isn't one of srp_exp")
    return content
