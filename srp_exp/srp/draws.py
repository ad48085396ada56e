"""The random regions of all attention modules of a network, drawn once for a forward pass.

The random numbers come from torch's default generator of the maps' device: in training alone, and only where a region
is smaller than its map. One draw serves all modules, so that SRP adds few operations (docs/benchmarks.md).
"""

import operator
from typing import Any, Protocol, SupportsIndex

import torch
from torch import Tensor

from srp_exp.errors import UserError
from srp_exp.srp.checkpointing import KeptPasses, in_backward
from srp_exp.srp.region import PLACEMENTS, SHARES, MaskPlan, Numbers, Placement, Share, Size


class Pool(Protocol):
    """What draws are made for (srp_exp.srp.pool.RegionPool): the place of a module among all, and its last map."""

    index: int
    by_image: bool
    map_size: Size | None

    def region(self, map_size: Size) -> Size:
        """(h, w) of a region in a map (H, W)."""


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
        self.pools: list[Pool] = []
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
        self.kept = KeptPasses(self.pools)

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

    def take(self, pool: Pool, x: Tensor, region: tuple[Any, Any]) -> Numbers:
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

    def _samples(self, pool: Pool, x: Tensor) -> int:
        """Of how many images the map x (N, ..., H, W) is, as far as known."""
        rows = x.shape[0]
        return self._images if pool.by_image and self._images and rows % self._images == 0 else rows

    def _check_fixed(self, pool: Pool, x: Tensor, region: tuple[Any, Any]) -> None:
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

    def masks(self, pool: Pool, x: Tensor, numbers: Numbers) -> Tensor:
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
