"""Runs of a model on noise, and of its modules again on what they were given, under record."""

import random
import sys
from collections.abc import Iterator, Set
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from srp_exp.srp.calls import Call, Path
from srp_exp.srp.finding.record import Run
from srp_exp.srp.finding.values import Frame, copies, is_of_torch

_SMALLEST = 4
"""Side of a map below which poolings can't be told from local ones, or from no pooling: the images are enlarged."""
_LARGE_ENOUGH, _LARGEST = 128, 256
"""Side of images from which on networks have no such small maps, and to which about smaller ones are enlarged."""
_SEEDS = 4
_NOTHING_TO_RUN = (nn.Identity, nn.Sequential, nn.ModuleList, nn.ModuleDict)
"""What may stay without a call in a forward that leaves nothing out: what it holds is called, or counts itself."""


class Probe:
    """Runs `model`, whose parameters are of `dtype`, on images as large as `example`. training: how it will run."""

    def __init__(self, model: nn.Module, example: Tensor, dtype: torch.dtype, training: bool) -> None:
        self.model, self.example, self.dtype, self.training = model, example, dtype, training
        self._names = {module: name for name, module in reversed(list(model.named_modules(remove_duplicate=False)))}
        self.model.eval()

    def run_model(self, seed: int = 0, another_first: bool = False, size: tuple[int, int] | None = None) -> Run:
        """On two images, of `size`: with one, a mean over the batch too would be that of the map.

        another_first: the first of them is another image than otherwise.
        """
        device = self.example.device
        device = torch.device("cpu") if device.type == "meta" else device
        shape = (2, *self.example.shape[1:-2], *(size or self.example.shape[-2:]))
        generator = torch.Generator().manual_seed(1)
        images = torch.randn(shape, generator=generator, dtype=self.dtype).to(device)
        if not self.example.is_floating_point():
            images = self.example[:2].clone()
        if another_first:
            images[0] = images[0].square() if images.is_floating_point() else images[0].flip(-1)
        return self._record(self.model, (images,), {}, seed)

    def run_enlarged(self, first: Run) -> Run:
        """On larger images, where maps are too small to see what pools them; `first` where it isn't so or can't be."""
        sides = [min(product.map.shape[-2:]) for product in first.products if len(product.map.shape) >= 4]
        height, width = self.example.shape[-2:]
        smallest = min(sides, default=_SMALLEST)
        times = min(-(-_SMALLEST // smallest), -(-_LARGEST // min(height, width)))
        if times < 2 or min(height, width) >= _LARGE_ENOUGH:
            return first
        try:
            return self.run_model(size=(height * times, width * (times + 1)))
        except Exception:  # a network for images of one size: its small maps have to do
            return first

    def run_trained(self, first: Run) -> tuple[Run, list[Frame]]:
        """In training mode, where modules haven't run in evaluation; and those that can't be made to run.

        `first` where there are none, or where the network wants more than images then.
        """
        silent = self._silent(first)
        if not self.training or all(isinstance(module, _NOTHING_TO_RUN) for module in silent):
            return first, []
        self.model.train()
        try:
            return self.run_model(), []
        except Exception:  # it wants targets too
            own = [m for m in silent if not is_of_torch(m) and next(m.parameters(), None) is not None]
            return first, [Frame(module, self._names[module], None) for module in own]
        finally:
            self.model.eval()

    def _silent(self, run: Run) -> Set[nn.Module]:
        return self._names.keys() - {frame.module for frame in run.frames}

    @contextmanager
    def as_it_will_run(self) -> Iterator[None]:
        """In the mode in which the model will run, but torch's own modules, which make the same calls without noise."""
        self.model.train(self.training)
        for module in self._names:
            module.training &= not is_of_torch(module)
        try:
            yield
        finally:
            self.model.eval()

    def run_again(self, home: Frame, seed: int = 0, shift: tuple[Call, Path, float] | None = None) -> Run:
        """The module of `home` alone, on what it was given; shift: as of `Run.record`."""
        args, kwargs = copies((home.args, home.kwargs))
        return self._record(home.module, args, kwargs, seed, shift, keep=True)

    def _record(
        self, module: nn.Module, args: Any, kwargs: Any, seed: int, shift: Any = None, keep: bool = False
    ) -> Run:
        torch.manual_seed(seed)
        random.seed(seed)
        if "numpy" in sys.modules:
            sys.modules["numpy"].random.seed(seed)
        before = _random_states()
        run = Run(self._names, self.dtype, keep).record(module, args, kwargs, shift)
        run.is_random = before != _random_states()
        return run


def more_seeds(run: Run) -> range:
    """Of further runs, where this one depends on random numbers."""
    return range(1, _SEEDS) if run.is_random else range(0)


def _random_states() -> list[Any]:
    states: list[Any] = [torch.get_rng_state().numpy().tobytes(), random.getstate()]
    if "numpy" in sys.modules:
        state = sys.modules["numpy"].random.get_state()
        states += [state[1].tobytes(), state[2:]]
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        states += [state.numpy().tobytes() for state in torch.cuda.get_rng_state_all()]
    return states
