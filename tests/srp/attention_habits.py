"""What forwards of channel attention do besides to pool and to multiply: all of it has to stay as it is under SRP.

tests/srp/attention_ways.py makes a table of what SRP does with them.
"""

import random
from typing import Any

import einops
import torch
from attention_zoo import CHANNELS, Excitation, GateOnly
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint


def gated(x: Tensor, gate: Tensor) -> Tensor:
    return x * gate[:, :, None, None]


class NoGrad(Excitation):
    """`torch.no_grad()` around the descriptor"""

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            descriptor = x.mean((2, 3))
        return gated(x, self.gate(descriptor))


class DetachedMap(Excitation):
    """`x.detach()` is pooled"""

    def forward(self, x: Tensor) -> Tensor:
        return gated(x, self.gate(x.detach().mean((2, 3))))


class WithoutAutocast(Excitation):
    """`autocast(enabled=False)` around the gate"""

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast("cpu", enabled=False):
            gate = self.gate(x.float().mean((2, 3)))
        return gated(x, gate)


class Temperature(Excitation):
    """`self.t`, changed after apply_srp"""

    def __init__(self) -> None:
        super().__init__()
        self.t = 1.0

    def forward(self, x: Tensor) -> Tensor:
        return gated(x, self.gate(x.mean((2, 3)) / self.t))


class RandomBranch(Excitation):
    """`if torch.rand(1).item() < p`: skips"""

    def forward(self, x: Tensor) -> Tensor:
        if torch.rand(1).item() < 0.5:
            return x
        return gated(x, self.gate(x.mean((2, 3))))


class PythonRandom(Excitation):
    """`random.random()` in the gate"""

    def forward(self, x: Tensor) -> Tensor:
        return gated(x, self.gate(x.mean((2, 3))) * (0.5 + random.random()))


class NoiseInGate(Excitation):
    """`torch.randn(C)` in the gate"""

    def forward(self, x: Tensor) -> Tensor:
        return gated(x, self.gate(x.mean((2, 3)) + 0.1 * torch.randn(x.shape[1])))


class Checkpointed(Excitation):
    """`checkpoint(self.part, x, use_reentrant=False)` around pooling and gate"""

    calls = 0

    def part(self, x: Tensor) -> Tensor:
        self.calls += 1
        return self.gate(x.mean((2, 3)))

    def forward(self, x: Tensor) -> Tensor:
        return gated(x, checkpoint(self.part, x, use_reentrant=False))


class CheckpointedReentrant(Checkpointed):
    """`checkpoint(self.part, x, use_reentrant=True)` around pooling and gate"""

    def forward(self, x: Tensor) -> Tensor:
        return gated(x, checkpoint(self.part, x, use_reentrant=True))


class StoredGate(Excitation):
    """`self.last = gate`, read by an auxiliary loss"""

    last: Tensor | None = None

    def __init__(self) -> None:
        super().__init__()
        self.last = None

    def forward(self, x: Tensor) -> Tensor:
        self.last = self.gate(x.mean((2, 3)))
        return gated(x, self.last)


class CountedCalls(Excitation):
    """`self.calls += 1`, and a list that grows"""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0
        self.history: list[int] = []

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        self.history.append(self.calls)
        return gated(x, self.gate(x.mean((2, 3))))


class MovingAverage(Excitation):
    """a buffer with a moving average of the descriptor"""

    average: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("average", torch.zeros(CHANNELS))

    def forward(self, x: Tensor) -> Tensor:
        descriptor = x.mean((2, 3))
        if self.training:
            self.average.lerp_(descriptor.detach().mean(0).float(), 0.1)
        return gated(x, self.gate(descriptor - 0.1 * self.average))


class LenOfShape(Excitation):
    """`len(x.shape)`, `int(x.shape[2])`"""

    def forward(self, x: Tensor) -> Tensor:
        axes = tuple(range(2, len(x.shape)))
        area = int(x.shape[2]) * int(x.shape[3])
        return gated(x, self.gate(x.sum(axes) / area))


class Einops(Excitation):
    """`einops.reduce(x, "b c h w -> b c", "mean")`"""

    def forward(self, x: Tensor) -> Tensor:
        return gated(x, self.gate(einops.reduce(x, "b c h w -> b c", "mean")))


class Einsum(Excitation):
    """`torch.einsum("bchw->bc", x) / (h * w)`, and einsum as the product"""

    def forward(self, x: Tensor) -> Tensor:
        gate = self.gate(torch.einsum("bchw->bc", x) / (x.shape[2] * x.shape[3]))
        return torch.einsum("bchw,bc->bchw", x, gate)


class StarArguments(Excitation):
    """`def forward(self, *args)`"""

    def forward(self, *args: Any) -> Tensor:
        return gated(args[0], self.gate(args[0].mean((2, 3))))


class Caller(nn.Module):
    """Calls an attention with its map in a container."""

    def __init__(self, attention: nn.Module) -> None:
        super().__init__()
        self.attention = attention


class TupleArgument(Excitation):
    """the map in a tuple"""

    def forward(self, maps: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        return gated(maps[0], self.gate(maps[0].mean((2, 3)))), maps[1]


class CallsWithTuple(Caller):
    def forward(self, x: Tensor) -> Tensor:
        gated_map, rest = self.attention((x, x))
        return torch.as_tensor(gated_map + rest)


class DictArgument(Excitation):
    """the map in a dictionary"""

    def forward(self, maps: dict[str, Tensor]) -> dict[str, Tensor]:
        return {**maps, "out": gated(maps["low"], self.gate(maps["low"].mean((2, 3))))}


class CallsWithDict(Caller):
    def forward(self, x: Tensor) -> Tensor:
        return torch.as_tensor(self.attention({"low": x})["out"])


@torch.jit.script
def scripted_activation(x: Tensor) -> Tensor:
    return x * (x + 3).clamp(0, 6) / 6


class ScriptedActivation(Excitation):
    """a `@torch.jit.script` function in the gate"""

    def forward(self, x: Tensor) -> Tensor:
        return gated(x, self.gate(scripted_activation(x.mean((2, 3)))))


class Swish(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x * x.sigmoid()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        s = x.sigmoid()
        return gradients[0] * (s * (1 + x * (1 - s)))


class FunctionInGate(Excitation):
    """a `torch.autograd.Function` in the gate"""

    def forward(self, x: Tensor) -> Tensor:
        return gated(x, self.gate(Swish.apply(x.mean((2, 3)))))


class AverageAndMaximum(Excitation):
    """average and maximum pooling behind a zero-initialised batch norm, as in CBAM"""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(CHANNELS)
        nn.init.zeros_(self.norm.weight)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(x)
        gate = (self.expand(self.reduce(y.mean((2, 3)))) + self.expand(self.reduce(y.amax((2, 3))))).sigmoid()
        return x + gated(y, gate)


class LayerScale(Excitation):
    """LayerScale of 1e-5 in front"""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.full((CHANNELS, 1, 1), 1e-5))

    def forward(self, x: Tensor) -> Tensor:
        y = x * self.scale
        return x + gated(y, self.gate(y.mean((2, 3))))


class Logits(Excitation):
    """the child returns logits, the parent does `x * a(x).sigmoid()`"""

    def forward(self, x: Tensor) -> Tensor:
        return self.expand(self.reduce(x.mean((2, 3))).relu())[:, :, None, None]


class SigmoidOfChild(Caller):
    def forward(self, x: Tensor) -> Tensor:
        return x * self.attention(x).sigmoid()


def _patched_forward(module: Any) -> Any:
    own_forward = module.forward

    def forward(x: Tensor) -> Tensor:
        return torch.as_tensor(own_forward(x) + 0.5 * x)

    return forward


class Plain(Excitation):
    """`module.forward = ...` on the instance"""

    def forward(self, x: Tensor) -> Tensor:
        return gated(x, self.gate(x.mean((2, 3))))


def with_patched_forward() -> nn.Module:
    module: Any = Plain()
    module.forward = _patched_forward(module)
    return nn.Module.train(module)


class Hooked(Excitation):
    """forward hooks that change input and output"""

    def __init__(self) -> None:
        super().__init__()
        self.register_forward_pre_hook(lambda _, args: (args[0] + 1,))
        self.register_forward_hook(lambda _, args, output: output * 2)

    def forward(self, x: Tensor) -> Tensor:
        return gated(x, self.gate(x.mean((2, 3))))


class Divides(Excitation):
    """the gate divides: `x / (1 + exp(-z))`"""

    def forward(self, x: Tensor) -> Tensor:
        z = self.expand(self.reduce(x.mean((2, 3))).relu())[:, :, None, None]
        return x / (1 + (-z).exp())


class FlatProduct(Excitation):
    """the product is made on the flattened map"""

    def forward(self, x: Tensor) -> Tensor:
        flat = x.flatten(2)
        return (flat * self.gate(flat.mean(-1))[..., None]).view_as(x)


class ChannelsLastProduct(Excitation):
    """the map is permuted to (B, H, W, C) for the product"""

    def forward(self, x: Tensor) -> Tensor:
        return (x.permute(0, 2, 3, 1) * self.gate(x.mean((2, 3)))[:, None, None, :]).permute(0, 3, 1, 2)


class AddCmul(Excitation):
    """`torch.addcmul(x, x, gate)`"""

    def forward(self, x: Tensor) -> Tensor:
        return torch.addcmul(x, x, self.gate(x.mean((2, 3)))[:, :, None, None].expand_as(x))


class SpatialToo(Excitation):
    """channel and spatial gate summed, as in BAM"""

    def __init__(self) -> None:
        super().__init__()
        self.spatial = nn.Conv2d(CHANNELS, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        channel = self.expand(self.reduce(x.mean((2, 3))).relu())[:, :, None, None]
        return x * (channel + self.spatial(x)).sigmoid()


class GateOfMeanAndDeviation(Excitation):
    """mean and standard deviation pooled together, as in SRM"""

    def __init__(self) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.rand(CHANNELS, 2))

    def forward(self, x: Tensor) -> Tensor:
        statistics = torch.stack([x.mean((2, 3)), x.flatten(2).std(-1)], -1)
        return gated(x, (statistics * self.weights).sum(-1).sigmoid())


class ScriptedPooling(Excitation):
    """the pooling itself in TorchScript"""

    def forward(self, x: Tensor) -> Tensor:
        return gated(x, self.gate(scripted_mean(x)))


@torch.jit.script
def scripted_mean(x: Tensor) -> Tensor:
    return x.mean([2, 3])


class FoldedNorm(nn.Module):
    """instance norm folded by hand: `x * r - mu * r`"""

    def forward(self, x: Tensor) -> Tensor:
        mu = x.mean((2, 3), keepdim=True)
        r = ((x - mu).square().mean((2, 3), keepdim=True) + 1e-5).rsqrt()
        return x * r - mu * r


class SimAm(nn.Module):
    """SimAM: the deviation from the mean of each position"""

    def forward(self, x: Tensor) -> Tensor:
        d = (x - x.mean((2, 3), keepdim=True)).square()
        v = d.sum((2, 3), keepdim=True) / (x.shape[2] * x.shape[3] - 1)
        return x * (d / (4 * (v + 1e-4)) + 0.5).sigmoid()


class CoordinateAttention(Excitation):
    """pooled along one axis at a time"""

    def forward(self, x: Tensor) -> Tensor:
        rows = self.gate(x.mean(3).movedim(1, 2)).movedim(2, 1)[..., None]
        columns = self.gate(x.mean(2).movedim(1, 2)).movedim(2, 1)[:, :, None]
        return x * rows * columns


class CrossGate(Excitation):
    """the mean of one map gates another"""

    def forward(self, x: Tensor) -> Tensor:
        return gated(x.flip(1) + 0, self.gate(F.relu(x.roll(1, 1)).mean((2, 3))))


GATE_OF_PARENT = GateOnly
"""The child returns the gate, the parent multiplies: in attention_zoo."""
