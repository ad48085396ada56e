"""Networks with SRP under torch.compile: one graph, kept from step to step while the scale ramps."""

import copy
import functools
import itertools
from collections.abc import Callable, Iterator

import pytest
import timm
import torch
from timm.layers import SEModule
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounterWithBackend

from srp_exp.srp import apply_srp, fix_regions, read_regions, region_side, set_progress, srp_modules
from srp_exp.srp.region import SHARES, RegionPlacement, Share
from srp_exp.training.activation_checkpointing import checkpoint_activations


@pytest.fixture(autouse=True)
def fresh_compiler() -> Iterator[None]:
    torch.compiler.reset()
    yield
    torch.compiler.reset()


def small_net(share: Share = "sample", regions: int = 1, placement: RegionPlacement = "corner") -> nn.Sequential:
    return copy.deepcopy(with_srp(share, regions, placement))


@functools.cache
def with_srp(share: Share, regions: int, placement: RegionPlacement) -> nn.Sequential:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        SEModule(8, rd_channels=4),
        nn.Conv2d(8, 8, 3, stride=2, padding=1),
        SEModule(8, rd_channels=4),
    )
    apply_srp(net, 0.4, share=share, regions=regions, placement=placement, example_input=images())
    return net.train()


def images() -> Tensor:
    return torch.randn(2, 3, 10, 8, generator=torch.Generator().manual_seed(0))


def set_ramp(net: nn.Module, ramp: float) -> None:
    for pool in srp_modules(net).values():
        pool.set_ramp(ramp)


def compiled(net: nn.Module, backend: str) -> tuple[Callable[[Tensor], Tensor], CompileCounterWithBackend]:
    counter = CompileCounterWithBackend(backend)
    return torch.compile(net, backend=counter, fullgraph=True), counter


@pytest.mark.parametrize(("share", "regions"), [("sample", 2), ("batch", 1)])
def test_ramped_steps_compile_one_graph(share: Share, regions: int) -> None:
    net = small_net(share, regions)
    step, counter = compiled(net, "aot_eager")
    outputs = []
    for index in range(10):
        set_ramp(net, index / 9)
        output = step(images())
        output.sum().backward()
        outputs.append(output.detach())
    assert counter.frame_count == 1
    assert all(not torch.equal(a, b) for a, b in itertools.pairwise(outputs[5:]))
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


class Descriptor(nn.Module):
    """The mean of a map, so that SRP's is the gate of the map itself, plus the map: its gradient tells the region."""

    def forward(self, x: Tensor) -> Tensor:
        return x * x.mean((2, 3), keepdim=True)


@pytest.mark.parametrize(("share", "placement"), [("sample", "wrap"), ("batch", "corner")])
def test_ramped_scale_gives_the_sides_of_the_formula(share: Share, placement: RegionPlacement) -> None:
    net = Descriptor().train()
    apply_srp(net, 0.1, share=share, placement=placement, example_input=torch.randn(2, 1, 13, 10))
    step, counter = compiled(net, "aot_eager")
    for percent in range(0, 101, 5):
        set_ramp(net, percent / 100)
        x = torch.zeros(1, 1, 13, 10)
        x[..., 0, 0], x[..., 1, 1] = 1, -1  # the sum of the output is that of x, 0, times the mean: its gradient
        x.requires_grad_()
        output = step(x)
        scale = 1 - 0.9 * percent / 100
        height, width = region_side(scale, 13), region_side(scale, 10)
        (top, left, *sides) = read_regions(net)[""][0, 0].tolist()
        assert sides == [height, width]
        rows, columns = ([(at + i) % size for i in range(n)] for at, n, size in ((top, height, 13), (left, width, 10)))
        mean = x[0, 0][rows][:, columns].sum() / (height * width)
        torch.testing.assert_close(output, x * mean)
        (gradient,) = torch.autograd.grad((output * x.detach()).sum(), x)
        expected = torch.full((13, 10), 0.0)
        for row, column in itertools.product(rows, columns):
            expected[row, column] = 2 / (height * width)  # the sum of the squares of x is 2
        torch.testing.assert_close(gradient[0, 0], (expected + mean * x[0, 0]).detach())
    assert counter.frame_count == 1


def output_and_gradients(net: nn.Module, step: Callable[[Tensor], Tensor], x: Tensor) -> list[Tensor]:
    torch.manual_seed(1)
    output = step(x)
    return [output, *torch.autograd.grad(output.square().sum(), list(net.parameters()))]


@pytest.mark.parametrize(
    ("share", "regions", "placement"), [("sample", 1, "corner"), ("batch", 2, "corner"), ("sample", 2, "wrap")]
)
def test_compiled_step_equals_uncompiled_for_the_same_seed(
    share: Share, regions: int, placement: RegionPlacement
) -> None:
    net = small_net(share, regions, placement)
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


@pytest.mark.parametrize(("ramped", "placement"), [(False, "wrap"), (True, "corner")])
def test_float64_is_exact(placement: RegionPlacement, ramped: bool) -> None:
    """No intermediate value is a float32: the errors are those of float64."""
    net = small_net(regions=2, placement=placement).double()
    x = images().double()
    if ramped:
        set_progress(net, 0.7)
    step, _ = compiled(net, "aot_eager")
    expected = output_and_gradients(net, net, x)
    torch.testing.assert_close(output_and_gradients(net, step, x), expected, rtol=1e-13, atol=1e-14)


@pytest.mark.parametrize(("regions", "dtype"), [(1, torch.float32), (2, torch.bfloat16)])
def test_infinity_outside_of_the_regions_stays_outside(regions: int, dtype: torch.dtype) -> None:
    net = nn.Sequential(Descriptor()).train()
    x = torch.randn(2, 3, 9, 8, generator=torch.Generator().manual_seed(0)).to(dtype)
    apply_srp(net, 0.4, regions=regions, example_input=images())
    step, _ = compiled(net, "aot_eager")
    net(x)
    drawn = read_regions(net)
    fix_regions(net, drawn)
    inside = torch.zeros(2, 1, 9, 8, dtype=torch.bool)
    for image, corners in zip(inside, drawn["0"].tolist(), strict=True):
        for top, left, height, width in corners:
            image[:, top : top + height, left : left + width] = True
    clean = step(x)
    for value in (float("inf"), float("-inf"), float("nan")):
        dirty = step(torch.where(inside, x, value))
        assert torch.equal(dirty[inside.expand_as(x)], clean[inside.expand_as(x)]), value
    torch.testing.assert_close(clean, net(x))


@pytest.mark.parametrize("share", SHARES)
def test_regions_are_read_and_fixed(share: Share) -> None:
    net = small_net(share)
    step, counter = compiled(net, "aot_eager")
    torch.manual_seed(2)
    first = step(images())
    drawn = read_regions(net)
    torch.manual_seed(2)
    net(images())
    assert all(torch.equal(drawn[name], one) for name, one in read_regions(net).items())
    assert not torch.equal(step(images()), first)
    fix_regions(net, drawn)
    for _ in range(2):
        state = torch.get_rng_state()
        assert torch.equal(step(images()), first)
        assert torch.equal(torch.get_rng_state(), state)
        assert all(torch.equal(read_regions(net)[name], one) for name, one in drawn.items())
    fix_regions(net, None)
    assert not torch.equal(step(images()), first)
    assert counter.frame_count <= 2


def test_other_settings_after_compilation_are_seen() -> None:
    """Scale 1 that is compiled in is not kept for a schedule that comes later, nor the other way round."""
    net = small_net()
    step, _ = compiled(net, "aot_eager")
    step(images())
    for progress in (0.0, 1.0, 0.5):
        set_progress(net, progress)
        torch.manual_seed(4)
        expected = net(images())
        torch.manual_seed(4)
        torch.testing.assert_close(step(images()), expected, rtol=1e-5, atol=1e-6)


def test_a_scale_of_one_breaks_no_graph() -> None:
    net = nn.Sequential(nn.Conv2d(3, 3, 3, padding=1), SEModule(3, rd_channels=2))
    apply_srp(net, 1.0, example_input=images())
    net.train()
    whole = torch.compile(net, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(whole(images()), net(images()), rtol=1e-5, atol=1e-6)


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # of the compiler's own
def test_blocks_compiled_one_by_one() -> None:
    """As large networks are compiled: blocks of one class share a graph, and each pools its own regions."""
    torch.manual_seed(0)
    net = nn.Sequential(*(nn.Sequential(nn.Conv2d(3, 3, 3, padding=1), SEModule(3, rd_channels=2)) for _ in range(4)))
    apply_srp(net, 0.4, example_input=images())
    net.train()
    torch.manual_seed(4)
    expected = [net(images()) for _ in range(3)]
    regions = read_regions(net)
    for block in net:
        block.compile(backend="aot_eager", fullgraph=True)
    torch.manual_seed(4)
    for output in expected:
        torch.testing.assert_close(net(images()), output, rtol=1e-5, atol=1e-6)
    assert all(torch.equal(read_regions(net)[name], one) for name, one in regions.items())


def test_a_map_of_one_position_is_always_whole() -> None:
    """It draws nothing, as in eager mode, so that both draw the same for the modules after it."""
    net = small_net()
    set_progress(net, 0.7)
    step, _ = compiled(net[:2], "aot_eager")
    x = images()[:, :, :1, :1]
    torch.manual_seed(0)
    torch.testing.assert_close(step(x), net[:2](x))
    after = torch.rand(1)
    torch.manual_seed(0)
    assert torch.equal(after, torch.rand(1))


def test_activation_checkpointing_keeps_one_graph() -> None:
    """Of blocks of one class with SRP, compiled as a whole: no break, and the gradients of eager mode."""
    gradients = []
    for backend in (None, "aot_eager"):
        torch.manual_seed(0)
        net = timm.create_model("seresnet18", layers=(1, 1, 1, 1), channels=(8, 8, 16, 16), num_classes=10).train()
        apply_srp(net, 0.5, example_input=torch.zeros(2, 3, 64, 64))
        assert checkpoint_activations(net) == 4
        counter = CompileCounterWithBackend(backend or "eager")
        step = net if backend is None else torch.compile(net, backend=counter, fullgraph=True)
        x = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
        for ramp in (0.5, 1.0):
            set_ramp(net, ramp)
            torch.manual_seed(1)
            step(x).square().sum().backward()
        assert counter.frame_count == (backend is not None)
        assert len(read_regions(net)) == 4
        gradients.append([parameter.grad for parameter in net.parameters()])
    torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-4, atol=1e-5)
