"""Networks with SRP under torch.compile: one graph, kept from step to step while the scale ramps."""

import itertools
from collections.abc import Callable, Iterator

import pytest
import torch
from timm.layers import SEModule
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounterWithBackend

from srp_exp.srp import RandomRegion, apply_srp, region_side, srp_modules
from srp_exp.srp.region import SHARES, Share

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def fresh_compiler() -> Iterator[None]:
    torch.compiler.reset()
    yield
    torch.compiler.reset()


def small_net(share: Share = "sample", regions: int = 1) -> nn.Module:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        SEModule(8, rd_channels=4),
        nn.Conv2d(8, 8, 3, stride=2, padding=1),
        SEModule(8, rd_channels=4),
    )
    apply_srp(net, 0.4, share=share, regions=regions, example_input=images())
    return net.train()


def images() -> Tensor:
    return torch.randn(2, 3, 10, 8, generator=torch.Generator().manual_seed(0))


def set_ramp(net: nn.Module, ramp: float) -> None:
    for region in srp_modules(net).values():
        region.set_ramp(ramp)


def compiled(net: nn.Module, backend: str) -> tuple[Callable[[Tensor], Tensor], CompileCounterWithBackend]:
    counter = CompileCounterWithBackend(backend)
    return torch.compile(net, backend=counter, fullgraph=True), counter


@pytest.mark.parametrize("regions", [1, 2])
@pytest.mark.parametrize("share", SHARES)
def test_twenty_ramped_steps_compile_one_graph(share: Share, regions: int) -> None:
    net = small_net(share, regions)
    step, counter = compiled(net, "aot_eager")
    outputs = []
    for index in range(20):
        set_ramp(net, index / 19)
        output = step(images())
        output.sum().backward()
        outputs.append(output.detach())
    assert counter.frame_count == 1
    assert all(not torch.equal(a, b) for a, b in itertools.pairwise(outputs[10:]))
    assert all(parameter.grad is not None for parameter in net.parameters())


def test_training_and_evaluation_are_one_graph_each() -> None:
    net = small_net()
    step, counter = compiled(net, "eager")
    for _ in range(3):
        step(images())
        net.eval()
        state = torch.get_rng_state()
        assert torch.equal(step(images()), net(images()))
        assert torch.equal(torch.get_rng_state(), state)
        net.train()
    assert counter.frame_count == 2


@pytest.mark.parametrize("share", SHARES)
def test_ramped_scale_gives_the_sides_of_the_formula(share: Share) -> None:
    region = RandomRegion(0.1, share).train()
    step, counter = compiled(region, "eager")
    x = torch.ones(1, 1, 13, 10)
    for percent in range(0, 101, 5):
        region.set_ramp(percent / 100)
        inside = step(x)[0, 0] != 0
        scale = 1 - 0.9 * percent / 100
        assert int(inside.any(1).sum()) == region_side(scale, 13)
        assert int(inside.any(0).sum()) == region_side(scale, 10)
        assert int(inside.sum()) == region_side(scale, 13) * region_side(scale, 10)
    assert counter.frame_count == 1


@pytest.mark.parametrize("share", SHARES)
def test_compiled_equals_uncompiled_for_the_same_offsets(share: Share) -> None:
    """The view of share=batch is not compiled, but pools the same region as the mask that is."""
    net = small_net(share)
    step, _ = compiled(net, "aot_eager")
    for seed in range(5):
        torch.manual_seed(seed)
        expected = net(images())
        torch.manual_seed(seed)
        torch.testing.assert_close(step(images()), expected, rtol=1e-6, atol=1e-6)


def test_inductor_equals_uncompiled() -> None:
    net = small_net()
    with torch._inductor.config.patch(fallback_random=True):  # torch's own random numbers: the same offsets
        step = torch.compile(net, fullgraph=True)
        for ramp in (0.0, 1.0):
            set_ramp(net, ramp)
            torch.manual_seed(1)
            expected = net(images())
            torch.manual_seed(1)
            torch.testing.assert_close(step(images()), expected, rtol=1e-6, atol=1e-6)
