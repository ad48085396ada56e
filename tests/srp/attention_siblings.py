"""Channel attention whose gate multiplies a different value than the pooled one, and attention that pools no map."""

import random
from typing import Any

import torch
from attention_habits import gated
from attention_zoo import CHANNELS, Excitation
from torch import Tensor, nn
from torch.nn import functional as F


class Branches(Excitation):
    """Two branches whose sum is pooled; a gate for each channel of each."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(CHANNELS, CHANNELS, 1), nn.Conv2d(CHANNELS, CHANNELS, 1)
        self.both = nn.Linear(CHANNELS, 2 * CHANNELS)

    def gates(self, u: Tensor, v: Tensor) -> Tensor:
        return self.both(self.gate((u + v).mean((2, 3)))).view(-1, 2, CHANNELS).softmax(1)


class SelectiveStack(Branches):
    """SK: `u + v` is pooled, `torch.stack([u, v], 1)` is multiplied"""

    def forward(self, x: Tensor) -> Tensor:
        u, v = self.a(x), self.b(x)
        return (torch.stack([u, v], 1) * self.gates(u, v)[..., None, None]).sum(1)


class SelectiveStackAtFront(Branches):
    """the same with `torch.stack([u, v])`"""

    def forward(self, x: Tensor) -> Tensor:
        u, v = self.a(x), self.b(x)
        return (torch.stack([u, v]) * self.gates(u, v).transpose(0, 1)[..., None, None]).sum(0)


class SelectiveCat(Branches):
    """the same with `torch.cat([u, v], 1)`"""

    def forward(self, x: Tensor) -> Tensor:
        u, v = self.a(x), self.b(x)
        return (torch.cat([u, v], 1) * self.gates(u, v).flatten(1)[..., None, None]).unflatten(1, (2, -1)).sum(1)


class PreActivated(Excitation):
    """FishNet: the gate comes from `relu(norm(x))` and multiplies a convolution of x"""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.conv = nn.BatchNorm2d(CHANNELS), nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        gate = self.gate(F.relu(self.norm(x)).mean((2, 3)))[:, :, None, None]
        return self.conv(x) * gate + gate


class TwoGates(Excitation):
    """`x * (a(x) + b(skip))`: x is computed from skip"""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.low = nn.Conv2d(CHANNELS, CHANNELS, 1), nn.Linear(CHANNELS, CHANNELS)

    def forward(self, skip: Tensor) -> Tensor:
        x = self.conv(skip)
        return gated(x, self.gate(x.mean((2, 3))) + self.low(skip.mean((2, 3))))


class Mixing(nn.Module):
    """In half of the training steps it takes a mean of its own."""

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or random.random() > 0.5:
            return x
        mean = x.mean((2, 3), keepdim=True).detach()
        return x - mean + mean.flip(0)


class BehindMixing(Excitation):
    """behind a child that takes means of its own at random, as MixStyle does"""

    def __init__(self) -> None:
        super().__init__()
        self.mix = Mixing()

    def forward(self, x: Tensor) -> Tensor:
        x = self.mix(x)
        return gated(x, self.gate(x.mean((2, 3))))


class Statistic(nn.Module):
    """Stochastic depth, and a statistic of the map in front of it."""

    kept: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("kept", torch.zeros(CHANNELS))
        self.conv = nn.Conv2d(CHANNELS, CHANNELS, 1)

    def forward(self, x: Tensor) -> Tensor:
        if self.training and torch.rand(()) < 0.5:
            return x
        x = x + self.conv(x)
        self.kept.lerp_(x.detach().mean((2, 3)).mean(0).to(self.kept.dtype), 0.1)
        return x


class BehindStatistics(Excitation):
    """behind stochastic depth whose blocks keep statistics of their map"""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*(Statistic() for _ in range(4)))

    def forward(self, x: Tensor) -> Tensor:
        x = self.blocks(x)
        return gated(x, self.gate(x.mean((2, 3))))


class Caller(nn.Module):
    """Gives the attention something that isn't a map (B, C, H, W)."""

    def __init__(self, attention: nn.Module, depth: int = 2) -> None:
        super().__init__()
        self.attention, self.depth = attention, depth
        self.linear = nn.Linear(CHANNELS, CHANNELS)


class GivesTwo(Caller):
    def forward(self, x: Tensor) -> Any:
        return self.attention(x.flip(1), self.linear(x.movedim(1, -1)).movedim(-1, 1))


class TwoInputs(Excitation):
    """`x * a(y)` in a module that is given both"""

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return gated(x, self.gate(y.mean((2, 3))))


class Sum(Excitation):
    """`x.sum((2, 3))`"""

    def forward(self, x: Tensor) -> Tensor:
        return gated(x, self.gate(x.sum((2, 3))))


class ConstantWeights(Excitation):
    """weights of a cosine transform, frequency 0: `(x * w).sum((2, 3))`, all alike"""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("weights", torch.full((CHANNELS, 1, 1), 1 / 6))

    def forward(self, x: Tensor) -> Tensor:
        return gated(x, self.gate((x * self.weights).sum((2, 3))))


class Sequence(Excitation):
    """a sequence (B, C, L): `x * gate(x.mean(2))[..., None]`"""

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gate(x.mean(2))[..., None]


class Flattened(Caller):
    def forward(self, x: Tensor) -> Tensor:
        return self.attention(self.linear(x.flatten(2).mT).mT)  # type: ignore[no-any-return]


class Tokens(Excitation):
    """tokens (B, L, C) that are a map flattened by the parent: `t * gate(t.mean(1, keepdim=True))`"""

    def forward(self, t: Tensor) -> Tensor:
        return t * self.gate(t.mean(1, keepdim=True))


class TokensOfLinear(Tokens):
    """tokens (B, L, C) behind a linear layer"""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(CHANNELS, CHANNELS)

    def forward(self, t: Tensor) -> Tensor:
        return super().forward(self.linear(t))


class AsTokens(Caller):
    def forward(self, x: Tensor) -> Tensor:
        return self.attention(x.flatten(2).transpose(1, 2)).mT.view_as(x)  # type: ignore[no-any-return]


class ChannelsLast(Excitation):
    """a map that is channels last, (B, H, W, C): `x * gate(x.mean((1, 2), keepdim=True))`"""

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gate(x.mean((1, 2), keepdim=True))


class Permuted(Caller):
    def forward(self, x: Tensor) -> Tensor:
        return self.attention(self.linear(x.permute(0, 2, 3, 1))).permute(0, 3, 1, 2)  # type: ignore[no-any-return]


class Volume(Excitation):
    """a volume (B, C, D, H, W)"""

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gate(x.mean((2, 3, 4)))[..., None, None, None]


class FlatVolume(Volume):
    """a volume whose depth has been pooled to 1"""


class AsVolume(Caller):
    def forward(self, x: Tensor) -> Tensor:
        return self.attention(torch.stack([x] * self.depth, 2)).sum(2)  # type: ignore[no-any-return]
