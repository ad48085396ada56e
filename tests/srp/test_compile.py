"""Networks with SRP under torch.compile: one graph, kept from step to step while the scale ramps."""

import itertools
from collections.abc import Callable, Iterator

import pytest
import timm
import torch
from timm.layers import SEModule
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounterWithBackend

from srp_exp.srp import Linear, StochasticRegionPool2d, apply_srp, region_side, srp_modules
from srp_exp.srp.region import SHARES, Share, region_mean


@pytest.fixture(autouse=True)
def fresh_compiler() -> Iterator[None]:
    torch.compiler.reset()
    yield
    torch.compiler.reset()


def small_net(share: Share = "sample", regions: int = 1) -> nn.Sequential:
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
    for pool in srp_modules(net).values():
        pool.set_ramp(ramp)


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
    pool = StochasticRegionPool2d(0.1, share).train()
    step, counter = compiled(pool, "aot_eager")
    for percent in range(0, 101, 5):
        pool.set_ramp(percent / 100)
        x = torch.zeros(1, 1, 13, 10, requires_grad=True)
        (gradient,) = torch.autograd.grad(step(x).sum(), x)
        inside = gradient[0, 0] != 0
        scale = 1 - 0.9 * percent / 100
        height, width = region_side(scale, 13), region_side(scale, 10)
        assert (int(inside.any(1).sum()), int(inside.any(0).sum())) == (height, width)
        torch.testing.assert_close(gradient[0, 0][inside], torch.full((height * width,), 1 / (height * width)))
    assert counter.frame_count == 1


def output_and_gradients(net: nn.Module, step: Callable[[Tensor], Tensor], x: Tensor) -> list[Tensor]:
    torch.manual_seed(1)
    output = step(x)
    return [output, *torch.autograd.grad(output.square().sum(), list(net.parameters()))]


@pytest.mark.parametrize("regions", [1, 2])
@pytest.mark.parametrize("share", SHARES)
def test_compiled_step_equals_uncompiled_for_the_same_seed(share: Share, regions: int) -> None:
    net = small_net(share, regions)
    step, _ = compiled(net, "aot_eager")
    for ramp in (0.0, 0.4, 1.0):
        set_ramp(net, ramp)
        expected = output_and_gradients(net, net, images())
        torch.testing.assert_close(output_and_gradients(net, step, images()), expected, rtol=1e-5, atol=1e-6)


def test_inductor_equals_uncompiled_for_the_same_seed() -> None:
    attention = small_net()[1]
    x = torch.randn(2, 8, 10, 7)
    with torch._inductor.config.patch(fallback_random=True):  # torch's own random numbers: the same offsets
        step = torch.compile(attention, fullgraph=True)
        for ramp in (0.0, 1.0):
            set_ramp(attention, ramp)
            expected = output_and_gradients(attention, attention, x)
            torch.testing.assert_close(output_and_gradients(attention, step, x), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("backend", "drawn"), [("aot_eager", 3), ("aot_eager", 1), ("inductor", 3)], ids=["sample", "batch", "inductor"]
)
def test_compiled_mean_has_the_gradient_of_the_uncompiled(backend: str, drawn: int) -> None:
    """Compiled code leaves to autograd what uncompiled code has written out."""
    torch.manual_seed(0)
    x, upstream = torch.randn(3, 4, 6, 5, requires_grad=True), torch.randn(3, 4, 1, 1)
    coverage, factor = torch.randint(0, 3, (drawn, 1, 6, 5)), torch.tensor(30 / 18)
    results = []
    for mean in (region_mean, torch.compile(region_mean, backend=backend, fullgraph=True)):
        pooled = mean(x, coverage, factor)
        results.append([pooled, *torch.autograd.grad(pooled, x, upstream)])
    torch.testing.assert_close(results[1], results[0], rtol=1e-6, atol=1e-7)


def test_seresnet50_compiles_to_as_many_graphs_as_without() -> None:
    """Twenty steps with a ramp; small images, which change nothing in the graph but the sizes."""
    x = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    counts = []
    for with_srp in (False, True):
        torch.compiler.reset()
        torch.manual_seed(0)
        net = timm.create_model("seresnet50", num_classes=10).train()
        if with_srp:
            assert len(apply_srp(net, Linear(0.9, 0.4), example_input=x)) == 16
        counter = CompileCounterWithBackend("aot_eager")
        step = torch.compile(net, backend=counter)
        for index in range(20):
            set_ramp(net, index / 19)
            step(x).sum().backward()
        counts.append(counter.frame_count)
    assert counts == [1, 1]
