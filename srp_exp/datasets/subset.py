"""A small training part of a data set, with what it leaves unused added to the test part.

Few training pictures make a network over-fit, so that a regularizer can help; many test pictures make it exact.
"""

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from srp_exp.datasets.data_set import AnyDataSet
from srp_exp.datasets.files.file_split import FileSplit
from srp_exp.datasets.files.source import ImageSource
from srp_exp.datasets.split import Split, drawn
from srp_exp.errors import UserError

EitherSplit = TypeVar("EitherSplit", Split, FileSplit)


def with_subset(dataset: AnyDataSet, train_per_class: int | None, test_on_unused: bool, seed: int) -> AnyDataSet:
    """The data set with `train_per_class` training pictures of every class, drawn from `seed`; None: as it is.

    test_on_unused: the other training pictures follow those of the test part, their `index` counted on from its
    greatest. Mean and standard deviation stay those of the whole set. Raises UserError where a class has fewer.
    """
    if train_per_class is None:
        return dataset
    for label, size in enumerate(dataset.train.labels.bincount().tolist()):
        if 0 < size < train_per_class:
            raise UserError(
                f"dataset.train_per_class={train_per_class}: class {dataset.class_names[label]} has {size} training "
                f"pictures; choose at most as many as the smallest class has"
            )
    taken = drawn(dataset.train.labels, seed, "subset", lambda label, size: train_per_class)
    train = dataset.train.take(taken.nonzero().squeeze(1))
    test = dataset.test
    if test_on_unused:
        test = joined(test, dataset.train.take((~taken).nonzero().squeeze(1)))
    changed = copy.copy(dataset)
    vars(changed).update(train=train, test=test)  # a data set is frozen, and made by whichever class
    return changed


def joined(test: EitherSplit, unused: EitherSplit) -> EitherSplit:
    """The samples of `test`, then those of `unused`."""
    both: dict[str, Any] = {
        name: torch.cat([part, getattr(unused, name)]) for name, part in vars(test).items() if isinstance(part, Tensor)
    }
    both["index"] = torch.cat([test.index, unused.index + (int(test.index.max()) + 1 if len(test) else 0)])
    if test.source is not None and test.rows is not None and unused.source is not None and unused.rows is not None:
        both["source"] = JoinedSource(test.source, unused.source)
        both["rows"] = torch.cat([test.rows, unused.rows + len(test.source)])
    return replace(test, **both)


class JoinedSource:
    """The images of one source, then those of another."""

    def __init__(self, first: ImageSource, second: ImageSource):
        self._first, self._second = first, second

    def __len__(self) -> int:
        return len(self._first) + len(self._second)

    def _at(self, position: int) -> tuple[ImageSource, int]:
        beyond = position - len(self._first)
        return (self._first, position) if beyond < 0 else (self._second, beyond)

    def read(self, position: int, most: int = -1) -> bytes:
        source, own = self._at(position)
        return source.read(own, most)

    def name(self, position: int) -> str:
        source, own = self._at(position)
        return source.name(own)

    def digest(self) -> str:
        return f"{self._first.digest()} {self._second.digest()}"

    def probes(self) -> list[Path]:
        return [*self._first.probes(), *self._second.probes()]
