"""Images per second of reading and augmenting JPEGs, beside torchvision's preset and timm's; memory; loss by the copy.

    python scripts/bench_input.py [--images 2000] [--rounds 7] [--reads 20000]

The images are generated, 500x375, with the statistics of photographs (natural_pictures.py). All pipelines make
random resized crops to 224 in one worker and end with normalised float batches in the main process. They take turns, a
whole epoch each, and ratios are taken within a round; the median over the rounds is reported with its quartiles.
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from multiprocessing import active_children
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from natural_pictures import write_pictures
from timm.data.loader import fast_collate
from timm.data.transforms_factory import create_transform
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

from srp_exp.datasets import Sharding
from srp_exp.datasets.augmentation import FileAugmentation
from srp_exp.datasets.files.file_set import FileSet
from srp_exp.datasets.files.file_split import FileSplit
from srp_exp.datasets.files.transforms import Transform, eval_transform
from srp_exp.datasets.on_disk.catalogue import listing_of_rows
from srp_exp.datasets.on_disk.prepared import copy_facts, read_copy
from srp_exp.datasets.prepare.copy import CopySettings, write_copy
from srp_exp.datasets.sets.tables.read_tables import read_table

BATCH, MEAN, STD = 50, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
Pass = Callable[[], Iterable[Any]]


def as_set(split: FileSplit) -> FileSet:
    return FileSet(split, split, ("class",), MEAN, STD, FileAugmentation())


def torchvision_preset(folder: Path) -> Pass:
    """ClassificationPresetTrain of torchvision's references/classification (backend PIL), without its options."""
    transform = v2.Compose(
        [
            v2.RandomResizedCrop(224, antialias=True),
            v2.RandomHorizontalFlip(),
            v2.PILToTensor(),
            v2.ToDtype(torch.float, scale=True),
            v2.Normalize(MEAN, STD),
            v2.ToPureTensor(),
        ]
    )
    loader = DataLoader(ImageFolder(str(folder), transform), BATCH, True, num_workers=1, persistent_workers=True)
    return lambda: loader


def timm_pipeline(folder: Path) -> Pass:
    """timm's training transform without its options, its uint8 batches, and the normalisation of its prefetcher."""
    transform = create_transform(
        224, is_training=True, use_prefetcher=True, color_jitter=0.0, auto_augment=None, interpolation="bilinear"
    )
    dataset = ImageFolder(str(folder), transform)
    loader: Any = DataLoader(dataset, BATCH, True, num_workers=1, persistent_workers=True, collate_fn=fast_collate)
    mean, std = (255 * torch.tensor(values).view(1, 3, 1, 1) for values in (MEAN, STD))
    return lambda: ((images.float().sub_(mean).div_(std), labels) for images, labels in loader)


def in_table(split: FileSplit, folder: Path) -> FileSplit:
    """The images in one parquet file, in groups of a hundred as the hub has large ones, kept as Arrow files."""
    file = folder / "images.parquet"
    images = pa.array([split.source.read(row) for row in split.rows.tolist()], pa.binary())
    pq.write_table(pa.table({"image": images}), file, row_group_size=100)
    table = read_table(file, folder)
    source = listing_of_rows([(table.place, table.files)], "image", split.labels.numpy()).source(folder)
    return FileSplit(source, split.rows, split.labels, split.index)


def ours(split: FileSplit) -> Pass:
    return partial(as_set(split).training_batches(split, BATCH, 0, Sharding(workers=1)).epoch, 0)


def images_per_second(make_pass: Pass, images: int) -> float:
    start = time.perf_counter()
    steps = sum(1 for _ in make_pass())
    assert steps == images // BATCH
    return images / (time.perf_counter() - start)


def report_speed(passes: dict[str, Pass], images: int, rounds: int) -> None:
    speeds: dict[str, list[float]] = {name: [] for name in passes}
    for number in range(rounds + 1):
        for name in list(passes)[:: 1 if number % 2 else -1]:
            speed = images_per_second(passes[name], images)
            if number:  # the first round warms up
                speeds[name].append(speed)
    reference, *others = passes
    print(f"{reference}: {statistics.median(speeds[reference]):,.0f} images/s")
    for name in others:
        ratios = [own / base for own, base in zip(speeds[name], speeds[reference], strict=True)]
        low, median, high = statistics.quantiles(ratios, n=4)
        speed = statistics.median(speeds[name])
        print(f"{name}: {speed:,.0f} images/s, ratio {median:.2f} (quartiles {low:.2f} - {high:.2f}, {rounds} rounds)")


def report_memory(name: str, split: FileSplit, reads: int) -> None:
    """Resident memory of the worker and of the main process after a twentieth of the reads and after all.

    Several epochs of the split, so that nothing is counted that grows with the length of its lists.
    """
    loader = as_set(split).training_batches(split, BATCH, 0, Sharding(workers=1))
    early, late = max(BATCH, reads // 20), reads // BATCH * BATCH
    count, marks = 0, {}
    while count < late:
        for _ in loader.epoch(0):
            count += BATCH
            if count in (early, late):
                (worker,) = active_children()
                marks[count] = f"{resident_mib(worker.pid):.0f} + {resident_mib(os.getpid()):.0f} MiB"
    print(f"{name}, worker + main process: {marks[early]} after {early:,} reads, {marks[late]} after {late:,}")


def resident_mib(pid: int | None) -> float:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def report_differences(original: FileSplit, copy: FileSplit) -> None:
    """What the smaller copy changes in the evaluation crop, in grey levels of 255."""
    transform = eval_transform(FileAugmentation())
    views = [list(evaluated(split, transform)) for split in (original, copy)]
    differences = [(a - b).abs().mean().item() for a, b in zip(*views, strict=True)]
    print(f"prepared copy against the original: mean absolute difference {statistics.mean(differences):.2f} of 255")


def evaluated(split: FileSplit, transform: Transform) -> Iterator[torch.Tensor]:
    for position in range(min(100, len(split))):
        yield transform(split.picture(position)).float()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=2000, help=f"how many, a multiple of {BATCH}")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--reads", type=int, default=20_000, help="of the measurement of memory; 0: none")
    arguments = parser.parse_args()
    torch.set_num_threads(1)

    with tempfile.TemporaryDirectory() as temporary:
        folder, copied = Path(temporary) / "folder", Path(temporary) / "copy"
        split = write_pictures(folder, arguments.images)
        copied.mkdir()
        settings = CopySettings(name="bench", class_names=("class",), resize=256)
        write_copy({"train": split, "test": split.take(torch.arange(1))}, copied, settings)
        facts = copy_facts(copied)
        assert facts is not None
        source = read_copy(copied, facts).train.source(copied)
        copy = FileSplit(source, split.rows, split.labels, split.index)
        size = sum(path.stat().st_size for path in folder.rglob("*.jpg")) / arguments.images
        print(f"torch {torch.__version__}, {os.cpu_count()} CPUs; {arguments.images} JPEGs of {size / 1000:.0f} kB")
        if arguments.reads:
            report_memory("folder", split, arguments.reads)
            report_memory("prepared copy", copy, arguments.reads)
        passes = {
            "torchvision's preset": torchvision_preset(folder),
            "timm's pipeline": timm_pipeline(folder),
            "from the folder": ours(split),
            "from a table, at random": ours(in_table(split, folder)),
            "from the copy prepared with resize=256": ours(copy),
        }
        report_speed(passes, arguments.images, arguments.rounds)
        report_differences(split, copy)


if __name__ == "__main__":
    main()
