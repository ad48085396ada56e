"""Record one run of a module: its calls of modules and of torch functions, and what they computed from what.

The calls are numbered, for these are what can be answered otherwise later.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from srp_exp.srp.calls import Call, Path, Place, pick
from srp_exp.srp.checkpointing import innermost_part
from srp_exp.srp.finding.lineage import Lineage
from srp_exp.srp.finding.values import Frame, FunctionCall, Mean, copies, is_of_torch, tensors_in
from srp_exp.srp.finding.watch import unseen, watched

_CASTS = {torch.Tensor.float: torch.Tensor.double, torch.Tensor.half: torch.Tensor.double}
_CASTS[torch.Tensor.bfloat16] = torch.Tensor.double


class Run:
    """What happened in a run, in its order: `frames`, `calls`, and `nodes`, `means` and `products` (Lineage)."""

    def __init__(self, names: dict[nn.Module, str], dtype: torch.dtype, keep: bool = False) -> None:
        self.frames: list[Frame] = []
        self.calls: list[FunctionCall] = []
        self._values = values = Lineage(dtype, keep)
        self.nodes, self.means, self.products = values.nodes, values.means, values.products
        self.is_random = False
        self._names, self._dtype = names, dtype
        self._shift: tuple[Call, Path, float] | None = None
        self._shift_count = 0

    def record(self, module: nn.Module, args: Any, kwargs: Any, shift: tuple[Call, Path, float] | None = None) -> "Run":
        """Call `module`; with `shift` (call, path, c) add c times its spread to the map there, in place, before it."""
        self._shift = shift
        for _, tensor in tensors_in((args, kwargs)):
            self._values.add(tensor, 0, True)
        with torch.no_grad(), watched(self._call_module, self._call_function, self._values.operate):
            module(*args, **kwargs)
        return self

    def owner(self, mean: Mean) -> Frame:
        """The frame of the module that pools: the innermost that isn't of torch.nn and does more than to pool."""
        assert mean.call is not None
        for frame in mean.frame.chain():
            does_more = not frame.only_pools and not is_of_torch(frame.module)
            if (does_more or frame.outer is None) and self.map_argument(mean, frame) is not None:
                return frame
        return self.frames[0]

    def map_argument(self, mean: Mean, frame: Frame) -> tuple[FunctionCall, Path] | None:
        """The last call in `frame`, up to that which gives the mean, with the map among its arguments, and where."""
        assert mean.call is not None
        for call in reversed(self.calls[: self.calls.index(mean.call) + 1]):
            if frame in call.frame.chain():
                for path, node in call.tensors:
                    if node is mean.map:
                        return call, path
        return None

    def place(self, mean: Mean, frame: Frame, others: "Sequence[Run]" = ()) -> Place:
        """Where `frame` pools; `others` are runs of it with other random numbers."""
        found = self.map_argument(mean, frame)
        assert found is not None and mean.call is not None
        functions = found[0].function, mean.call.function
        calls = {self._counts(functions, frame)} | ({(0, 0)} if self.is_random else set())
        calls |= {run._counts(functions, own) for run in others for own in run.frames if own.name == frame.name}
        place = Place(self.number(found[0], frame), found[1], self.number(mean.call, frame), mean.shape)
        return replace(place, calls=tuple(sorted(calls)))

    def number(self, call: FunctionCall, frame: Frame) -> Call:
        """The place of `call` among the calls of its function in `frame`."""
        alike = self._alike(call.function, frame)
        number = alike.index(call) + 1
        if call.checkpointed is None:
            return Call(call.function, number)
        there = [c for c in alike if c.checkpointed == call.checkpointed]
        return Call(call.function, number, there.index(call) + 1)

    def find_call(self, call: Call, frame: Frame) -> FunctionCall | None:
        """The call that `number` names so."""
        alike = self._alike(call.function, frame)
        return alike[call.number - 1] if len(alike) >= call.number else None

    def _counts(self, functions: tuple[Any, Any], frame: Frame) -> tuple[int, int]:
        return len(self._alike(functions[0], frame)), len(self._alike(functions[1], frame))

    def _alike(self, function: Any, frame: Frame) -> list[FunctionCall]:
        return [call for call in self.calls if call.function is function and frame in call.frame.chain()]

    def _call_module(self, module: nn.Module, call: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        if module not in self._names:
            return call(module, *args, **kwargs)
        frame = Frame(module, self._names[module], self._values.frame)
        if not is_of_torch(module):
            with unseen():
                frame.args, frame.kwargs = copies((args, kwargs))
        self.frames.append(frame)
        means_before = len(self.means)
        with self._in_forward(module, frame):
            result = call(module, *args, **kwargs)
        if len(self.means) == means_before:
            frame.args = frame.kwargs = None  # nothing pools in it, so that it won't run again
        with unseen():
            frame.only_pools = self._is_mean(result, frame)
        return result

    @contextmanager
    def _in_forward(self, module: nn.Module, frame: Frame) -> Iterator[None]:
        """Let what the forward of `module` does be in `frame`; its hooks, as in training, are around it."""
        values, handles = self._values, []
        if module._forward_pre_hooks or module._forward_hooks:
            handles.append(module.register_forward_pre_hook(lambda *_: setattr(values, "frame", frame)))
            handles.append(module.register_forward_hook(lambda *_: setattr(values, "frame", frame.outer), prepend=True))
        else:
            values.frame = frame
        try:
            yield
        finally:
            values.frame = frame.outer
            for handle in handles:
                handle.remove()

    def _is_mean(self, result: Any, frame: Frame) -> bool:
        means = [mean for mean in self.means if frame in mean.frame.chain()] if isinstance(result, Tensor) else []
        node, holds = self._values.node, self._values.holds_mean
        return any(node(result).comes_from(mean.value) and holds(result, mean.map) for mean in means)

    def _call_function(self, func: Any, args: Any, kwargs: Any) -> Any:
        if self._dtype == torch.float64:
            func = _CASTS.get(func, func)
            args, kwargs = tree_map(_exact_type, (args, kwargs))
        values = self._values
        if values.frame is None or values.call is not None or func.__name__ == "__get__":  # a property has no identity
            return func(*args, **kwargs)
        with unseen():
            tensors = [(path, values.node(tensor)) for path, tensor in tensors_in((args, kwargs))]
            call = FunctionCall(func, values.frame, tensors, innermost_part(Run.record.__code__))
            self.calls.append(call)
            self._shift_map(func, args, kwargs)
            for path, node in tensors:
                values.see_map(pick(args, kwargs, path), node)
        values.call, means_before = call, len(self.means)
        try:
            result = func(*args, **kwargs)
        finally:
            values.call = None
        with unseen():
            for mean in self.means[means_before:]:
                self._see_result(mean, result, [tensor for _, tensor in tensors_in((args, kwargs))])
        return result

    def _see_result(self, mean: Mean, result: Any, given: list[Tensor]) -> None:
        """A call that doesn't return the mean, or writes it into what it was given, can't be answered otherwise."""
        is_given = any(result is tensor for tensor in given)
        if isinstance(result, Tensor) and self._values.holds_mean(result, mean.map) and not is_given:
            mean.shape = tuple(result.shape[1:])
        else:
            mean.call = None

    def _shift_map(self, func: Any, args: Any, kwargs: Any) -> None:
        if self._shift is not None and func is self._shift[0].function:
            self._shift_count += 1
            if self._shift_count == self._shift[0].number:
                map_ = pick(args, kwargs, self._shift[1])
                map_ += self._shift[2] * map_.std() * (0.5 + _steps(map_))


def _exact_type(value: Any) -> Any:
    """float64 for every lower type: rounding would blur what is looked for."""
    if value in (torch.float32, torch.float16, torch.bfloat16) if isinstance(value, torch.dtype) else False:
        return torch.float64
    if isinstance(value, Tensor) and value.is_floating_point() and value.dtype != torch.float64:
        return value.double()
    return value


def _steps(map_: Tensor) -> Tensor:
    """Another number in [0, 1) for each channel of each map (N, ..., H, W): a norm in the gate hides what is alike."""
    channels = map_.shape[:-2]
    generator = torch.Generator().manual_seed(0)
    return torch.rand(*channels, 1, 1, dtype=map_.dtype, generator=generator).to(map_.device)
