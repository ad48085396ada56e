"""SRP in many ways to write channel attention, checked one by one; writes the table in docs/library.md.

    python tests/srp/attention_ways.py [--check]

Of what is converted: evaluation is bit-identical; a training step at scale 1 has the plain module's bits in output,
gradients, buffers, attributes and random streams, with autocast and without; at scale 0.5 it gives the plain output on
constant maps, whose regions all have the same mean, and another one on random maps; the module is copied, and pickled
where the plain one is. What is refused is named with its reason. Looking changes nothing.
"""

import argparse
import copy
import pickle
import random
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import attention_habits as habits
import attention_siblings as siblings
import attention_zoo as zoo
import torch
from torch import Tensor, nn

from srp_exp.srp import apply_srp, find_attention, remove_srp, srp_modules

DOCUMENT = Path(__file__).parents[2] / "docs" / "library.md"
BEGIN, END = "<!-- tests/srp/attention_ways.py -->", "<!-- end -->"


@dataclass(frozen=True)
class Way:
    """A way to write attention. `refused` is a part of the reason, None where it is converted."""

    build: Callable[[], nn.Module]
    text: str
    refused: str | None = None


ZOO = {
    zoo.MeanBroadcast: "`x.mean((2, 3))`",
    zoo.MeanKeepdim: "`x.mean((2, 3), keepdim=True)`",
    zoo.TorchMeanOfNegativeAxes: "`torch.mean(x, dim=[-1, -2])`",
    zoo.FlattenMean: "`x.flatten(2).mean(-1)`",
    zoo.FlattenMeanKeepdim: "`x.flatten(2).mean(-1, keepdim=True)`",
    zoo.ViewMean: "`x.view(b, c, h * w).mean(2)`",
    zoo.FunctionalAdaptivePool: "`F.adaptive_avg_pool2d(x, 1)`",
    zoo.PoolInSequential: "`nn.Sequential(nn.AdaptiveAvgPool2d(1), conv, relu, conv, sigmoid)` makes the gate",
    zoo.PoolAndExpandAs: "`nn.AdaptiveAvgPool2d(1)`, and `x * y.expand_as(x)`",
    zoo.SumOverArea: "`x.sum((2, 3)) / (h * w)`",
    zoo.SumOverAreaAndExpand: "the same, and `gate.expand(b, c, h, w)`",
    zoo.PoolOfTheMapsSize: "`F.avg_pool2d(x, x.shape[2:])`",
    zoo.OneAxisAfterTheOther: "`x.mean(3).mean(2)`",
    zoo.OneAxisAfterTheOtherKeepdim: "`x.mean(3, keepdim=True).mean(2, keepdim=True)`",
    zoo.MeanOfOneLongRow: "`x.view(b, c, 1, h * w).mean(-1)`",
    zoo.MethodMul: "`x.mul(gate)`",
    zoo.FunctionMultiply: "`torch.multiply(gate, x)`",
    zoo.InPlaceMul: "`x.mul_(gate)`",
    zoo.InPlaceOperator: "`x *= gate`",
    zoo.InlineInBlock: "a residual block with convolution and attention in its own forward",
    zoo.TrainingBranch: "`if self.training:` in the gate",
    zoo.OptionalMask: "an optional argument that changes the map",
    zoo.PooledAfterRelu: "`relu(x)` is pooled, `x` is multiplied",
    zoo.GroupsOfChannels: "the map has five axes (B, G, C/G, H, W)",
    zoo.GroupsPooledTogether: "the map has five axes, its mean four",
    zoo.IdentityInFront: "`nn.Dropout2d(0.0)` in front",
    zoo.SequentialWithItsOwnForward: "a subclass of nn.Sequential: `x * super().forward(x)`",
    zoo.BufferInGate: "a buffer in the gate",
    zoo.ConstantInGate: "`torch.tensor([...])` in the gate",
    zoo.PoolOfOwnClass: "a module of one's own that pools",
    zoo.GateReturnedToParent: "a module returns the gate, its parent multiplies",
    zoo.HardCodedKernel: "`nn.AvgPool2d((6, 5))` on maps of this size",
    zoo.HardCodedKernelOfFunction: "`F.avg_pool2d(x, (6, 5))`",
    zoo.HardCodedArea: "`x.sum((2, 3)) / 30`",
    zoo.HardCodedView: "`x.view(-1, 8, 30).mean(2)`",
    zoo.InstanceNorm: "instance norm written out",
    zoo.RootMeanSquareNorm: "root mean square norm: `x * (x * x).mean((2, 3)).rsqrt()`",
    zoo.SpatialAttention: "spatial attention: a gate for each position",
    zoo.GlobalContext: "global context: weights that the map decides",
    zoo.MaxGate: "maximum pooling",
}


def text_of(kind: type) -> str:
    """How a class writes attention, in some words."""
    return ZOO[kind] if kind in ZOO else (kind.__doc__ or "").splitlines()[0]


def _habit(kind: type, build: Callable[[], nn.Module] | None = None, refused: str | None = None) -> Way:
    return Way(build or kind, text_of(kind), refused)


WAYS = [
    *(Way(kind, text_of(kind)) for kind in (*zoo.ANY_SIZE, *zoo.ONE_SIZE)),
    *map(
        _habit,
        (
            habits.NoGrad, habits.DetachedMap, habits.WithoutAutocast, habits.Temperature, habits.RandomBranch,
            habits.PythonRandom, habits.NoiseInGate,
            habits.StoredGate, habits.CountedCalls, habits.MovingAverage, habits.LenOfShape, habits.Einops,
            habits.Einsum, habits.StarArguments, habits.ScriptedActivation, habits.FunctionInGate,
            habits.AverageAndMaximum, habits.LayerScale, habits.Hooked, habits.Divides, habits.FlatProduct,
            habits.ChannelsLastProduct, habits.AddCmul, habits.SpatialToo, habits.GateOfMeanAndDeviation,
            habits.CrossGate, siblings.SelectiveStack, siblings.SelectiveStackAtFront, siblings.SelectiveCat,
            siblings.PreActivated, siblings.TwoGates, siblings.BehindMixing, siblings.BehindStatistics,
        ),
    ),
    _habit(habits.TupleArgument, lambda: habits.CallsWithTuple(habits.TupleArgument())),
    _habit(habits.DictArgument, lambda: habits.CallsWithDict(habits.DictArgument())),
    _habit(habits.Logits, lambda: habits.SigmoidOfChild(habits.Logits())),
    _habit(habits.Plain, habits.with_patched_forward),
    _habit(habits.ScriptedPooling, refused="TorchScript"),
    _habit(habits.FoldedNorm, refused="a norm"),
    _habit(zoo.InstanceNorm, refused="a norm"),
    _habit(zoo.RootMeanSquareNorm, refused="square"),
    _habit(habits.SimAm, refused="a norm"),
    _habit(habits.CoordinateAttention, refused="isn't seen to come from its mean"),
    _habit(zoo.SpatialAttention, refused="isn't seen to come from its mean"),
    _habit(zoo.GlobalContext, refused="isn't seen to come from its mean"),
    _habit(zoo.MaxGate, refused="isn't seen to come from its mean"),
    _habit(habits.Checkpointed, refused="checkpoint(...)"),
    _habit(habits.CheckpointedReentrant, refused="checkpoint(...)"),
    _habit(siblings.TwoInputs, lambda: siblings.GivesTwo(siblings.TwoInputs()), "isn't seen to come from its mean"),
    _habit(siblings.Sum, refused="multiple of its mean"),
    _habit(siblings.ConstantWeights, refused="multiple of its mean"),
    _habit(siblings.Sequence, lambda: siblings.Flattened(siblings.Sequence()), "sequence (B, C, L)"),
    _habit(siblings.Tokens, lambda: siblings.AsTokens(siblings.Tokens()), "tokens (B, L, C)"),
    _habit(siblings.TokensOfLinear, lambda: siblings.AsTokens(siblings.TokensOfLinear()), "tokens (B, L, C)"),
    _habit(siblings.ChannelsLast, lambda: siblings.Permuted(siblings.ChannelsLast()), "channels last"),
    _habit(siblings.Volume, lambda: siblings.AsVolume(siblings.Volume()), "volume (B, C, D, H, W)"),
    _habit(siblings.FlatVolume, lambda: siblings.AsVolume(siblings.FlatVolume(), 1), "volume (B, C, D, H, W)"),
]  # fmt: skip


@dataclass
class Step:
    """All that a training step leaves."""

    values: dict[str, Any]

    def differences(self, other: "Step") -> list[str]:
        names = self.values.keys() | other.values.keys()
        return sorted(name for name in names if not _equal(self.values.get(name), other.values.get(name)))


def _equal(one: Any, other: Any) -> bool:
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        return torch.equal(one, other)
    return bool(one == other)


def training_step(net: nn.Module, x: Tensor, autocast: bool = False) -> Step:
    torch.manual_seed(3)
    random.seed(3)
    net.train().zero_grad()
    leaf = x.clone().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        output = net(leaf + 0)  # what works in place gets no leaf
    lasts = [getattr(module, "last", None) for module in net.modules()]
    stored = [last.sum() for last in lasts if isinstance(last, Tensor)]
    loss = (output * torch.linspace(-1, 1, output.numel()).view_as(output)).sum()
    torch.stack([loss, *stored]).sum().backward()
    values: dict[str, Any] = {"output": output.detach(), "input.grad": leaf.grad, "random": random.random()}
    values["torch.rand"] = torch.rand(1)
    for name, parameter in net.named_parameters():
        values[f"{name}.grad"] = parameter.grad
    for name, buffer in net.named_buffers():
        values[name] = buffer.clone()
    for path, module in net.named_modules():
        values |= {f"{path}.{k}": v for k, v in vars(module).items() if isinstance(v, int | float | list | Tensor)}
    return Step({k: v.detach().clone() if isinstance(v, Tensor) else copy.copy(v) for k, v in values.items()})


def state_of(net: nn.Module) -> list[Any]:
    """All attributes of all modules, their order and the random states."""
    states: list[Any] = [torch.get_rng_state().tolist(), random.getstate()]
    for module in net.modules():
        states += [(k, copy.deepcopy(v) if isinstance(v, list | Tensor) else id(v)) for k, v in vars(module).items()]
    return states


def unchanged(before: list[Any], after: list[Any]) -> bool:
    """Whether two results of `state_of` are equal."""
    if len(before) != len(after):
        return False
    pairs = list(zip(before, after, strict=True))
    return all(_equal(a[1], b[1]) if isinstance(a, tuple) and len(a) == 2 else a == b for a, b in pairs)


def network(way: Way) -> nn.Sequential:
    """A network with the module of `way`, of the same weights at every call."""
    torch.manual_seed(0)
    random.seed(0)
    net = nn.Sequential(nn.Conv2d(zoo.CHANNELS, zoo.CHANNELS, 1), way.build())
    with torch.no_grad():
        for parameter in net[1].parameters():
            parameter.mul_(3)  # gates that tell regions apart
    return net


def converted(way: Way, scale: float | None) -> nn.Sequential:
    """The network with SRP of `scale`; where a parameter hid what is computed behind it, it doesn't any more."""
    net = network(way)
    if scale is not None:
        apply_srp(net, scale, example_input=zoo.feature_map(4))
    for module in net.modules():
        if isinstance(module, habits.Temperature):
            module.t = 3.0
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in net.parameters():
            if parameter.abs().max() < 1e-3:
                parameter.uniform_(0.5, 1)
    return net


def check(way: Way) -> list[str]:
    """What isn't as the header says; empty where all is."""
    net, images = network(way), zoo.feature_map(4)
    before = state_of(net)
    findings = find_attention(net, images)
    failures = [] if unchanged(before, state_of(net)) else ["looking changed something"]
    found = [pooling for pooling in findings.poolings if pooling.gates]
    if way.refused is not None:
        named = [left_out for left_out in findings.left_out if way.refused in left_out.reason]
        return failures + [f"found {len(found)}"] * bool(found) + ["not named with its reason"] * (not named)
    if len({pooling.module for pooling in found}) != 1:
        return [*failures, f"found {[pooling.module for pooling in found]}; left out {findings.left_out}"]
    for autocast in (False, True):
        plain, at_one = (training_step(converted(way, scale), images, autocast) for scale in (None, 1.0))
        failures += [f"{name} at scale 1{', autocast' * autocast}" for name in plain.differences(at_one)]
    failures += _compare(converted(way, None).eval(), converted(way, 0.5).eval(), images, "evaluation")
    removed = converted(way, 0.5)
    remove_srp(removed)
    failures += ["removal"] * bool(srp_modules(removed))
    failures += _compare(converted(way, None).train(), removed.train(), images, "removal")
    return failures + _check_regions(way, images) + _check_copies(way, images)


def _compare(one: nn.Module, other: nn.Module, images: Tensor, what: str) -> list[str]:
    results = []
    for net in (one, other):
        torch.manual_seed(5)
        random.seed(5)
        with torch.no_grad():
            results += [net(images), torch.rand(1), torch.tensor(random.random())]
    return [] if all(torch.equal(a, b) for a, b in zip(results[:3], results[3:], strict=True)) else [what]


def _check_regions(way: Way, images: Tensor) -> list[str]:
    if way.build in (habits.NoiseInGate, habits.RandomBranch):
        return []  # regions are drawn from the same stream, so the noise is another
    constant = images[:, :, :1, :1].expand_as(images).contiguous()
    failures = []
    plain, with_srp = (training_step(converted(way, scale), constant) for scale in (None, 0.5))
    for name in ("output", "input.grad"):
        one, other = (step.values[name] for step in (plain, with_srp))
        one, other = (value.sum((2, 3)) if name == "input.grad" else value for value in (one, other))
        failures += [] if torch.allclose(one, other, rtol=1e-3, atol=1e-4) else [f"{name} of constant maps"]
    plain, with_srp = (training_step(converted(way, scale), images) for scale in (None, 0.5))
    if torch.allclose(plain.values["output"], with_srp.values["output"], rtol=1e-4, atol=1e-5):
        failures.append("regions change nothing")
    counted = [name for name in plain.values if name.endswith("calls")]
    return failures + [f"{name} is another" for name in counted if plain.values[name] != with_srp.values[name]]


def _check_copies(way: Way, images: Tensor) -> list[str]:
    step = training_step(converted(way, 0.5), images)
    if way.build is habits.with_patched_forward:
        return []  # its forward is a closure, which refers to the first module in every copy
    failures = [
        f"{name} of a copy" for name in step.differences(training_step(copy.deepcopy(converted(way, 0.5)), images))
    ]
    try:
        pickle.dumps(converted(way, None))
    except Exception:  # local functions, say
        return failures
    loaded = pickle.loads(pickle.dumps(converted(way, 0.5)))
    return failures + [f"{name} after pickle" for name in step.differences(training_step(loaded, images))]


def table() -> str:
    """The table in Markdown, without the outcome of the checks, which the tests make."""
    lines = ["| way | SRP |", "| --- | --- |"]
    for way in WAYS:
        outcome = "converted" if way.refused is None else f"left out: {reason_of(way)}"
        lines.append(f"| {way.text} | {outcome} |")
    return "\n".join(lines)


def reason_of(way: Way) -> str:
    left_out = find_attention(nn.Sequential(way.build()), zoo.feature_map(4)).left_out
    return next((str(out.reason) for out in left_out if way.refused is not None and way.refused in out.reason), "?")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="only check, and write nothing")
    arguments = parser.parse_args()
    failed = {way.text: failures for way in WAYS if (failures := check(way))}
    for text, failures in failed.items():
        print(f"{text}: {', '.join(failures)}")
    print(
        f"{len(WAYS)} ways, {sum(way.refused is None for way in WAYS)} converted; {len(failed)} not as they should be"
    )
    if failed:
        sys.exit(1)
    if not arguments.check:
        before, _, rest = DOCUMENT.read_text().partition(BEGIN)
        DOCUMENT.write_text(f"{before}{BEGIN}\n{table()}\n{END}{rest.partition(END)[2]}")


if __name__ == "__main__":
    main()
