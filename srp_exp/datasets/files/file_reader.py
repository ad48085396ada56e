"""Batches whose images are read from files and decoded by worker processes.

A worker makes a whole batch as uint8, which crosses to the device from pinned memory, so that the CPU doesn't wait;
there it is normalised. What a sample looks like doesn't depend on the number of workers.
"""

import os
import signal
import threading
from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.multiprocessing.reductions import shared_cache
from torch.utils.data import DataLoader, Dataset, default_collate

from srp_exp.datasets.batches import Batch, Normalisation, Sharding
from srp_exp.datasets.data_set import DataSet
from srp_exp.datasets.files.file_split import FileSplit
from srp_exp.datasets.files.transforms import Transform, cut_to_box, eval_transform, train_transform
from srp_exp.seeding import derive_many

_Request = tuple[int, list[int], list[int]]
"""An epoch, and of the samples of a batch the positions in the split, and which of the epoch's draws each gets."""

_BATCHES_AHEAD = 2  # of each worker


class FileReader:
    """Reads a split of files. seed: of its augmentation; None: there is none.

    The workers of training stay from epoch to epoch; those of an evaluation end with it, so that never more than two
    pools of them exist, of which one waits.
    """

    def __init__(self, dataset: DataSet, split: FileSplit, placement: Sharding, seed: int | None):
        augmentation = dataset.augmentation
        transform = eval_transform(augmentation) if seed is None else train_transform(augmentation, dataset.mean)
        self._device = torch.device(placement.device)
        self._labels, self._index = split.labels, split.index
        self._normalise = Normalisation(dataset.mean, dataset.std, self._device, placement.memory_format)
        self._requests: list[_Request] = []
        workers = placement.workers
        self._loader: DataLoader[Tensor | Exception] = DataLoader(
            _Images(split, transform, seed),
            batch_size=None,  # a request is a batch already
            sampler=self._requests,
            num_workers=workers,
            worker_init_fn=start_worker,
            prefetch_factor=_BATCHES_AHEAD if workers else None,
            persistent_workers=workers > 0 and seed is not None,
            pin_memory=self._device.type == "cuda",
            generator=torch.Generator(),  # the DataLoader draws from it, and would from torch's own
        )

    def batches(self, epoch: int, steps: list[Tensor], draws: list[Tensor] | None = None) -> Iterator[Batch]:
        """The batches of `steps`, the rows of one each. All that a worker raises is raised here."""
        drawn = steps if draws is None else draws
        self._requests[:] = [
            (epoch, rows.tolist(), of_step.tolist()) for rows, of_step in zip(steps, drawn, strict=True)
        ]
        if not steps:
            return
        # At once for all steps, in each of which a GPU would wait for the CPU.
        sizes, rows = [len(rows) for rows in steps], torch.cat(steps)
        labels, index = (values[rows].to(self._device).split(sizes) for values in (self._labels, self._index))
        for images, *of_step in zip(self._images(), labels, index, strict=True):
            yield Batch(self._normalise(images.to(self._device, non_blocking=self._loader.pin_memory)), *of_step)

    def _images(self) -> Iterator[Tensor]:
        for images in self._loader:
            if isinstance(images, Exception):
                raise images
            yield images
            # torch remembers the last 128 batches that it received, in a few bytes each, which lie between the large
            # blocks of the heap and keep these from being used again: gigabytes, where batches live on the CPU.
            shared_cache.free_dead_references()


class _Images(Dataset[Tensor | Exception]):
    """What a worker does: a request in, its images out, (B, 3, S, S) uint8.

    An exception is returned, since the DataLoader would wrap a raised one into a message of many lines.
    """

    def __init__(self, split: FileSplit, transform: Transform, seed: int | None):
        self._split = split
        self._transform, self._seed = transform, seed
        self._seeds: tuple[int, NDArray[np.uint64]] | None = None  # of an epoch; a list would hold 40 bytes for each

    def __getitem__(self, request: _Request) -> Tensor | Exception:
        try:
            images = self._images(*request)
        except (ValueError, OSError) as error:
            return error
        # In memory they are H, W, C, as the decoders and the resizing leave them: stacked so, whole lines are copied.
        # torch's own function stacks them in the memory that a worker shares, where torch.stack leaves that a copy.
        batch: Tensor = default_collate([image.permute(1, 2, 0) for image in images])
        return batch.permute(0, 3, 1, 2)

    def _images(self, epoch: int, positions: list[int], draws: list[int]) -> list[Tensor]:
        if self._seed is None:
            return [self._image(position) for position in positions]
        if self._seeds is None or self._seeds[0] != epoch:
            self._seeds = epoch, derive_many(len(self._split), self._seed, "augment", epoch)
        images = []
        with torch.random.fork_rng(devices=[]):
            for position, draw in zip(positions, draws, strict=True):
                torch.default_generator.manual_seed(int(self._seeds[1][draw]))
                images.append(self._image(position))
        return images

    def _image(self, position: int) -> Tensor:
        image = self._split.picture(position)
        if self._split.boxes is not None:
            image = cut_to_box(image, self._split.boxes[position], self._split.name(position))
        return self._transform(image)


def start_worker(worker: int) -> None:
    """Obey only the main process: a cluster sends its signals to all, and batches are needed until training stops.

    SIGTERM is how multiprocessing ends its workers at exit, so it may not be ignored whoever sends it.
    """
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)
    if hasattr(signal, "sigwaitinfo"):  # not on macOS
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=_end_when_told, daemon=True).start()


def _end_when_told() -> None:
    """Wait for SIGTERM from the parent, and swallow those of others."""
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != os.getppid():
        pass
    os._exit(0)
