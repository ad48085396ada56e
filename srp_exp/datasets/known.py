"""A data set known by its facts alone: a checkpoint keeps them, so that it needs no picture that its run has read."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from srp_exp.datasets.augmentation import Augmentation
from srp_exp.datasets.batches import Normalisation
from srp_exp.datasets.data_set import DataSet
from srp_exp.datasets.files.decode import Reading
from srp_exp.datasets.files.file_set import FileSet
from srp_exp.datasets.files.file_split import FileSplit
from srp_exp.datasets.files.preprocess import Preprocess
from srp_exp.datasets.files.source import FolderSource
from srp_exp.datasets.files.transforms import eval_transform, fit_transform
from srp_exp.datasets.memory.image_set import ImageSet
from srp_exp.datasets.split import Split
from srp_exp.errors import UserError


def facts_of(dataset: DataSet) -> dict[str, Any]:
    """Plain values that `without_pictures` takes; none for a set of a kind of its own."""
    if not isinstance(dataset, FileSet | ImageSet):
        return {}
    return {
        "class_names": list(dataset.class_names),
        "mean": list(dataset.mean),
        "std": list(dataset.std),
        "shape": [dataset.channels, *dataset.image_size],
        "in_files": isinstance(dataset, FileSet),
        "reading": vars(dataset.reading) if isinstance(dataset, FileSet) else {},
        "held": isinstance(dataset.test, Split),
        "brings_val": dataset.val is not None,
        "boxed": isinstance(dataset.test, FileSplit) and dataset.test.boxes is not None,
    }


def preprocess_of(
    facts: Mapping[str, Any],
    augmentation: Any,
    device: torch.device | str = "cpu",
    memory_format: torch.memory_format = torch.contiguous_format,
) -> Preprocess:
    """How evaluation turns a picture of the set that `facts` are of into what the network takes.

    augmentation: the set's. device, memory_format: of the normalised images. Raises UserError where the set's pictures
    have neither one nor three channels.
    """
    channels = facts["shape"][0]
    if channels not in (1, 3):
        raise UserError(f"the network takes pictures of {channels} channels, and files have 1 or 3; export it instead")
    normalise = Normalisation(tuple(facts["mean"]), tuple(facts["std"]), device, memory_format)
    transform = fit_transform(*facts["shape"]) if facts["held"] else eval_transform(augmentation)
    return Preprocess(Reading(**facts["reading"]), transform, normalise)


def without_pictures(facts: Mapping[str, Any], augmentation: Any) -> DataSet:
    """The set that `facts` are of, with no picture in its splits. augmentation: the set's."""
    nothing = torch.zeros(0, dtype=torch.int64)
    empty: Any
    if facts["held"]:
        empty = Split(torch.zeros(0, *facts["shape"], dtype=torch.uint8), nothing, nothing)
    else:
        boxes = torch.zeros(0, 4) if facts["boxed"] else None
        empty = FileSplit(FolderSource(Path(), []), nothing, nothing, nothing, boxes)
    assert isinstance(augmentation, Augmentation)
    kind: Any = FileSet if facts["in_files"] else ImageSet
    dataset: DataSet = kind(
        train=empty,
        test=empty,
        class_names=tuple(facts["class_names"]),
        mean=tuple(facts["mean"]),
        std=tuple(facts["std"]),
        augmentation=augmentation,
        **({"reading": Reading(**facts["reading"])} if facts["in_files"] else {}),
    )
    return dataset
