"""Networks of timm (https://github.com/huggingface/pytorch-image-models), with attention where timm takes it.

In timm's ResNet family attention goes in through timm's own arguments: ``block_args.attn_layer`` for modules
at the end of a residual branch, ``block`` for those that replace a convolution. Any attention the network
had at the end of its branches is replaced (seresnet50 with eca is ecaresnet). Other networks are taken as
timm defines them: with ``attention=None`` and ``conv=None``, which serve both ``attention=none`` and
``attention=native``. That a network with attention of its own is refused under ``none`` is for the
caller to check, who knows the name that was chosen.
"""

import logging
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import timm
import torch
from timm.models.resnet import BasicBlock, Bottleneck, ResNet
from torch import nn

from srp_exp.backbones.placement import AttentionFactory, ConvFactory, Placement
from srp_exp.backbones.weights import load_weights
from srp_exp.errors import UnreachableError, UserError

_LOG = logging.getLogger("srp_exp")


class ConvAttentionBasicBlock(BasicBlock):
    """timm's basic block with its last 3x3 convolution made by ``conv_layer``; the batch norm stays."""

    def __init__(self, *args: Any, conv_layer: ConvFactory, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        plain = self.conv2
        made = conv_layer(plain.in_channels, plain.out_channels, stride=1, groups=1)
        self.conv2 = made  # type: ignore[assignment]


class ConvAttentionBottleneck(Bottleneck):
    """timm's bottleneck with its 3x3 convolution made by ``conv_layer``, which brings its norm and ReLU.

    The same structure as timm's SelectiveKernelBottleneck and ResNestBottleneck (without average-pool
    downsampling), but it takes every argument of the convolution and any class.
    """

    def __init__(self, *args: Any, conv_layer: ConvFactory, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        plain = self.conv2
        made = conv_layer(plain.in_channels, plain.out_channels, stride=plain.stride[0], groups=plain.groups)
        self.conv2 = made  # type: ignore[assignment]
        self.bn2 = nn.Identity()
        self.act2 = nn.Identity()


REPLACING_BLOCKS: dict[type[nn.Module] | None, type[nn.Module]] = {
    BasicBlock: ConvAttentionBasicBlock,
    Bottleneck: ConvAttentionBottleneck,
}


def build(
    model: str,
    pretrained: bool = False,
    weights: str | None = None,
    *,
    attention: AttentionFactory | None = None,
    conv: ConvFactory | None = None,
    num_classes: int,
    in_channels: int,
) -> nn.Module:
    """timm's ``model``: images (B, in_channels, H, W) -> logits (B, num_classes).

    ``pretrained`` loads timm's weights, or those of the file ``weights`` where one is given; with ``attention``
    the attention modules start untrained, unless the file has them.
    Raises ValueError for a name timm does not know (with the nearest ones), for attention on a network
    outside timm's ResNet family, and for pretrained weights that do not exist or do not fit; UnreachableError where
    timm's weights can't be fetched.
    """
    check_name(model)
    placement = Placement(attention, conv)
    pretrained = pretrained and weights is None
    options: dict[str, Any] = {"num_classes": num_classes, "in_chans": in_channels}
    if pretrained and not timm.is_model_pretrained(model):
        raise UserError(f"{model}: timm has no pretrained weights for it; set backbone.pretrained=false")
    if pretrained and placement.replaces_conv:
        raise UserError(
            f"{model}: its pretrained weights have no place for this attention's convolution;"
            " set backbone.pretrained=false"
        )
    if attention is not None or placement.replaces_conv:
        options |= attention_options(model, placement)
        options["pretrained_strict"] = False  # the attention modules are not in timm's weights
    if pretrained:
        logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # it would tell of every try of a fetch twice
        _LOG.info("fetching timm's weights of %s, unless they were fetched before", model)
    try:
        network: nn.Module = timm.create_model(model, pretrained=pretrained, **options)
    except OSError as error:
        raise UnreachableError(
            f"{model}: timm's weights can't be fetched ({str(error).splitlines()[0]}); fetch them by other means "
            f"and set backbone.weights=FILE, or set backbone.pretrained=false"
        ) from None
    if weights is not None:
        _load_file(network, Path(weights).expanduser(), model, attention_added=attention is not None)
    return network


def _load_file(network: nn.Module, file: Path, model: str, attention_added: bool) -> None:
    heads: Any = timm.get_pretrained_cfg_value(model, "classifier")
    added: set[str] = set()
    if attention_added:
        with torch.device("meta"):
            added = network.state_dict().keys() - timm.create_model(model).state_dict().keys()
    load_weights(network, file, (heads,) if isinstance(heads, str) else heads, may_lack=added)


def check_name(model: str) -> None:
    """Raise ValueError, naming valid ones, unless timm knows ``model`` and the ``.tag`` that may follow."""
    architecture, _, tag = model.partition(".")
    if not timm.is_model(architecture):
        nearest = get_close_matches(architecture, timm.list_models(), n=3, cutoff=0.5)
        hint = f"nearest: {', '.join(nearest)}" if nearest else "timm.list_models() names them"
        raise UserError(f"timm has no model {model!r}; {hint}")
    tags = [name.partition(".")[2] for name in timm.list_pretrained(f"{architecture}.*")]
    if tag and tag not in tags:
        raise UserError(f"timm has no weights {tag!r} of {architecture}; it has: {', '.join(tags) or 'none'}")


def attention_options(model: str, placement: Placement) -> dict[str, Any]:
    """The arguments that make timm put ``placement`` into its ResNet ``model``.

    Raises ValueError unless all blocks of ``model`` are timm's BasicBlock or Bottleneck.
    """
    with torch.device("meta"):  # structure only: no memory, a tenth of a second
        reference = timm.create_model(model)
    block = type(reference.get_submodule("layer1.0")) if isinstance(reference, ResNet) else None
    if block not in REPLACING_BLOCKS:
        raise UserError(
            f"{model}: attention can be chosen only in timm's ResNet family (resnet, seresnet, resnext, ...);"
            " use attention=native"
        )
    if placement.conv is not None:
        return {"block": REPLACING_BLOCKS[block], "block_args": {"conv_layer": placement.conv}}

    def attn_layer(channels: int, **_device_and_dtype: Any) -> nn.Module:
        return placement.branch_end(channels)

    return {"block_args": {"attn_layer": attn_layer}}
