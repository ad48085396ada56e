"""One run of a model's twin: its calls of torch functions, the maps that they are given, and what returns their means.

Autograd records what comes from what. So that it records all, gradients stay enabled where the forward disables them,
and a detached value stays attached; checkpoint(...) just calls its function.
"""

import random
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils import checkpoint as torch_checkpoint

from srp_exp.srp.calls import CHECKPOINT, Call, Path, instruction, is_code_of_user
from srp_exp.srp.finding.graph import FACTORS, Edge, edge_of
from srp_exp.srp.finding.maps import Map, maps_of
from srp_exp.srp.finding.twin import is_of_torch

_DETACHING = {Tensor.detach, torch.detach, Tensor.data.__get__}  # type: ignore[attr-defined]
_LEAVING: set[Any] = {Tensor.numpy, Tensor.__array__}
_CASTS = {Tensor.float: Tensor.double, Tensor.half: Tensor.double, Tensor.bfloat16: Tensor.double}
_LOWER = (torch.float32, torch.float16, torch.bfloat16)


@dataclass(eq=False)
class Frame:
    """A call of a module, in the call of another one."""

    module: nn.Module
    name: str
    outer: "Frame | None"
    number: int
    """Of the calls before it in the run."""
    counts: Counter[Any] = field(default_factory=Counter)
    """Its calls by function, and by function and site."""
    only_pools: bool = False
    """Whether its result is a mean that was taken in it."""
    is_random: bool = False
    """Whether random numbers were drawn in it."""

    def chain(self) -> "list[Frame]":
        """This and the frames around it, innermost first."""
        return [self, *(self.outer.chain() if self.outer else [])]

    def common(self, other: "Frame") -> "Frame":
        """The innermost frame around both."""
        around = other.chain()
        return next(frame for frame in self.chain() if frame in around)

    def of_user(self) -> "Frame":
        """The innermost frame whose module isn't torch's own and does more than to pool."""
        frames = self.chain()
        return next((f for f in frames if not (f.only_pools or is_of_torch(f.module))), frames[-1])


@dataclass(eq=False)
class FunctionCall:
    """A call: its names as seen from the frames around it, and the tensors that it was given."""

    frame: Frame
    number: int
    names: dict[Frame, Call]
    given: list[tuple[Path, Edge | None, torch.Size]]
    checkpointed: set[Frame]
    """The frames that make it inside of a checkpoint(...) of their forward."""


@dataclass(eq=False)
class FoundMean:
    """The mean of `maps`, which have the same; `call` is None where no call of a torch function returned it."""

    maps: list[Map]
    edge: Edge
    frame: Frame
    call: FunctionCall | None
    shape: tuple[int, ...]
    calls: dict[Map, dict[Frame, tuple[Call, Path]]]
    """Where each map was when the mean was taken."""


class TwinRun(TorchFunctionMode):
    """What happens in a run, in its order. `made_by`: the calls by the nodes that they put into autograd's graph."""

    def __init__(self, twin: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        self.frames: list[Frame] = []
        self.calls: list[FunctionCall] = []
        self.means: list[FoundMean] = []
        self.multiples: list[tuple[Edge, set[Edge]]] = []
        """Values that are a multiple of the mean of maps, such as a sum, and the maps."""
        self.maps: dict[Edge, list[Map]] = {}
        self.made_by: dict[Any, FunctionCall] = {}
        self._by_size: dict[int, list[Map]] = {}
        self._frame: Frame | None = None
        self._forwards: list[_Forward] = []
        self._is_integer = False
        self._twin, self._is_exact = twin, dtype == torch.float64

    def record(self, images: Tensor) -> None:
        """Run the twin on `images`."""
        for name, module in self._twin.named_modules():
            if not isinstance(module, torch.jit.ScriptModule):
                self._forwards.append(_Forward(self, module, name))
        self._is_integer = not images.is_floating_point()  # what is computed of them begins the graph
        images.requires_grad_(not self._is_integer)
        with torch.enable_grad(), _without_checkpoints(), self:
            self._twin(images.clone())

    def forget(self) -> None:
        """Let go of all values, which refer to each other."""
        for forward in self._forwards:
            forward.undo()
        vars(self).clear()

    def smallest_product(self) -> int | None:
        """The shortest side of the maps (B, C, H, W) that are products; None where none is."""
        shapes = [node._input_metadata[0].shape for node in self.made_by if node.name() in FACTORS]
        return min((min(shape[-2:]) for shape in shapes if len(shape) >= 4), default=None)

    def enter(self, module: nn.Module, name: str, given: Any) -> Frame:
        """Note that a module is called with what is `given`."""
        self._frame = Frame(module, name, self._frame, len(self.calls))
        self.frames.append(self._frame)
        with torch._C.DisableTorchFunction(), torch.no_grad():
            for _, tensor in tensors_in(given):
                self._see(tensor)  # TorchScript may take its mean
        return self._frame

    def leave(self, frame: Frame, result: Any) -> None:
        """Note that it returns `result`."""
        self._frame = frame.outer
        if isinstance(result, Tensor):
            with torch._C.DisableTorchFunction():
                means = [mean for mean in self.means if frame in mean.frame.chain()]
                frame.only_pools = any(map_.holds_mean(result) for mean in means for map_ in mean.maps)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is torch._C._set_grad_enabled:
            return None
        if func in _DETACHING:
            return torch.ops.aten.alias(args[0])
        if func in _LEAVING:
            return func(args[0].detach(), *args[1:], **kwargs)
        if self._frame is None or func.__name__ == "__get__":  # a property has no identity
            return func(*args, **kwargs)
        if self._is_exact:
            func, args, kwargs = _CASTS.get(func, func), _exact(args), {k: _exact(v) for k, v in kwargs.items()}
        out = kwargs.pop("out", None)  # autograd takes none
        with torch._C.DisableTorchFunction(), torch.no_grad():
            call, held = self._note_call(self._frame, func, args, kwargs)
        result = func(*args, **kwargs)
        given = [tensor for _, tensor in tensors_in((args, kwargs))]
        if isinstance(out, Tensor):
            result = out.copy_(result)
            given.append(out)
        if self._is_integer and isinstance(result, Tensor) and result.is_floating_point():
            result.requires_grad_(result.requires_grad or not all(one.is_floating_point() for one in given))
        with torch._C.DisableTorchFunction(), torch.no_grad():
            for _, tensor in tensors_in(result):
                self._note_result(call, tensor, held, tensor is result and not any(tensor is one for one in given))
        return result

    def _note_call(self, frame: Frame, func: Any, args: Any, kwargs: Any) -> tuple[FunctionCall, list[Map]]:
        """The call, and the maps whose mean it was given."""
        call = FunctionCall(frame, len(self.calls), {}, [], set())
        self.calls.append(call)
        self._name(call, func, sys._getframe(2))
        held = []
        for path, tensor in tensors_in((args, kwargs)):
            for map_ in self._see(tensor):
                map_.calls |= {outer: (name, path) for outer, name in call.names.items()}
            edge = edge_of(tensor)
            call.given.append((path, edge, tensor.shape))
            of_tensor = [map_ for map_ in self._by_size.get(tensor.numel(), []) if map_.holds_mean(tensor)]
            known = [map_ for mean in self.means for map_ in mean.maps] if of_tensor else []
            if edge is not None and of_tensor and not any(map_ in known for map_ in of_tensor):
                self._add_mean(of_tensor, edge, None, frame, tensor)  # which no call has returned
            held += of_tensor
        return call, held

    def _note_result(self, call: FunctionCall, value: Tensor, held: list[Map], is_new: bool) -> None:
        edge = edge_of(value)
        if edge is None:
            return
        candidates = [m for m in self._by_size.get(value.numel(), []) if m not in held] if is_new else []
        maps = [map_ for map_ in candidates if map_.holds_mean(value)]
        if maps:
            self._add_mean(maps, edge, call, call.frame, value)
        elif multiples := {map_.edge for map_ in candidates if map_.holds_multiple(value)}:
            self.multiples.append((edge, multiples))
        waiting = [edge.node]
        while waiting:
            node = waiting.pop()
            if node not in self.made_by:
                self.made_by[node] = call
                waiting += [other for other, _ in node.next_functions if other is not None]

    def _add_mean(self, maps: list[Map], edge: Edge, call: FunctionCall | None, frame: Frame, value: Tensor) -> None:
        calls = {map_: dict(map_.calls) for map_ in maps}
        self.means.append(FoundMean(maps[::-1], edge, frame, call, tuple(value.shape[1:]), calls))

    def _see(self, tensor: Tensor) -> list[Map]:
        """The map that `tensor` is, once for each kind that it may be."""
        edge = edge_of(tensor)
        if edge is None:
            return []
        if edge not in self.maps:
            self.maps[edge] = maps_of(edge, tensor.detach())
            for map_ in self.maps[edge]:
                self._by_size.setdefault(map_.mean.numel(), []).append(map_)
        return self.maps[edge]

    def _name(self, call: FunctionCall, func: Any, python: FrameType | None) -> None:
        """Name the call as each of the frames around it does."""
        site: tuple[tuple[str, int, int], ...] = ()
        is_checkpointed, frames = False, len(call.frame.chain())
        while len(call.names) < frames and python is not None:
            if python.f_code is _Forward.__call__.__code__:
                frame: Frame = python.f_locals["frame"]
                frame.counts.update([func, (func, site)])
                call.names[frame] = Call(func, site, frame.counts[func, site], frame.counts[func], None)
                if is_checkpointed:
                    call.checkpointed.add(frame)
            elif is_code_of_user(python.f_code.co_filename):
                site += (instruction(python),)
            elif python.f_code.co_filename == CHECKPOINT:
                is_checkpointed = True
            python = python.f_back


class _Forward:
    """The forward of a module of the twin, which tells the run when it is entered and left."""

    def __init__(self, run: TwinRun, module: nn.Module, name: str) -> None:
        self._run, self._module, self._name, self._own = run, module, name, module.forward
        module.forward = self

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        frame = self._run.enter(self._module, self._name, (args, kwargs))
        before = _random_state()
        result = self._own(*args, **kwargs)
        frame.is_random = before != _random_state()
        self._run.leave(frame, result)
        return result

    def undo(self) -> None:
        """Let go of the module, which refers to this."""
        self._module.__dict__.pop("forward", None)
        vars(self).clear()


def tensors_in(value: Any, path: Path = ()) -> Iterator[tuple[Path, Tensor]]:
    """The tensors in tuples, lists and dictionaries, each with the keys that lead to it."""
    if isinstance(value, Tensor):
        yield path, value
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from tensors_in(inner, (*path, key))
    elif isinstance(value, tuple | list):
        for index, inner in enumerate(value):
            yield from tensors_in(inner, (*path, index))


def _exact(value: Any) -> Any:
    """float64 for every lower type: rounding would blur what is looked for."""
    if isinstance(value, torch.dtype):
        return torch.float64 if value in _LOWER else value
    if isinstance(value, Tensor):
        return value.double() if value.dtype in _LOWER else value
    return type(value)(map(_exact, value)) if type(value) in (list, tuple) else value


def _random_state() -> list[Any]:
    states = [torch.get_rng_state().numpy().tobytes(), random.getstate()]
    if torch.cuda.is_initialized():
        states += [state.cpu().numpy().tobytes() for state in torch.cuda.get_rng_state_all()]
    if "numpy" in sys.modules:
        states.append(sys.modules["numpy"].random.get_state()[1].tobytes())
    return states


def _just_call(function: Any, preserve: bool, *args: Any) -> Any:
    return function(*args)


def _around_nothing(*_: Any, **__: Any) -> Iterator[None]:
    yield


@contextmanager
def _without_checkpoints() -> Iterator[None]:
    """checkpoint(...) just calls its function: computed again, it would not be in the graph."""
    names = ("_checkpoint_without_reentrant_generator", "_checkpoint_without_reentrant_generator_impl")
    own = {name: getattr(torch_checkpoint, name) for name in names if hasattr(torch_checkpoint, name)}
    for name in own:
        setattr(torch_checkpoint, name, _around_nothing)
    torch_checkpoint.CheckpointFunction.apply = staticmethod(_just_call)
    try:
        yield
    finally:
        for name, value in own.items():
            setattr(torch_checkpoint, name, value)
        del torch_checkpoint.CheckpointFunction.apply
