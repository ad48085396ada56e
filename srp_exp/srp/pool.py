"""Pooling over random regions in all attention modules of a network, whose regions are drawn once for a forward pass.

The random numbers come from torch's default generator of the maps' device: in training alone, and only where a region
is smaller than its map. One draw serves all modules, so that SRP adds few operations (docs/benchmarks.md).
"""

import operator
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any, NamedTuple, SupportsIndex

import torch
from torch import Tensor
from torch.autograd import forward_ad

from srp_exp.errors import UserError
from srp_exp.srp.region import (
    PLACEMENTS,
    SHARES,
    MaskPlan,
    Placement,
    Share,
    Size,
    check_scale,
    corner_range,
    in_units,
    region_mean,
    region_side,
    traced_region_mean,
    traced_side,
)

_PASSES_KEPT = 64
"""Forward passes whose regions are kept for activation checkpointing, which computes blocks again."""


class Numbers(NamedTuple):
    """Uniform numbers (2, L, N, k, 1, 1), of which a module has those at `place` of L, for regions of size `region`.

    `drawn`: they were drawn as the module asked for them.
    """

    values: Tensor
    place: int
    drawn: bool
    region: tuple[Any, Any]


@dataclass
class Kept:
    """What a module took in a forward pass that may be computed again; None: not to be told from another pass."""

    numbers: Numbers | None
    is_used: bool = False


class Draws:
    """The regions of one forward pass: uniform numbers (2, L, N, k, 1, 1) for the corners (top, left) in L modules.

    N is the batch, or 1 where the batch shares a region; k is the number of regions. A pass begins where the model is
    called (`begin` is its hook), or, where only parts of it are, where a module asks for the second time.
    """

    def __init__(self, share: Share = "sample", regions: int = 1, placement: Placement = "corner") -> None:
        for name, value, choices in (("share", share, SHARES), ("placement", placement, PLACEMENTS)):
            if value not in choices:
                raise UserError(f"{name}={value!r} is not one of {', '.join(choices)}")
        if not isinstance(regions, SupportsIndex):
            raise UserError(f"regions={regions!r} is no whole number: give how many regions are pooled together")
        if regions < 1:
            raise UserError(f"regions={regions} is below 1: at least one region is pooled")
        self.share, self.regions, self.placement = share, operator.index(regions), placement
        self.pools: list[RegionPool] = []
        self.fixed: Tensor | None = None
        """Numbers that every pass takes instead of drawing."""
        self.fixed_for: dict[int, tuple[Size, Size]] = {}
        """By the index of the module, the map and the region that they are for."""
        self._start()

    def _start(self) -> None:
        self.running: Any = None
        """What answers the calls of the attention module that runs now (srp_exp.srp.swap)."""
        self.numbers: Tensor | None = None
        self._images = 0  # in this pass; 0 where that is unknown
        self.taken: dict[int, Numbers] = {}
        """By the index of the module, what it took in the last pass."""
        self.pooled_twice: set[int] = set()
        """The indices of the modules that have pooled more than once in the last pass."""
        self._unused = 0  # one bit for each module that has not taken its numbers in this pass
        self._masks: list[Tensor] = []
        self._plan: tuple[Any, MaskPlan] | None = None
        self._kept: OrderedDict[tuple[int, bytes], Kept] = OrderedDict()

    def __getstate__(self) -> dict[str, Any]:
        """Without what belongs to the passes so far."""
        kept = ("share", "regions", "placement", "pools", "fixed", "fixed_for")
        return {name: getattr(self, name) for name in kept}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._start()

    def begin(self, _: Any = None, args: Any = ()) -> None:
        """Let the next module that pools draw for all; a pass that is computed again isn't a new one."""
        if in_backward():
            return
        if any(pool.by_image for pool in self.pools):
            self._images = args[0].shape[0] if args and isinstance(args[0], Tensor) else 0
        self.numbers, self._unused, self._masks, self.taken, self.pooled_twice = None, 0, [], {}, set()

    def take(self, pool: "RegionPool", x: Tensor, region: tuple[Any, Any]) -> Numbers:
        """The numbers of a module for its map x (N, ..., H, W); drawn, where this pass has none for it."""
        samples, device = self._samples(pool, x) if self.share == "sample" else 1, x.device
        self._check_fixed(pool, x, region)
        drawn = False
        if not self._unused >> pool.index & 1:
            self._unused, self._masks = (1 << len(self.pools)) - 1, []
            self.numbers, drawn = self.fixed, self.fixed is None
            if drawn:
                self.numbers = self._draw(len(self.pools), samples, device)
        self._unused &= ~(1 << pool.index)
        assert self.numbers is not None
        taken = Numbers(self.numbers, pool.index, drawn, region)
        if (self.numbers.shape[2], self.numbers.device) != (samples, device) and self.fixed is None:
            taken = Numbers(self._draw(1, samples, device), 0, True, region)  # of a map with a batch of its own
        if pool.index in self.taken:
            self.pooled_twice.add(pool.index)
        self.taken[pool.index] = taken
        return taken

    def _samples(self, pool: "RegionPool", x: Tensor) -> int:
        """Of how many images the map x (N, ..., H, W) is, as far as known."""
        rows = x.shape[0]
        return self._images if pool.by_image and self._images and rows % self._images == 0 else rows

    def _check_fixed(self, pool: "RegionPool", x: Tensor, region: tuple[Any, Any]) -> None:
        if self.fixed is None:
            return
        size, fixed_region = self.fixed_for[pool.index]
        samples = self.fixed.shape[2]
        is_known = isinstance(region[0], int)  # not in compiled code whose scale may change
        if (
            size != (x.shape[-2], x.shape[-1])
            or (is_known and region != fixed_region)
            or samples not in (1, self._samples(pool, x))
        ):
            raise UserError(
                f"the regions were fixed for {samples} samples, maps {size} and sides {fixed_region}, not for maps "
                f"{tuple(x.shape)} and sides {region}: call fix_regions(model, None), and fix them for these"
            )

    def _draw(self, modules: int, samples: int, device: torch.device) -> Tensor:
        return torch.rand(2, modules, samples, self.regions, 1, 1, device=device, dtype=torch.float32)

    def take_and_keep(self, pool: "RegionPool", x: Tensor, region: Size) -> Numbers:
        """As `take`, and remember it where activation checkpointing may compute the block again.

        The state of the random generator, which checkpointing restores, will tell which pass that is.
        """
        hooks: Any = torch._C._autograd._top_saved_tensors_default_hooks(False)
        if hooks is None and torch.is_grad_enabled():  # no checkpointing around this call
            return self.take(pool, x, region)
        key = (pool.index, _random_state(x.device))
        numbers, known = self.take(pool, x, region), self._kept.pop(key, None)
        alike = (
            known is None
            or known.is_used
            or (
                known.numbers is not None
                and known.numbers.region == region
                and torch.equal(known.numbers[0], numbers[0])
            )
        )
        self._kept[key] = Kept(numbers if alike else None)
        while len(self._kept) > _PASSES_KEPT * len(self.pools):
            self._kept.popitem(last=False)
        return numbers

    def repeat(self, pool: "RegionPool", x: Tensor) -> Numbers | None:
        """What a module took in the forward pass that is computed again; None where it pooled all of the map."""
        kept = self._kept.get((pool.index, _random_state(x.device)))
        if kept is None and pool.is_whole(x):
            return None
        if kept is None or kept.numbers is None:
            raise RuntimeError(
                "SRP: a block is computed again, and its regions are unknown; let torch.utils.checkpoint preserve the "
                "random state of its inputs' device, and call backward before regions or scales are changed by hand"
            )
        kept.is_used = True
        if kept.numbers.drawn:  # what follows in the block must find the generator as it did
            torch.rand(kept.numbers.values.shape, device=x.device, dtype=torch.float32)
        return kept.numbers

    def masks(self, pool: "RegionPool", x: Tensor, numbers: Numbers) -> Tensor:
        """The masks of a module for its map x (N, ..., H, W): made with those of the others where all is as planned."""
        size = (x.shape[-2], x.shape[-1])
        if numbers.values is self.numbers and pool.map_size == size and numbers.region == pool.region(size):
            if not self._masks:
                self._masks = self._planned(x.device).masks(numbers.values, x.dtype)
            if self._masks[pool.index].dtype == x.dtype:
                return self._masks[pool.index]
        else:
            pool.map_size = size  # planned so for the next pass
        own = numbers.values[:, numbers.place : numbers.place + 1]
        return MaskPlan([size], [numbers.region], self.placement, x.device).masks(own, x.dtype)[0]

    def _planned(self, device: torch.device) -> MaskPlan:
        sizes = [pool.map_size or (1, 1) for pool in self.pools]
        regions = [pool.region(size) for pool, size in zip(self.pools, sizes, strict=True)]
        key = (sizes, regions, device)
        if self._plan is None or self._plan[0] != key:
            self._plan = (key, MaskPlan(sizes, regions, self.placement, device))
        return self._plan[1]


def in_backward() -> bool:
    """Whether autograd runs: a forward in it is one that is computed again. False in compiled code, which can't ask."""
    return not torch.compiler.is_compiling() and torch._C._current_graph_task_id() != -1


def _has_tangents(x: Tensor) -> bool:
    """Whether derivatives are taken in forward mode."""
    return forward_ad._current_level >= 0 and forward_ad.unpack_dual(x).tangent is not None


def _random_state(device: torch.device) -> bytes:
    if device.type in ("cpu", "meta"):  # where nothing is drawn
        return torch.get_rng_state().numpy().tobytes()
    state: Tensor = torch.get_device_module(device).get_rng_state(device)
    return state.numpy().tobytes()


class RegionPool:
    """Average pooling of maps (N, C, H, W), or (N, P, C, H, W), over random regions, in training.

    Args:
        scale: side of the region over the side of the map, in (0, 1]; 1 is the whole map.
        draws: of the network that it belongs to; by default of its own, with a draw for every call.

    `scale` is the present one; `map_size` is (H, W) of the last map.
    """

    def __init__(self, scale: float = 1.0, draws: Draws | None = None) -> None:
        self.scale = self.final_scale = check_scale(scale)
        self.draws = Draws() if draws is None else draws
        self.index = len(self.draws.pools)
        self.draws.pools.append(self)
        self.map_size: Size | None = None
        self.by_image = False
        """Whether its maps (N, C, H, W) are several of each image, one after another, which share a region."""
        self._units: Tensor | None = None  # what compiled code reads: a number would be compiled in

    def set_ramp(self, weight: float, device: torch.device | str = "cpu") -> None:
        """Move the scale to 1 - (1 - final scale) * `weight`, with `weight` in [0, 1]; no recompilation follows.

        `device` is that of the maps, for compiled code.
        """
        self.scale = 1 - (1 - self.final_scale) * weight
        if self._units is None or self._units.device != torch.device(device):
            self._units = torch.empty((), dtype=torch.int64, device=device)
        self._units.fill_(in_units(self.scale))

    def region(self, map_size: Size) -> Size:
        """(h, w) of a region of the present scale in a map (H, W)."""
        return region_side(self.scale, map_size[0]), region_side(self.scale, map_size[1])

    def is_whole(self, x: Tensor) -> bool:
        """Whether a region of the present scale is the whole map x (..., H, W)."""
        return self.region((x.shape[-2], x.shape[-1])) == (x.shape[-2], x.shape[-1])

    def numbers(self, x: Tensor) -> Numbers | None:
        """The random numbers for the map x (N, ..., H, W); None where all of it is pooled."""
        if torch.compiler.is_compiling():
            if self.final_scale == 1 or x.shape[-2:].numel() == 1 or (self._units is None and self.is_whole(x)):
                return None
            sides = [self._side(side) for side in x.shape[-2:]]
            return self.draws.take(self, x, (sides[0], sides[1]))
        if in_backward():
            return self.draws.repeat(self, x)
        return None if self.is_whole(x) else self.draws.take_and_keep(self, x, self.region((x.shape[-2], x.shape[-1])))

    def _side(self, map_side: int) -> Any:
        return region_side(self.scale, map_side) if self._units is None else traced_side(self._units, map_side)

    def pool(self, x: Tensor, numbers: Numbers) -> Tensor:
        """Mean over the regions, (N, ..., 1, 1)."""
        images = numbers.values.shape[2]
        if self.by_image and 1 < images < x.shape[0]:
            return self.pool(x.unflatten(0, (images, -1)), numbers).flatten(0, 1)
        if torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active() or _has_tangents(x):
            return traced_region_mean(x, numbers.values[:, numbers.place], numbers.region, self.draws.placement)
        return region_mean(x, self.draws.masks(self, x, numbers), numbers.region, self.draws.regions)

    def __call__(self, x: Tensor) -> Tensor:
        """Mean over regions, or over all of the map, (N, ..., 1, 1)."""
        numbers = self.numbers(x)
        return x.mean((-2, -1), keepdim=True) if numbers is None else self.pool(x, numbers)

    def corners(self, numbers: Numbers, map_size: Size) -> Tensor:
        """The upper left corners that `numbers` mean in a map (H, W): int64 (N, k, 2), top and left."""
        ranges = [
            corner_range(self.draws.placement, side, map_side)
            for side, map_side in zip(numbers.region, map_size, strict=True)
        ]
        own = numbers.values[:, numbers.place, :, :, 0, 0].movedim(0, -1)
        return (own * torch.tensor(ranges, device=own.device)).to(torch.int64)
