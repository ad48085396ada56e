"""Pooling over random regions in all attention modules of a network, whose regions are drawn once for a forward pass.

The random numbers come from torch's default generator of the maps' device: in training alone, and only where a region
is smaller than its map. One draw serves all modules, so that SRP adds few operations (docs/benchmarks.md).
"""

import operator
from collections import OrderedDict
from typing import Any, NamedTuple

import torch
from torch import Tensor

from srp_exp.errors import UserError
from srp_exp.srp.region import (
    PLACEMENTS,
    SHARES,
    MaskPlan,
    Masks,
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
    """Uniform numbers (2, L, N, k, 1, 1), of which a module has those at `index` of L; `drawn` as it asked for them."""

    values: Tensor
    index: int
    drawn: bool


class Draws:
    """The regions of one forward pass: uniform numbers (2, L, N, k, 1, 1) for the corners (top, left) in L modules.

    N is the batch, or 1 where the batch shares a region; k is the number of regions. A pass begins where the model is
    called (`begin` is its hook), or, where only parts of it are, where a module asks for the second time.
    """

    def __init__(self, share: Share = "sample", regions: int = 1, placement: Placement = "corner") -> None:
        for name, value, choices in (("share", share, SHARES), ("placement", placement, PLACEMENTS)):
            if value not in choices:
                raise UserError(f"{name}={value!r} is not one of {', '.join(choices)}")
        if regions < 1:
            raise UserError(f"regions={regions} is below 1: at least one region is pooled")
        self.share, self.regions, self.placement = share, operator.index(regions), placement
        self.pools: list[RegionPool] = []
        self.fixed: Tensor | None = None
        """Numbers that every pass takes instead of drawing."""
        self._start()

    def _start(self) -> None:
        self.active: Any = None
        """The attention module that runs now: only its calls are counted."""
        self.numbers: Tensor | None = None
        self.taken: dict[int, Numbers] = {}
        """By the index of the module, what it took in the last pass."""
        self._unused = 0  # one bit for each module that has not taken its numbers in this pass
        self._masks: list[Masks] = []
        self._plan: tuple[Any, MaskPlan] | None = None
        self._kept: OrderedDict[tuple[int, bytes], Numbers] = OrderedDict()

    def __getstate__(self) -> dict[str, Any]:
        """Without what belongs to the passes so far."""
        kept = ("share", "regions", "placement", "pools", "fixed")
        return {name: getattr(self, name) for name in kept}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._start()

    def begin(self, *_: Any) -> None:
        """Let the next module that pools draw for all."""
        self.numbers, self._unused, self._masks, self.taken = None, 0, [], {}

    def take(self, pool: "RegionPool", batch: int, device: torch.device) -> Numbers:
        """The numbers of a module for a map of `batch` samples; drawn, where this pass has none for it."""
        samples = batch if self.share == "sample" else 1
        drawn = False
        if not self._unused >> pool.index & 1:
            self._unused, self._masks = (1 << len(self.pools)) - 1, []
            self.numbers, drawn = self.fixed, self.fixed is None
            if drawn:
                self.numbers = self._draw(len(self.pools), samples, device)
        self._unused &= ~(1 << pool.index)
        assert self.numbers is not None
        if self.numbers.shape[2] == samples and self.numbers.device == device:
            taken = Numbers(self.numbers, pool.index, drawn)
        elif self.fixed is None:
            taken = Numbers(self._draw(1, samples, device), 0, True)  # of a map with a batch of its own
        else:
            raise UserError(f"the regions were fixed for {self.fixed.shape[2]} samples on {self.fixed.device}")
        self.taken[pool.index] = taken
        return taken

    def _draw(self, modules: int, samples: int, device: torch.device) -> Tensor:
        return torch.rand(2, modules, samples, self.regions, 1, 1, device=device, dtype=torch.float32)

    def masks(self, pool: "RegionPool", x: Tensor) -> Masks:
        """The masks of a module for its map x (N, ..., H, W): made with those of the others where all is as planned."""
        numbers = self._take_or_repeat(pool, x)
        size = (x.shape[-2], x.shape[-1])
        if numbers.values is self.numbers and pool.map_size == size:
            if not self._masks:
                self._masks = self._planned(x.device).masks(numbers.values, x.dtype)
            if self._masks[pool.index].coverage.dtype == x.dtype:
                return self._masks[pool.index]
        else:
            pool.map_size = size  # planned so for the next pass
        own = numbers.values[:, numbers.index : numbers.index + 1]
        return MaskPlan([size], [pool.region(size)], self.placement, x.device).masks(own, x.dtype)[0]

    def _planned(self, device: torch.device) -> MaskPlan:
        sizes = [pool.map_size or (1, 1) for pool in self.pools]
        regions = [pool.region(size) for pool, size in zip(self.pools, sizes, strict=True)]
        key = (sizes, regions, device)
        if self._plan is None or self._plan[0] != key:
            self._plan = (key, MaskPlan(sizes, regions, self.placement, device))
        return self._plan[1]

    def _take_or_repeat(self, pool: "RegionPool", x: Tensor) -> Numbers:
        """As `take`; where a backward pass computes a block again, the numbers that its forward pass took.

        They are known by the state of the random generator, which activation checkpointing restores.
        """
        again = torch._C._current_graph_task_id() != -1
        hooks: Any = torch._C._autograd._top_saved_tensors_default_hooks(False)
        if not again and hooks is None and torch.is_grad_enabled():  # no checkpointing around this call
            return self.take(pool, x.shape[0], x.device)
        key = (pool.index, _random_state(x.device))
        if not again:
            self._kept[key] = self.take(pool, x.shape[0], x.device)
            while len(self._kept) > _PASSES_KEPT * len(self.pools):
                self._kept.popitem(last=False)
        elif key not in self._kept:
            raise RuntimeError(
                "SRP: a block is computed again in another random state than at first, so its regions are unknown; "
                "let torch.utils.checkpoint preserve_rng_state=True, and have its inputs on one device"
            )
        elif self._kept[key].drawn:  # what follows in the block must find the generator as it did
            torch.rand(self._kept[key].values.shape, device=x.device, dtype=torch.float32)
        return self._kept[key]


def _random_state(device: torch.device) -> bytes:
    state = torch.get_rng_state() if device.type == "cpu" else torch.get_device_module(device).get_rng_state(device)
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

    def pools_all_of(self, x: Tensor) -> bool:
        """Whether the region is the whole map x (..., H, W): the pooling is the plain one. Compiled code can't tell."""
        if torch.compiler.is_compiling() and self._units is not None:
            return self.final_scale == 1
        return self.region((x.shape[-2], x.shape[-1])) == (x.shape[-2], x.shape[-1])

    def __call__(self, x: Tensor) -> Tensor:
        """Mean over regions, (N, ..., 1, 1)."""
        if self.pools_all_of(x):
            return x.mean((-2, -1), keepdim=True)
        size, draws = (x.shape[-2], x.shape[-1]), self.draws
        if torch.compiler.is_compiling():
            numbers = draws.take(self, x.shape[0], x.device)
            units = self._units
            region = self.region(size) if units is None else (traced_side(units, size[0]), traced_side(units, size[1]))
            return traced_region_mean(x, numbers.values[:, numbers.index], region, draws.placement)
        return region_mean(x, draws.masks(self, x), self.region(size), draws.regions)

    def corners(self, numbers: Numbers, map_size: Size) -> Tensor:
        """The upper left corners that `numbers` mean in a map (H, W): int64 (N, k, 2), top and left."""
        ranges = [
            corner_range(self.draws.placement, side, map_side)
            for side, map_side in zip(self.region(map_size), map_size, strict=True)
        ]
        own = numbers.values[:, numbers.index, :, :, 0, 0].movedim(0, -1)
        return (own * torch.tensor(ranges, device=own.device)).to(torch.int64)
