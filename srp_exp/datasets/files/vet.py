"""A look at pictures before the first step: which can't be read, are transparent, or have more than 8 bits."""

import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import Progress

from srp_exp.datasets.files.decode import check_header
from srp_exp.datasets.files.file_split import FileSplit
from srp_exp.datasets.files.source import spread
from srp_exp.errors import CorruptImageError

_LOG = logging.getLogger("srp_exp")
LARGE = 4 << 30
"""Bytes of encoded pictures, which take about a minute to decode; of a larger split a sample is decoded."""

_SAMPLE = 2_000  # pictures of a large split that are decoded
_HEADER = 4_096  # bytes of the others that are read
_CHUNK = 64  # pictures that a thread takes at a time


@dataclass
class Vetting:
    """What was found in a split of `size` pictures, by their positions. looked: how many were decoded.

    bad: why a picture can't be read. transparent: those with pixels that aren't opaque. deep: the least and the highest
    value of those of more than 8 bits.
    """

    size: int
    looked: int = 0
    bad: dict[int, str] = field(default_factory=dict)
    transparent: list[int] = field(default_factory=list)
    deep: dict[int, tuple[float, float]] = field(default_factory=dict)


def vet(split: FileSplit, name: str, everything: bool) -> Vetting:
    """Decode all pictures; of a split of more than LARGE bytes a sample, and read the headers of the others.

    name: of the split, for the progress bar. everything: decode all of a large split too, which is also done where
    pictures have more than 8 bits whose range isn't known.
    """
    started, found, sizes = time.perf_counter(), Vetting(len(split)), list[int]()

    def look(position: int) -> None:
        try:
            encoded, stored = split.stored(position)
        except CorruptImageError as error:
            found.bad[position] = str(error)
            return
        sizes.append(len(encoded))
        if stored.alpha is not None:
            found.transparent.append(position)
        if stored.values.dtype != torch.uint8:
            low, high = stored.values.aminmax()
            found.deep[position] = low.item(), high.item()

    def look_at_header(position: int) -> None:
        row = int(split.rows[position])
        try:
            try:
                check_header(split.source.read(row, _HEADER), "")
            except CorruptImageError:  # its header may be longer
                check_header(split.source.read(row), split.name(position))
        except CorruptImageError as error:
            found.bad[position] = str(error)

    sample = spread(len(split), _SAMPLE)
    rest = np.setdiff1d(np.arange(len(split)), sample)
    with Progress(console=Console(stderr=True), transient=True, disable=not Console(stderr=True).is_terminal) as bar:
        task = bar.add_task(f"looking at the pictures of {name}", total=len(split))
        for_all(sample, look, lambda done: bar.advance(task, done))
        unknown_range = split.reading.value_range is None and bool(found.deep)
        everything = everything or unknown_range or sum(sizes) / max(1, len(sample)) * len(split) <= LARGE
        for_all(rest, look if everything else look_at_header, lambda done: bar.advance(task, done))
    found.looked = len(split) if everything else len(sample)
    what = f"all {found.looked:,} pictures"
    if not everything:
        what = f"{found.looked:,} pictures and the headers of {len(rest):,}; dataset.vet=all looks at all"
    _LOG.info("%s: looked at %s in %.0f s", name, what, time.perf_counter() - started)
    return found


def for_all(
    positions: NDArray[np.int64], look: Callable[[int], None], advance: Callable[[int], object] = lambda done: None
) -> None:
    """Call `look` with every position, in several threads; the first error is raised, and ends the rest.

    advance: is called with the number of positions done.
    """

    def look_at(chunk: NDArray[np.int64]) -> None:
        for position in chunk.tolist():
            look(position)
        advance(len(chunk))

    # Decoding leaves Python's lock, so threads do; processes would have to start before CUDA does.
    with ThreadPoolExecutor() as threads:
        list(threads.map(look_at, np.split(positions, range(_CHUNK, len(positions), _CHUNK))))
