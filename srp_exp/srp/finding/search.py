"""The search for channel attention in one model: runs of a twin of it, each judged and let go of before the next."""

import random
import sys
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from srp_exp.srp.calls import Call, Path, Place
from srp_exp.srp.finding.findings import Findings, LeftOut, Pooling
from srp_exp.srp.finding.judge import Judge
from srp_exp.srp.finding.run import TwinRun
from srp_exp.srp.finding.twin import is_of_torch, twin_of

NOT_IMAGES = "the first axis of its map isn't that of the images, so that they can't have regions of their own"
SILENT = "never ran: evaluation doesn't call it, and training takes more than images; apply_srp to it alone"
CHANGING = "pools by a call that does something else from run to run"

_SEEDS = 4
"""Looks at a model that draws random numbers; two where they make the same calls."""
_SMALLEST, _LARGE_ENOUGH, _LARGEST = 4, 128, 256
"""Sides: of maps that show what pools them, of images that aren't enlarged for that, and of those that are at most."""

Key = tuple[str, Place]
"""A module, and where it pools, without the counts."""


class Search:
    """Searches `model` on images of the size of `example`, in `dtype`; `training`: for the calls of a training step."""

    def __init__(self, model: nn.Module, example: Tensor, dtype: torch.dtype, training: bool) -> None:
        self._model, self._example, self._dtype, self._training = model, example, dtype, training
        self._order: dict[Key, tuple[int, int, int]] = {}
        self._entered: dict[str, int] = {}
        """When the modules are called in the first look."""
        self._looks = 0
        self._found: dict[Key, Pooling] = {}
        self._counted: dict[Key, set[Place]] = {}
        self._sizes: dict[tuple[str, Call, Path], tuple[int, int]] = {}
        self._left_out: dict[tuple[str, str], LeftOut] = {}
        self._others: dict[tuple[str, Call], LeftOut] = {}
        self._gated: set[tuple[str, Call]] = set()
        self._squared: set[str] = set()
        self._rows: dict[Key, Tensor] = {}
        """Of poolings whose first axis may have more than the images: the means, a row for each."""
        self._pools: dict[tuple[str, Call], set[bool]] = {}
        """The calls of each module, and whether they pool a map that they gate."""

    def findings(self) -> Findings:
        run = self._first_run()
        calls: list[Any] = []
        for seed in range(1, _SEEDS + 1):
            before, calls = calls, [(call.frame.name, call.names[call.frame]) for call in run.calls]
            is_random = run.frames[0].is_random
            self._look_at(run)
            if not is_random or seed == _SEEDS or calls == before:
                break
            run = self._run(self._example, seed)
        rows = self._rows_of_first_image() if self._rows else {}
        poolings = [
            new for key in sorted(self._order, key=self._order.__getitem__) for new in self._pooling(key, rows.get(key))
        ]
        for name, left_out in self._others.items():
            if name not in self._gated:
                self._left_out.setdefault((left_out.name, left_out.reason), left_out)
        return Findings(poolings, list(self._left_out.values()))

    def _first_run(self) -> TwinRun:
        """A run on the example, or on a larger one where its maps are too small to show what pools them."""
        run = self._run(self._example)
        larger = _enlarged(run, self._example)
        if larger is not None:
            self._sizes = _sizes(run)
            try:
                run_larger = self._run(larger)
            except Exception:  # a network for images of one size: its small maps have to do
                return run
            run.forget()
            self._example, run = larger, run_larger
        return run

    def _run(self, example: Tensor, seed: int = 0, other_first: bool = False) -> TwinRun:
        """A run in training mode, where torch's own modules make the same calls without noise; else in evaluation."""
        device = next(self._model.parameters(), example).device
        generator = torch.Generator().manual_seed(seed + 1)
        images = torch.randn(3, *example.shape[1:], generator=generator, dtype=self._dtype)
        images = images[[2, 1] if other_first else [0, 1]].to("cpu" if device.type == "meta" else device)
        if not example.is_floating_point():
            images = example[:2].clone()
            if bool((images == images.flatten()[0]).all()):
                images = torch.randint(2, 100, (2, *example.shape[1:]), dtype=example.dtype, generator=generator)
        for mode in dict.fromkeys((self._training, False)):
            _seed_all(seed)
            run = TwinRun(twin_of(self._model, self._dtype, mode), self._dtype)
            try:
                run.record(images.clone())
            except Exception:
                run.forget()
                if not mode:
                    raise
                continue
            if self._training and not mode:
                self._note_silent(run)
            return run
        raise AssertionError

    def _look_at(self, run: TwinRun) -> None:
        """Take what a run shows, and let go of it."""
        judge = Judge(run)
        for frame in [] if self._looks else reversed(run.frames):
            self._entered[frame.name] = frame.number
        for (module, place), (pooling, map_, number) in judge.poolings.items():
            key = (module, _without_counts(place))
            first = self._when_called(module) if self._looks else number
            self._order.setdefault(key, (first, self._looks, number))
            if key not in self._found or (pooling.gates and not self._found[key].gates):
                self._found[key] = replace(pooling, pools_several=len(judge.maps[module]) > 1)
            self._counted.setdefault(key, set()).add(place)
            if key not in self._rows and (map_.shape[0] != 2 or len(map_.shape) > 4):
                self._rows[key] = map_.mean.view(map_.shape[0], -1)
        self._left_out = judge.left_out | self._left_out
        self._squared |= judge.squared
        self._gated |= {(name, _without_count(call)) for name, call in judge.gated}
        for (name, call), left_out in judge.others.items():
            self._others.setdefault((name, _without_count(call)), left_out)
        self._note_calls(run, judge)
        run.forget()
        self._looks += 1

    def _when_called(self, module: str) -> int:
        """When a module, or the next one around it, is called in the first look."""
        while module not in self._entered:
            module = module.rpartition(".")[0]
        return self._entered[module]

    def _note_calls(self, run: TwinRun, judge: Judge) -> None:
        """Note which calls of the functions that pool do so in this look."""
        taken = {(module, _without_count(place.mean_call)) for module, place in judge.poolings}
        functions = {call.function for _, call in taken} | {call.function for _, call in self._pools}
        for call in run.calls:
            for frame, name in call.names.items():
                if name.function in functions and not any(call is one for one in judge.repeated):
                    key = (frame.name, _without_count(name))
                    self._pools.setdefault(key, set()).add(key in taken)

    def _pooling(self, key: Key, rows: Tensor | None) -> Iterator[Pooling]:
        """The pooling at `key`, unless it is to be left out."""
        module, place = key
        pooling = self._found[key]
        if module in self._squared:
            return
        if len(self._pools[module, place.mean_call]) > 1:
            self._leave_out(pooling, CHANGING)
            return
        is_folded = False
        if rows is not None:
            if 2 * int(rows.sum()) > len(rows):
                self._leave_out(pooling, NOT_IMAGES)
                return
            is_folded = 2 < len(rows) == 2 * int(rows[: len(rows) // 2].sum())
        counted = self._counted[key]
        if len({replace(one, may_skip=False) for one in counted}) == 1:
            place = next(iter(counted))
        size = self._sizes.get((module, _without_count(place.map_call), place.path), pooling.map_size)
        place = replace(place, may_skip=any(one.may_skip for one in counted))
        yield replace(pooling, place=place, map_size=size, is_folded=is_folded)

    def _rows_of_first_image(self) -> dict[Key, Tensor]:
        """Which rows of the first axis of a map depend on the first of the two images."""
        run = self._run(self._example, other_first=True)
        rows = {}
        for (module, place), (_, map_, _) in Judge(run).poolings.items():
            key = (module, _without_counts(place))
            mean = map_.mean.view(map_.shape[0], -1)
            if key in self._rows and self._rows[key].shape == mean.shape:
                rows[key] = (self._rows[key] != mean).any(1)
        run.forget()
        return rows

    def _leave_out(self, pooling: Pooling, reason: str) -> None:
        self._left_out[pooling.module, reason] = LeftOut(pooling.module, pooling.kind, reason)

    def _note_silent(self, run: TwinRun) -> None:
        ran = {frame.name for frame in run.frames}
        for name, module in self._model.named_modules():
            if name not in ran and not is_of_torch(module) and next(module.parameters(), None) is not None:
                self._left_out[name, SILENT] = LeftOut(name, type(module).__name__, SILENT)


def _seed_all(seed: int) -> None:
    torch.manual_seed(seed)
    random.seed(seed)
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed(seed)


def _enlarged(run: TwinRun, example: Tensor) -> Tensor | None:
    """A larger example, where maps are too small to see what pools them."""
    height, width = example.shape[-2:]
    smallest = run.smallest_product() or _SMALLEST
    times = min(-(-_SMALLEST // smallest), -(-_LARGEST // min(height, width)))
    if times < 2 or min(height, width) >= _LARGE_ENOUGH:
        return None
    return example.new_empty(2, *example.shape[1:-2], height * times, width * (times + 1))


def _sizes(run: TwinRun) -> dict[tuple[str, Call, Path], tuple[int, int]]:
    """(H, W) of the maps that calls were given."""
    return {
        (frame.name, _without_count(name), path): (shape[-2], shape[-1])
        for call in run.calls
        for path, _, shape in call.given
        if len(shape) >= 4
        for frame, name in call.names.items()
    }


def _without_count(call: Call) -> Call:
    return replace(call, count=None, total=None)


def _without_counts(place: Place) -> Place:
    map_call, mean_call = _without_count(place.map_call), _without_count(place.mean_call)
    return replace(place, map_call=map_call, mean_call=mean_call, may_skip=False)
