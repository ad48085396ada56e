"""Find the channel attention of a network: where the mean of a map over height and width gates this map.

No attention type is named, and nothing is rewritten. A copy of the network runs on random images, in float64: values
tell the means, and autograd's graph tells what comes from them. A gate is a factor of the map that is computed from its
mean and changes when a constant is added to the map, which a norm doesn't. The pooling in front of a classifier
multiplies nothing, so it is never found.
"""

import copy
import functools
import random
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from srp_exp.errors import UserError
from srp_exp.srp.finding.findings import Findings
from srp_exp.srp.finding.graph import Graph
from srp_exp.srp.finding.search import Search

LOOKED_FOR = (
    "a module that averages a map (B, C, H, W) over H and W, in any spelling, and multiplies the map by something "
    "computed from the average, as SE, ESE, ECA, CECA, CBAM, GE, SK and split attention do"
)


def find_attention(model: nn.Module, example_input: Tensor | None = None, training: bool = True) -> Findings:
    """Find the poolings of the channel attention modules of `model`.

    `example_input` (B, C, H, W) shows the size of the images; by default that which a timm model names, or one that the
    model takes. `training`: whether to tell the calls of a training step or of evaluation, where a forward branches.
    A copy of the model runs on random images, and the model isn't touched. A model on the meta device will do.

    Raises:
        UserError: the model can't be copied, or can't be run on such images.
    """
    if example_input is not None and not isinstance(example_input, Tensor):
        raise UserError(
            f"example_input is a {type(example_input).__name__}: give a tensor (B, C, H, W); "
            "where a model takes several inputs, apply_srp to the part that takes the images"
        )
    lazy = [name for name, value in model.state_dict(keep_vars=True).items() if is_lazy(value)]
    if lazy:
        raise UserError(f"{lazy[0]} has no shape yet: run the model once on images, so that its lazy modules are made")
    errors: list[str] = []
    for example in [example_input] if example_input is not None else _examples(model):
        if _multiplies_nothing(model, example):
            return Findings()
        for dtype in (torch.float64, torch.float32):  # some code of a network's own takes float32 alone
            try:
                with torch.inference_mode(False), _uncompiled(), _as_it_was(model), _default_dtype(dtype):
                    return Search(model, example, dtype, training).findings()
            except UserError:
                raise
            except Exception as error:  # whatever a foreign forward raises here
                errors.append((str(error).splitlines() or [type(error).__name__])[0])
                shape = tuple(example.shape)
    raise UserError(
        f"{type(model).__name__} can't be run on images {shape} ({errors[0][:120]}): pass example_input, a batch of "
        f"the size that it takes"
    )


def _examples(model: nn.Module) -> Iterator[Tensor]:
    """Empty images of the size that a timm model names, then of usual sizes; channels as the first convolution has."""
    named = getattr(model, "pretrained_cfg", {}).get("input_size")
    first = next((module for module in model.modules() if isinstance(module, nn.Conv2d)), None)
    channels = 3 if first is None else first.in_channels
    reference = next(model.parameters(), torch.empty(0))
    for side in (224, 32, 28, 64, 96, 128, 256, 299, 384, 512):
        shape = (channels, side, side) if named is None else (channels, *named[1:])
        yield torch.empty(2, *shape, device=reference.device, dtype=reference.dtype)
        named = None


def _multiplies_nothing(model: nn.Module, example: Tensor) -> bool:
    """Whether a model on the meta device multiplies no map: it needn't be searched then, which takes real values."""
    if not example.is_meta:
        return False
    try:
        with torch.enable_grad():
            output = copy.deepcopy(model).eval()(example.detach().requires_grad_().clone())
    except Exception:  # it may need values
        return False
    outputs = output if isinstance(output, tuple | list) else [output]
    if not all(isinstance(one, Tensor) and one.requires_grad for one in outputs):
        return False
    products = Graph([one.grad_fn for one in outputs], [], lambda edge: True).products
    return not any(len(product.map.shape) >= 3 and len(product.factor.shape) >= 3 for product in products)


def _uncompiled() -> AbstractContextManager[Any]:
    """What the user has compiled runs as it is written."""
    if "torch._dynamo" not in sys.modules:
        return nullcontext()
    stance: AbstractContextManager[Any] = torch.compiler.set_stance("force_eager")
    return stance


@contextmanager
def _caches(model: nn.Module) -> Iterator[None]:
    """What the classes of the model and functions beside them remember of a run is afterwards as it was, or gone.

    It would be of the run's type: a table of coordinates, say.
    """
    kinds = {kind for module in model.modules() for kind in type(module).__mro__}
    kinds = {kind for kind in kinds if not kind.__module__.startswith(("torch.", "builtins"))}
    spaces: list[Any] = [*kinds, *(sys.modules[kind.__module__] for kind in kinds if kind.__module__ in sys.modules)]
    values = [value for space in spaces for value in list(vars(space).values())]
    caches = [(one, one.cache_info().currsize) for one in values if isinstance(one, functools._lru_cache_wrapper)]
    held = [(value, value.copy()) for kind in kinds for value in vars(kind).values() if isinstance(value, dict)]
    try:
        yield
    finally:
        for cache, size in caches:
            if cache.cache_info().currsize != size:
                cache.cache_clear()
        for value, before in held:
            if value.keys() != before.keys():
                value.clear()
                value.update(before)


@contextmanager
def _default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@contextmanager
def _as_it_was(model: nn.Module) -> Iterator[None]:
    """The random states of Python, numpy and torch, and what the model's classes remember, stay as they are."""
    state, numpy = random.getstate(), sys.modules.get("numpy")
    of_numpy = numpy and numpy.random.get_state()
    try:
        with torch.random.fork_rng(), _caches(model):
            yield
    finally:
        random.setstate(state)
        if numpy:
            numpy.random.set_state(of_numpy)
