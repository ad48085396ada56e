"""What is found out by decoding: which pictures are corrupt, the colours of a set, and all of it where it is small."""

import os
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from srp_exp.datasets.files.decode import CorruptImageError, Picture, decode
from srp_exp.datasets.files.file_split import FileSplit
from srp_exp.datasets.split import Split

_CHUNK = 256  # images that a thread takes at a time
_MEASURED = 1000  # pictures that mean and std are measured on, spread evenly


def find_corrupt(split: FileSplit) -> NDArray[np.int64]:
    """The positions in `split` of the images that can't be decoded, ascending, (M,). Decodes every image in full."""
    corrupt = np.zeros(len(split), bool)

    def look(position: int) -> None:
        try:
            _decoded(split, position)
        except CorruptImageError:
            corrupt[position] = True

    _for_all(range(len(split)), look)
    return np.flatnonzero(corrupt)


def channel_statistics(split: FileSplit | Split) -> NDArray[np.float64]:
    """Mean and standard deviation of the channels, (2, 3), in [0, 1]; every picture counts alike, whatever its size.

    Of up to 1,000 pictures, spread evenly over the split; of all that are held in memory.
    """
    if isinstance(split, Split):
        levels = torch.arange(256, dtype=torch.float64) / 255
        counts = [torch.bincount(plane.flatten(), minlength=256) for plane in split.images.transpose(0, 1)]
        shares = torch.stack(counts).double() / split.images[:, 0].numel()
        mean = shares @ levels
        return np.stack([mean.numpy(), (shares @ levels.square() - mean.square()).clamp(min=1e-12).sqrt().numpy()])
    positions = np.unique(np.linspace(0, len(split) - 1, _MEASURED).astype(int))
    moments = np.zeros((len(positions), 2, 3))

    def look(number: int) -> None:
        pixels = _decoded(split, int(positions[number])).to(torch.float64) / 255
        moments[number] = pixels.mean((1, 2)).numpy(), pixels.square().mean((1, 2)).numpy()

    _for_all(range(len(positions)), look)
    mean, square = moments.mean(0)
    return np.stack([mean, np.sqrt(np.maximum(square - mean**2, 1e-12))])


def hold_in_memory(splits: Mapping[str, FileSplit], most_mb: float) -> dict[str, Split] | None:
    """The splits with their pictures in memory; None where these have boxes, several sizes, or more than `most_mb`."""
    first, *_ = splits.values()
    if not most_mb or first.boxes is not None:
        return None
    picture = Picture(first.source.read(int(first.rows[0])), first.source.name(int(first.rows[0])))
    size = 3, picture.height, picture.width
    if sum(map(len, splits.values())) * np.prod(size) > most_mb * 1e6:
        return None
    held = {}
    for name, split in splits.items():
        images = torch.empty(len(split), *size, dtype=torch.uint8)
        try:
            _for_all(range(len(split)), lambda position: _put(images, split, position))  # noqa: B023
        except _OtherSizeError:
            return None
        held[name] = Split(images, split.labels, split.index, split.skipped)
    return held


class _OtherSizeError(Exception):
    """A picture that hasn't the size of the first."""


def _put(images: Tensor, split: FileSplit, position: int) -> None:
    pixels = _decoded(split, position)
    if pixels.shape != images.shape[1:]:
        raise _OtherSizeError
    images[position] = pixels


def _decoded(split: FileSplit, position: int) -> Tensor:
    row = int(split.rows[position])
    encoded = split.source.read(row)
    try:
        return decode(encoded, "")
    except CorruptImageError:
        return decode(encoded, split.source.name(row))  # again, as names take longer than small pictures


def _for_all(positions: Iterable[int], look: Callable[[int], None]) -> None:
    """Call `look` with every position, in several threads; the first error is raised, and ends the rest."""
    positions = list(positions)
    chunks = [positions[start : start + _CHUNK] for start in range(0, len(positions), _CHUNK)]
    # Decoding leaves Python's lock, so threads do; processes would have to start before CUDA does.
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        try:
            for _ in threads.map(lambda chunk: list(map(look, chunk)), chunks):
                pass
        except BaseException:
            threads.shutdown(wait=False, cancel_futures=True)
            raise
