"""A module whose own forward runs, in training with its global pooling answered by that over random regions.

Its class is exchanged for a subclass that says where the forward pools. Evaluation, and training at scale 1, are the
class's own forward. Object, children, parameters, keys and attributes stay as they are.
"""

from functools import cache
from typing import Any

import torch
from torch import nn
from torch.nn.utils.parametrize import is_parametrized

from srp_exp.srp.calls import Place
from srp_exp.srp.checkpointing import in_backward
from srp_exp.srp.pool import RegionPool
from srp_exp.srp.swap import Srp, run


class WithSrp:
    """Base of the classes that `put_into` makes; the other is the module's own class."""

    _srp: Srp | None = None
    training: bool

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        srp = self._srp
        if srp is None:
            raise RuntimeError(f"{type(self).__name__}: its own way to copy has lost its SRP: copy the plain module")
        own_forward: Any = super().forward if srp.own_forward is None else srp.own_forward  # type: ignore[misc]
        scale = srp.pool.scale
        if torch.compiler.is_compiling():
            scale = srp.pool.final_scale  # the present one may change without recompilation
        if not self.training or (scale == 1 and not in_backward()):
            return own_forward(*args, **kwargs)
        if getattr(self, "_is_replica", False):
            raise RuntimeError(
                "SRP draws the regions of a process at once: use DistributedDataParallel, not DataParallel"
            )
        return run(srp, type(self).__name__, own_forward, args, kwargs)

    def __init_subclass__(cls, **_: Any) -> None:
        """Not that of the module's class, which may put its subclasses into a list."""

    def __reduce_ex__(self, protocol: Any) -> Any:
        return _new, (_own_class(type(self)),), self.__getstate__()


def put_into(module: nn.Module, pool: RegionPool, places: tuple[Place, ...]) -> None:
    """Give `module` SRP, in place; TypeError where its class forbids that."""
    own_class: Any = type(module)
    module.__class__ = _with_srp(own_class)
    module.__dict__["_srp"] = Srp(pool, places, module.__dict__.pop("forward", None))


def take_out_of(module: nn.Module) -> None:
    """Make `module` the plain one again, in place."""
    srp = module.__dict__.pop("_srp", None)
    if srp is not None and srp.own_forward is not None:
        module.__dict__["forward"] = srp.own_forward
    module.__class__ = _own_class(type(module))


def is_parametrized_since(module: nn.Module) -> bool:
    """Whether a parametrization has derived a class from that with SRP for `module`, which would be lost without it."""
    on_top = isinstance(module, WithSrp) and type(module) is not _with_srp(_own_class(type(module)))
    return on_top and is_parametrized(module)


def _own_class(kind: type) -> Any:
    bases = kind.__mro__  # other code may have put a class of its own on top
    return bases[bases.index(WithSrp) + 1]


@cache
def _with_srp(own_class: Any) -> Any:
    names = {"__doc__": own_class.__doc__, "__module__": own_class.__module__}
    return type(own_class.__name__, (WithSrp, own_class), names)


def _new(own_class: type) -> Any:
    """A bare module, for pickle and copy."""
    kind = _with_srp(own_class)
    return object.__new__(kind)
