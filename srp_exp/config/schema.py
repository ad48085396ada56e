"""Typed schemas of a run: how it is trained and evaluated. Those of its parts lie in components.py.

Defaults, units and ranges stand here; the files in conf/ choose among schemas and set what differs.
"""

from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from omegaconf import MISSING

from srp_exp.config.fields import not_identity, within


class Mode(Enum):
    train = "train"
    eval = "eval"


class SplitName(Enum):
    train = "train"
    val = "val"
    test = "test"


class Precision(Enum):
    fp32 = "fp32"
    bf16 = "bf16"
    fp16 = "fp16"


class Selection(Enum):
    last = "last"
    best = "best"


class ShareName(Enum):
    sample = "sample"
    batch = "batch"


@dataclass
class RecipeConfig:
    """How long and how hard to train."""

    name: str = MISSING
    epochs: int = within("[1, inf)")
    batch_size: int = within("[1, inf)")  # images per step, over all devices
    lr: float = within("(0, inf)")  # peak learning rate of SGD for this batch size
    weight_decay: float = within("[0, inf)", 5e-4)  # of SGD
    warmup_epochs: float = within("[0, inf)", 0.0)
    pretrained: bool = False  # start from timm's ImageNet weights; backbone.weights=FILE takes another file's
    label_smoothing: float = within("[0, 1)", 0.0)
    ema_decay: float | None = within("(0, 1)", None)  # per step; the average is what is evaluated
    clip_norm: float | None = within("(0, inf)", None)  # largest norm of the gradient over all parameters
    accumulate_steps: int = within("[1, inf)", 1)  # a batch is computed in this many parts
    selection: Selection = Selection.last  # which epoch is the result; best needs a validation part
    evaluate_every_epochs: int = within("[1, inf)", 1)  # with selection=best: what the best epoch is chosen from


@dataclass
class OptimizerConfig:
    name: str = MISSING
    _target_: str = MISSING
    _partial_: bool = True
    lr: float = within("(0, inf)")
    weight_decay: float = within("[0, inf)")
    decay_norm_and_bias: bool = True  # false: weight decay on matrices and kernels only


@dataclass
class SgdConfig(OptimizerConfig):
    _target_: str = "torch.optim.SGD"
    lr: float = within("(0, inf)", "${recipe.lr}")
    weight_decay: float = within("[0, inf)", "${recipe.weight_decay}")
    momentum: float = within("[0, 1)", 0.9)
    nesterov: bool = True


@dataclass
class AdamWConfig(OptimizerConfig):
    _target_: str = "torch.optim.AdamW"
    lr: float = within("(0, inf)", 1e-3)
    weight_decay: float = within("[0, inf)", 0.05)
    betas: list[float] = within("[0, 1)", [0.9, 0.999])


@dataclass
class LrScheduleConfig:
    name: str = MISSING
    _target_: str = MISSING
    _partial_: bool = True
    warmup_epochs: float = within("[0, inf)", "${recipe.warmup_epochs}")  # rising in a straight line from 0


@dataclass
class CosineLrConfig(LrScheduleConfig):
    _target_: str = "srp_exp.training.lr_schedule.cosine"
    final_factor: float = within("[0, 1]", 0.0)  # times the peak learning rate


@dataclass
class StepLrConfig(LrScheduleConfig):
    _target_: str = "srp_exp.training.lr_schedule.step"
    milestones: list[float] = within("(0, 1)", [0.3, 0.6, 0.8])  # as parts of the training
    gamma: float = within("(0, 1)", 0.2)  # factor at each milestone


@dataclass
class OneCycleLrConfig:
    name: str = MISSING
    _target_: str = "srp_exp.training.lr_schedule.one_cycle"
    _partial_: bool = True
    peak_at: float = within("(0, 1)", 0.3)  # part of the training after which the rate is highest
    start_factor: float = within("(0, 1]", 0.04)  # times the peak learning rate
    final_factor: float = within("[0, 1]", 0.0)


@dataclass
class MixingConfig:
    name: str = MISSING
    _target_: str | None = None
    _partial_: bool = True


@dataclass
class MixConfig(MixingConfig):
    """MixUp (arXiv:1710.09412) or CutMix (arXiv:1905.04899): shares drawn from Beta(alpha, alpha)."""

    alpha: float = within("(0, inf)", 1.0)


@dataclass
class MixUpOrCutMixConfig(MixingConfig):
    _target_: str | None = "srp_exp.training.mixing.mixup_or_cutmix"
    mixup_alpha: float = within("(0, inf)", 1.0)
    cutmix_alpha: float = within("(0, inf)", 1.0)


@dataclass
class GapConfig:
    """Global average pooling: no SRP."""

    name: str = MISSING
    _target_: str | None = None


@dataclass
class SrpConfig:
    name: str = MISSING
    _target_: str = MISSING
    share: ShareName = ShareName.sample  # a region for every image, or one for the batch
    regions: int = within("[1, inf)", 1)  # squares pooled together
    ramp_until: float | None = within("(0, 1]", None)  # part of the training after which the scale is full SRP's


@dataclass
class FixedConfig(SrpConfig):
    _target_: str = "srp_exp.srp.Fixed"
    scale: float = within("(0, 1]", 0.5)


@dataclass
class LinearConfig(SrpConfig):
    _target_: str = "srp_exp.srp.Linear"
    first: float = within("(0, 1]", 1.0)  # scale of the shallowest attention module
    last: float = within("(0, 1]", 0.5)  # scale of the deepest


@dataclass
class CosineConfig(LinearConfig):
    _target_: str = "srp_exp.srp.Cosine"


@dataclass
class StagesConfig(SrpConfig):
    _target_: str = "srp_exp.srp.Stages"
    scales: list[float] = within("(0, 1]", [1.0, 0.75, 0.5])  # one for every stage of the network


@dataclass
class CheckpointConfig:
    every_steps: int | None = within("[1, inf)", None)
    every_minutes: float | None = within("(0, inf)", 5.0)


@dataclass
class Config:
    """A run. The parts are typed by the schemas that their files name."""

    dataset: Any = MISSING
    attention: Any = MISSING
    backbone: Any = MISSING
    srp: Any = MISSING
    optimizer: Any = MISSING
    lr_schedule: Any = MISSING
    mixing: Any = MISSING
    recipe: RecipeConfig = field(default_factory=RecipeConfig)

    seed: int = within("[0, inf)", 0)
    precision: Precision = Precision.fp32  # autocast for bf16 and fp16
    channels_last: bool = False
    compile: bool = False  # torch.compile
    deterministic: bool = False  # kernels that give the same bits every time, slower on a GPU; a CPU needs no asking
    sync_batch_norm: bool = False  # statistics over the batch of all processes; CUDA devices only

    mode: Mode = not_identity(Mode.train)
    rerun: bool = not_identity(False)  # true: train afresh even if the run is finished
    run: str | None = not_identity(None)  # mode=eval: folder of the run
    checkpoint: Any = field(  # when to save, besides the end of each epoch; or, in mode=eval, checkpoint=FILE
        default_factory=CheckpointConfig, metadata={"identity": False}
    )
    split: SplitName = not_identity(SplitName.test)  # mode=eval: what to evaluate on
    trust_targets: bool = not_identity(False)  # true: a config read back may name classes of any package
    device: str = not_identity("auto")  # cuda where there is one, else cpu; or cpu, cuda, cuda:1, mps
    activation_checkpointing: bool = not_identity(False)  # less memory, about a third more time, the same bits
    workers: int | None = field(  # processes that read image files; None: one for each CPU, at most 16
        default=None, metadata={"within": "[0, inf)", "identity": False}
    )
    log_every_steps: int = field(default=10, metadata={"within": "[1, inf)", "identity": False})
    progress: bool = not_identity(True)  # a progress bar where the output is a terminal
    data_root: str = not_identity("data")
    output_dir: str = not_identity("outputs")
