"""Making the prepared copy of a data set: pictures made small and kept in a few large files."""

import hashlib
import io
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2 import functional

from srp_exp.datasets.files.decode import decode
from srp_exp.datasets.files.file_split import FileSplit
from srp_exp.datasets.files.packed import FORMAT
from srp_exp.datasets.prepare.packed_writer import PackedWriter
from srp_exp.errors import UserError

_COMMIT_EVERY = 500  # images; what is lost by a kill


@dataclass(frozen=True)
class PackSettings:
    """name: of the set, as "cub200". resize: shorter side in pixels. quality: of JPEG, 1 to 100. workers: threads."""

    name: str
    class_names: tuple[str, ...]
    resize: int
    quality: int = 90
    workers: int = 1

    def __post_init__(self) -> None:
        if self.resize < 1:
            raise UserError(f"resize={self.resize}: choose a shorter side of at least 1 pixel, such as 256 or 512")
        if not 1 <= self.quality <= 100:
            raise UserError(f"quality={self.quality}: choose 1 to 100, such as 90")


class Small(NamedTuple):
    """An encoded picture. factors: new over old width, and height."""

    encoded: bytes
    factors: tuple[float, float]


def shrink(encoded: bytes, name: str, resize: int, quality: int) -> Small:
    """The picture with its shorter side reduced to `resize` pixels, as an RGB JPEG.

    Reduced as the transform Resize(resize) does it (bilinear, antialiased), which then leaves the copy as it is. A
    picture that isn't larger keeps its very bytes, but is decoded nevertheless. Raises CorruptImageError, with `name`,
    where it can't be.
    """
    picture = decode(encoded, name)
    _, height, width = picture.shape
    if min(height, width) <= resize:
        return Small(encoded, (1.0, 1.0))
    small: Tensor = functional.resize(picture, [resize], antialias=True)
    _, new_height, new_width = small.shape
    jpeg = io.BytesIO()
    Image.fromarray(small.permute(1, 2, 0).numpy()).save(jpeg, "JPEG", quality=quality)
    return Small(jpeg.getvalue(), (new_width / width, new_height / height))


def pack(
    splits: Mapping[str, FileSplit],
    folder: Path,
    settings: PackSettings,
    advance: Callable[[int], object] = lambda count: None,
) -> None:
    """Write the copy of a set's splits, "train" and "test", to `folder`, or go on with it.

    advance: is called with the number of images done, those of an earlier call included. Raises CorruptImageError for
    a picture that can't be decoded, and what PackedWriter raises. What is done by then is kept.
    """
    writer = PackedWriter(folder, _facts(splits, settings))
    try:
        advance(writer.done)
        jobs = _jobs(splits, settings, skip=writer.done)
        for count, (small, split, sample) in enumerate(_in_order(jobs, settings.workers), 1):
            box = None
            if split.boxes is not None:
                box = (split.boxes[sample] * torch.tensor(small.factors * 2)).numpy()
            writer.append(small.encoded, int(split.labels[sample]), int(split.index[sample]), box)
            advance(1)
            if count % _COMMIT_EVERY == 0:
                writer.commit()
    except BaseException:
        writer.close()
        raise
    writer.finish()


Job = tuple[Callable[[], Small], FileSplit, int]
Done = tuple[Small, FileSplit, int]


def _jobs(splits: Mapping[str, FileSplit], settings: PackSettings, skip: int) -> Iterator[Job]:
    """What is to be done for every sample but the first `skip`: training, then test, in the order of the splits."""

    def job(split: FileSplit, row: int) -> Callable[[], Small]:
        read, name = split.source.read, split.source.name
        return lambda: shrink(read(row), name(row), settings.resize, settings.quality)

    for split_name in ("train", "test"):
        split = splits[split_name]
        for sample in range(min(skip, len(split)), len(split)):
            yield job(split, int(split.rows[sample])), split, sample
        skip = max(0, skip - len(split))


def _in_order(jobs: Iterator[Job], workers: int) -> Iterator[Done]:
    """Do the jobs in `workers` threads, a few in advance; the codecs and the resizing run without Python's lock."""
    waiting: deque[tuple[Future[Small], FileSplit, int]] = deque()
    pool = ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,))
    try:
        for function, split, sample in jobs:
            waiting.append((pool.submit(function), split, sample))
            if len(waiting) > 4 * workers:
                first, split, sample = waiting.popleft()
                yield first.result(), split, sample
        while waiting:
            first, split, sample = waiting.popleft()
            yield first.result(), split, sample
    finally:
        pool.shutdown(cancel_futures=True)


def _facts(splits: Mapping[str, FileSplit], settings: PackSettings) -> dict[str, Any]:
    """What packed.json states, and what must be the same for a copy to go on: `content` is a digest of the lists."""
    digest = hashlib.sha256()
    for split in (splits["train"], splits["test"]):
        for tensor in (split.labels, split.index, split.boxes):
            digest.update(b"" if tensor is None else tensor.contiguous().numpy().tobytes())
    return {
        "format": FORMAT,
        "name": settings.name,
        "resize": settings.resize,
        "quality": settings.quality,
        "boxes": splits["train"].boxes is not None,
        "splits": {name: {"size": len(splits[name]), "skipped": splits[name].skipped} for name in ("train", "test")},
        "class_names": list(settings.class_names),
        "content": digest.hexdigest(),
    }
