"""Which images of a split can't be decoded: all are tried once, in several threads, for dataset.on_corrupt=skip."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from srp_exp.datasets.files.decode import CorruptImageError, decode
from srp_exp.datasets.files.file_split import FileSplit

_CHUNK = 256  # images that a thread takes at a time


def find_corrupt(split: FileSplit) -> NDArray[np.int64]:
    """The positions in `split` of the images that can't be decoded, ascending, (M,). Decodes every image in full."""
    rows = split.rows.numpy()
    chunks = [range(start, min(start + _CHUNK, len(rows))) for start in range(0, len(rows), _CHUNK)]

    def corrupt_in(chunk: range) -> list[int]:
        return [position for position in chunk if not _decodes(split, int(rows[position]))]

    # Decoding leaves Python's lock, so threads do; processes would have to start before CUDA does.
    with ThreadPoolExecutor() as threads:
        found = [position for chunk in threads.map(corrupt_in, chunks) for position in chunk]
    return np.array(found, dtype=np.int64)


def _decodes(split: FileSplit, row: int) -> bool:
    try:
        decode(split.source.read(row), split.source.name(row))
    except CorruptImageError:
        return False
    return True
