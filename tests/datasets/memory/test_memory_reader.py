"""What the loaders yield: which samples, how augmented and normalised, on one process and on several."""

from collections import Counter
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from srp_exp.datasets import BatchLoader, EvalLoader, Sharding
from srp_exp.datasets.batches import balanced_rows
from srp_exp.datasets.memory import memory_reader
from srp_exp.datasets.memory.augment import draw
from srp_exp.datasets.memory.memory_reader import MemoryReader

MORE: dict[str, dict[str, Any]] = {
    "crops": {},
    "all": {"color_jitter": 0.4, "rand_augment": 9, "random_erasing": 0.5, "cutout": 2},
    "trivial": {"trivial_augment": True},
}


def normalised(dataset, images):
    """Pixel by pixel, as the statistics are published: first to [0, 1], then mean and std."""
    mean, std = torch.tensor(dataset.mean).view(-1, 1, 1), torch.tensor(dataset.std).view(-1, 1, 1)
    return (images / 255 - mean) / std


def batches_of(loader, epoch, first_step=0):
    return list(loader.epoch(epoch, first_step))


def assert_same(batch, other):
    assert torch.equal(batch.images, other.images)
    assert torch.equal(batch.labels, other.labels)
    assert torch.equal(batch.index, other.index)


@pytest.mark.parametrize("crop_padding, flip", [(2, True), (2, False), (0, True), (0, False)])
def test_a_batch_holds_its_samples_augmented_and_normalised(make_set, slow_crop_and_flip, crop_padding, flip):
    dataset = make_set(crop_padding=crop_padding, flip=flip)
    loader = BatchLoader(dataset, dataset.train, batch_size=5, seed=3)
    draws = draw(len(dataset.train), crop_padding, flip, seed=3, epoch=2)
    batches = batches_of(loader, 2)
    assert len(batches) == loader.steps_per_epoch == 4
    for batch in batches:
        rows = batch.index - 100
        sample = dataset.train.take(rows)
        images = slow_crop_and_flip(sample.images, draws.offsets[rows], draws.flips[rows], crop_padding)
        assert batch.images.dtype == torch.float32
        torch.testing.assert_close(batch.images, normalised(dataset, images), rtol=0, atol=1e-5)
        assert torch.equal(batch.labels, sample.labels)


def test_an_epoch_shows_no_sample_twice_and_epochs_differ(make_set):
    dataset = make_set()
    loader = BatchLoader(dataset, dataset.train, batch_size=5, seed=0)
    orders = [torch.cat([batch.index for batch in loader.epoch(epoch)]).tolist() for epoch in (0, 1, 0)]
    assert len(set(orders[0])) == 20
    assert orders[0] != orders[1]
    assert orders[0] == orders[2]


@pytest.mark.parametrize("more", ["all", "trivial"])
def test_a_resumed_epoch_goes_on_with_the_same_batches(make_set, more):
    dataset = make_set(**MORE[more])
    loader = BatchLoader(dataset, dataset.train, batch_size=5, seed=0)
    rest = batches_of(loader, 4, first_step=2)
    for batch, other in zip(batches_of(loader, 4)[2:], rest, strict=True):
        assert_same(batch, other)
    assert batches_of(loader, 4, first_step=4) == []


@pytest.mark.parametrize("more", ["all", "trivial"])
def test_a_sample_looks_the_same_whatever_the_batch_size(make_set, more):
    dataset = make_set(train=24, **MORE[more])
    seen = []
    for batch_size in (4, 6):
        batches = batches_of(BatchLoader(dataset, dataset.train, batch_size=batch_size, seed=0), 1)
        index = torch.cat([batch.index for batch in batches])
        seen.append(torch.cat([batch.images for batch in batches])[index.argsort()])
    assert torch.equal(*seen)


@pytest.mark.parametrize("more", ["all", "trivial"])
def test_ranks_together_see_the_batches_of_one_process(make_set, more):
    dataset = make_set(**MORE[more])
    alone = BatchLoader(dataset, dataset.train, batch_size=6, seed=0)
    ranks = [
        BatchLoader(dataset, dataset.train, batch_size=6, seed=0, placement=Sharding(rank=rank, world_size=3))
        for rank in range(3)
    ]
    steps = zip(batches_of(alone, 1), *(batches_of(loader, 1) for loader in ranks), strict=True)
    for whole, *parts in steps:
        for rank, part in enumerate(parts):
            assert torch.equal(part.index, whole.index[rank::3])
            assert torch.equal(part.images, whole.images[rank::3])


@pytest.mark.parametrize("more", ["all", "trivial"])
def test_a_balanced_epoch_is_a_function_of_seed_and_epoch_and_shared_by_ranks(make_set, more):
    dataset = make_set(train=24, **MORE[more])
    alone = BatchLoader(dataset, dataset.train, batch_size=6, seed=0, balanced=True)
    whole = batches_of(alone, 3)
    for batch, other in zip(whole[2:], batches_of(alone, 3, first_step=2), strict=True):
        assert_same(batch, other)
    ranks = [
        BatchLoader(
            dataset, dataset.train, batch_size=6, seed=0, placement=Sharding(rank=rank, world_size=2), balanced=True
        )
        for rank in range(2)
    ]
    for batch, *parts in zip(whole, *(batches_of(loader, 3) for loader in ranks), strict=True):
        for rank, part in enumerate(parts):
            assert torch.equal(part.index, batch.index[rank::2])
            assert torch.equal(part.images, batch.images[rank::2])
    other_epoch = torch.cat([batch.index for batch in batches_of(alone, 4)])
    assert not torch.equal(other_epoch, torch.cat([batch.index for batch in whole]))


def test_a_sample_that_comes_twice_in_an_epoch_is_augmented_anew(make_set):
    dataset = make_set(train=24, crop_padding=3, flip=True)
    batches = batches_of(BatchLoader(dataset, dataset.train, batch_size=6, seed=0, balanced=True), 0)
    index, images = (torch.cat([getattr(batch, name) for batch in batches]) for name in ("index", "images"))
    repeated = [row for row, count in Counter(index.tolist()).items() if count > 1]
    looks = [images[index == row].flatten(1).unique(dim=0) for row in repeated]
    assert len(repeated) > 3
    assert sum(len(look) for look in looks) > len(repeated) + 3  # of 98 looks two are rarely the same


def test_balanced_rows_draw_every_class_as_often():
    labels = torch.tensor([0] * 900 + [2] * 90 + [5] * 10)
    rows = torch.cat(balanced_rows(labels, 8, seed=0, epoch=1))
    assert len(rows) == 1000
    drawn = labels[rows].bincount(minlength=6)
    assert drawn[[1, 3, 4]].tolist() == [0, 0, 0]
    for label in (0, 2, 5):  # five standard deviations of a binomial with p = 1/3
        assert abs(int(drawn[label]) - 1000 / 3) < 5 * (1000 * 2 / 9) ** 0.5
    assert len(rows[labels[rows] == 5].unique()) == 10


def test_evaluation_gives_every_sample_once_in_order(make_set):
    dataset = make_set(test=7)
    loader = EvalLoader(dataset, dataset.test, batch_size=3)
    batches = list(loader)
    assert [len(batch.labels) for batch in batches] == [3, 3, 1]
    assert len(loader) == 3
    assert torch.equal(torch.cat([batch.index for batch in batches]), dataset.test.index)
    assert torch.equal(torch.cat([batch.labels for batch in batches]), dataset.test.labels)
    images = torch.cat([batch.images for batch in batches])
    torch.testing.assert_close(images, normalised(dataset, dataset.test.images), rtol=0, atol=1e-5)
    assert_same(batches[1], list(loader)[1])


def test_evaluation_on_many_processes_counts_each_sample_once(make_set):
    for size, batch_size, world_size in ((7, 3, 2), (7, 4, 3), (9, 4, 4), (2, 5, 5), (1, 2, 2)):
        dataset = make_set(test=size)
        index = []
        for rank in range(world_size):
            placement = Sharding(rank=rank, world_size=world_size)
            loader = EvalLoader(dataset, dataset.test, batch_size=batch_size, placement=placement)
            batches = list(loader)
            assert len(batches) == len(loader)
            assert all(len(batch.labels) > 0 for batch in batches)
            index += [number for batch in batches for number in batch.index.tolist()]
        assert sorted(index) == dataset.test.index.tolist()


def test_evaluation_gives_whole_batches_to_one_process_each(make_set):
    for size, batch_size, world_size in ((7, 3, 2), (12, 2, 4), (7, 4, 3), (2, 5, 5), (7, 2, 5)):
        dataset = make_set(test=size)
        alone = list(EvalLoader(dataset, dataset.test, batch_size=batch_size))
        for rank in range(world_size):
            placement = Sharding(rank=rank, world_size=world_size)
            shared = EvalLoader(dataset, dataset.test, batch_size=batch_size, placement=placement)
            for batch, other in zip(shared, alone[rank::world_size], strict=True):
                assert_same(batch, other)


def test_images_have_the_memory_format_asked_for(make_set):
    dataset, memory_format = make_set(), torch.channels_last
    loaders = (
        BatchLoader(
            dataset, dataset.train, batch_size=5, seed=0, placement=Sharding(memory_format=memory_format)
        ).epoch(0),
        EvalLoader(dataset, dataset.test, batch_size=5, placement=Sharding(memory_format=memory_format)),
    )
    plain = (
        BatchLoader(dataset, dataset.train, batch_size=5, seed=0).epoch(0),
        EvalLoader(dataset, dataset.test, batch_size=5),
    )
    for loader, reference in zip(loaders, plain, strict=True):
        for batch, other in zip(loader, reference, strict=True):
            assert batch.images.is_contiguous(memory_format=memory_format)
            assert torch.equal(batch.images, other.images)


def test_sizes_that_cannot_work_are_refused(make_set):
    dataset = make_set(train=23)
    with pytest.raises(ValueError, match="batch size 24: the training part has 23 samples; choose 1 to 23"):
        BatchLoader(dataset, dataset.train, batch_size=24, seed=0)
    with pytest.raises(ValueError, match="batch size 8 on 3 processes: choose a multiple of 3"):
        BatchLoader(dataset, dataset.train, batch_size=8, seed=0, placement=Sharding(world_size=3))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_sees_the_batches_of_the_cpu(make_set):
    dataset = make_set()
    on_cpu = BatchLoader(dataset, dataset.train, batch_size=5, seed=0).epoch(1)
    on_gpu = BatchLoader(dataset, dataset.train, batch_size=5, seed=0, placement=Sharding(device="cuda")).epoch(1)
    for batch, other in zip(on_cpu, on_gpu, strict=True):
        assert other.images.is_cuda and other.labels.is_cuda and other.index.is_cuda
        torch.testing.assert_close(batch.images, other.images.cpu(), rtol=0, atol=1e-5)
        assert torch.equal(batch.index, other.index.cpu())


@pytest.mark.parametrize("more", ["all", "trivial"])
def test_every_choice_changes_what_is_seen_and_comes_after_the_crop(make_set, more):
    """Cut out and filled with the mean colour is zero once normalised; without draws it is the plain batch."""
    plain, changed = (
        torch.cat([batch.images for batch in BatchLoader(d, d.train, batch_size=5, seed=0).epoch(0)])
        for d in (make_set(), make_set(**MORE[more]))
    )
    assert (plain != changed).flatten(1).any(1).float().mean() > 0.5
    if more == "all":
        assert (changed.abs() < 0.5 / 255 / 0.1 + 1e-4).all(1).flatten(1).any(1).float().mean() > 0.9
    without = make_set(cutout=0, random_erasing=0.0)
    again = torch.cat([batch.images for batch in BatchLoader(without, without.train, batch_size=5, seed=0).epoch(0)])
    assert torch.equal(plain, again)


class Launches(TorchDispatchMode):
    """Counts the operations that are more than a view, and what reads a value or sizes a tensor by one."""

    def __init__(self) -> None:
        super().__init__()
        self.count, self.waits = 0, Counter[str]()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func._schema.name
        self.count += not (func.is_view or "empty" in name)
        by_mask = "index" in name and any(getattr(i, "dtype", None) is torch.bool for i in args[1] or ())
        if by_mask or name in ("aten::_local_scalar_dense", "aten::nonzero", "aten::masked_select", "aten::lift_fresh"):
            self.waits[name] += 1
        return func(*args, **(kwargs or {}))


def of_launches(dataset: Any, monkeypatch: pytest.MonkeyPatch, together: int) -> tuple[list[Any], int, Counter[str]]:
    """The batches of an epoch of which `together` are augmented at once; launches, and waits after the first batch."""
    with monkeypatch.context() as patch:
        patch.setattr(MemoryReader, "batches_together", lambda *_: together)
        with Launches() as launches:
            epoch = BatchLoader(dataset, dataset.train, batch_size=5, seed=0).epoch(0)
            batches = [next(epoch)]
            launches.waits.clear()
            batches += epoch
    return batches, launches.count, launches.waits


@pytest.mark.parametrize(
    "more", [{"rand_augment": 9}, {"trivial_augment": True}, {"color_jitter": 0.4, "random_erasing": 0.5}], ids=str
)
def test_batches_cut_out_together_are_the_same_in_few_launches_without_a_wait(make_set, monkeypatch, more):
    dataset = make_set(train=100, **more)
    alone, many, waits = of_launches(dataset, monkeypatch, 1)
    together, few, _ = of_launches(dataset, monkeypatch, 8)
    assert not waits
    assert len(alone) == len(together) == 20
    for batch, other in zip(alone, together, strict=True):
        assert_same(batch, other)
    assert few / 20 < 60 and few < many


def test_a_gpu_takes_as_many_batches_at_once_as_fit(make_set, monkeypatch):
    dataset = make_set()
    reader = dataset.reader(dataset.train, Sharding(), 0)
    assert reader.batches_together(5) == 1
    monkeypatch.setattr(memory_reader, "_BYTES_TOGETHER", 5 * 3 * 5 * 7 * 2 + 1)
    reader._device = torch.device("cuda")
    assert [reader.batches_together(size) for size in (1, 5, 23)] == [10, 2, 1]
