"""Which values of a run were computed from which, which of them hold the mean of a map, and which maps are multiplied.

Values decide, not names of functions: a mean is known by its numbers, in whatever way it was computed.
"""

from typing import Any

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from srp_exp.srp.finding.values import Frame, FunctionCall, Mean, Node, Product, close, gates, is_map, tensors_in

aten = torch.ops.aten
FACTORS = {aten.mul: 0, aten.mul_: 0, aten.div: 0, aten.div_: 0, aten.addcmul: 1}
"""Products, and where their factors begin among the arguments."""
_SUMS = {aten.convolution, aten.mm, aten.addmm, aten.bmm, aten.sum, aten.mean, aten.amax, aten.max, aten.avg_pool2d}
_SUMS |= {aten._adaptive_avg_pool2d, aten.max_pool2d_with_indices}
"""Of what is at other positions, or in other channels."""
_FILLED = {"bernoulli_", "normal_", "uniform_", "fill_", "zero_", "random_", "exponential_", "bernoulli"}
_TOLERANCES = {torch.float64: 1e-9, torch.float32: 1e-4}
"""Of a mean, relative to the largest deviation from it in the map, by the type of the run."""


class Lineage:
    """The `nodes`, `means` and `products` of a run in `dtype`, in their order.

    frame, call: where the run is, None outside of modules and of functions. keep: whether products keep their factors.
    """

    def __init__(self, dtype: torch.dtype, keep: bool) -> None:
        self.nodes: list[Node] = []
        self.means: list[Mean] = []
        self.products: list[Product] = []
        self.frame: Frame | None = None
        self.call: FunctionCall | None = None
        self._tolerance, self._keep = _TOLERANCES[dtype], keep
        self._of: Any = WeakTensorKeyDictionary()
        self._maps: dict[int, list[Node]] = {}

    def add(self, tensor: Tensor, before: int, data: bool) -> Node:
        """A new value: see Node."""
        node = Node(len(self.nodes), before, data, tensor.shape, self.frame)
        self.nodes.append(node)
        self._of[tensor] = node
        return node

    def node(self, tensor: Tensor) -> Node:
        """The value that `tensor` holds now."""
        node: Node | None = self._of.get(tensor)
        if node is None:
            node = self.add(tensor, 0, False)
        base: Node | None = None if tensor._base is None else self._of.get(tensor._base)
        if base is not None and base.index > node.index:  # the memory of the view was written to
            before = node.before | base.before | 1 << node.index | 1 << base.index
            node = self.add(tensor, before, node.data or base.data)
        return node

    def operate(self, func: Any, args: Any, kwargs: Any) -> Any:
        """Do an operation, and note what it made of what."""
        inputs = [(tensor, self.node(tensor)) for _, tensor in tensors_in((args, kwargs))]
        if self.call is None:  # of TorchScript, say
            for tensor, node in inputs:
                self.see_map(tensor, node)
        product = self._product(func, args)
        result = func(*args, **kwargs)
        name = func.overloadpacket.__name__
        parents = [] if name.startswith("new_") or name.endswith("_like") or name in _FILLED else [n for _, n in inputs]
        mixed = [n for tensor, n in inputs if self._is_mixed(tensor, n)] if func.overloadpacket in _SUMS else []
        before, near = 0, 0
        for parent in parents:
            before |= parent.before | 1 << parent.index
            near |= (0 if parent in mixed else parent.near) | 1 << parent.index
        for _, tensor in tensors_in(result):
            node = self.add(tensor, before, any(parent.data for parent in parents))
            node.near = near
            if func._schema.is_mutable and tensor._base is not None:
                self._of[tensor._base] = node
            self._see_mean(tensor, node)
        if product is not None:
            self.products.append(product)
        return result

    def _is_mixed(self, tensor: Tensor, node: Node) -> bool:
        """Whether a map varies over H and W, and was computed from the mean of one."""
        if not is_map(tensor) or not any(node.near >> mean.value.index & 1 for mean in self.means):
            return False
        return not bool((tensor == tensor[..., :1, :1]).all())

    def see_map(self, tensor: Tensor, node: Node) -> None:
        """Note the mean of `tensor` over H and W, if it is a map: later values are compared with it."""
        if node.mean is not None or not is_map(tensor):
            return
        mean = tensor.mean((-2, -1), keepdim=True)
        node.spread = float((tensor - mean).abs().amax())
        node.mean = mean.flatten()
        if node.data and 0 < node.spread < float("inf"):
            self._maps.setdefault(mean.numel(), []).append(node)

    def holds_mean(self, tensor: Tensor, map_: Node) -> bool:
        """Whether `tensor`, of any shape that begins with the batch, holds the mean of the map."""
        if map_.mean is None or tensor.numel() != map_.mean.numel() or map_.shape[0] != tensor.shape[0]:
            return False
        return close(tensor.flatten(), map_.mean, self._tolerance * map_.spread)

    def _see_mean(self, tensor: Tensor, node: Node) -> None:
        if self.frame is None or not tensor.is_floating_point() or tensor.dim() < 1 or tensor.numel() == 0:
            return
        before = [mean.map for mean in self.means if node.comes_from(mean.value)]
        if any(self.holds_mean(tensor, map_) for map_ in before):
            return  # a view of one that was seen
        for map_ in reversed(self._maps.get(tensor.numel(), [])):
            if node.before >> map_.index & 1 and self.holds_mean(tensor, map_):
                self.means.append(Mean(map_, node, self.call, self.frame))
                return

    def _product(self, func: Any, args: Any) -> Product | None:
        """The product that `func` makes of a map and something that depends on the input, if it is one."""
        start = FACTORS.get(func.overloadpacket)
        factors: Any = () if start is None or self.frame is None else args[start : start + 2]
        if len(factors) != 2 or not all(isinstance(factor, Tensor) and factor.dim() >= 3 for factor in factors):
            return None
        divides = func.overloadpacket in (aten.div, aten.div_)
        pairs = [factors] if divides else [factors, factors[::-1]]
        shape = torch.broadcast_shapes(*(factor.shape for factor in factors))
        chosen: Product | None = None
        for map_, factor in pairs:
            node, by = self.node(map_), self.node(factor)
            if map_.shape != shape or not by.data or not node.data or factor.shape[0] != shape[0]:
                continue
            smaller = any(
                size == 1 or stride == 0 for size, stride in zip(factor.shape[1:], factor.stride()[1:], strict=True)
            )
            smaller &= factor.shape != map_.shape or 0 in factor.stride()
            smaller |= is_map(factor) and _is_column_times_row(factor)
            assert self.frame is not None
            new = Product(len(self.products), node, by, self.call, self.frame, smaller, divides)
            if chosen is None or self._is_gate(new) > self._is_gate(chosen):
                chosen = new
                if not node.squares and is_map(map_):
                    centred = map_ - map_.mean((-2, -1), keepdim=True)
                    node.squares = [m.square().mean((-2, -1)).flatten() for m in (map_, centred)]
                new.value = factor.detach().clone() if self._keep else None
        return chosen

    def _is_gate(self, product: Product) -> tuple[bool, bool]:
        return any(gates(mean, product) for mean in self.means), product.is_smaller


def _is_column_times_row(factor: Tensor) -> bool:
    """Whether every (H, W) of it is so: the gates of two axes multiplied, or one number repeated."""
    corner, all_of_it = factor[..., :1, :1], factor * factor[..., :1, :1]
    tolerance = 1e-6 * float(all_of_it.abs().amax())
    return bool(corner.all()) and close(all_of_it, factor[..., :1] * factor[..., :1, :], tolerance)
