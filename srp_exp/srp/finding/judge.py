"""Judge what a run shows: which of its means gate their own map, and what looks like attention but is none.

A factor of a product is a gate where it comes from the mean of a map, and the map that it multiplies doesn't but is the
pooled one's: computed from that; or, inside the module around both, that is computed from it, or both are computed from
one value: siblings, such as the stack of the branches whose sum was pooled.
"""

from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor

from srp_exp.srp.calls import Call, Place
from srp_exp.srp.finding.findings import Gate, LeftOut, Pooling
from srp_exp.srp.finding.graph import Edge, Graph, Product, ancestors
from srp_exp.srp.finding.maps import PLANE, SEQUENCE, TOKENS, Map
from srp_exp.srp.finding.run import FoundMean, Frame, FunctionCall, TwinRun

UNREACHABLE = (
    "its mean isn't what a call of a torch function returns: it is made in TorchScript, in a torch.autograd.Function, "
    "in place, or as one result among others"
)
NORM = "a norm: what multiplies the map stays the same when a constant is added to it"
SQUARE = "pools the square of the map that it multiplies, as a norm does"
OTHER = "what multiplies the map isn't seen to come from its mean over H and W"
MULTIPLE = "what multiplies the map comes from a multiple of its mean, such as its sum: SRP needs the mean itself"
_CHECKPOINTED = "pools inside of a checkpoint(...) of its own forward: checkpoint the whole module instead"
FLATTENED = "pools a map that was flattened or permuted outside of it, to"
NOT_A_MAP = "pools {}: SRP needs a map (B, C, H, W), and its regions lie in H and W"


class Judge:
    """`poolings`: those of a run, with their map and the number of the call; `left_out`: by name and reason."""

    def __init__(self, run: TwinRun) -> None:
        self._run = run
        marked = [edge for mean in run.means for edge in (mean.edge, *(map_.edge for map_ in mean.maps))]
        self._graph = Graph(run.made_by, marked + [edge for edge, _ in run.multiples], self._varies)
        self.poolings: dict[tuple[str, Place], tuple[Pooling, Map, int]] = {}
        self.left_out: dict[tuple[str, str], LeftOut] = {}
        self.gated: set[tuple[str, Call]] = set()
        """The calls that multiply a map by its gate, by the module that makes them."""
        self.others: dict[tuple[str, Call], LeftOut] = {}
        """The calls that multiply a map by something else that is smaller."""
        self.maps: dict[str, set[Map]] = {}
        """What a module pools."""
        self.repeated: list[FunctionCall | None] = []
        """The calls that return a mean again."""
        self.squared: set[str] = set()
        """Modules that pool the square of a map. All of them stays out: a variance needs both means of one region."""
        for mean in self._first_means():
            self._judge(mean)
        for product in self._graph.products:
            frame = run.made_by[product.node].frame.of_user()
            name = self._name(product)
            if name not in self.gated and self._is_smaller(product):
                near = [maps for edge, maps in run.multiples if self._graph.is_near(product.factor, edge)]
                reason = MULTIPLE if any(product.map in maps for maps in near) else OTHER
                self.others.setdefault(name, LeftOut(frame.name, type(frame.module).__name__, reason))

    def _first_means(self) -> Iterator[FoundMean]:
        """Without the same mean again, after something was added and taken away."""
        for number, mean in enumerate(self._run.means):
            earlier = [one for one in self._run.means[:number] if one.maps[0] in mean.maps]
            if any(self._graph.comes_from(mean.edge, one.edge) for one in earlier):
                self.repeated.append(mean.call)
            else:
                yield mean

    def _judge(self, mean: FoundMean) -> None:
        """Take a mean for a pooling, or leave it out."""
        owner = mean.frame.of_user()
        given = [edge for _, edge, _ in mean.call.given] if mean.call else []
        # A map and what averages neighbours in it have one mean: it has to come from the map, straight if it can.
        maps = [m for m in mean.maps if self._graph.comes_from(mean.edge, m.edge)]
        planes = [m for m in maps if m.kind is PLANE and owner in mean.calls[m]]
        planes.sort(key=lambda m: m.edge not in given)
        map_ = planes[0] if planes else None
        special = [m for m in maps if m.kind is not PLANE] if mean.call is not None else []
        if not maps:
            return
        pooled = map_ or (special + maps)[0]
        product = next((p for p in self._graph.products if self._gates(mean, pooled, owner, p)), None)
        if product is None:
            if map_ is not None and mean.call is not None and self._comes_back(mean, map_):
                self._take(mean, mean.call, map_, owner, None)
            return
        self.gated.add(self._name(product))
        if self._pools_square(pooled, product):
            if pooled.kind is PLANE:
                self._leave_out(owner, SQUARE)
                self.squared.add(owner.name)
        elif self._is_norm(pooled, product):
            if pooled.kind is PLANE:
                self._leave_out(owner, NORM)
        elif pooled.kind is not PLANE:
            self._leave_out(owner, self._not_a_map(mean, pooled))
        elif mean.call is None:
            self._leave_out(owner, UNREACHABLE)
        elif map_ is None:
            self._leave_out(owner, f"{FLATTENED} {tuple(pooled.shape)}: pool it in the module that has the map")
        elif owner in mean.call.checkpointed:
            self._leave_out(owner, _CHECKPOINTED)
        else:
            self._take(mean, mean.call, map_, owner, product)

    def _not_a_map(self, mean: FoundMean, pooled: Map) -> str:
        planes = [map_ for map_ in mean.maps if map_.kind is PLANE and map_.shape.numel() == pooled.shape.numel()]
        if pooled.kind in (SEQUENCE, TOKENS) and planes:
            return f"{FLATTENED} {pooled.kind.name}: flatten it inside of the module that pools"
        return NOT_A_MAP.format(pooled.kind.name)

    def _gates(self, mean: FoundMean, pooled: Map, owner: Frame, product: Product) -> bool:
        graph = self._graph
        if not graph.is_near(product.factor, mean.edge) or graph.comes_from(product.map, mean.edge):
            return False
        shape, factor = product.map.shape, product.factor.shape
        if len(factor) < 3 or len(shape) < 3 or tuple(torch.broadcast_shapes(shape, factor)) != shape:
            return False
        axes = pooled.kind.axes
        sizes = [pooled.shape[axis] for axis in axes]
        same_size = pooled.kind is not PLANE or list(shape[-2:]) == sizes
        if not same_size and torch.Size(shape).numel() != pooled.shape.numel():
            return False
        if graph.comes_from(product.map, pooled.edge):
            return True
        home = owner.common(self._run.made_by[product.node].frame)

        def inside(node: object) -> bool:
            made_by = self._run.made_by.get(node)
            return made_by is not None and home in made_by.frame.chain()

        return not ancestors(product.map, inside).isdisjoint(ancestors(pooled.edge, inside))

    def _take(self, mean: FoundMean, call: FunctionCall, map_: Map, owner: Frame, product: Product | None) -> None:
        place = _place(mean, call, map_, owner)
        size = (int(map_.shape[-2]), int(map_.shape[-1]))
        gate = None if product is None else self._gate(mean, call, map_, owner, product)
        kind = type(owner.module).__name__
        self.maps.setdefault(owner.name, set()).add(map_)
        new = Pooling(owner.name, kind, place, size, product is not None, gate)
        old = self.poolings.get((owner.name, place))
        if old is None or (new.gates and not old[0].gates):
            self.poolings[owner.name, place] = (new, map_, call.number)

    def _gate(self, mean: FoundMean, call: FunctionCall, map_: Map, owner: Frame, product: Product) -> Gate | None:
        multiplies = self._run.made_by[product.node]
        home = owner.common(multiplies.frame)
        edges = [(path, edge) for path, edge, _ in multiplies.given if edge is not None]
        paths = [path for path, edge in edges if self._graph.comes_from(edge, mean.edge)]
        if not paths:
            return None
        return Gate(home.name, _named(multiplies, home), paths[0], _place(mean, call, map_, home), product.divides)

    def _comes_back(self, mean: FoundMean, map_: Map) -> bool:
        """Whether something computed from the mean is a map of the size of its map again."""
        size = tuple(map_.shape[-2:])
        for node in self._graph.nodes:
            for output, value in enumerate(node._input_metadata):
                edge = Edge(node, output)
                is_map = len(value.shape) >= 4 and tuple(value.shape[-2:]) == size
                if is_map and edge != mean.edge and self._graph.comes_from(edge, mean.edge):
                    return True
        return False

    def _name(self, product: Product) -> tuple[str, Call]:
        """The call that multiplies, as the module that makes it names it."""
        call = self._run.made_by[product.node]
        frame = call.frame.of_user()
        return frame.name, _named(call, frame)

    def _varies(self, edge: Edge) -> bool:
        """Whether it is a map that isn't the same everywhere."""
        return any(map_.kind is PLANE and map_.varies() for map_ in self._run.maps.get(edge, []))

    def _is_smaller(self, product: Product) -> bool:
        """Whether the factor is spread over a map."""
        shape, factor_shape = product.map.shape, product.factor.shape
        if len(shape) < 4 or shape[-2] * shape[-1] == 1 or len(factor_shape) < 3 or shape[0] != factor_shape[0]:
            return False
        if tuple(torch.broadcast_shapes(shape, factor_shape)) != shape:
            return False
        if factor_shape != shape:
            return True
        values = product.values()
        if values is None:
            return False
        factor = values[1]
        return 0 in factor.stride()[1:] or (min(shape[-2:]) > 1 and _is_column_times_row(factor))

    def _pools_square(self, pooled: Map, product: Product) -> bool:
        """Whether what was pooled is the square of the map that is multiplied, centred or not."""
        values = product.values()
        if values is None or values[0].shape != pooled.shape:
            return False
        with torch.no_grad():
            map_, axes = values[0], pooled.kind.axes
            centred = map_ - map_.mean(axes, keepdim=True)
            squares = [m.square().mean(axes).flatten() for m in (map_, centred)]
            return any(bool((s - pooled.mean).abs().amax() <= 1e-6 * s.abs().amax()) for s in squares)

    def _is_norm(self, pooled: Map, product: Product) -> bool:
        """Whether the factor has no derivative with respect to a constant that is added to the map."""
        values = product.values()
        if values is None or not values[1].requires_grad:
            return False
        factor, edge = values[1], torch.autograd.graph.GradientEdge(*pooled.edge, None)
        with torch.enable_grad():
            weighted = (factor * torch.rand(factor.shape, dtype=factor.dtype, device=factor.device)).sum()
            try:
                (gradient,) = torch.autograd.grad(weighted, [edge], retain_graph=True, allow_unused=True)
            except RuntimeError:  # what it needs was written to in place
                return False
        if gradient is None:
            return False
        by_channel = gradient.sum(pooled.kind.axes)
        size = float(gradient.abs().sum()) / max(1, by_channel.numel())
        small = 1e-6 if gradient.dtype == torch.float64 else 1e-3
        return size > 0 and float(by_channel.abs().amax()) < small * size

    def _leave_out(self, frame: Frame, reason: str) -> None:
        own = frame.of_user()
        self.left_out.setdefault((own.name, reason), LeftOut(own.name, type(own.module).__name__, reason))


def _is_column_times_row(factor: Tensor) -> bool:
    with torch.no_grad():
        left, right = factor * factor[..., :1, :1], factor[..., :1] * factor[..., :1, :]
        return bool((left - right).abs().amax() <= 1e-6 * left.abs().amax())


def _named(call: FunctionCall, frame: Frame) -> Call:
    return with_total(call.names[frame], frame)


def with_total(call: Call, frame: Frame) -> Call:
    """The name of a call with the number of calls of its function in the whole forward."""
    return replace(call, total=frame.counts[call.function])


def _place(mean: FoundMean, call: FunctionCall, map_: Map, frame: Frame) -> Place:
    map_call, path = mean.calls[map_][frame]
    return Place(with_total(map_call, frame), path, _named(call, frame), mean.shape, frame.chain()[-1].is_random)
