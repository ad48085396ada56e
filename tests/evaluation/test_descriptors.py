"""Similarity and effective rank of descriptors whose values are known, and against numpy on all rows at once."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from srp_exp.evaluation.attention_calls import AttentionCall
from srp_exp.evaluation.descriptors import DescriptorMeasure, effective_rank, mean_cosine


def gram(*vectors: list[float]) -> Tensor:
    rows = torch.tensor(vectors, dtype=torch.float64)
    return rows @ rows.T


def measured(z: Tensor, labels: Tensor, batch_size: int = 7, classes: int = 3) -> dict[str, float]:
    """The measure of descriptors (N, C), each spread over a map of 4 x 3 around its mean."""
    ripple = torch.arange(12.0).view(4, 3) - 5.5
    measure = DescriptorMeasure(classes)
    for rows, of_rows in zip(z.split(batch_size), labels.split(batch_size), strict=True):
        maps = rows[:, :, None, None] + ripple
        measure.add(AttentionCall(maps, torch.empty(0), lambda _: torch.empty(0)), of_rows)
    return measure.values()


KNOWN_COSINES = [
    ([[1, 0], [0, 2]], 0, 0),
    ([[1, 2], [3, 6]], 1, 1),
    ([[1, 2], [-3, -6]], -1, 1),
    ([[1, 0], [0, 1], [1, 1]], 2 * math.sqrt(0.5) / 3, 2 * math.sqrt(0.5) / 3),
    ([[1, 0], [0, 0], [2, 0]], 1, 1),  # the zero vector has no direction
]


def test_mean_cosine_of_known_vectors() -> None:
    for vectors, signed, absolute in KNOWN_COSINES:
        assert mean_cosine(gram(*vectors)) == pytest.approx(signed, abs=1e-12)
        assert mean_cosine(gram(*vectors), absolute=True) == pytest.approx(absolute, abs=1e-12)


def test_the_cosine_of_fewer_than_two_vectors_is_undefined() -> None:
    assert math.isnan(mean_cosine(gram([1.0, 0.0], [0.0, 0.0])))


@pytest.mark.parametrize("rank", [1, 5])
def test_effective_rank_of_equal_singular_values_is_their_number(rank) -> None:
    orthogonal, _ = torch.linalg.qr(torch.randn(6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1)))
    z = 3 * orthogonal[:, :rank] @ orthogonal[:, :rank].T
    assert effective_rank(z.T @ z) == pytest.approx(rank, rel=1e-5)


def test_effective_rank_of_two_singular_values() -> None:
    entropy = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))  # singular values 3 and 1
    assert effective_rank(torch.diag(torch.tensor([9.0, 1.0], dtype=torch.float64))) == pytest.approx(math.exp(entropy))
    assert math.isnan(effective_rank(torch.zeros(3, 3, dtype=torch.float64)))


def test_batches_sum_up_to_what_numpy_says_of_all_rows() -> None:
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(50, 6, generator=generator) @ torch.randn(6, 6, generator=generator) + 2
    labels = torch.randint(0, 3, (50,), generator=generator)
    values = measured(z, labels)
    rows = z.double().numpy()
    pairs = np.triu_indices(6, 1)
    unit = rows / np.linalg.norm(rows, axis=0)
    assert values["channel_cosine"] == pytest.approx((unit.T @ unit)[pairs].mean(), abs=1e-5)
    assert values["channel_correlation"] == pytest.approx(np.abs(np.corrcoef(rows.T))[pairs].mean(), abs=1e-5)
    means = np.stack([rows[labels.numpy() == label].mean(0) for label in range(3)])
    means /= np.linalg.norm(means, axis=1, keepdims=True)
    assert values["class_cosine"] == pytest.approx((means @ means.T)[np.triu_indices(3, 1)].mean(), abs=1e-5)
    for name, matrix in (("effective_rank", rows), ("effective_rank_centred", rows - rows.mean(0))):
        singular = np.linalg.svd(matrix, compute_uv=False)
        p = singular / singular.sum()
        assert values[name] == pytest.approx(np.exp(-(p * np.log(p)).sum()), rel=1e-5)


def test_identical_channels() -> None:
    one = torch.arange(1.0, 21.0)[:, None]
    values = measured(one.expand(20, 5), torch.arange(20) % 3)
    assert values["channel_cosine"] == pytest.approx(1)
    assert values["channel_correlation"] == pytest.approx(1)
    assert values["effective_rank"] == pytest.approx(1, abs=1e-4)


def test_channels_that_answer_to_one_class_each() -> None:
    labels = torch.arange(30) % 3
    values = measured(torch.eye(3)[labels], labels)
    assert values["channel_cosine"] == pytest.approx(0, abs=1e-6)
    assert values["channel_correlation"] == pytest.approx(0.5, abs=1e-5)  # 1/0 answers, each a third: -1/2
    assert values["class_cosine"] == pytest.approx(0, abs=1e-6)
    assert values["effective_rank"] == pytest.approx(3, rel=1e-5)
    assert values["effective_rank_centred"] == pytest.approx(2, rel=1e-5)


def test_a_constant_channel_has_a_cosine_and_no_correlation() -> None:
    z = torch.stack([torch.full((20,), 0.3), torch.arange(20.0)], dim=1)
    values = measured(z, torch.zeros(20, dtype=torch.int64))
    assert 0 < values["channel_cosine"] < 1
    assert math.isnan(values["channel_correlation"])
    assert math.isnan(values["class_cosine"])  # there is one class
    assert values["effective_rank_centred"] == pytest.approx(1)
