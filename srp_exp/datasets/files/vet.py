"""A look at pictures before the first step: which can't be read, are transparent, or have more than 8 bits."""

import logging
import os
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import Progress

from srp_exp.datasets.files.decode import check_header
from srp_exp.datasets.files.file_split import FileSplit
from srp_exp.errors import CorruptImageError

LOG = logging.getLogger("srp_exp")
LARGE = 4 << 30
"""Bytes of encoded pictures, which take about a minute to decode; of a larger split a sample is decoded."""

_SAMPLE = 2_000  # pictures of a large split that are decoded
_HEADER = 4_096  # bytes of the others that are read
_CHUNK = 64  # pictures that a thread takes at a time


@dataclass
class Outcome:
    """What was found in a split of N pictures. looked: how many were decoded.

    bad: position and reason of those that can't be read. transparent, deep: (N,) bool, which have pixels that aren't
    opaque, and more than 8 bits. low, high: (N,) the least and the highest value of the deep ones.
    """

    transparent: NDArray[np.bool_]
    deep: NDArray[np.bool_]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    looked: int = 0
    bad: dict[int, str] = field(default_factory=dict)


def vet(split: FileSplit, name: str, everything: bool) -> Outcome:
    """Decode all pictures; of a split of more than LARGE bytes a sample, and read the headers of the others.

    name: of the split, for the progress bar. everything: decode all of a large split too, which is also done where
    pictures have more than 8 bits whose range isn't known.
    """
    size, started = len(split), time.perf_counter()
    found = Outcome(np.zeros(size, bool), np.zeros(size, bool), np.zeros(size), np.zeros(size))
    read = np.zeros(size)

    def look(position: int) -> None:
        try:
            encoded, stored = split.stored(position)
        except CorruptImageError as error:
            found.bad[position] = str(error)
            return
        read[position] = len(encoded)
        found.transparent[position] = stored.alpha is not None
        if stored.values.dtype != torch.uint8:
            found.deep[position] = True
            found.low[position], found.high[position] = stored.values.aminmax()

    def look_at_header(position: int) -> None:
        row = int(split.rows[position])
        try:
            try:
                check_header(split.source.read(row, _HEADER), "")
            except CorruptImageError:  # its header may be longer
                check_header(split.source.read(row), split.name(position))
        except CorruptImageError as error:
            found.bad[position] = str(error)

    sample = spread(size, _SAMPLE)
    rest = np.setdiff1d(np.arange(size), sample)
    with Progress(console=Console(stderr=True), transient=True, disable=not Console(stderr=True).is_terminal) as bar:
        task = bar.add_task(f"looking at the pictures of {name}", total=size)
        for_all(sample, look, lambda done: bar.advance(task, done))
        unknown_range = split.reading.value_range is None and found.deep.any()
        everything = everything or bool(unknown_range) or read.sum() / max(1, len(sample)) * size <= LARGE
        for_all(rest, look if everything else look_at_header, lambda done: bar.advance(task, done))
    found.looked = size if everything else len(sample)
    LOG.info(
        "%s: looked at %s%s in %.0f s",
        name,
        f"all {size:,} pictures" if everything else f"{len(sample):,} pictures",
        "" if everything else f" and the headers of {len(rest):,}; dataset.vet=all looks at all",
        time.perf_counter() - started,
    )
    return found


def spread(size: int, most: int) -> NDArray[np.int64]:
    """Up to `most` of the positions 0 to size - 1, spread evenly."""
    return np.unique(np.linspace(0, size - 1, min(size, most)).astype(np.int64))


def for_all(
    positions: Iterable[int], look: Callable[[int], None], advance: Callable[[int], object] = lambda done: None
) -> None:
    """Call `look` with every position, in several threads; the first error is raised, and ends the rest.

    advance: is called with the number of positions done.
    """
    rows = [int(position) for position in positions]
    chunks = [rows[start : start + _CHUNK] for start in range(0, len(rows), _CHUNK)]

    def look_at(chunk: list[int]) -> int:
        for position in chunk:
            look(position)
        return len(chunk)

    # Decoding leaves Python's lock, so threads do; processes would have to start before CUDA does.
    with ThreadPoolExecutor(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None) as threads:
        try:
            for done in threads.map(look_at, chunks):
                advance(done)
        except BaseException:
            threads.shutdown(wait=False, cancel_futures=True)
            raise
