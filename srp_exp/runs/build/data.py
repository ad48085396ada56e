"""The data of a run: its data set, the parts that train, validate and test, and their batches."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from hydra.utils import instantiate
from omegaconf import DictConfig
from torch import Tensor

from srp_exp.config.schemas.datasets import OF_EVERY_SET
from srp_exp.datasets import Batch, DataSet, Sharding, TrainingBatches, hold_out, with_statistics
from srp_exp.datasets.known import without_pictures
from srp_exp.datasets.on_disk.picture_set import PictureSet
from srp_exp.datasets.other_test import other_test
from srp_exp.datasets.subset import with_subset
from srp_exp.errors import UserError
from srp_exp.runs.build.arguments import arguments, memory_format
from srp_exp.training.processes.distributed import SINGLE, Processes

MOST_WORKERS = 16
"""Of a process: more are not worth it to read files."""


@dataclass(frozen=True)
class Data:
    """A data set with its parts, train, val (None: no validation part) and test, and where its batches go.

    balanced: whether training draws all classes equally often.
    """

    dataset: DataSet
    splits: dict[str, Any]
    placement: Sharding
    balanced: bool = False
    _evaluations: dict[tuple[str, int], Iterable[Batch]] = field(default_factory=dict)

    @property
    def device(self) -> torch.device:
        return torch.device(self.placement.device)

    def training_batches(self, batch_size: int, seed: int) -> TrainingBatches:
        return self.dataset.training_batches(self.splits["train"], batch_size, seed, self.placement, self.balanced)

    def pictures(self, split: str, rows: Tensor) -> Tensor:
        """The pictures (M, C, H, W) in [0, 1] at rows (M,) of a split, as evaluation sees them."""
        here = Sharding(self.placement.device)
        (batch,) = self.dataset.reader(self.splits[split], here, None).batches(0, [rows])
        return self.shown(batch.images)

    def shown(self, images: Tensor) -> Tensor:
        """Images (B, C, H, W) of a batch in [0, 1], on the CPU."""
        mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (self.dataset.mean, self.dataset.std))
        return (images.cpu() * std + mean).clamp(0, 1)

    def evaluation_batches(self, split: str, batch_size: int) -> Iterable[Batch]:
        """The same loader each time. Raises UserError where the data set has no such split."""
        chosen = self.splits[split]
        if chosen is None:
            raise UserError(f"split={split}: this run has no validation part (dataset.val_fraction=0)")
        if (split, batch_size) not in self._evaluations:
            batches = self.dataset.evaluation_batches(chosen, batch_size, self.placement)
            self._evaluations[split, batch_size] = batches
        return self._evaluations[split, batch_size]


def build_dataset(config: DictConfig, facts: Mapping[str, Any] | None = None) -> DataSet:
    """The data set. facts: what a checkpoint keeps of it, with which a set in files opens no training picture."""
    given = arguments(config.dataset, without=OF_EVERY_SET)
    own = config.dataset
    if facts and facts["in_files"]:
        make = instantiate({**given, "_partial_": True})
        only_test = isinstance(make.func, type) and issubclass(make.func, PictureSet)
        made = make(known=facts) if only_test else make()
    else:
        made = instantiate(given)
    dataset: DataSet = with_statistics(made, own.mean, own.std)
    return with_subset(dataset, own.train_per_class, own.test_on_unused, own.subset_seed)


def build_data(
    config: DictConfig, device: torch.device, processes: Processes = SINGLE, facts: Mapping[str, Any] | None = None
) -> Data:
    """The data set, as rank 0 finds or makes it first, and where its batches go.

    workers: of a machine, divided over its processes. facts: what a checkpoint keeps of the set, where no training
    picture is needed; with config.test_root, which has its pictures, the set isn't opened then.
    """
    if facts and config.test_root is not None:
        augmentation = instantiate(arguments(config.dataset.augmentation, without=()))
        dataset = without_pictures(facts, augmentation)
    else:
        with processes.in_turns():
            dataset = build_dataset(config, facts)
    train, val = (dataset.train, dataset.val) if facts else _divided(config, dataset)
    test = dataset.test
    if config.test_root is not None:
        test = other_test(Path(config.test_root).expanduser(), dataset, config.some_classes)
    splits = {"train": train, "val": val, "test": test}
    workers = processes.share_of_workers(config.workers, MOST_WORKERS)
    placement = Sharding(device, memory_format(config), processes.rank, processes.size, workers)
    return Data(dataset, splits, placement, config.recipe.sampler == "balanced")


def _divided(config: DictConfig, dataset: DataSet) -> tuple[Any, Any]:
    """The part that trains, and the validation part: the set's own, or what is held out; None where there is none."""
    fraction = config.dataset.val_fraction
    if dataset.val is None:
        if fraction == 0 and config.recipe.selection == "best":
            raise UserError(
                "recipe.selection=best needs a validation part, since test data selects nothing: set "
                "dataset.val_fraction; the data set brings none"
            )
        return hold_out(dataset.train, fraction, config.seed, dataset.class_names)
    if fraction:
        raise UserError(f"dataset.val_fraction={fraction}: the data set brings a validation part; set it to 0")
    return dataset.train, dataset.val
