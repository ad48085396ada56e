"""Typed schemas of how a network is trained: recipe, optimizer, learning-rate schedule, mixing of images."""

from dataclasses import dataclass
from enum import Enum

from omegaconf import MISSING, DictConfig

from srp_exp.config.schemas.fields import taken_over, within


class Selection(Enum):
    last = "last"
    best = "best"


class Frozen(Enum):
    backbone = "backbone"
    batch_norm = "batch_norm"


class ClassWeights(Enum):
    equal = "equal"
    balanced = "balanced"


class Sampler(Enum):
    shuffled = "shuffled"
    balanced = "balanced"


@dataclass
class RecipeConfig:
    """How long and how hard to train."""

    name: str = MISSING  # the name of the choice
    epochs: int = within("[1, inf)")  # passes over the training part
    batch_size: int = within("[1, inf)")  # images per step, over all devices
    lr: float = taken_over("(0, inf)")  # peak learning rate of SGD for this batch size
    weight_decay: float = taken_over("[0, inf)", 5e-4)  # weight decay of SGD
    # Epochs in which the learning rate rises from 0; one_cycle has its own.
    warmup_epochs: float = taken_over("[0, inf)", 0.0)
    pretrained: bool = taken_over(None, False)  # begin with timm's ImageNet weights; backbone.weights=FILE takes others
    label_smoothing: float = within("[0, 1)", 0.0)  # part of the label that goes to all classes alike
    # Of the classes in the loss; balanced: all classes count alike, however many pictures each has.
    class_weights: ClassWeights = within(None, ClassWeights.equal, counts_unless=("class_weights", "equal"))
    # Of an epoch's pictures; balanced: as many, drawn with replacement so that all classes are equally likely.
    sampler: Sampler = within(None, Sampler.shuffled, counts_unless=("sampler", "shuffled"))
    # Decay per step of a moving average of the weights, which is then evaluated; null: no average.
    ema_decay: float | None = within("(0, 1)", None)
    ema_warmup: bool = False  # true: a decay of at most 1 - t^(-2/3) at step t, so that a short training has an average
    clip_norm: float | None = within("(0, inf)", None)  # largest norm of the gradient over all parameters
    accumulate_steps: int = within("[1, inf)", 1)  # a batch is computed in this many parts
    selection: Selection = Selection.last  # which epoch is the result; best needs a validation part
    # Epochs from one evaluation to the next.
    evaluate_every_epochs: int = within("[1, inf)", 1, counts_if=("selection", "best"))
    # Evaluations of the validation part, none of them the best so far, after which the training ends; null: it doesn't.
    early_stopping: int | None = within("[1, inf)", None, counts_unless=("early_stopping", None))
    # What keeps the weights that it begins with: all but the classifier, or batch norms; null: nothing.
    freeze: Frozen | None = within(None, None, counts_unless=("freeze", None))


@dataclass
class OptimizerConfig:
    name: str = MISSING  # the name of the choice
    _target_: str = MISSING
    _partial_: bool = True
    lr: float = within("(0, inf)")  # peak learning rate
    weight_decay: float = within("[0, inf)")  # as the class of the optimizer defines it
    decay_norm_and_bias: bool = True  # false: weight decay on matrices and kernels only
    head_lr_factor: float = within("(0, inf)", 1.0)  # learning rate of the classifier over that of the body


@dataclass
class SgdConfig(OptimizerConfig):
    _target_: str = "torch.optim.SGD"
    lr: float = within("(0, inf)", "${recipe.lr}")
    weight_decay: float = within("[0, inf)", "${recipe.weight_decay}")
    momentum: float = within("[0, 1)", 0.9)  # 0: none
    nesterov: bool = True  # Nesterov's momentum
    fused: bool = True  # one kernel for all parameters, which fp16 needs in order not to wait for the device


@dataclass
class AdamWConfig(OptimizerConfig):
    _target_: str = "torch.optim.AdamW"
    lr: float = within("(0, inf)", 1e-3)
    weight_decay: float = within("[0, inf)", 0.05)
    betas: list[float] = within("[0, 1)", [0.9, 0.999], length=2)  # decay of the gradient's two moving averages
    fused: bool = True  # one kernel for all parameters, which fp16 needs in order not to wait for the device


@dataclass
class LrScheduleConfig:
    name: str = MISSING  # the name of the choice
    _target_: str = MISSING
    _partial_: bool = True


@dataclass
class WarmedUpConfig(LrScheduleConfig):
    # Epochs in which the rate rises in a straight line from 0: the recipe's, or half of all if that is shorter.
    warmup_epochs: float = within("[0, inf)", "${fitting_warmup:${recipe.warmup_epochs},${recipe.epochs}}")


def shortened_warmup(config: DictConfig) -> str | None:
    """One line for the log where the recipe's warm-up was shortened to fit; None where it is as the recipe says.

    config: of a run, resolved to plain values.
    """
    own, taken = config.recipe.warmup_epochs, config.lr_schedule.get("warmup_epochs")
    if taken is None or not taken == config.recipe.epochs / 2 < own:
        return None
    return (
        f"recipe.warmup_epochs={own} is shortened to {taken}, half of recipe.epochs={config.recipe.epochs}; another: "
        "lr_schedule.warmup_epochs=..."
    )


def average_of_the_start(config: DictConfig, steps: int) -> str | None:
    """A warning where the moving average of a training of `steps` steps still is, by 1 % or more, where it began."""
    decay = config.recipe.ema_decay
    if decay is None or config.recipe.ema_warmup or (weight := decay ** (steps - 1)) < 0.01:
        return None
    return (
        f"recipe.ema_decay={decay} over {steps} steps: {weight:.0%} of the moving average, which is what is evaluated, "
        f"are the weights of the first step; set recipe.ema_warmup=true, or a lower recipe.ema_decay"
    )


@dataclass
class CosineLrConfig(WarmedUpConfig):
    _target_: str = "srp_exp.training.lr_schedule.cosine"
    final_factor: float = within("[0, 1]", 0.0)  # times the peak learning rate


@dataclass
class StepLrConfig(WarmedUpConfig):
    _target_: str = "srp_exp.training.lr_schedule.step"
    milestones: list[float] = within("(0, 1)", [0.3, 0.6, 0.8])  # as parts of the training
    gamma: float = within("(0, 1)", 0.2)  # factor at each milestone


@dataclass
class OneCycleLrConfig(LrScheduleConfig):
    _target_: str = "srp_exp.training.lr_schedule.one_cycle"
    peak_at: float = within("(0, 1)", 0.3)  # part of the training after which the rate is highest
    start_factor: float = within("(0, 1]", 0.04)  # times the peak learning rate
    final_factor: float = within("[0, 1]", 0.0)  # times the peak learning rate


_CROSS_ENTROPY = "srp_exp.training.losses.CrossEntropy"


@dataclass
class LossConfig:
    name: str = MISSING  # the name of the choice
    _target_: str = within(None, _CROSS_ENTROPY, counts_unless=("_target_", _CROSS_ENTROPY))
    _partial_: bool = within(None, True, counts_unless=("_partial_", True))


@dataclass
class BinaryCrossEntropyConfig(LossConfig):
    _target_: str = "srp_exp.training.losses.BinaryCrossEntropy"
    # A smoothed or mixed label above it becomes 1, and else 0; null: it stays as it is.
    target_threshold: float | None = within("[0, 1)", None)


@dataclass
class FocalConfig(LossConfig):
    _target_: str = "srp_exp.training.losses.Focal"
    gamma: float = within("[0, inf)", 2.0)  # how little easy answers count; 0: as much as others
    alpha: float | None = within("[0, 1]", 0.25)  # weight of a sample's own class, 1 - alpha of the others; null: 1


@dataclass
class MixingConfig:
    name: str = MISSING  # the name of the choice
    _target_: str | None = None
    _partial_: bool = True


@dataclass
class MixConfig(MixingConfig):
    """MixUp (arXiv:1710.09412) or CutMix (arXiv:1905.04899): shares drawn from Beta(alpha, alpha)."""

    alpha: float = within("(0, inf)", 1.0)  # the shares are drawn from Beta(alpha, alpha)


@dataclass
class MixUpOrCutMixConfig(MixingConfig):
    _target_: str | None = "srp_exp.training.mixing.MixUpOrCutMix"
    mixup_alpha: float = within("(0, inf)", 1.0)  # of MixUp's Beta(alpha, alpha)
    cutmix_alpha: float = within("(0, inf)", 1.0)  # of CutMix's
