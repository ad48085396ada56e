"""Writing a prepared copy: resumable after a kill at any moment, in place only when it is whole."""

import json
import os
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from srp_exp.datasets.files.packed import FACTS_FILE, SAMPLE, SAMPLES_FILE, shard_file
from srp_exp.errors import UserError
from srp_exp.files import write_atomically

SHARD_BYTES = 1 << 30  # a shard is closed by the image that would take it beyond

_PLAN_FILE = "plan.json"


class PackedWriter:
    """Appends samples to a copy in `<folder>.partial`, which `finish` renames to `folder`.

    facts: what packed.json will state. A copy that was begun with the same facts goes on with sample number `done`:
    samples.bin lists what is surely in the shards, and everything after that is cut off. Raises ValueError where one
    was begun with other facts, or has lost some of its shards.
    """

    def __init__(self, folder: Path, facts: dict[str, Any], shard_bytes: int = SHARD_BYTES):
        self.folder = folder
        self.partial = folder.with_name(f"{folder.name}.partial")
        self._facts, self._shard_bytes = facts, shard_bytes
        self._pending: list[np.ndarray[Any, Any]] = []
        self.partial.mkdir(parents=True, exist_ok=True)
        self._check_plan()
        samples = self.partial / SAMPLES_FILE
        samples.touch()
        self.done = samples.stat().st_size // SAMPLE.itemsize
        os.truncate(samples, self.done * SAMPLE.itemsize)
        self._number = self._cut_shards()
        self._samples: BinaryIO = samples.open("ab")
        self._shard: BinaryIO = (self.partial / shard_file(self._number)).open("ab")

    def append(self, encoded: bytes, label: int, index: int, box: np.ndarray[Any, Any] | None) -> None:
        """Add an image. box: (4,) in pixels of this picture, or None."""
        start = self._shard.tell()
        if start and start + len(encoded) > self._shard_bytes:
            self.commit()
            self._shard.close()
            self._number, start = self._number + 1, 0
            self._shard = (self.partial / shard_file(self._number)).open("wb")
        self._shard.write(encoded)
        span = (self._number, start, start + len(encoded))
        self._pending.append(np.array((span, label, index, np.nan if box is None else box), SAMPLE))

    def commit(self) -> None:
        """Make sure that what was appended outlasts a kill and a crash: first the images, then their list."""
        _flush(self._shard)
        # Taken out first: after an interrupt in here, `close` must not list a sample twice.
        samples, self._pending = self._pending, []
        self._samples.write(b"".join(sample.tobytes() for sample in samples))
        _flush(self._samples)
        self.done += len(samples)

    def close(self) -> None:
        """Keep what was appended, to go on later."""
        self.commit()
        self._shard.close()
        self._samples.close()

    def finish(self) -> None:
        """Write packed.json and put the whole copy into its place. Raises OSError where another is there by now."""
        self.close()
        write_atomically(self.partial / FACTS_FILE, _json(self._facts | {"shards": self._number + 1}))
        (self.partial / _PLAN_FILE).unlink()
        self.partial.rename(self.folder)

    def _check_plan(self) -> None:
        path = self.partial / _PLAN_FILE
        if not path.exists():
            if any(self.partial.iterdir()):
                raise UserError(f"{self.partial}: holds something else than an unfinished copy; delete or move it")
            write_atomically(path, _json(self._facts))
            return
        begun = json.loads(path.read_text())
        changed = [key for key in self._facts if begun.get(key) != json.loads(_json(self._facts))[key]]
        if changed:
            raise UserError(
                f"{self.partial}: was begun with another {', '.join(changed)}; give the same settings and data to go "
                f"on, or delete that folder to begin again"
            )

    def _cut_shards(self) -> int:
        """Cut off what is in the shards after the images that are listed. Returns which shard is the last then."""
        number, end = 0, 0
        if self.done:
            last = np.fromfile(self.partial / SAMPLES_FILE, SAMPLE, 1, offset=(self.done - 1) * SAMPLE.itemsize)
            number, _, end = last["span"][0].tolist()
        path = self.partial / shard_file(number)
        if (path.stat().st_size if path.exists() else 0) < end:
            raise UserError(f"{self.partial}: {path.name} is cut off; delete that folder and begin again")
        path.touch()
        os.truncate(path, end)
        following = number + 1
        while (path := self.partial / shard_file(following)).exists():
            path.unlink()
            following += 1
        return number


def _flush(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())


def _json(facts: dict[str, Any]) -> bytes:
    return json.dumps(facts, indent=1).encode()
