"""Batches from files: those that one slow loop would make, for any number of workers, ranks and starting steps."""

import os
import pickle
import signal
import subprocess
import sys
import textwrap
from dataclasses import replace
from multiprocessing import active_children
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torchvision.transforms import v2

from srp_exp.datasets import Batch, BatchLoader, ImageSet, Sharding, Split
from srp_exp.datasets.augmentation import Augmentation, FileAugmentation
from srp_exp.datasets.files.decode import decode
from srp_exp.datasets.files.file_set import FileSet
from srp_exp.datasets.files.file_split import FileSplit
from srp_exp.datasets.files.source import FolderSource
from srp_exp.errors import CorruptImageError
from srp_exp.seeding import derive_many

TRAIN, TEST, SEED = 20, 7, 3
MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.1)
IN_PROCESS, TWO_WORKERS = Sharding(), Sharding(workers=2)
EVERY = FileAugmentation(
    resize=24, crop_size=16, eval_crop_size=16, color_jitter=0.3, rand_augment=5, random_erasing=0.5
)


@pytest.fixture(scope="module")
def file_set(tmp_path_factory: pytest.TempPathFactory) -> FileSet:
    return make_set(tmp_path_factory.mktemp("files"))


def make_set(folder: Path) -> FileSet:
    """Pictures of various sizes; the splits take them from back to front."""
    names = [f"{number}.jpg" for number in range(TRAIN + TEST)]
    random = np.random.default_rng(0)
    for number, name in enumerate(names):
        coarse = random.integers(0, 256, (6, 6, 3), dtype=np.uint8)
        image = Image.fromarray(coarse).resize((30 + number % 5, 40 - number % 7), Image.Resampling.BICUBIC)
        image.save(folder / name, quality=95)
    source = FolderSource(folder, names)

    def split(rows: Tensor) -> FileSplit:
        return FileSplit(source, rows, rows % 3, rows + 100)

    rows = torch.arange(TRAIN + TEST).flip(0)
    return FileSet(split(rows[:TRAIN]), split(rows[TRAIN:]), ("a", "b", "c"), MEAN, STD, EVERY)


def training(file_set: FileSet, placement: Sharding = IN_PROCESS, batch_size: int = 6) -> list[Batch]:
    return list(file_set.training_batches(file_set.train, batch_size, SEED, placement).epoch(1))


def normalised(image: Tensor) -> Tensor:
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (MEAN, STD))
    return (image / 255 - mean) / std


def picture(file_set: FileSet, index: int) -> Tensor:
    source = file_set.train.source
    return decode(source.read(index - 100), source.name(index - 100))


def assert_same(batch: Batch, other: Batch) -> None:
    for name in ("images", "labels", "index"):
        assert torch.equal(getattr(batch, name), getattr(other, name))


class Transfers(TorchDispatchMode):
    """The shapes of the tensors that went from the CPU to the meta device, which stands for an accelerator."""

    def __init__(self) -> None:
        super().__init__()
        self.shapes: list[tuple[int, ...]] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        sources = [arg.device.type for arg in args if isinstance(arg, Tensor)]
        if "cpu" in sources and isinstance(result, Tensor) and result.device.type == "meta":
            self.shapes.append(tuple(result.shape))
        return result


def test_a_step_copies_its_images_to_the_device_and_nothing_else(file_set) -> None:
    """Labels and index crossed in every step, from memory that isn't pinned, for which a GPU waits."""
    batches = file_set.training_batches(file_set.train, 6, SEED, Sharding("meta"))
    with Transfers() as transfers:
        assert [batch.labels.device.type for batch in batches.epoch(0)] == ["meta"] * 3
    assert sorted(transfers.shapes) == sorted([(18,), (18,), *[(6, 3, 16, 16)] * 3])


def test_batches_have_a_height_and_a_width(file_set) -> None:
    wide = replace(
        file_set, augmentation=FileAugmentation(resize=[20, 30], crop_size=[16, 24], eval_crop_size=[18, 28])
    )
    assert wide.image_size == (16, 24)
    assert {batch.images.shape[1:] for batch in training(wide)} == {(3, 16, 24)}
    assert {batch.images.shape[1:] for batch in wide.evaluation_batches(wide.test, 4, IN_PROCESS)} == {(3, 18, 28)}


def test_a_batch_holds_its_samples_as_a_slow_loop_makes_them(file_set) -> None:
    """Each sample from its own seed, through torchvision's transforms one after another."""
    pipeline = v2.Compose(
        [
            v2.RandomResizedCrop(16, antialias=True),
            v2.RandomHorizontalFlip(),
            v2.ColorJitter(0.3, 0.3, 0.3),
            v2.RandAugment(magnitude=5, interpolation=v2.InterpolationMode.BILINEAR),
            v2.RandomErasing(0.5, value=[128, 102, 76]),
        ]
    )
    batches = training(file_set)
    assert [len(batch.labels) for batch in batches] == [6, 6, 6]
    for batch in batches:
        assert batch.images.dtype == torch.float32
        assert torch.equal(batch.labels, (batch.index - 100) % 3)
        for image, index in zip(batch.images, batch.index.tolist(), strict=True):
            position = (file_set.train.index == index).nonzero().item()
            torch.manual_seed(int(derive_many(TRAIN, SEED, "augment", 1)[int(position)]))
            expected = normalised(pipeline(picture(file_set, index)))
            torch.testing.assert_close(image, expected, rtol=0, atol=1e-5)


def test_the_order_is_that_of_images_in_memory(file_set) -> None:
    split = Split(torch.zeros(TRAIN, 3, 8, 8, dtype=torch.uint8), file_set.train.labels, file_set.train.index)
    in_memory = ImageSet(split, split, ("a", "b", "c"), MEAN, STD, Augmentation())
    for batch, other in zip(
        training(file_set), BatchLoader(in_memory, split, batch_size=6, seed=SEED).epoch(1), strict=True
    ):
        assert torch.equal(batch.index, other.index)
        assert torch.equal(batch.labels, other.labels)


def test_workers_change_nothing(file_set) -> None:
    for batch, other in zip(training(file_set), training(file_set, TWO_WORKERS), strict=True):
        assert_same(batch, other)
    whole, other = (
        list(file_set.evaluation_batches(file_set.test, 3, placement)) for placement in (IN_PROCESS, TWO_WORKERS)
    )
    for batch, same in zip(whole, other, strict=True):
        assert_same(batch, same)


@pytest.mark.parametrize("placement", [IN_PROCESS, TWO_WORKERS], ids=["in process", "two workers"])
def test_passes_do_not_disturb_each_other(file_set, placement) -> None:
    """An epoch given up, one gone on with in its middle, one past its end, and the first again."""
    loader = file_set.training_batches(file_set.train, 4, SEED, placement)
    whole = [list(loader.epoch(epoch)) for epoch in (0, 1)]
    next(loader.epoch(0))
    for batch, other in zip(loader.epoch(1, first_step=3), whole[1][3:], strict=True):
        assert_same(batch, other)
    assert list(loader.epoch(1, first_step=5)) == []
    for batch, other in zip(loader.epoch(0), whole[0], strict=True):
        assert_same(batch, other)
    assert not torch.equal(whole[0][0].index, whole[1][0].index)


def test_workers_of_evaluation_stay_for_the_next(file_set) -> None:
    """Also where the pass before was given up: to start them takes seconds, after every epoch."""
    loader = file_set.evaluation_batches(file_set.test, 3, TWO_WORKERS)
    expected = list(file_set.evaluation_batches(file_set.test, 3, IN_PROCESS))
    next(iter(loader))
    workers = {child.pid for child in active_children()}
    for _ in range(2):
        for batch, other in zip(loader, expected, strict=True):
            assert_same(batch, other)
        assert {child.pid for child in active_children()} == workers


def test_a_sample_looks_the_same_whatever_the_batch_size(file_set) -> None:
    seen = []
    for batch_size in (4, 5):
        batches = training(file_set, batch_size=batch_size)
        index = torch.cat([batch.index for batch in batches])
        seen.append(torch.cat([batch.images for batch in batches])[index.argsort()])
    assert torch.equal(*seen)


def test_ranks_together_see_the_batches_of_one_process(file_set) -> None:
    ranks = [training(file_set, Sharding(rank=rank, world_size=3)) for rank in range(3)]
    for whole, *parts in zip(training(file_set), *ranks, strict=True):
        for rank, part in enumerate(parts):
            assert torch.equal(part.index, whole.index[rank::3])
            assert torch.equal(part.images, whole.images[rank::3])


def test_evaluation_gives_every_sample_once_in_order(file_set) -> None:
    loader = file_set.evaluation_batches(file_set.test, 3, IN_PROCESS)
    batches = list(loader)
    assert [len(batch.labels) for batch in batches] == [3, 3, 1]
    assert len(loader) == 3
    index = torch.cat([batch.index for batch in batches])
    assert torch.equal(index, file_set.test.index)
    pipeline = v2.Compose([v2.ToPILImage(), v2.Resize(24), v2.CenterCrop(16), v2.PILToTensor()])
    expected = torch.stack([normalised(pipeline(picture(file_set, number))) for number in index.tolist()])
    torch.testing.assert_close(torch.cat([batch.images for batch in batches]), expected, rtol=0, atol=1e-5)
    assert_same(batches[1], list(loader)[1])


def test_evaluation_on_many_processes_counts_each_sample_once(file_set) -> None:
    for size, batch_size, world_size in ((7, 3, 2), (5, 4, 4), (2, 5, 5), (1, 2, 2)):
        split = file_set.test.take(torch.arange(size))
        index = []
        for rank in range(world_size):
            batches = list(file_set.evaluation_batches(split, batch_size, Sharding(rank=rank, world_size=world_size)))
            assert all(len(batch.labels) > 0 for batch in batches)
            index += [number for batch in batches for number in batch.index.tolist()]
        assert sorted(index) == sorted(split.index.tolist())


def test_evaluation_gives_whole_batches_to_one_process_each(file_set) -> None:
    for batch_size, world_size in ((3, 2), (1, 4), (4, 3), (2, 5)):
        alone = list(file_set.evaluation_batches(file_set.test, batch_size, IN_PROCESS))
        for rank in range(world_size):
            shared = file_set.evaluation_batches(file_set.test, batch_size, Sharding(rank=rank, world_size=world_size))
            for batch, other in zip(shared, alone[rank::world_size], strict=True):
                assert_same(batch, other)


def test_pictures_are_cut_to_their_boxes(file_set) -> None:
    boxes = torch.tensor([[3.0, 2.0, 24.0, 31.0]]).repeat(TEST, 1)
    boxes[1] = torch.tensor([0.0, 10.0, 28.0, 30.0])
    split = replace(file_set.test, boxes=boxes)
    pipeline = v2.Compose([v2.ToPILImage(), v2.Resize(24), v2.CenterCrop(16), v2.PILToTensor()])
    (batch,) = file_set.evaluation_batches(split, TEST, IN_PROCESS)
    for image, index, (left, top, right, bottom) in zip(
        batch.images, batch.index.tolist(), boxes.int().tolist(), strict=True
    ):
        expected = normalised(pipeline(picture(file_set, index)[:, top:bottom, left:right]))
        torch.testing.assert_close(image, expected, rtol=0, atol=1e-5)


def test_images_have_the_memory_format_asked_for(file_set) -> None:
    last = training(file_set, Sharding(memory_format=torch.channels_last))
    for batch, other in zip(last, training(file_set), strict=True):
        assert batch.images.is_contiguous(memory_format=torch.channels_last) and other.images.is_contiguous()
        assert torch.equal(batch.images, other.images)


def test_loading_draws_no_random_number_of_the_run(file_set) -> None:
    state = torch.get_rng_state()
    for placement in (IN_PROCESS, TWO_WORKERS):
        training(file_set, placement)
        list(file_set.evaluation_batches(file_set.test, 3, placement))
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("placement", [IN_PROCESS, TWO_WORKERS], ids=["in process", "two workers"])
def test_a_file_that_cannot_be_read_stops_the_run_in_one_line(tmp_path, placement) -> None:
    file_set, path = make_set(tmp_path), tmp_path / "4.jpg"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(CorruptImageError, match=f"^{path}: not a readable image") as caught:
        list(file_set.evaluation_batches(file_set.test, 3, placement))
    assert "\n" not in str(caught.value)
    path.unlink()
    with pytest.raises(FileNotFoundError, match=str(path)) as gone:
        list(file_set.evaluation_batches(file_set.test, 3, placement))
    assert "\n" not in str(gone.value)


def test_sizes_that_cannot_work_are_refused(file_set) -> None:
    with pytest.raises(ValueError, match="batch size 21: the training part has 20 samples; choose 1 to 20"):
        training(file_set, batch_size=21)
    with pytest.raises(ValueError, match="batch size 8 on 3 processes: choose a multiple of 3"):
        training(file_set, Sharding(world_size=3), batch_size=8)


def test_a_set_can_be_handed_to_another_process(file_set) -> None:
    copy = pickle.loads(pickle.dumps(file_set))
    assert (copy.num_classes, copy.channels, copy.image_size) == (3, 3, (16, 16))
    for batch, other in zip(training(copy), training(file_set), strict=True):
        assert_same(batch, other)


def test_workers_go_on_through_the_signals_of_a_cluster(file_set) -> None:
    loader = file_set.training_batches(file_set.train, 2, SEED, TWO_WORKERS)
    expected = list(loader.epoch(0))
    batches = loader.epoch(0)
    received = [next(batches)]
    for child in active_children():
        for name in ("TERM", "INT", "HUP", "USR1", "USR2", "TERM"):
            subprocess.run(["kill", f"-{name}", str(child.pid)], check=True)
    received += batches
    for batch, other in zip(received, expected, strict=True):
        assert_same(batch, other)


SCRIPT = """
import pickle, sys, torch
from srp_exp.datasets import Sharding
file_set = pickle.load(open(sys.argv[1], "rb"))
loader = file_set.training_batches(file_set.train, 2, 0, Sharding(workers=2))
batches = loader.epoch(0)
next(batches)
{last}
"""


@pytest.mark.parametrize("last, code", [("1 / 0", 1), ("import os; os.kill(os.getpid(), 9)", -signal.SIGKILL)])
def test_a_process_ends_with_its_workers(file_set, tmp_path, last, code) -> None:
    """Also in the middle of an epoch, and when an error keeps all objects alive."""
    (tmp_path / "set.pickle").write_bytes(pickle.dumps(file_set))
    command = [sys.executable, "-c", textwrap.dedent(SCRIPT).format(last=last), str(tmp_path / "set.pickle")]
    # Its workers hold the pipe too: the output ends when the last of them has ended.
    ended = subprocess.run(command, capture_output=True, timeout=300, env=os.environ | {"OMP_NUM_THREADS": "1"})
    assert ended.returncode == code, ended.stderr.decode()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_sees_the_batches_of_the_cpu(file_set) -> None:
    for workers in (0, 2):
        on_gpu = training(file_set, Sharding(device="cuda", workers=workers))
        for batch, other in zip(training(file_set), on_gpu, strict=True):
            assert other.images.is_cuda and other.labels.is_cuda and other.index.is_cuda
            torch.testing.assert_close(batch.images, other.images.cpu(), rtol=0, atol=1e-5)
            assert torch.equal(batch.index, other.index.cpu())


def test_a_balanced_epoch_draws_a_look_of_its_own_for_each_place(file_set: FileSet) -> None:
    def epoch(placement: Sharding, first_step: int = 0) -> list[Batch]:
        loader = file_set.training_batches(file_set.train, 6, SEED, placement, balanced=True)
        return list(loader.epoch(1, first_step))

    batches = epoch(IN_PROCESS)
    for batch, same in zip(batches[1:], epoch(TWO_WORKERS, first_step=1), strict=True):
        assert torch.equal(batch.images, same.images)
        assert torch.equal(batch.index, same.index)
    index, images = torch.cat([b.index for b in batches]), torch.cat([b.images for b in batches])
    repeated = [row for row in index.unique() if (index == row).sum() > 1]
    assert len(repeated) > 2
    for row in repeated:
        looks = images[index == row]
        assert len(looks.flatten(1).unique(dim=0)) == len(looks)
