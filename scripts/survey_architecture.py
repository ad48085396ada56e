"""Search one architecture of timm or torchvision for attention, put SRP into it, and check it, for architectures.py.

Dropout and stochastic depth are off, and random numbers stand for parameters of zeros, such as the last gamma of a
block: so nothing but the regions makes a difference, and nothing hides it.
"""

import math
import warnings
from collections import Counter
from dataclasses import dataclass, field

import timm
import torch
import torchvision
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from srp_exp.srp import apply_srp, find_attention, remove_srp, set_progress, srp_modules

LARGEST = 100_000_000  # parameters of a network that is built with values
SIDES = (64, 128)  # of images, before the size that the network names is tried

# Classes that are channel attention by their name, for a check from the other side. SRP has no place in the second.
AVERAGING = {
    "BlockESE", "CbamModule", "CecaModule", "ChannelAttn", "EcaModule", "EffectiveSEModule", "GatherExcite",
    "LightCbamModule", "LightChannelAttn", "SEModule", "SelectiveKernel", "SplitAttn", "SqueezeExcitation",
    "SqueezeExcite", "SqueezeExciteCl",
}  # fmt: skip
OTHER_POOLING = {"BatNonLocalAttn", "CoordAttn", "EfficientLocalAttn", "GlobalContext", "SimpleCoordAttn", "StripAttn"}


@dataclass
class Row:
    """What was found of one architecture; `error` is why it couldn't be searched, `failed` names the checks not met."""

    library: str
    name: str
    parameters: int = 0
    shape: tuple[int, ...] = ()
    attention: dict[str, int] = field(default_factory=dict)
    missed: dict[str, int] = field(default_factory=dict)
    with_values: bool = False
    failed: list[str] = field(default_factory=list)
    error: str = ""


def build(library: str, name: str) -> nn.Module:
    if library == "timm":
        return timm.create_model(name)
    model: nn.Module = torchvision.models.get_model(name, weights=None)
    return model


def build_on_meta(library: str, name: str) -> nn.Module:
    if library == "timm":
        with torch.device("meta"):
            return build(library, name)
    return build(library, name).to("meta")  # torchvision's RegNet computes its widths with tensors


def survey(library: str, name: str) -> Row:
    """Search and check one architecture; whatever goes wrong is in the row."""
    row = Row(library, name)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of deprecated names and of initialisation
            _search(row)
    except Exception as error:  # of a foreign network: one failure is a line of the table
        row.error = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:150]}"
    return row


def _search(row: Row) -> None:
    model = build_on_meta(row.library, row.name)
    row.parameters = sum(parameter.numel() for parameter in model.parameters())
    row.with_values = row.parameters <= LARGEST
    row.shape = smallest_input(model)
    found = find_attention(model, torch.empty(row.shape, device="meta"))
    modules = list(dict.fromkeys(pooling.module for pooling in found.poolings if pooling.gates))
    row.attention = dict(Counter(type(model.get_submodule(module)).__name__ for module in modules))
    row.missed = _missed(model, modules)
    if modules and row.with_values:
        row.failed = check(build(row.library, row.name), row.shape, modules)
    elif modules:
        row.failed = check_on_meta(model, row.shape)


def smallest_input(model: nn.Module) -> tuple[int, ...]:
    """Shape (2, C, H, W) of the smallest images that `model`, on the meta device, takes."""
    own = getattr(model, "pretrained_cfg", {}).get("input_size", (3, 224, 224))
    model.eval()
    for side in SIDES:
        try:
            with torch.no_grad():
                model(torch.empty(2, own[0], side, side, device="meta"))
            return (2, own[0], side, side)
        except Exception:  # a foreign network's refusal of this size
            continue
    return (2, *own)


def _missed(model: nn.Module, found: list[str]) -> dict[str, int]:
    """Count, by class, the modules that are channel attention by their name but have none of the `found` in them."""
    missed: Counter[str] = Counter()
    for name, module in model.named_modules():
        kind = type(module).__name__
        related = (f for f in found if f"{f}.".startswith(f"{name}.") or f"{name}.".startswith(f"{f}."))
        if kind in AVERAGING | OTHER_POOLING and not any(related):
            missed[kind] += 1
    return dict(missed)


def check(model: nn.Module, shape: tuple[int, ...], on_meta: list[str]) -> list[str]:
    """Names of the checks, of the script's header, that `model` fails; `on_meta` are the modules found there."""
    torch.manual_seed(0)
    _show_everything(model)
    images = torch.randn(shape)
    output, plain = _evaluate(model, images), _train(model, images)
    keys, parameters = list(model.state_dict()), [name for name, _ in model.named_parameters()]
    records = apply_srp(model, 0.5, example_input=images)
    new_output, with_srp = _evaluate(model, images), _train(model, images)
    same_keys = list(model.state_dict()) == keys and [name for name, _ in model.named_parameters()] == parameters
    set_progress(model, 0)
    whole = _train(model, images)
    remove_srp(model)
    checks = {
        "finite": all(bool(t.isfinite().all()) for t in (output, plain.output, with_srp.output)),
        "same modules on meta": [record.name for record in records] == on_meta,
        "evaluation": torch.equal(output, new_output),
        "keys": same_keys,
        "output differs": not torch.equal(plain.output, with_srp.output),
        "output at scale 1": torch.equal(plain.output, whole.output),
        "gradients at scale 1": _equal(plain.gradients, whole.gradients),
        "buffers at scale 1": _equal(plain.buffers, whole.buffers) and plain.random == whole.random,
        "gradients": plain.beyond_rounding() <= with_srp.nonzero(),
        "removal": not srp_modules(model) and list(model.state_dict()) == keys,
    }
    return [name for name, passed in checks.items() if not passed]


def check_on_meta(model: nn.Module, shape: tuple[int, ...]) -> list[str]:
    """As `check`, of what a network without values shows: the keys."""
    keys = list(model.state_dict())
    apply_srp(model, 0.5, example_input=torch.empty(shape, device="meta"))
    same_keys = list(model.state_dict()) == keys
    remove_srp(model)
    checks = {"keys": same_keys, "removal": not srp_modules(model) and list(model.state_dict()) == keys}
    return [name for name, passed in checks.items() if not passed]


def _show_everything(model: nn.Module) -> None:
    """Turn off what is random but the regions, and give values to parameters of zeros, such as the last gamma."""
    for module in model.modules():
        for setting in ("p", "drop_prob", "drop_path", "drop_rate", "attn_drop_rate"):
            if isinstance(getattr(module, setting, None), float):
                setattr(module, setting, 0.0)
    with torch.no_grad():
        for parameter in model.parameters():
            if not parameter.any():
                parameter.normal_(0, 0.1)


def _output(model: nn.Module, images: Tensor) -> Tensor:
    """All outputs in one row."""
    return torch.cat([leaf.flatten() for leaf in tree_leaves(model(images)) if isinstance(leaf, Tensor)])


def _evaluate(model: nn.Module, images: Tensor) -> Tensor:
    with torch.no_grad():
        return _output(model.eval(), images)


@dataclass
class Step:
    """What a training step gives: output, gradients and buffers by name, and the number that torch would draw next."""

    output: Tensor
    gradients: dict[str, Tensor]
    buffers: dict[str, Tensor]
    random: float

    def nonzero(self) -> set[str]:
        """Names whose gradient is finite and not zero."""
        sizes = {name: float(gradient.abs().max()) for name, gradient in self.gradients.items()}
        return {name for name, size in sizes.items() if size and math.isfinite(size)}

    def beyond_rounding(self) -> set[str]:
        """Names whose gradient isn't that of, say, a bias in front of a batch norm: zero but for rounding."""
        sizes = {name: float(self.gradients[name].abs().max()) for name in self.nonzero()}
        return {name for name, size in sizes.items() if size > 1e-6 * max(sizes.values())}


def _equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    """Whether all have the same bits, those of no number included."""
    same = (torch.equal(one[name].nan_to_num(), other[name].nan_to_num()) for name in one)
    return one.keys() == other.keys() and all(same)


def _train(model: nn.Module, images: Tensor) -> Step:
    before = [(buffer, buffer.clone()) for buffer in model.buffers()]  # evaluation must not see this step
    torch.manual_seed(1)
    model.train().zero_grad(set_to_none=True)
    output = _output(model, images)
    output.float().square().mean().backward()
    after = {name: buffer.clone() for name, buffer in model.named_buffers()}
    for buffer, value in before:
        buffer.copy_(value)
    gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    return Step(output.detach(), gradients, after, float(torch.rand(1)))
