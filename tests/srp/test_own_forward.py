"""What a module's own forward may do besides pooling: it keeps doing so, or a line says why it can't."""

import copy
import functools
import operator
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from srp_exp.errors import UserError
from srp_exp.srp import SrpRecords, apply_srp, find_attention, fix_regions, read_regions, remove_srp

CHANNELS = 8


def images() -> Tensor:
    return torch.randn(4, CHANNELS, 8, 8, generator=torch.Generator().manual_seed(0))


class Excited(nn.Module):
    """Keeps the map and the descriptor of its last call."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(CHANNELS, 16), nn.Linear(16, CHANNELS)

    def pool(self, x: Tensor) -> Tensor:
        return x.mean((2, 3))

    def gate(self, descriptor: Tensor) -> Tensor:
        self.descriptor = descriptor.detach().flatten(1)
        return self.fc2(self.fc1(descriptor.flatten(1)).relu()).sigmoid()[:, :, None, None]

    def forward(self, x: Tensor) -> Tensor:
        self.map = x.detach()
        return x * self.gate(self.pool(x))


def pooling(pool: Callable[[Tensor], Tensor]) -> type[Excited]:
    return type("Pooling", (Excited,), {"pool": staticmethod(pool)})


def with_srp(net: nn.Module, scale: float = 0.5) -> SrpRecords:
    torch.manual_seed(0)
    records = apply_srp(net, scale, example_input=images())
    net.train()
    return records


def pooled_all(module: Any) -> bool:
    return torch.allclose(module.descriptor, module.map.mean((2, 3)), atol=1e-6)


def region_means(module: Any, regions: Tensor) -> Tensor:
    """By crops of the map, of one region (top, left, height, width) for each image."""
    crops = zip(module.map, regions[:, 0].tolist(), strict=True)
    return torch.stack([x[:, top : top + h, left : left + w].mean((1, 2)) for x, (top, left, h, w) in crops])


class Around(Excited):
    """Attention of its own behind attention."""

    def __init__(self, *body: nn.Module) -> None:
        super().__init__()
        self.body = nn.Sequential(*body)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(self.body(x))


def test_attention_behind_its_children_that_are_attention_pools_over_its_own_region() -> None:
    other = pooling(lambda x: F.adaptive_avg_pool2d(x, 1).flatten(1))
    net = Around(Excited(), Around(Around(other())))
    records = with_srp(net)
    net(images()).sum().backward()
    names = ["body.0", "body.1.body.0.body.0", "body.1.body.0", "body.1", ""]  # as they pool
    assert [record.name for record in records] == names
    assert [record.depth.index for record in records] == [0, 1, 2, 3, 4]
    regions = read_regions(net)
    for name in names:
        module = net.get_submodule(name)
        torch.testing.assert_close(module.descriptor, region_means(module, regions[name]))
        assert not pooled_all(module)


class Gated(Around):
    """Attention of its own in front of attention."""

    def forward(self, x: Tensor) -> Tensor:
        return self.body(Excited.forward(self, x))  # type: ignore[no-any-return]


def test_attention_in_front_of_its_children_leaves_them_theirs() -> None:
    net = Gated(Excited(), Gated(Excited()))
    with_srp(net)
    for _ in range(2):
        net(images()).sum().backward()
        regions = read_regions(net)
        assert list(regions) == ["", "body.0", "body.1", "body.1.body.0"]
        for name, own in regions.items():
            module = net.get_submodule(name)
            torch.testing.assert_close(module.descriptor, region_means(module, own))
    assert torch._C._len_torch_function_stack() == 0
    assert torch._C._get_torch_function_state() == torch._C._TorchFunctionState.ENABLED


class Checkpointed(Excited):
    """Calls the forward of its class by `call`, which may be a checkpoint."""

    call: Callable[..., Any] = operator.call

    def forward(self, x: Tensor) -> Tensor:
        return self.call(super().forward, x)  # type: ignore[no-any-return]


@pytest.mark.parametrize("reentrant", [False, True])
def test_a_checkpoint_in_the_forward_is_left_out_and_a_new_one_is_an_error(reentrant: bool) -> None:
    module = Checkpointed()
    module.call = functools.partial(checkpoint, use_reentrant=reentrant)
    net = nn.Sequential(nn.Conv2d(CHANNELS, CHANNELS, 1), Excited(), module)
    records = with_srp(net)
    assert [record.name for record in records] == ["1"]
    assert [(one.name, "checkpoint(...)" in one.reason) for one in records.left_out] == [("2", True)]
    remove_srp(net)
    module.call = operator.call
    with_srp(net)
    module.call = functools.partial(checkpoint, use_reentrant=reentrant)
    with pytest.raises(RuntimeError, match=r"^Checkpointed: pools inside of a checkpoint\(...\) of its own forward"):
        net(images())


class Branching(Excited):
    """`log`: pools its map once more, in front. `other`: pools in another line."""

    log = other = False

    def forward(self, x: Tensor) -> Tensor:
        if self.log:
            self.statistic = x.mean((2, 3))
        if self.other:
            return x * self.gate(x.mean((2, 3)))
        return super().forward(x)


def test_the_call_that_was_found_is_answered_and_no_other() -> None:
    net = Branching()
    with_srp(net)
    net.log = True
    net(images())
    assert torch.equal(net.statistic, images().mean((2, 3)))
    assert not pooled_all(net)


def test_a_forward_without_the_call_that_was_found_is_an_error() -> None:
    net = Branching()
    with_srp(net)
    net.other = True
    with pytest.raises(RuntimeError, match="^Branching: the forward didn't make the call of mean for which SRP"):
        net(images())


def test_attention_in_a_hook_of_the_model_itself_is_no_forward() -> None:
    class Attending(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.excited = Excited()

        def forward(self, x: Tensor) -> Tensor:
            return x + 0

    hooked = Attending()
    hooked.register_forward_hook(lambda module, inputs, output: output * module.excited.gate(output.mean((2, 3))))
    with pytest.raises(UserError, match="Attending has no channel attention"):  # no module's forward makes these calls
        with_srp(hooked)


def _out(x: Tensor) -> Tensor:
    with torch.no_grad():
        return torch.mean(x, (2, 3), out=torch.zeros(x.shape[:2], dtype=x.dtype))


def _in_place(x: Tensor) -> Tensor:
    descriptor = x.sum((2, 3))
    descriptor.div_(64)
    return descriptor


@pytest.mark.parametrize(
    "pool",
    [_out, _in_place, lambda x: torch.var_mean(x, (2, 3))[1], lambda x: F.lp_pool2d(x.abs(), 1.0, 8)],
    ids=["out=", "in place", "one of two results", "a sum over the mean's positions"],
)
def test_a_mean_that_no_call_returns_is_left_out_with_the_reason(pool: Callable[[Tensor], Tensor]) -> None:
    net = nn.Sequential(Excited(), pooling(pool)())
    records = with_srp(net)
    assert [record.name for record in records] == ["0"]
    assert [(one.name, one.kind) for one in records.left_out] == [("1", "Pooling")]
    net(images())
    assert torch.equal(net[1].descriptor, pool(net[1].map).flatten(1))


@pytest.mark.parametrize(
    "pool",
    [lambda x: F.adaptive_avg_pool1d(x.flatten(2), 1), lambda x: F.avg_pool1d(x.flatten(2), 64)],
    ids=["adaptive_avg_pool1d", "avg_pool1d"],
)
def test_what_pools_has_the_shape_of_the_plain_result(pool: Callable[[Tensor], Tensor]) -> None:
    shapes = []

    def watched(x: Tensor) -> Tensor:
        descriptor = pool(x)
        shapes.append(tuple(descriptor.shape))
        return descriptor

    net = pooling(watched)()
    net(images())
    with_srp(net)
    net(images())
    assert shapes[0] == shapes[-1] == (4, CHANNELS, 1)
    assert not pooled_all(net)


@pytest.mark.parametrize("change", [F.relu_, lambda d: d.div_(2), nn.ReLU(inplace=True)])
def test_the_descriptor_may_be_changed_in_place(change: Callable[[Tensor], Tensor]) -> None:
    net = nn.Sequential(nn.Conv2d(CHANNELS, CHANNELS, 1), pooling(lambda x: change(x.mean((2, 3))))())
    with_srp(net)
    net(images()).sum().backward()


def test_a_variance_by_hand_leaves_the_module_out() -> None:
    class Deviation(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            mean = x.mean((2, 3), keepdim=True)
            return x * (mean + ((x * x).mean((2, 3), keepdim=True) - mean * mean + 1e-5).sqrt()).sigmoid()

    records = with_srp(nn.Sequential(Excited(), Deviation()))
    assert [record.name for record in records] == ["0"]
    assert [(one.name, one.reason[:16]) for one in records.left_out] == [("1", "pools the square")]


def test_a_map_that_is_pooled_twice_is_pooled_over_one_region() -> None:
    class Twice(Excited):
        def forward(self, x: Tensor) -> Tensor:
            self.both = x.mean((2, 3)), x.mean((2, 3))
            return x * self.gate(self.both[0]) * self.gate(self.both[1])

    net = Twice()
    with_srp(net)
    net(images())
    assert torch.equal(*net.both)


def test_weights_that_begin_as_those_of_a_mean_are_none() -> None:
    class Learned(Excited):
        def __init__(self) -> None:
            super().__init__()
            self.weights = nn.Parameter(torch.full((CHANNELS, 1, 8, 8), 1 / 64))

        def pool(self, x: Tensor) -> Tensor:
            return F.conv2d(x, self.weights, groups=CHANNELS)

    net = nn.Sequential(Excited(), Learned())
    assert [record.name for record in with_srp(net)] == ["0"]
    net(images()).sum().backward()
    assert net[1].weights.grad is not None


@pytest.mark.parametrize("change", [lambda d: F.layer_norm(d, (CHANNELS,)), lambda d: CHANNELS * d.softmax(1)])
def test_a_norm_of_the_descriptor_is_no_norm_of_the_map(change: Callable[[Tensor], Tensor]) -> None:
    net = pooling(lambda x: change(x.mean((2, 3))))()
    assert with_srp(net).left_out == []


def test_attention_that_runs_in_training_only_is_found() -> None:
    class Auxiliary(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.main, self.extra = Excited(), Excited()

        def forward(self, x: Tensor) -> Tensor:
            return self.main(x) + (self.extra(x) if self.training else 0)

    assert [record.name for record in with_srp(Auxiliary())] == ["main", "extra"]


def test_a_mean_that_comes_back_in_another_way_is_named() -> None:
    class Interpolating(Excited):
        def forward(self, x: Tensor) -> Tensor:
            return torch.lerp(torch.zeros_like(x), x, self.gate(x.mean((2, 3))).expand_as(x))

    records = with_srp(nn.Sequential(Excited(), Interpolating()))
    assert [(one.name, "where=" in one.reason) for one in records.left_out] == [("1", True)]


def test_looking_changes_no_generator_array_slot_or_callable() -> None:
    class Slots:
        __slots__ = ("count",)

    class Temperature:
        calls = 0

        def __call__(self) -> float:
            self.calls += 1
            return 1.0

    class Busy(Excited):
        def __init__(self) -> None:
            super().__init__()
            self.generator, self.state = np.random.default_rng(0), np.random.RandomState(0)
            self.history, self.slots, self.temperature = np.zeros(1), Slots(), Temperature()
            self.slots.count = 0

        def pool(self, x: Tensor) -> Tensor:
            self.generator.random(), self.state.rand()
            self.history += 1
            self.slots.count += 1
            return x.mean((2, 3)) * self.temperature()

    net = Busy()
    assert find_attention(net, images()).poolings
    assert net.generator.random() == np.random.default_rng(0).random()
    assert net.state.rand() == np.random.RandomState(0).rand()
    assert (net.history.item(), net.slots.count, net.temperature.calls) == (0, 0, 0)


def test_regions_of_a_module_that_pools_several_maps_are_not_fixed() -> None:
    class Loop(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.excited = Excited()

        def forward(self, x: Tensor) -> Tensor:
            return self.excited(self.excited(x))

    net = Loop()
    with_srp(net)
    net(images())
    with pytest.raises(UserError, match="'excited' pools more than once in a step"):
        fix_regions(net, read_regions(net))


def test_a_mean_in_a_higher_type_is_not_rounded() -> None:
    """A bfloat16 map whose mean over a region is asked for in float32, as `mean(dtype=...)` does."""
    net = pooling(lambda x: x.mean((2, 3), dtype=torch.float32))()
    with_srp(net)
    net(images().bfloat16())
    assert net.descriptor.dtype == torch.float32
    torch.testing.assert_close(net.descriptor, region_means_in_float(net), rtol=1e-5, atol=1e-6)


def region_means_in_float(net: Any) -> Tensor:
    (regions,) = read_regions(net).values()
    net.map = net.map.float()
    return region_means(net, regions)


@pytest.mark.parametrize("example", [(torch.zeros(2, 3, 8, 8),), {"x": torch.zeros(2, 3, 8, 8)}])
def test_an_example_that_is_no_tensor_is_one_line(example: Any) -> None:
    with pytest.raises(UserError, match="example_input is a (tuple|dict): give a tensor"):
        apply_srp(Excited(), 0.5, example_input=example)


def test_a_batch_of_no_images_passes() -> None:
    net = Excited()
    with_srp(net)
    assert net(images()[:0]).shape == (0, CHANNELS, 8, 8)


def test_a_way_of_its_own_to_copy_that_loses_srp_is_an_error() -> None:
    class Copying(Excited):
        def __deepcopy__(self, memo: dict[int, Any]) -> "Copying":
            return type(self)()

    net = Copying()
    with_srp(net)

    with pytest.raises(RuntimeError, match="Copying: a custom __deepcopy__ dropped SRP"):
        copy.deepcopy(net)(images())
