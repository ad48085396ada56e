"""Run a model without a trace: afterwards every attribute has the value that it had, and every random state too."""

import copy
import random
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from types import FunctionType, ModuleType
from typing import Any

import torch
from torch import Tensor, nn

_PLAIN = (type(None), bool, int, float, complex, str, bytes, type, ModuleType, torch.dtype, torch.device, torch.Size)


@contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Every module of `model` in evaluation mode; afterwards each is in the mode in which it was."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


@contextmanager
def undisturbed(model: nn.Module, dtype: torch.dtype) -> Iterator[None]:
    """Give `model` stand-ins of `dtype` for its parameters and buffers, and restore all of it at the end.

    A parameter of equal numbers, not finite, or on the meta device gets random values: a zero hides what follows it; a
    gain of 1, or weights of 1 / (H * W), leave or make a mean only until they are trained. What is on the meta device
    comes to the CPU. Restored are the attributes of the modules and of the plain objects, containers and generators
    that they hold, and the random states of Python, numpy and torch.
    """
    default, devices = torch.get_default_dtype(), {t.device for t in model.parameters() if t.device.type == "cuda"}
    with ExitStack() as stack:
        for kept in _random_states():
            stack.callback(*kept)
        stack.enter_context(torch.random.fork_rng(sorted(device.index for device in devices)))
        stack.callback(torch.set_default_dtype, default)
        snapshot = _Snapshot()
        stack.callback(snapshot.restore)
        snapshot.take(model)
        torch.manual_seed(0)
        torch.set_default_dtype(dtype)
        _replace_tensors(model, dtype)
        yield


def _random_states() -> Iterator[tuple[Any, ...]]:
    yield random.setstate, random.getstate()
    if "numpy" in sys.modules:
        numpy = sys.modules["numpy"]
        yield numpy.random.set_state, numpy.random.get_state()


class _Snapshot:
    """The values of all that can be reached from a model, by reference, and of tensors by value."""

    def __init__(self) -> None:
        self._seen: dict[int, Any] = {}
        self._contents: list[tuple[Any, Any]] = []
        self._tensors: list[tuple[Tensor, Tensor, int]] = []
        self._states: list[tuple[Any, Any]] = []

    def take(self, root: Any) -> None:
        waiting = [root]
        while waiting:
            thing = waiting.pop()
            if isinstance(thing, _PLAIN) or id(thing) in self._seen:
                continue
            self._seen[id(thing)] = thing  # which keeps its id
            waiting += self._note(thing)

    def _note(self, thing: Any) -> list[Any]:
        """Note what `thing` holds, and return it."""
        if isinstance(thing, nn.Parameter):
            return []  # stand-ins take its place
        if isinstance(thing, Tensor):
            if not thing.is_meta:
                with torch.no_grad():
                    self._tensors.append((thing, thing.detach().clone(), thing._version))
            return []
        state = _state(thing)
        if state is not None:
            self._states.append(state)
            return []
        if isinstance(thing, dict | list | set) or (
            hasattr(thing, "clear") and hasattr(thing, "extend")
        ):  # a deque too
            held = list(thing.items()) if isinstance(thing, dict) else list(thing)
            self._contents.append((thing, held))
            return [value for _, value in held] if isinstance(thing, dict) else held
        if isinstance(thing, tuple | frozenset):
            return list(thing)
        if hasattr(thing, "__self__") or isinstance(thing, FunctionType):
            return [thing.__self__] if isinstance(getattr(thing, "__self__", None), nn.Module) else []
        slots = [name for name in _slots(thing) if hasattr(thing, name)]
        self._states += [(partial(setattr, thing, name), getattr(thing, name)) for name in slots]
        return [getattr(thing, name) for name in slots] + ([vars(thing)] if hasattr(thing, "__dict__") else [])

    def restore(self) -> None:
        for container, held in self._contents:
            now = list(container.items()) if isinstance(container, dict) else list(container)
            if len(now) == len(held) and all(_same(a, b) for a, b in zip(now, held, strict=True)):
                continue
            container.clear()
            container.extend(held) if hasattr(container, "extend") else container.update(held)
        with torch.no_grad():
            for tensor, value, version in self._tensors:
                if tensor._version != version:
                    tensor.detach().copy_(value)
        for restore, state in self._states:
            restore(state)


def _state(thing: Any) -> tuple[Any, Any] | None:
    """How to restore something whose state isn't in attributes, and the state that it has; None of other things."""
    if isinstance(thing, torch.Generator):
        return thing.set_state, thing.get_state()
    if isinstance(thing, random.Random):
        return thing.setstate, thing.getstate()
    numpy = sys.modules.get("numpy")
    if numpy is None:
        return None
    if isinstance(thing, numpy.random.RandomState):
        return thing.set_state, thing.get_state()
    if isinstance(thing, numpy.random.Generator):
        return partial(setattr, thing.bit_generator, "state"), copy.deepcopy(thing.bit_generator.state)
    if isinstance(thing, numpy.ndarray) and thing.flags.writeable:
        return partial(numpy.copyto, thing), thing.copy()
    return None


def _slots(thing: Any) -> list[str]:
    """The attributes of `thing` that are in slots of Python classes."""
    names: list[str] = []
    for kind in type(thing).__mro__:
        slots = vars(kind).get("__slots__", ())
        names += [slots] if isinstance(slots, str) else list(slots)
    return [name for name in names if not name.startswith("__")]


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, tuple) and isinstance(other, tuple) and len(one) == len(other) == 2:
        return one[0] is other[0] and one[1] is other[1]
    return one is other


def _replace_tensors(model: nn.Module, dtype: torch.dtype) -> None:
    stand_ins: dict[int, Any] = {}
    for module in model.modules():
        if isinstance(module, torch.jit.ScriptModule):  # its tensors are not Python's
            continue
        for name, parameter in module._parameters.items():
            if parameter is not None:
                new = stand_ins.setdefault(id(parameter), nn.Parameter(_stand_in(parameter, dtype, True), False))
                module._parameters[name] = new
        for name, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[name] = stand_ins.setdefault(id(buffer), _stand_in(buffer, dtype, False))


def _is_constant(value: Tensor) -> bool:
    """Whether all of it is one number."""
    return bool((value == value.flatten()[:1]).all())


def _stand_in(tensor: Tensor, dtype: torch.dtype, of_parameter: bool) -> Tensor:
    if not tensor.is_floating_point():
        return torch.zeros(tensor.shape, dtype=tensor.dtype) if tensor.is_meta else tensor.detach().clone()
    if not tensor.is_meta:
        value = tensor.detach().to(dtype, copy=True)
        if not of_parameter or (not _is_constant(value) and bool(value.isfinite().all())):
            return value
    device = torch.device("cpu") if tensor.is_meta else tensor.device
    if tensor.dim() < 2:  # a gain, a bias, a mean or a variance
        return torch.rand(tensor.shape, dtype=dtype, device=device) + 0.5
    outputs, fan_in = tensor.shape[0], max(1, tensor[0].numel())
    # Rows overlap in memory: a network of a billion parameters on the meta device shall not need as much.
    values = torch.randn(outputs + fan_in, dtype=dtype, device=device) * (2 / fan_in) ** 0.5
    stand_in: Tensor = values.as_strided(tensor.shape, (1, *tensor[0].contiguous().stride()))
    return stand_in
