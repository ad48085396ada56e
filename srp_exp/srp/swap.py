"""A forward that runs with its global pooling answered by that over random regions.

It is Python and stays as it is: where it pools is known by the number of the call (srp_exp.srp.calls).
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from srp_exp.srp.calls import Call, CountedCalls, Place, pick
from srp_exp.srp.checkpointing import checkpointed_parts, follow_checkpoint, in_backward
from srp_exp.srp.pool import RegionPool
from srp_exp.srp.region import Numbers


@dataclass(eq=False)
class Srp:
    """What a module with SRP needs: its pool, where it pools, and a forward that was an attribute of its own."""

    pool: RegionPool
    places: tuple[Place, ...]
    own_forward: Callable[..., Any] | None = None
    types: dict[Any, torch.dtype] = field(default_factory=dict)
    """Of the means that the forward makes, by what it depends on."""


def run(srp: Srp, name: str, function: Callable[..., Any], args: Any, kwargs: Any, again: bool = False) -> Any:
    """`function`, the forward of the module `name`, with its calls answered; or a part of it, computed `again`."""
    draws = srp.pool.draws
    swap = draws.running = _Swap(srp, name, draws.running, again)
    try:
        with swap:
            result = function(*args, **kwargs)
    finally:
        draws.running = swap.outer
    if not (again or in_backward()):  # a part that is computed again may stop early
        swap.check_number()
    return result


class _Swap(CountedCalls):
    """Answers the calls at the places of a module with SRP.

    `outer` is that of a module around it, which counts the calls of this one too, as the search did.
    """

    def __init__(self, srp: Srp, name: str, outer: "_Swap | None", again: bool) -> None:
        calls = [call for place in srp.places for call in (place.map_call, place.mean_call)]
        super().__init__(tuple(call.function for call in calls))
        self.outer = outer
        self._srp, self._name, self._again, self._answers = srp, name, again, False
        self._maps: list[Tensor | None] = [None] * len(srp.places)
        self._taken: list[tuple[Tensor, Numbers]] = []

    def is_active(self) -> bool:
        return not self._answers

    def on_call(self, func: Any, number: int, args: Any, kwargs: Any) -> Any:
        for index, place in enumerate(self._srp.places):
            if self._is(place.map_call, func, number):
                self._maps[index] = pick(args, kwargs, place.path)
        for index, place in enumerate(self._srp.places):
            if self._is(place.mean_call, func, number):
                map_ = self._map(index, place)
                numbers = self._numbers(map_)
                if numbers is None:
                    break
                if not self._again and not torch.compiler.is_compiling():
                    self._check_checkpoint(place)
                self._answer(True)
                try:
                    return self._pooled(map_, numbers, place, func, args, kwargs)
                finally:
                    for swap in self._answer(False)[1:]:  # as if they had seen the call
                        if func in swap.functions:
                            swap.count(func)
        return func(*args, **kwargs)

    def check_number(self) -> None:
        """Raise RuntimeError where the forward has pooled another number of times than when SRP was put in."""
        for place in self._srp.places:
            functions = place.map_call.function, place.mean_call.function
            counts = tuple(self.counts[self.functions.index(function)] for function in functions)
            if counts not in place.calls:
                index = counts[1] != place.calls[-1][1]
                raise RuntimeError(
                    f"{self._name}: SRP was put in for {place.calls[-1][index]} calls of {functions[index].__name__}, "
                    f"and the forward made {counts[index]}: a hook, a flag or a branch has changed since; call "
                    f"remove_srp and apply_srp again"
                )

    def _numbers(self, map_: Tensor) -> Numbers | None:
        """The same for one map wherever a forward pools it."""
        for known, numbers in self._taken:
            if known is map_:
                return numbers
        own = self._srp.pool.numbers(map_)
        if own is not None:
            self._taken.append((map_, own))
        return own

    def _pooled(self, map_: Tensor, numbers: Numbers, place: Place, func: Any, args: Any, kwargs: Any) -> Tensor:
        kind = self._type(map_, func, args, kwargs)
        if kind.itemsize > map_.dtype.itemsize:
            map_ = map_.to(kind)
        shape = (map_.shape[0], *place.shape)
        pooled = self._srp.pool.pool(map_, numbers)
        pooled = pooled if pooled.shape == shape else pooled.reshape(shape)
        return pooled.to(kind)

    def _answer(self, begins: bool) -> "list[_Swap]":
        """What an answer calls isn't of the forward, nor of those around it: this and their swaps, innermost first."""
        swaps: list[_Swap] = [self]
        while (outer := swaps[-1].outer) is not None:
            swaps.append(outer)
        for swap in swaps:
            swap._answers = begins
        return swaps

    def _check_checkpoint(self, place: Place) -> None:
        forward = run.__code__
        parts = checkpointed_parts(forward)
        if place.mean_call.number_there is not None and parts == 1:
            if not follow_checkpoint(forward, lambda part: _again(part, self._srp, self._name)):
                raise RuntimeError(
                    f"{self._name}: SRP can't follow the checkpoint(...) in its forward in this version of torch"
                )
        elif parts:
            raise RuntimeError(
                f"{self._name}: SRP can't follow the checkpoint(...) in its forward, which is "
                f"{'inside of another one' if parts > 1 else 'new since SRP was put in, or made for gradients only'}; "
                f"checkpoint the whole module instead"
            )

    def _is(self, call: Call, func: Any, number: int) -> bool:
        return func is call.function and number == (call.number_there if self._again else call.number)

    def _map(self, index: int, place: Place) -> Tensor:
        map_, channels = self._maps[index], torch.Size(place.shape).numel()
        if map_ is None or map_.dim() < 4 or map_.shape[1:-2].numel() != channels:
            raise RuntimeError(
                f"{self._name}: SRP meets another call than that which it was put in for; the forward takes another "
                f"branch now: call remove_srp and apply_srp again"
            )
        return map_

    def _type(self, map_: Tensor, func: Any, args: Any, kwargs: Any) -> torch.dtype:
        """The type that the plain call gives: autocast or an argument may change it. It is called once to see."""
        if torch.compiler.is_compiling():
            return func(*args, **kwargs).dtype  # type: ignore[no-any-return]  # the compiler drops what nobody uses
        device, autocast = map_.device.type, None
        if torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device):
            autocast = torch.get_autocast_dtype(device)
        key = (func, map_.dtype, autocast, kwargs.get("dtype"))
        if key not in self._srp.types:
            with torch.no_grad():
                self._srp.types[key] = func(*args, **kwargs).dtype
        return self._srp.types[key]


def _again(function: Callable[..., Any], srp: Srp, name: str) -> Callable[..., Any]:
    """`function`, a part of a forward, as it is to be computed again."""

    def compute_again(*args: Any, **kwargs: Any) -> Any:
        return run(srp, name, function, args, kwargs, again=True)

    return function if getattr(function, "follows_srp", None) is srp else _marked(compute_again, srp)


def _marked(function: Any, srp: Srp) -> Any:
    function.follows_srp = srp
    return function
