"""The search for channel attention in one model: which of its poolings gate the map that they pool."""

from dataclasses import replace

import torch
from torch import Tensor, nn

from srp_exp.srp.calls import Place
from srp_exp.srp.finding.findings import Findings, Gate, LeftOut, Pooling
from srp_exp.srp.finding.probe import Probe, more_seeds
from srp_exp.srp.finding.record import Run
from srp_exp.srp.finding.values import Frame, Mean, Product, gates, is_of_torch, pools_square

_SHIFTS = {torch.float64: (1.0, -1.0, 8.0, -8.0, 1e3, -1e3), torch.float32: (1.0, -1.0, 8.0, -8.0)}
"""Constants that are added to a map, over its standard deviation: large ones wake a ReLU in the gate."""
_UNCHANGED = 1e-6
"""Change of a gate, relative to its largest value, that is rounding in float64; 1e-3 in float32."""

UNREACHABLE = (
    "its mean isn't what a call of a torch function returns: it is made in TorchScript, in a torch.autograd.Function, "
    "in place, or as one of several results"
)
NORM = "a norm: what multiplies the map stays the same when a constant is added to it"
SQUARE = "pools the square of the map that it multiplies, as a norm does"
OTHER = "what multiplies the map isn't seen to come from its mean over H and W"
NOT_IMAGES = "the first axis of its map isn't that of the images, so that they can't have regions of their own"
SILENT = "never ran: evaluation doesn't call it, and training takes more than images; apply_srp to it alone"
CHANGING = "pools by another call from run to run"


class Search:
    """Searches `model`, which has stand-ins of `dtype` for its parameters (srp_exp.srp.finding.undisturbed)."""

    def __init__(self, model: nn.Module, example: Tensor, dtype: torch.dtype, training: bool) -> None:
        self._probe = Probe(model, example, dtype, training)
        self._tolerance = _UNCHANGED if dtype == torch.float64 else 1e-3
        self._shifts = _SHIFTS[dtype]
        self.found: dict[tuple[str, Place], Pooling] = {}
        self.left_out: dict[tuple[str, str], LeftOut] = {}
        self.squared: set[str] = set()
        self._verified: set[str] = set()
        self._pair: list[Run] = []

    def findings(self) -> Findings:
        first = self._probe.run_model()
        if any(mean.map.shape[0] != 2 or len(mean.map.shape) > 4 for mean in first.means):
            self._pair = [first, self._probe.run_model(another_first=True)]
        for run in [self._probe.run_enlarged(first), *(self._probe.run_model(seed) for seed in more_seeds(first))]:
            self._look_at(run)
        last, silent = self._probe.run_trained(first)
        for frame in silent:
            self._leave_out(frame, SILENT)
        if last is not first:
            self._look_at(last)
        found = [pooling for pooling in self.found.values() if pooling.module not in self.squared]
        poolings = sorted(found, key=lambda pooling: _position(pooling, first, last))
        return Findings([_with_size(pooling, first) for pooling in poolings], list(self.left_out.values()))

    def _look_at(self, run: Run) -> None:
        for mean in run.means:
            product = next((product for product in run.products if gates(mean, product)), None)
            joint = _joint(run, mean) if product is None else product.frame
            if joint is None:
                continue
            if mean.call is None:
                if product is not None:
                    self._leave_out(mean.frame, UNREACHABLE)
                continue
            owner = run.owner(mean)
            home = owner.common(joint)
            if home.name not in self._verified or product is None:
                self._verified.add(home.name)
                self._verify(home, owner)
        for product in run.products:
            is_map = len(product.map.shape) >= 4 and product.map.shape[-2:].numel() > 1
            if product.is_smaller and is_map and not any(gates(mean, product) for mean in run.means):
                self._leave_out(product.frame, OTHER)

    def _verify(self, home: Frame, owner: Frame) -> None:
        """Run the module of `home` alone, as it will run, and take what pools in it and gates its map."""
        try:
            with self._probe.as_it_will_run():
                runs = [self._probe.run_again(home)]
                runs += [self._probe.run_again(home, seed) for seed in more_seeds(runs[0])]
                for seed, run in enumerate(runs):
                    for mean in run.means:
                        self._take(home, seed, run, mean, [other for other in runs if other is not run])
        except Exception as error:  # of a foreign forward
            reason = (str(error).splitlines() or [type(error).__name__])[0][:120]
            self._leave_out(owner, f"its forward can't be run again: {reason}")

    def _take(self, home: Frame, seed: int, run: Run, mean: Mean, others: list[Run]) -> None:
        product = next((product for product in run.products if gates(mean, product)), None)
        joint = _joint(run, mean) if product is None else product.frame
        if mean.call is None or joint is None:
            return
        owner = run.owner(mean)
        if owner.common(joint) is not run.frames[0]:
            return  # a module in it, which is looked at by itself
        place = run.place(mean, owner, others)
        if any(_is_other_call(other, owner.name, place) for other in others):
            self._leave_out(owner, CHANGING)
            return
        if product is not None and pools_square(mean, product):
            self._leave_out(owner, SQUARE)  # with all that it pools: a variance needs both means of the same positions
            self.squared.add(owner.name)
            return
        if product is not None and not self._changes(home, seed, run, mean, product):
            self._leave_out(owner, NORM)
            return
        rows = self._rows_of_first_image(owner)
        if 2 * int(rows.sum()) > len(rows):
            self._leave_out(owner, NOT_IMAGES)
            return
        height, width = mean.map.shape[-2:]
        by_image = 2 < len(rows) == 2 * int(rows[: len(rows) // 2].sum())
        kind, gate = type(owner.module).__name__, None if product is None else _gate(home, run, mean, product)
        new = Pooling(owner.name, kind, place, (height, width), product is not None, gate, by_image)
        if product is not None or (owner.name, place) not in self.found:
            self.found[owner.name, place] = new

    def _rows_of_first_image(self, owner: Frame) -> Tensor:
        """Which rows of the first axis of the map that `owner` pools depend on the first of the two images."""
        maps = [m.map for run in self._pair for m in _means_in(run, owner.name)[:1]]
        values = [node.mean.view(node.shape[0], -1) for node in maps if node.mean is not None]
        if len(values) < 2 or values[0].shape != values[1].shape:
            return torch.tensor([True, False])
        return (values[0] != values[1]).any(1)

    def _changes(self, home: Frame, seed: int, run: Run, mean: Mean, product: Product) -> bool:
        """Whether the factor of `product` changes when a constant is added to the map."""
        place = run.place(mean, run.frames[0])
        assert product.value is not None
        tolerance = self._tolerance * float(product.value.abs().amax())
        for shift in self._shifts:
            shifted = self._probe.run_again(home, seed, (place.map_call, place.path, shift))
            if len(shifted.products) <= product.number:
                return True  # another branch
            value = shifted.products[product.number].value
            if value is None or value.shape != product.value.shape:
                return True
            if bool((value - product.value).abs().amax() > tolerance):
                return True
        return False

    def _leave_out(self, frame: Frame, reason: str) -> None:
        own = next((f for f in frame.chain() if not is_of_torch(f.module)), frame)
        self.left_out.setdefault((own.name, reason), LeftOut(own.name, type(own.module).__name__, reason))


def _means_in(run: Run, module: str) -> list[Mean]:
    return [mean for mean in run.means if module in (frame.name for frame in mean.frame.chain())]


def _joint(run: Run, mean: Mean) -> Frame | None:
    """Where something computed from the mean is a map of the size of its map again, if it is."""
    size = mean.map.shape[-2:]
    later = run.nodes[mean.value.index + 1 :]
    maps = (n for n in later if len(n.shape) >= 4 and n.shape[-2:] == size and n.comes_from(mean.value))
    return next((node.frame for node in maps if node.frame is not None), None)


def _position(pooling: Pooling, *runs: Run) -> tuple[int, int]:
    """When the pooling is done, in the first of `runs` in which it is."""
    for number, run in enumerate(runs):
        for frame in run.frames:
            call = run.find_call(pooling.place.mean_call, frame) if frame.name == pooling.module else None
            if call is not None:
                return number, run.calls.index(call)
    return len(runs), 0


def _is_other_call(run: Run, module: str, place: Place) -> bool:
    """Whether the call at `place` is made in `run`, and gives no mean there."""
    for frame in run.frames:
        if frame.name == module:
            call = run.find_call(place.mean_call, frame)
            return call is not None and not any(mean.call is call for mean in run.means)
    return False


def _gate(home: Frame, run: Run, mean: Mean, product: Product) -> Gate | None:
    if product.call is None:
        return None
    path = next((path for path, node in product.call.tensors if node.comes_from(mean.value)), None)
    if path is None:
        return None
    root = run.frames[0]
    return Gate(home.name, run.number(product.call, root), path, run.place(mean, root), product.divides)


def _with_size(pooling: Pooling, run: Run) -> Pooling:
    """The pooling with the size of its map in `run`, where that makes the same call."""
    for frame in run.frames:
        if frame.name == pooling.module:
            call = run.find_call(pooling.place.map_call, frame)
            shapes = [node.shape for path, node in call.tensors if path == pooling.place.path] if call else []
            if shapes and len(shapes[0]) >= 4:
                return replace(pooling, map_size=(shapes[0][-2], shapes[0][-1]))
            break
    return pooling
