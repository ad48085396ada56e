"""A network to measure: batches of random images, and whatever module under test behind a convolution."""

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor, nn

from srp_exp.datasets import Batch
from srp_exp.evaluation.evaluators import Subject

MakeSubject = Callable[[nn.Module], Subject]


class Network(nn.Module):
    """A convolution to eight channels, the attention, and a classifier of three classes."""

    def __init__(self, attention: nn.Module, channels: int = 8) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, channels, 3, padding=1)
        self.attention = attention
        self.head = nn.Linear(channels, 3)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.attention(self.stem(images)).mean((2, 3)))


def three_batches() -> Iterator[Batch]:
    generator = torch.Generator().manual_seed(3)
    for size in (4, 4, 2):
        images = torch.randn(size, 3, 8, 6, generator=generator)
        yield Batch(images, torch.randint(0, 3, (size,), generator=generator), torch.arange(size))


@pytest.fixture
def subject() -> MakeSubject:
    """`subject(attention)`: a network with this attention, and ten images of 8 x 6 in three batches."""

    def make(attention: nn.Module) -> Subject:
        torch.manual_seed(0)
        network = Network(attention).eval()
        return Subject(network, three_batches, ("a", "b", "c"), torch.autocast("cpu", enabled=False), seed=5)

    return make
