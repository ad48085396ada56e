"""A training part of a few pictures per class: balanced, by its seed, and the unused pictures are tested on."""

from pathlib import Path

import pytest
import torch
from official_copies import make_imagenet
from PIL import Image
from test_split import numbered_split

from srp_exp.config.identity import run_folder
from srp_exp.config.validate import validate
from srp_exp.datasets.augmentation import Augmentation, FileAugmentation
from srp_exp.datasets.memory.image_set import ImageSet
from srp_exp.datasets.sets.folder import Folder
from srp_exp.datasets.split import Split, file_names
from srp_exp.datasets.subset import with_subset
from srp_exp.runs.folder.digests import digests_of


def image_set(counts: list[int]) -> ImageSet:
    test = numbered_split([3, 2, 2])
    return ImageSet(numbered_split(counts), test, ("a", "b", "c"), (0.5,), (0.25,), Augmentation())


def test_every_class_gives_as_many_and_the_others_are_tested_on() -> None:
    whole = image_set([40, 20, 30])
    part = with_subset(whole, 8, True, seed=3)
    assert part.train.labels.bincount().tolist() == [8, 8, 8]
    assert torch.equal(part.test.images[:7], whole.test.images)
    assert torch.equal(part.test.index[:7], whole.test.index)
    unused = part.test.index[7:] - 7  # numbered on from those of the test part, 0 to 6
    assert sorted([*part.train.index.tolist(), *unused.tolist()]) == list(range(90))
    for split, numbers in ((part.train, part.train.index), (part.test.take(torch.arange(7, 73)), unused)):
        assert torch.equal(split.images.flatten().long(), numbers)
        assert torch.equal(split.labels, whole.train.labels[numbers])
    assert with_subset(whole, 8, False, seed=3).test is whole.test
    assert with_subset(whole, None, False, seed=3) is whole


def test_the_part_and_its_digests_depend_on_the_seed_alone() -> None:
    whole = image_set([40, 20, 30])
    digests = [digests_of(with_subset(whole, 8, True, seed)) for seed in (0, 0, 1)]
    assert digests[0] == digests[1]
    differing = {part for part in digests[0] if digests[0][part] != digests[2][part]}
    assert differing == {"training pictures", "training labels", "test pictures", "test labels"}


def test_a_class_with_too_few_pictures_is_refused() -> None:
    with pytest.raises(ValueError, match=r"dataset.train_per_class=21: class b has 20 training pictures"):
        with_subset(image_set([40, 20, 30]), 21, False, seed=0)


def test_pictures_in_files_are_joined_from_their_two_places(tmp_path) -> None:
    whole = Folder(
        str(make_imagenet(tmp_path / "set")), augmentation=FileAugmentation(), cache_dir=None, on_corrupt="stop",
        copy_side=None, memory_mb=0,
    )  # fmt: skip
    part = with_subset(whole, 1, True, seed=0)
    tested = [(part.test.source.name(row), part.test.source.read(row)) for row in part.test.rows.tolist()]
    taken = {part.train.source.name(row) for row in part.train.rows.tolist()}
    every = {
        split.source.name(row): split.source.read(row) for split in (whole.train, whole.test) for row in split.rows
    }
    assert {name for name, _ in tested} == every.keys() - taken
    assert all(every[name] == read for name, read in tested)
    assert len(part.test.labels) == len(part.test.index.unique()) == len(tested)


def test_pictures_held_in_memory_name_their_files(tmp_path) -> None:
    every = []
    for part, label, shade in (
        ("train", "a", 0),
        ("train", "b", 1),
        ("train", "a", 2),
        ("train", "b", 3),
        ("test", "b", 4),
    ):
        every.append(tmp_path / part / label / f"{shade}.png")
        every[-1].parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (shade,) * 3).save(every[-1])
    whole = Folder(
        str(tmp_path), augmentation=FileAugmentation(), cache_dir=None, on_corrupt="stop", copy_side=None, memory_mb=1
    )
    part = with_subset(whole, 1, True, seed=0)
    for split in (whole.train, part.train, part.test):
        assert isinstance(split, Split)
        names = file_names(split)
        assert names is not None
        assert [f"{shade}.png" for shade in split.images[:, 0, 0, 0].tolist()] == [Path(name).name for name in names]
        assert set(names) <= {str(path) for path in every}
    assert len(part.test) == 3


def test_the_subset_is_part_of_a_runs_identity_where_there_is_one(compose) -> None:
    def name(*overrides: str) -> str:
        return run_folder(compose("dataset=cifar10", *overrides)).name

    few = "dataset.train_per_class=500"
    names = [name(*o) for o in ((), (few,), (few, "dataset.test_on_unused=true"), (few, "dataset.subset_seed=7"))]
    assert len(set(names)) == 4
    assert name("dataset.subset_seed=7") == names[0]  # nothing is drawn
    assert name(few, "dataset.subset_seed=0") == name(few)  # the run's own
    seeded = compose("dataset=cifar10", few, "seed=4")
    assert seeded.dataset.subset_seed == 4


def test_unused_pictures_without_a_subset_are_refused(compose) -> None:
    with pytest.raises(ValueError, match=r"dataset.test_on_unused=true: .* dataset.train_per_class"):
        validate(compose("dataset.test_on_unused=true"))
