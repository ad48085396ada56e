"""Checkpoints of a run: written whole or not at all, checked when read, read without running code."""

import hashlib
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from srp_exp.errors import MissingFileError, UserError
from srp_exp.files import TEMPORARY, write_atomically
from srp_exp.training.learner import Learner
from srp_exp.training.reporting.logs import LOG

FINAL = "final.pt"
_DIGEST = 64  # hexadecimal digits of SHA-256


class Checkpoints:
    """The checkpoints in one folder: the last `keep` by step, `best.pt`, and at the end `final.pt`.

    Every file holds `config`, the run's configuration as YAML, and `data`, what is known of its data set without its
    pictures, so that it can be evaluated and exported alone. Writing happens in a
    thread beside the training, which waits for the copy of its state only. A save that fails (a full disk) is
    reported, leaves the older files as they are, and is tried again at the next interval. Before each save `confirm`
    is called, and raises where the folder isn't this process's any more.
    """

    def __init__(
        self,
        folder: Path,
        config: str,
        data: Mapping[str, Any] | None = None,
        *,
        every_steps: int | None = None,
        every_minutes: float | None = None,
        keep: int = 2,
        writes: bool = True,
        confirm: Callable[[], None] = lambda: None,
    ) -> None:
        self.folder = folder
        self.best = folder / "best.pt"
        self.final = folder / FINAL
        self._every_steps, self._every_minutes, self._writes = every_steps, every_minutes, writes
        self._keep, self._confirm = keep, confirm
        self._of_run = {"config": config, **({"data": dict(data)} if data else {})}
        self._writer: threading.Thread | None = None
        self._fault: Exception | None = None
        self._unsaved_best: dict[str, Any] | None = None
        self._saved_at = time.monotonic()
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except FileExistsError:
            raise UserError(f"{folder} is no folder: remove it, or make the folder that it links to") from None

    def newest(self) -> tuple[Path, dict[str, Any]] | None:
        """The newest whole checkpoint by step, with its content, if there is one; damaged ones are reported."""
        for unfinished in self.folder.glob(f".*{TEMPORARY}") if self._writes else ():
            unfinished.unlink()
        for path in reversed(self._by_step()):
            try:
                return path, self.read(path)
            except UserError as error:
                LOG.warning("%s; the one before is taken", error)
        return None

    @property
    def best_is_unsaved(self) -> bool:
        """Whether the file of the best epoch could not be written, or an older one stands there."""
        return self._unsaved_best is not None

    def latest(self) -> Path | None:
        """The newest checkpoint of an unfinished training."""
        self.wait()
        return max(self._by_step(), default=None)

    def due_by_steps(self, step: int) -> bool:
        """Whether the interval in steps ends with `step`."""
        return self._every_steps is not None and step % self._every_steps == 0

    def due_by_time(self) -> bool:
        """Whether the interval in minutes is over since the last save; each process has its own clock."""
        return self._every_minutes is not None and time.monotonic() - self._saved_at >= 60 * self._every_minutes

    def save(self, learner: Learner, is_best: bool = False) -> None:
        """Begin to save the state of `learner`, also as the best where it is. All processes call it, one writes."""
        self.wait()
        self._saved_at = time.monotonic()
        if self._writes:
            self._confirm()
            state = tree_map(_copy_to_cpu, learner.state_dict())
            self._writer = threading.Thread(target=self._write, args=(state, is_best))
            self._writer.start()

    def wait(self) -> None:
        """Return when everything saved so far is on the disk, or has failed."""
        if self._writer is not None:
            self._writer.join()
            self._writer = None
        if self._fault is not None:
            fault, self._fault = self._fault, None
            raise fault

    def finish(self, model: dict[str, Any]) -> None:
        """Save the state_dict that is the result of the run. Raises OSError where that fails."""
        self.wait()
        if self._writes:
            self._confirm()
            self.folder.mkdir(exist_ok=True)
            on_cpu = {name: tensor.cpu() for name, tensor in model.items()}  # torch.load reads it on any machine
            write(self.final, {**self._of_run, "name": self._name(self.final), "model": on_cpu})

    def _write(self, learner: dict[str, Any], is_best: bool) -> None:
        path = self.folder / f"step-{learner['step']:09d}.pt"
        self._unsaved_best = learner if is_best else self._unsaved_best
        try:
            # The best first: a run killed between the two makes the epoch again and writes both.
            if self._unsaved_best is not None:
                self._write_state(self.best, self._unsaved_best)
                self._unsaved_best = None
            self._write_state(path, learner)
            kept = [other for other in self._by_step() if other <= path][-self._keep :]
            for other in set(self._by_step()).difference(kept):  # later ones are damaged
                other.unlink()
        except OSError as error:
            LOG.error(
                "checkpoint %s not saved (%s): the older ones stay; it is tried again at the next interval",
                path,
                error.strerror or error,
            )
        except Exception as error:  # a fault: the training raises it
            self._fault = error

    def _write_state(self, path: Path, learner: dict[str, Any]) -> None:
        self.folder.mkdir(exist_ok=True)  # where it was deleted during the run
        write(path, {**self._of_run, "name": self._name(path), "learner": learner})

    def read(self, path: Path) -> dict[str, Any]:
        """Read a checkpoint of this folder. Raises UserError where it is damaged."""
        content = load(path)
        if content.get("name") != self._name(path):
            raise UserError(f"checkpoint {path}: holds {content.get('name')}, so it was exchanged")
        return content

    def _name(self, path: Path) -> str:
        """What a checkpoint says it is: the name of its run, and that of its file, wherever a link has them lie."""
        return f"{self.folder.absolute().parent.name}/{path.name}"

    def _by_step(self) -> list[Path]:
        return sorted(self.folder.glob("step-*.pt"))


def write(path: Path, content: dict[str, Any]) -> None:
    """Save `content` by torch.save, with its SHA-256 as the comment of the zip archive that torch.save makes."""

    def save(file: BinaryIO) -> None:
        try:
            torch.save(content, file)
        except RuntimeError as error:  # torch closes the archive of a write that failed, and fails again
            raise error.__context__ if isinstance(error.__context__, OSError) else error from None
        digest = _sha256(file, file.seek(0, 2)).hexdigest().encode()
        file.seek(-2, 2)  # the archive ends with the length of its comment, which torch.save leaves empty
        file.write(_DIGEST.to_bytes(2, "little") + digest)

    write_atomically(path, save)


def load(path: Path) -> dict[str, Any]:
    """Read a checkpoint; only tensors and plain values are accepted, so that no code of the file runs.

    Raises FileNotFoundError, or ValueError where the file is damaged or no checkpoint of srp_exp.
    """
    if not path.is_file():
        raise MissingFileError(f"checkpoint {path}: there is no such file")
    with path.open("rb") as file:
        if not _is_whole(file):
            raise UserError(f"checkpoint {path}: damaged or not one of srp_exp (its checksum doesn't match)")
        try:
            content = torch.load(file, map_location="cpu", weights_only=True)
        except Exception as error:  # whatever torch raises at code, or at what isn't its own
            raise UserError(f"checkpoint {path}: refused, it holds more than tensors and plain values") from error
    if not isinstance(content, dict) or "config" not in content or not content.keys() & {"model", "learner"}:
        raise UserError(f"checkpoint {path}: holds no config and model, so it isn't one of srp_exp")
    return content


def model_state(content: dict[str, Any]) -> dict[str, Tensor]:
    """The state_dict of the model that a checkpoint evaluates: the result, or at a step the moving average, if any."""
    if "model" in content:
        return dict(content["model"])
    learner = content["learner"]
    if learner["ema"] is None:
        return dict(learner["model"])
    return {name.removeprefix("module."): value for name, value in learner["ema"].items() if name != "n_averaged"}


def _is_whole(file: BinaryIO) -> bool:
    size = file.seek(0, 2)
    if size < _DIGEST + 22:
        return False
    actual = _sha256(file, size - _DIGEST - 2)
    length, digest = file.read(2), file.read()
    actual.update(b"\0\0")  # where the length stood empty
    file.seek(0)
    return length == _DIGEST.to_bytes(2, "little") and digest == actual.hexdigest().encode()


def _sha256(file: BinaryIO, size: int) -> "hashlib._Hash":
    """The hash of the first `size` bytes; the file stands behind them then."""
    digest = hashlib.sha256()
    file.seek(0)
    while size:
        chunk = file.read(min(size, 2**20))
        digest.update(chunk)
        size -= len(chunk)
    return digest


def _copy_to_cpu(value: Any) -> Any:
    return value.detach().to("cpu", copy=True) if isinstance(value, Tensor) else value
