"""Autograd's graph of a run: which values come from which, and what is multiplied."""

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from torch import Tensor
from torch.autograd.graph import GradientEdge, get_gradient_edge


class Edge(NamedTuple):
    """A value: the node that made it, and which of its outputs it is."""

    node: Any
    output: int

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.node._input_metadata[self.output].shape)


class Product(NamedTuple):
    """A map times, or divided by, a factor."""

    node: Any
    map: Edge
    factor: Edge
    names: tuple[str, str]
    """Of what the node saved of them."""
    divides: bool

    def values(self) -> tuple[Tensor, Tensor] | None:
        """The map and the factor; None where they were changed in place since."""
        try:
            map_, factor = (getattr(self.node, name) for name in self.names)
        except RuntimeError:
            return None
        return None if map_ is None or factor is None else (map_, factor)


_SUMS = {"ConvolutionBackward0", "MmBackward0", "AddmmBackward0", "BmmBackward0", "SumBackward1", "MeanBackward1"}
_SUMS |= {"AmaxBackward0", "AvgPool2DBackward0", "AdaptiveAvgPool2DBackward0", "MaxPool2DWithIndicesBackward0"}
"""Nodes that sum over other positions, or other channels."""
FACTORS = {
    "MulBackward0": (0, "_saved_self", "_saved_other"),
    "DivBackward0": (0, "_saved_self", "_saved_other"),
    "AddcmulBackward0": (1, "_saved_tensor1", "_saved_tensor2"),
}
"""Nodes of products: where their factors begin among what they come from, and how they are saved."""


class Graph:
    """The graph below `roots`, nodes.

    marked: values, of which `comes_from` can tell. varies: whether a value is a map that isn't the same everywhere.
    """

    def __init__(self, roots: Iterable[Any], marked: Iterable[Edge], varies: Callable[[Edge], bool]) -> None:
        self._bits = {edge: 1 << number for number, edge in enumerate(dict.fromkeys(marked))}
        self.nodes = _inputs_first(roots)
        self.products: list[Product] = []
        self._below: dict[Any, int] = {}
        self._near: dict[Any, int] = {}
        for node in self.nodes:
            edges = [Edge(*edge) for edge in node.next_functions if edge[0] is not None]
            below = near = 0
            sums = node.name() in _SUMS
            for edge in edges:
                of = self._of(edge)
                below |= of
                if of and not (sums and varies(edge)):
                    near |= self._near.get(edge.node, 0) | self._bits.get(edge, 0)
            self._below[node], self._near[node] = below, near
            self._note_product(node)

    def comes_from(self, edge: Edge, marked: Edge) -> bool:
        """Whether `edge` is computed from the value `marked`, or is it."""
        return bool(self._of(edge) & self._bits[marked])

    def is_near(self, edge: Edge, marked: Edge) -> bool:
        """The same, with no sum over a map that comes from the value between them: such a sum mixes it with the map."""
        return bool((self._near.get(edge.node, 0) | self._bits.get(edge, 0)) & self._bits[marked])

    def _of(self, edge: Edge) -> int:
        return self._below.get(edge.node, 0) | self._bits.get(edge, 0)

    def _note_product(self, node: Any) -> None:
        start, one, other = FACTORS.get(node.name(), (None, "", ""))
        if start is None:
            return
        factors = [Edge(*edge) for edge in node.next_functions[start : start + 2]]
        if None in (factors[0].node, factors[1].node):
            return  # what doesn't depend on the images is no gate
        divides = node.name() == "DivBackward0"
        self.products.append(Product(node, factors[0], factors[1], (one, other), divides))
        if not divides:
            self.products.append(Product(node, factors[1], factors[0], (other, one), divides))


def ancestors(edge: Edge, inside: Callable[[Any], bool]) -> set[Edge]:
    """The value, and what it comes from by nodes that are `inside`."""
    found, waiting = {edge}, [edge]
    while waiting:
        node = waiting.pop().node
        for other in node.next_functions if inside(node) else ():
            if other[0] is not None and Edge(*other) not in found:
                found.add(Edge(*other))
                waiting.append(Edge(*other))
    return found


def edge_of(tensor: Tensor) -> Edge | None:
    """None of a value that doesn't depend on the images."""
    if not tensor.requires_grad:
        return None
    try:
        edge: GradientEdge = get_gradient_edge(tensor)
    except AssertionError:  # what a backward hook is about to wrap
        return None
    return Edge(edge.node, edge.output_nr)


def _inputs_first(roots: Iterable[Any]) -> list[Any]:
    order, seen, waiting = [], set(), [(node, False) for node in roots]
    while waiting:
        node, is_done = waiting.pop()
        if is_done:
            order.append(node)
        elif node not in seen:
            seen.add(node)
            waiting += [(node, True), *((child, False) for child, _ in node.next_functions if child is not None)]
    return order
