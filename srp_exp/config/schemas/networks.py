"""Typed schemas of backbones and attention modules."""

from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from omegaconf import MISSING

from srp_exp.config.schemas.fields import not_identity, within


@dataclass
class AttentionConfig:
    name: str = MISSING  # the name of the choice, in that of the run's folder
    _target_: str | None = None  # called with the channels of the map
    _partial_: bool = True
    replaces_conv: bool = False  # true: stands in for a convolution, and is called as one
    average_pooling: bool = True  # false: there is no pooling for SRP to stand in front of


@dataclass
class ReductionConfig(AttentionConfig):
    rd_ratio: float = within("(0, 1]", 0.0625)  # hidden over input channels
    rd_divisor: int = within("[1, inf)", 1)  # hidden channels are rounded to a multiple of it, and at least it; timm: 8


@dataclass
class CbamConfig(ReductionConfig):
    spatial_kernel_size: int = within("[1, inf)", 7)  # of the convolution of its spatial part


@dataclass
class GlobalContextConfig(ReductionConfig):
    fuse_add: bool = True  # the context is added to the map
    fuse_scale: bool = False  # the context multiplies the map


@dataclass
class SelectiveKernelConfig(ReductionConfig):
    # Each branch reads half of the channels, timm's choice, which keeps the parameters of a network without groups near
    # those of the plain one; false: the publication's.
    split_input: bool = True


@dataclass
class SplitAttnConfig(ReductionConfig):
    radix: int = within("[1, inf)", 2)  # branches that share the attention
    norm_layer: Any = None  # the class of normalisation layers; null: none


@dataclass
class EffectiveSeConfig(AttentionConfig):
    gate_layer: str = "hard_sigmoid"  # timm's name of the gate function


@dataclass
class EcaConfig(AttentionConfig):
    gamma: int = within("[1, inf)", 2)  # kernel size |log2(C)/gamma + beta/gamma|, the next odd number
    beta: int = within("[0, inf)", 1)  # see gamma


@dataclass
class GatherExciteConfig(AttentionConfig):
    extent: int = within("[0, inf)", 0)  # 0: the whole map
    extra_params: bool = False  # true: depthwise convolutions gather instead of pooling
    use_mlp: bool = False  # true fails in timm 1.0.31, which passes device and dtype to its ConvMlp by position


class Shortcut(Enum):
    pad = "pad"
    project = "project"


@dataclass
class BackboneConfig:
    name: str = MISSING  # the name of the choice, in that of the run's folder
    _target_: str = MISSING


@dataclass
class ResNetConfig(BackboneConfig):
    depth: int = within("[1, inf)")  # layers: 6n+2; 9n+2 with bottleneck
    # Factor of the 16, 32 and 64 channels of the stages, four times that with bottleneck.
    width: int = within("[1, inf)", 1)
    bottleneck: bool = False  # true: blocks of 1x1, 3x3 and 1x1 convolutions
    shortcut: Shortcut = Shortcut.pad  # pad: zeros in the added channels (option A); project: 1x1 convolution (B)


@dataclass
class WideResNetConfig(BackboneConfig):
    depth: int = within("[1, inf)")  # layers: 6n+4
    width: int = within("[1, inf)")  # factor of the 16, 32 and 64 channels of the stages
    dropout: float = within("[0, 1)", 0.0)  # 0.3 in the publication's table 6


@dataclass
class ResNeXtConfig(BackboneConfig):
    depth: int = within("[1, inf)")  # layers: 9n+2
    cardinality: int = within("[1, inf)")  # groups of the 3x3 convolution
    group_width: int = within("[1, inf)")  # channels of a group in stage 1; doubles with each stage


@dataclass
class DenseNetConfig(BackboneConfig):
    depth: int = within("[1, inf)")  # layers: 6n+4
    growth_rate: int = within("[1, inf)")  # new channels of a dense layer
    compression: float = within("(0, 1]", 0.5)  # share of the channels that a transition keeps
    dropout: float = within("[0, 1)", 0.0)  # 0.2 in the publication where no augmentation is used


@dataclass
class TimmConfig(BackboneConfig):
    _target_: str = "srp_exp.backbones.timm_models.build"
    name: str = field(default="${.model}")
    model: str = MISSING  # timm's name
    pretrained: bool = within(None, "${recipe.pretrained}", counts_if=("weights", None))  # timm's ImageNet weights
    weights: str | None = not_identity(None)  # a file of weights to start from instead
    weights_sha256: str | None = field(default="${sha256_of_file:${.weights}}")  # what stands for it in the run's hash
