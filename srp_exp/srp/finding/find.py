"""Find the channel attention of a network: where the mean of a map over height and width gates this map.

No attention type is named, and nothing is rewritten: the network runs on random images, in float64, and values tell
(lineage.py). A gate is a factor of the map that was computed from its mean and changes when a constant is added to the
map, which tells it from a norm. The pooling in front of a classifier multiplies nothing, so it is never found.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.utils._python_dispatch import TorchDispatchMode

from srp_exp.errors import UserError
from srp_exp.srp.finding.findings import Findings
from srp_exp.srp.finding.lineage import FACTORS
from srp_exp.srp.finding.search import Search
from srp_exp.srp.finding.undisturbed import evaluation_mode, undisturbed

LOOKED_FOR = (
    "a module that averages a map (B, C, H, W) over H and W, in any spelling, and multiplies the map by something "
    "computed from the average, as SE, ESE, ECA, CECA, CBAM, GE, SK and split attention do"
)


def find_attention(model: nn.Module, example_input: Tensor | None = None, training: bool = True) -> Findings:
    """Find the poolings of the channel attention modules of `model`.

    `example_input` (B, C, H, W) shows the size of the images; by default that which a timm model names, or one that the
    model takes. `training`: whether to tell the calls of a training step or of evaluation, where a forward branches.
    The model runs on random images and ends as it began: attributes, parameters, statistics, random states. A model on
    the meta device will do.

    Raises:
        ValueError: the model can't be run on such images.
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
        if _has_no_product(model, example):
            return Findings()
        for dtype in (torch.float64, torch.float32):  # some code of a network's own takes float32 alone
            try:
                with undisturbed(model, dtype):
                    return Search(model, example, dtype, training).findings()
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


class _Products(TorchDispatchMode):
    """Notes whether two tensors (B, ...) that depend on the batch are multiplied, as a map and its gate are."""

    seen = False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        start = FACTORS.get(func.overloadpacket)
        factors: Any = () if start is None else args[start : start + 2]
        if len(factors) == 2 and all(isinstance(factor, Tensor) and factor.dim() >= 3 for factor in factors):
            one, other = factors
            spread = one.shape != other.shape or 0 in one.stride() or 0 in other.stride()
            self.seen |= one.shape[0] == other.shape[0] and (spread or one.dim() >= 4)
        return func(*args, **(kwargs or {}))


def _has_no_product(model: nn.Module, example: Tensor) -> bool:
    """Whether a model on the meta device multiplies no map: it needn't be searched then, which takes real values."""
    if not example.is_meta:
        return False
    try:
        with torch.no_grad(), evaluation_mode(model), _Products() as products:
            model(example)
    except Exception:  # it may need values
        return False
    return not products.seen
