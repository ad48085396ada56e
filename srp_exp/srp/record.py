"""Record one run of a module: the torch functions that it calls, values that hold the mean of a map, products of maps.

Two modes watch the run. A TorchFunctionMode sees the calls that a forward makes, and numbers them, for these are what
can be answered otherwise later. A TorchDispatchMode sees the operations below them, also those of TorchScript and of a
torch.autograd.Function, so that no path from a value to another is missed. Values decide, not names of functions.
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_map
from torch.utils.weak import WeakTensorKeyDictionary

from srp_exp.srp.calls import Call, Path, Place, pick
from srp_exp.srp.values import (
    Frame,
    FunctionCall,
    Mean,
    Node,
    Product,
    close,
    copies,
    gates,
    is_map,
    is_of_torch,
    tensors_in,
)

aten = torch.ops.aten
FACTORS = {aten.mul: 0, aten.mul_: 0, aten.div: 0, aten.div_: 0, aten.addcmul: 1}
"""Products, and where their factors begin among the arguments."""
_FILLED = {"bernoulli_", "normal_", "uniform_", "fill_", "zero_", "random_", "exponential_", "bernoulli"}
_CASTS = {torch.Tensor.float: torch.Tensor.double, torch.Tensor.half: torch.Tensor.double}
_CASTS[torch.Tensor.bfloat16] = torch.Tensor.double
_TOLERANCES = {torch.float64: 1e-9, torch.float32: 1e-4}
"""Of a mean, relative to the largest deviation from it in the map, by the type of the run."""


class Run:
    """What happened in a run: `frames`, `calls`, `means` and `products`, in their order."""

    def __init__(self, names: dict[nn.Module, str], dtype: torch.dtype, keep: bool = False) -> None:
        self.frames: list[Frame] = []
        self.calls: list[FunctionCall] = []
        self.means: list[Mean] = []
        self.products: list[Product] = []
        self.nodes: list[Node] = []
        self.is_random = False
        self._names, self._dtype, self._keep = names, dtype, keep
        self._of: Any = WeakTensorKeyDictionary()
        self._maps: dict[int, list[Node]] = {}
        self._frame: Frame | None = None
        self._call: FunctionCall | None = None
        self._shift: tuple[Call, Path, float] | None = None
        self._shift_count = 0

    def record(self, module: nn.Module, args: Any, kwargs: Any, shift: tuple[Call, Path, float] | None = None) -> "Run":
        """Call `module`; with `shift` (call, path, c) add c times its spread to the map there, in place, before it."""
        self._shift = shift
        for _, tensor in tensors_in((args, kwargs)):
            self._new(tensor, 0, True)
        with torch.no_grad(), _watched_modules(self), _Operations(self), _Functions(self):
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

    def place(self, mean: Mean, frame: Frame) -> Place:
        """Where `frame` pools."""
        found = self.map_argument(mean, frame)
        assert found is not None and mean.call is not None
        calls = None if self.is_random else len(self._alike(mean.call.function, frame))
        return Place(self.number(found[0], frame), found[1], self.number(mean.call, frame), mean.shape, calls)

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

    def _alike(self, function: Any, frame: Frame) -> list[FunctionCall]:
        return [call for call in self.calls if call.function is function and frame in call.frame.chain()]

    # The rest is for the modes.

    def enter_module(self, module: nn.Module, call: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        if module not in self._names:
            return call(module, *args, **kwargs)
        frame = Frame(module, self._names[module], self._frame)
        if not is_of_torch(module):
            with unseen():
                frame.args, frame.kwargs = copies((args, kwargs))
        self.frames.append(frame)
        self._frame, means_before = frame, len(self.means)
        try:
            result = call(module, *args, **kwargs)
        finally:
            self._frame = frame.outer
        if len(self.means) == means_before:
            frame.args = frame.kwargs = None  # nothing pools in it, so that it won't run again
        with unseen():
            frame.only_pools = self._is_mean(result, frame)
        return result

    def _is_mean(self, result: Any, frame: Frame) -> bool:
        means = [mean for mean in self.means if frame in mean.frame.chain()] if isinstance(result, Tensor) else []
        return any(self._node(result).comes_from(mean.value) and self._holds_mean(result, mean.map) for mean in means)

    def call_function(self, func: Any, args: Any, kwargs: Any) -> Any:
        if self._dtype == torch.float64:
            func = _CASTS.get(func, func)
            args, kwargs = tree_map(_exact_type, (args, kwargs))
        if self._frame is None or self._call is not None or func.__name__ == "__get__":  # a property has no identity
            return func(*args, **kwargs)
        with unseen():
            tensors = [(path, self._node(tensor)) for path, tensor in tensors_in((args, kwargs))]
            call = FunctionCall(func, self._frame, tensors, _checkpointed_part())
            self.calls.append(call)
            self._shift_map(func, args, kwargs)
            for path, node in tensors:
                self._see_map(pick(args, kwargs, path), node)
        self._call, means_before = call, len(self.means)
        try:
            result = func(*args, **kwargs)
        finally:
            self._call = None
        with unseen():
            for mean in self.means[means_before:]:
                self._see_result(mean, result, [tensor for _, tensor in tensors_in((args, kwargs))])
        return result

    def _see_result(self, mean: Mean, result: Any, given: list[Tensor]) -> None:
        """A call that doesn't return the mean, or writes it into what it was given, can't be answered otherwise."""
        if isinstance(result, Tensor) and self._holds_mean(result, mean.map) and all(result is not t for t in given):
            mean.shape = tuple(result.shape[1:])
        else:
            mean.call = None

    def _shift_map(self, func: Any, args: Any, kwargs: Any) -> None:
        if self._shift is not None and func is self._shift[0].function:
            self._shift_count += 1
            if self._shift_count == self._shift[0].number:
                map_ = pick(args, kwargs, self._shift[1])
                map_ += self._shift[2] * map_.std() * (0.5 + _steps(map_))

    def run_operation(self, func: Any, args: Any, kwargs: Any) -> Any:
        inputs = [(tensor, self._node(tensor)) for _, tensor in tensors_in((args, kwargs))]
        if self._call is None:  # of TorchScript, say
            for tensor, node in inputs:
                self._see_map(tensor, node)
        product = self._product(func, args) if self._frame is not None else None
        result = func(*args, **kwargs)
        name = func.overloadpacket.__name__
        parents = [] if name.startswith("new_") or name.endswith("_like") or name in _FILLED else [n for _, n in inputs]
        before = 0
        for parent in parents:
            before |= parent.before | 1 << parent.index
        for _, tensor in tensors_in(result):
            node = self._new(tensor, before, any(parent.data for parent in parents))
            if func._schema.is_mutable and tensor._base is not None:
                self._of[tensor._base] = node
            if self._frame is not None:
                self._see_mean(tensor, node)
        if product is not None:
            self.products.append(product)
        return result

    def _new(self, tensor: Tensor, before: int, data: bool) -> Node:
        node = Node(len(self.nodes), before, data, tensor.shape, self._frame)
        self.nodes.append(node)
        self._of[tensor] = node
        return node

    def _node(self, tensor: Tensor) -> Node:
        node: Node | None = self._of.get(tensor)
        if node is None:
            node = self._new(tensor, 0, False)
        base: Node | None = None if tensor._base is None else self._of.get(tensor._base)
        if base is not None and base.index > node.index:  # the memory of the view was written to
            before = node.before | base.before | 1 << node.index | 1 << base.index
            node = self._new(tensor, before, node.data or base.data)
        return node

    def _see_map(self, tensor: Tensor, node: Node) -> None:
        if node.mean is not None or not is_map(tensor):
            return
        mean = tensor.mean((-2, -1), keepdim=True)
        node.spread = float((tensor - mean).abs().amax())
        node.mean = mean.flatten()
        if node.data and 0 < node.spread < float("inf"):
            self._maps.setdefault(mean.numel(), []).append(node)

    def _see_mean(self, tensor: Tensor, node: Node) -> None:
        if not tensor.is_floating_point() or tensor.dim() < 1 or tensor.numel() == 0:
            return
        before = [mean.map for mean in self.means if node.comes_from(mean.value)]
        if any(self._holds_mean(tensor, map_) for map_ in before):
            return  # a view of one that was seen
        for map_ in reversed(self._maps.get(tensor.numel(), [])):
            if node.before >> map_.index & 1 and self._holds_mean(tensor, map_):
                assert self._frame is not None
                self.means.append(Mean(map_, node, self._call, self._frame))
                return

    def _holds_mean(self, tensor: Tensor, map_: Node) -> bool:
        """Whether `tensor`, of any shape that begins with the batch, holds the mean of the map."""
        if map_.mean is None or tensor.numel() != map_.mean.numel() or map_.shape[0] != tensor.shape[0]:
            return False
        return close(tensor.flatten(), map_.mean, _TOLERANCES[self._dtype] * map_.spread)

    def _product(self, func: Any, args: Any) -> Product | None:
        """The product that `func` makes of a map and something that depends on the input, if it is one."""
        start = FACTORS.get(func.overloadpacket)
        factors: Any = () if start is None else args[start : start + 2]
        if len(factors) != 2 or not all(isinstance(factor, Tensor) and factor.dim() >= 3 for factor in factors):
            return None
        divides = func.overloadpacket in (aten.div, aten.div_)
        pairs = [factors] if divides else [factors, factors[::-1]]
        shape = torch.broadcast_shapes(*(factor.shape for factor in factors))
        chosen: Product | None = None
        for map_, factor in pairs:
            node, by = self._node(map_), self._node(factor)
            if map_.shape != shape or not by.data or not node.data or factor.shape[0] != shape[0]:
                continue
            smaller = any(
                size == 1 or stride == 0 for size, stride in zip(factor.shape[1:], factor.stride()[1:], strict=True)
            )
            smaller &= factor.shape != map_.shape or 0 in factor.stride()
            assert self._frame is not None
            new = Product(len(self.products), node, by, self._call, self._frame, smaller, divides)
            if chosen is None or self._is_gate(new) > self._is_gate(chosen):
                chosen = new
                if not node.squares and is_map(map_):
                    centred = map_ - map_.mean((-2, -1), keepdim=True)
                    node.squares = [m.square().mean((-2, -1)).flatten() for m in (map_, centred)]
                new.value = factor.detach().clone() if self._keep else None
        return chosen

    def _is_gate(self, product: Product) -> tuple[bool, bool]:
        return any(gates(mean, product) for mean in self.means), product.is_smaller


def _exact_type(value: Any) -> Any:
    """float64 for every lower type: rounding would blur what is looked for."""
    if value in (torch.float32, torch.float16, torch.bfloat16) if isinstance(value, torch.dtype) else False:
        return torch.float64
    if isinstance(value, Tensor) and value.is_floating_point() and value.dtype != torch.float64:
        return value.double()
    return value


def _checkpointed_part() -> Any:
    """Python's frame of the innermost torch.utils.checkpoint that it is in."""
    frame: Any = sys._getframe(1)
    while frame is not None:
        if frame.f_code.co_filename == torch.utils.checkpoint.__file__:
            return frame
        if frame.f_code is Run.record.__code__:
            return None
        frame = frame.f_back
    return None


def _steps(map_: Tensor) -> Tensor:
    """Another number in [0, 1) for each channel of a map (N, ..., H, W): what is shifted alike can hide in the gate."""
    channels = map_.shape[1:-2]
    generator = torch.Generator().manual_seed(0)
    return torch.rand(*channels, 1, 1, dtype=map_.dtype, generator=generator).to(map_.device)


@contextmanager
def unseen() -> Iterator[None]:
    """What is done here is not recorded."""
    with torch._C.DisableTorchFunction(), _disable_current_modes():
        yield


class _Functions(TorchFunctionMode):
    def __init__(self, run: Run) -> None:
        super().__init__()
        self._run = run

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return self._run.call_function(func, args, kwargs or {})


class _Operations(TorchDispatchMode):
    def __init__(self, run: Run) -> None:
        super().__init__()
        self._run = run

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        with torch._C.DisableTorchFunction():
            return self._run.run_operation(func, args, kwargs or {})


@contextmanager
def _watched_modules(run: Run) -> Iterator[None]:
    own_call = nn.Module.__call__

    def call(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
        return run.enter_module(module, own_call, args, kwargs)

    nn.Module.__call__ = call  # type: ignore[method-assign]
    try:
        yield
    finally:
        nn.Module.__call__ = own_call  # type: ignore[method-assign]
