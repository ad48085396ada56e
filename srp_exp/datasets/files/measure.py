"""The colours of a set, and all of its pictures where they are small: what is measured once all can be read."""

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from srp_exp.datasets.files.file_split import FileSplit
from srp_exp.datasets.files.source import spread
from srp_exp.datasets.files.vet import for_all
from srp_exp.datasets.split import Split

_MEASURED = 1000  # pictures that mean and std are measured on, spread evenly


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
    positions = spread(len(split), _MEASURED)
    moments = np.zeros((len(positions), 2, 3))

    def look(number: int) -> None:
        pixels = split.picture(int(positions[number])).to(torch.float64) / 255
        moments[number] = pixels.mean((1, 2)).numpy(), pixels.square().mean((1, 2)).numpy()

    for_all(np.arange(len(positions)), look)
    mean, square = moments.mean(0)
    return np.stack([mean, np.sqrt(np.maximum(square - mean**2, 1e-12))])


def hold_in_memory(splits: Mapping[str, FileSplit], most_mb: float) -> dict[str, Split] | None:
    """The splits with their pictures in memory; None where these have boxes, several sizes, or more than `most_mb`."""
    first = next(split for split in splits.values() if len(split))
    if not most_mb or first.boxes is not None:
        return None
    size = first.picture(0).shape
    if sum(map(len, splits.values())) * np.prod(size) > most_mb * 1e6:
        return None
    held = {}
    for name, split in splits.items():
        images = torch.empty(len(split), *size, dtype=torch.uint8)

        def put(position: int, images: Tensor = images, split: FileSplit = split) -> None:
            pixels = split.picture(position)
            if pixels.shape != size:
                raise _OtherSizeError
            images[position] = pixels

        try:
            for_all(np.arange(len(split)), put)
        except _OtherSizeError:
            return None
        held[name] = Split(images, split.labels, split.index, split.skipped, split.source, split.rows)
    return held


class _OtherSizeError(Exception):
    """A picture that hasn't the size of the first."""
