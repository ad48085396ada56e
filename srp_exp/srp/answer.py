"""A module's own forward, run in training with its global pooling answered by that over random regions."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from srp_exp.srp.calls import NamedCalls, Place, pick
from srp_exp.srp.pool import RegionPool, Regions

_SKIPPED = 500
"""Forwards in a row that may skip the pooling by chance."""
_REMEDY = "call remove_srp and apply_srp again"


@dataclass(eq=False)
class Srp:
    """What a module with SRP needs: its pool, where it pools, and a forward that was an attribute of its own."""

    pool: RegionPool
    places: tuple[Place, ...]
    own_forward: Callable[..., Any] | None = None
    types: dict[Any, torch.dtype] = field(default_factory=dict)
    """Of the means that the forward makes, by what it depends on."""
    version: int = 0
    """Of the pool's regions when the forward last ran outside of a backward pass."""
    skipped: int = 0
    """How many forwards in a row have pooled nothing."""

    def __post_init__(self) -> None:
        self.calls = [call for place in self.places for call in (place.map_call, place.mean_call)]
        self.functions = tuple(dict.fromkeys(call.function for call in self.calls))
        self.is_countable = all(call.total is not None for call in self.calls)  # by compiled code, which counts calls


class Answer(NamedCalls):
    """Answers the calls at the places of a module with SRP, of the class `name`."""

    def __init__(self, srp: Srp, name: str, around: int) -> None:
        super().__init__(around, srp.calls, srp.functions)
        self._srp, self._name = srp, name
        self._maps: list[tuple[Tensor, int] | None] = [None] * len(srp.places)
        """The map of each place, and how often it had been written to."""
        self._drawn: list[tuple[Tensor, Regions | None]] = []

    def on_call(self, index: int, func: Any, args: Any, kwargs: Any) -> Tensor | None:
        place = self._srp.places[index // 2]
        if index % 2 == 0:
            map_ = pick(args, kwargs, place.path)
            self._maps[index // 2] = (map_, self._version(map_))
            return None
        given = self._maps[index // 2]
        places = zip(self._srp.places, self._maps, strict=True)
        if given is None and any(other.mean_call == place.mean_call and map_ for other, map_ in places):
            return None  # of a branch that wasn't taken; the call gives the mean of a different place
        if self.checkpointed:
            raise RuntimeError(
                f"{self._name}: pools inside of a checkpoint(...) of its own forward, which would compute it again "
                f"without its regions: checkpoint the whole module instead"
            )
        mean = self._mean(place, given, func, args, kwargs)
        self.is_done = len(self._drawn) == len(self._srp.places)
        return mean

    def check(self) -> None:
        """Raise RuntimeError where the forward hasn't made the calls for which SRP was put in."""
        if self._is_compiled:
            for call, count in zip(self._srp.calls, self._seen, strict=True):
                if count not in (0, call.total):
                    raise RuntimeError(
                        f"{self._name}: SRP was put in for {call.total} calls of {call.function.__name__}, and "
                        f"compiled code makes {count}: {_REMEDY}, or don't compile this module"
                    )
        if self._drawn:
            self._srp.skipped = 0
        else:
            self._srp.skipped += 1
        if len(self._drawn) < len(self._srp.places):
            for map_, place in zip(self._maps, self._srp.places, strict=True):
                if map_ is None and not (place.may_skip and self._srp.skipped < _SKIPPED):
                    raise RuntimeError(
                        f"{self._name}: the forward didn't make the call of {place.mean_call.function.__name__} for "
                        f"which SRP was put in: a hook, a flag or a branch has changed since; {_REMEDY}"
                    )

    def _mean(self, place: Place, given: Any, func: Any, args: Any, kwargs: Any) -> Tensor | None:
        map_, version = (None, 0) if given is None else given
        if map_ is None or map_.dim() < 4 or map_.shape[1:-2].numel() != place.channels:
            raise RuntimeError(
                f"{self._name}: {place.mean_call.function.__name__} gives the mean of a different map than that for "
                f"which SRP was put in; {_REMEDY}"
            )
        if self._version(map_) != version:
            raise RuntimeError(
                f"{self._name}: its map is written to in place between the two calls that give its mean, and SRP would "
                f"pool the new values: write to a copy, or choose other modules with where=..."
            )
        known = [regions for drawn_for, regions in self._drawn if drawn_for is map_]
        regions = known[0] if known else self._srp.pool.draw(map_)  # the same wherever the forward pools it
        self._drawn.append((map_, regions))
        if regions is None:
            return None
        kind = self._type(map_, func, args, kwargs)
        if kind.itemsize > map_.dtype.itemsize:
            map_ = map_.to(kind)
        pooled = self._srp.pool.pool(map_, regions)
        if pooled.shape[1:] != place.shape:
            pooled = pooled.reshape(map_.shape[0], *place.shape)
        return pooled if pooled.dtype == kind else pooled.to(kind)

    def _version(self, map_: Tensor) -> int:
        """How often a map was written to, where that is known."""
        return 0 if self._is_compiled or map_.is_inference() else map_._version

    def _type(self, map_: Tensor, func: Any, args: Any, kwargs: Any) -> torch.dtype:
        """The type that the plain call gives: autocast or an argument may change it. It is called once to see."""
        if self._is_compiled:
            return func(*args, **kwargs).dtype  # type: ignore[no-any-return]  # the compiler drops what nobody uses
        device, dtype = map_.device.type, kwargs.get("dtype")
        is_autocast = torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)
        if dtype is None and not is_autocast:
            return map_.dtype
        key = (func, map_.dtype, dtype, torch.get_autocast_dtype(device) if is_autocast else None)
        if key not in self._srp.types:
            with torch.no_grad():
                self._srp.types[key] = func(*args, **kwargs).dtype
        return self._srp.types[key]
