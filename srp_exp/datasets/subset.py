"""A small training part of a data set, with what it leaves unused added to the test part.

Few training pictures make a network over-fit, so that a regularizer can help; many test pictures make it exact.
"""

import copy
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from srp_exp.datasets.data_set import DataSet
from srp_exp.datasets.files.file_split import FileSplit
from srp_exp.datasets.files.source import ImageSource
from srp_exp.datasets.split import Split
from srp_exp.errors import UserError
from srp_exp.seeding import generator

AnyDataSet = TypeVar("AnyDataSet", bound=DataSet)
AnySplit = TypeVar("AnySplit", Split, FileSplit)


def with_subset(dataset: AnyDataSet, train_per_class: int | None, test_on_unused: bool, seed: int) -> AnyDataSet:
    """The data set with `train_per_class` training pictures of every class, drawn from `seed`; None: as it is.

    test_on_unused: the other training pictures follow those of the test part, their `index` counted on from its
    greatest. Mean and standard deviation stay those of the whole set. Raises UserError where a class has fewer.
    """
    if train_per_class is None:
        return dataset
    taken = drawn(dataset.train.labels, dataset.class_names, train_per_class, seed)
    train = dataset.train.take(taken.nonzero().squeeze(1))
    test = dataset.test
    if test_on_unused:
        test = joined(test, dataset.train.take((~taken).nonzero().squeeze(1)))
    changed = copy.copy(dataset)
    vars(changed).update(train=train, test=test)  # a data set is frozen, and made by whichever class
    return changed


def drawn(labels: Tensor, class_names: Sequence[str], per_class: int, seed: int) -> Tensor:
    """Which of the samples, (N,) bool, are the `per_class` of every class. labels: (N,) int64."""
    taken = torch.zeros(len(labels), dtype=torch.bool)
    for label in labels.unique().tolist():
        members = (labels == label).nonzero().squeeze(1)
        if len(members) < per_class:
            raise UserError(
                f"dataset.train_per_class={per_class}: class {class_names[label]} has {len(members)} training "
                f"pictures; choose at most as many as the smallest class has"
            )
        taken[members[torch.randperm(len(members), generator=generator(seed, "subset", label))[:per_class]]] = True
    return taken


def joined(test: AnySplit, unused: AnySplit) -> AnySplit:
    """The samples of `test`, then those of `unused`."""
    first = int(test.index.max()) + 1 if len(test) else 0
    labels = torch.cat([test.labels, unused.labels])
    index = torch.cat([test.index, unused.index + first])
    files: dict[str, Any] = {}
    if test.source is not None and unused.source is not None:
        assert test.rows is not None and unused.rows is not None
        files["source"] = JoinedSource(test.source, unused.source)
        files["rows"] = torch.cat([test.rows, unused.rows + len(test.source)])
    if isinstance(test, Split) and isinstance(unused, Split):
        images = torch.cat([test.images, unused.images])
        return replace(test, images=images, labels=labels, index=index, **files)
    assert isinstance(test, FileSplit) and isinstance(unused, FileSplit)
    boxes = None
    if test.boxes is not None and unused.boxes is not None:
        boxes = torch.cat([test.boxes, unused.boxes])
    return replace(test, labels=labels, index=index, boxes=boxes, **files)


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
