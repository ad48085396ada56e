"""A module whose own forward runs, in training with its global pooling answered by that over random regions.

Its class is exchanged for a subclass that says where the forward pools. Evaluation, and training at scale 1, are the
class's own forward. Object, children, parameters, keys and attributes stay as they are.
"""

import sys
from functools import cache
from typing import Any

import torch
from torch import nn
from torch.nn.utils.parametrize import is_parametrized

from srp_exp.srp.answer import Answer, Srp
from srp_exp.srp.calls import Place
from srp_exp.srp.pool import RegionPool


class WithSrp:
    """Base of the classes that `put_into` makes; the other is the module's own class."""

    _srp: Srp | None = None
    training: bool

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        srp: Srp | None = self.__dict__.get("_srp")
        if srp is None:
            raise RuntimeError(
                f"{type(self).__name__}: a custom __deepcopy__ dropped SRP, or remove_srp came between: apply_srp again"
            )
        own_forward: Any = super().forward if srp.own_forward is None else srp.own_forward  # type: ignore[misc]
        scale = srp.pool.scale
        if torch.compiler.is_compiling():
            scale = srp.pool.final_scale  # the present one may change without recompilation
        else:
            _check_computed_again(srp, self)
        if not self.training or scale == 1:
            return own_forward(*args, **kwargs)
        if "_is_replica" in self.__dict__:
            raise RuntimeError("SRP has one pool for all replicas: use DistributedDataParallel, not DataParallel")
        return _run(srp, type(self).__name__, own_forward, args, kwargs)

    def __init_subclass__(cls, **_: Any) -> None:
        """Not that of the module's class, which may put its subclasses into a list."""

    def __reduce_ex__(self, protocol: Any) -> Any:
        is_countable = self._srp is None or self._srp.is_countable
        return _new, (_own_class(type(self)), is_countable), self.__getstate__()


def _run(srp: Srp, name: str, own_forward: Any, args: Any, kwargs: Any) -> Any:
    """The own forward of a module of class `name`, with its calls answered."""
    answer = Answer(srp, name, 0 if torch.compiler.is_compiling() else id(sys._getframe()))
    with answer:
        result = own_forward(*args, **kwargs)
    answer.check()
    return result


def _check_computed_again(srp: Srp, module: WithSrp) -> None:
    """Raise RuntimeError where a backward pass runs the forward again, and its scale or regions have changed since."""
    if torch._C._current_graph_task_id() == -1:
        srp.version = srp.pool.version
    elif srp.version != srp.pool.version:
        raise RuntimeError(
            f"{type(module).__name__} is computed again by activation checkpointing, and its SRP has changed since the "
            f"forward pass: call backward before set_progress or fix_regions"
        )


def put_into(module: nn.Module, pool: RegionPool, places: tuple[Place, ...]) -> None:
    """Give `module` SRP, in place; TypeError where its class forbids that."""
    own_class: Any = type(module)
    srp = Srp(pool, places)
    module.__class__ = _with_srp(own_class, srp.is_countable)
    srp.own_forward = module.__dict__.pop("forward", None)
    module.__dict__["_srp"] = srp


def take_out_of(module: nn.Module) -> None:
    """Make `module` the plain one again, in place."""
    srp = module.__dict__.pop("_srp", None)
    if srp is not None and srp.own_forward is not None:
        module.__dict__["forward"] = srp.own_forward
    module.__class__ = _own_class(type(module))


def is_parametrized_since(module: nn.Module) -> bool:
    """Whether a parametrization has derived a class from that with SRP for `module`, which would be lost without it."""
    is_on_top = isinstance(module, WithSrp) and "_own_class" not in vars(type(module))
    return is_on_top and is_parametrized(module)


def _own_class(kind: Any) -> Any:
    return kind._own_class  # other code may have put a class of its own on top


@cache
def _with_srp(own_class: Any, is_countable: bool) -> Any:
    names = {"__doc__": own_class.__doc__, "__module__": own_class.__module__, "_own_class": own_class}
    if not is_countable:  # compiled code can't tell its calls apart
        reason = "the calls of a forward with SRP differ from run to run"
        names["forward"] = torch.compiler.disable(WithSrp.forward, reason=reason)
    return type(own_class.__name__, (WithSrp, own_class), names)


def _new(own_class: type, is_countable: bool) -> Any:
    """A bare module, for pickle and copy."""
    kind = _with_srp(own_class, is_countable)
    return object.__new__(kind)
