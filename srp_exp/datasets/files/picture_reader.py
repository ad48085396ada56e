"""Batches of pictures without labels, of which those that can't be read are named and left out."""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from srp_exp.datasets.files.file_reader import start_worker
from srp_exp.datasets.files.preprocess import Preprocess
from srp_exp.datasets.files.source import ImageSource
from srp_exp.errors import UserError


class Pictures(NamedTuple):
    """Some pictures of a source. names: (B,) of those that could be read. pixels: (B, C, H, W) uint8; None where B = 0.

    unread: by the name of each that couldn't be read, why.
    """

    names: list[str]
    pixels: Tensor | None
    unread: dict[str, str]


def read_pictures(source: ImageSource, preprocess: Preprocess, batch_size: int, workers: int) -> Iterator[Pictures]:
    """Every picture of `source` once, in its order, `batch_size` at a time; `workers` processes read them."""
    rows = [part.tolist() for part in torch.arange(len(source)).split(batch_size)]
    workers = workers if len(rows) > 1 else 0
    loader: DataLoader[Pictures] = DataLoader(
        _Batches(source, preprocess),
        batch_size=None,  # a request is a batch already
        sampler=rows,
        num_workers=workers,
        worker_init_fn=start_worker,
        generator=torch.Generator(),  # the DataLoader draws from it, and would from torch's own
    )
    yield from loader


class _Batches(Dataset[Pictures]):
    def __init__(self, source: ImageSource, preprocess: Preprocess):
        self._source, self._preprocess = source, preprocess

    def __getitem__(self, rows: list[int]) -> Pictures:
        names, pixels, unread = [], [], {}
        for row in rows:
            name = self._source.name(row)
            try:
                pixels.append(self._preprocess.pixels(self._source.read(row), name))
                names.append(name)
            except UserError as error:
                # The remedy after the last semicolon is for a data set, which its run reads again.
                unread[name] = str(error).removeprefix(f"{name}: ").rpartition("; ")[0] or str(error)
            except OSError as error:
                unread[name] = error.strerror or str(error)
        return Pictures(names, torch.stack(pixels) if pixels else None, unread)
