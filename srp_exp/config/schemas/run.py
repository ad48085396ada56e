"""Typed schemas of a run, and of SRP. Its other parts: datasets.py, networks.py, training.py and study.py.

Defaults, units and ranges stand here; the files in conf/ choose among schemas and set what differs.
"""

from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from omegaconf import MISSING

from srp_exp.config.schemas.fields import not_identity, within
from srp_exp.config.schemas.study import StudyConfig
from srp_exp.config.schemas.training import RecipeConfig


class Mode(Enum):
    train = "train"
    eval = "eval"
    predict = "predict"
    export = "export"
    cost = "cost"
    compare = "compare"


class ExportFormat(Enum):
    timm = "timm"
    safetensors = "safetensors"
    onnx = "onnx"
    hub = "hub"
    torch_export = "torch_export"


class SplitName(Enum):
    train = "train"
    val = "val"
    test = "test"


class Precision(Enum):
    fp32 = "fp32"
    bf16 = "bf16"
    fp16 = "fp16"


CompileMode = Enum("CompileMode", ["default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs"])
"""Of torch.compile."""


class PlacementName(Enum):
    corner = "corner"
    wrap = "wrap"


class ShareName(Enum):
    sample = "sample"
    batch = "batch"


@dataclass
class GapConfig:
    """Global average pooling: no SRP."""

    name: str = MISSING  # the name of the choice, in that of the run's folder
    _target_: str | None = None


@dataclass
class SrpConfig:
    name: str = MISSING  # the name of the choice, in that of the run's folder
    _target_: str = MISSING
    share: ShareName = ShareName.sample  # a region for every image, or one for the batch
    regions: int = within("[1, inf)", 1)  # squares pooled together
    placement: PlacementName = PlacementName.corner  # inside the map, or around its edge: every position alike
    ramp_until: float | None = within("(0, 1]", None)  # part of the training after which the scale is full SRP's


@dataclass
class FixedConfig(SrpConfig):
    _target_: str = "srp_exp.srp.Fixed"
    scale: float = within("(0, 1]", 0.5)  # side of the region over the side of the map


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
    every_steps: int | None = within("[1, inf)", None)  # save after this many steps; null: not by steps
    every_minutes: float | None = within("(0, inf)", 5.0)  # save after this many minutes; null: not by time


@dataclass
class DdpConfig:
    """How several processes exchange gradients: DistributedDataParallel."""

    bucket_mb: float = within("(0, inf)", 25.0)  # megabytes of gradients that are sent together
    static_graph: bool = False  # true: torch is told that every step uses the same parameters


@dataclass
class CostConfig:
    """What mode=cost measures beside the configured network with global average pooling."""

    rounds: int = within("[2, inf)", 40)  # rounds, in each of which every network makes a training step
    # Choices of conf/srp to measure besides the run's own.
    srp: list[str] = field(default_factory=lambda: ["fixed", "scheduled"])


@dataclass
class Config:
    """A run. The parts are typed by the schemas that their files name."""

    dataset: Any = MISSING  # the pictures, and what training does to them
    attention: Any = MISSING  # the channel attention that is put into the backbone
    backbone: Any = MISSING  # the network
    srp: Any = MISSING  # Stochastic Region Pooling, or gap: global average pooling
    optimizer: Any = MISSING  # a class of torch.optim, or your own
    lr_schedule: Any = MISSING  # the learning rate over the training
    loss: Any = MISSING  # that training minimises
    mixing: Any = MISSING  # of pictures and labels within a batch
    recipe: RecipeConfig = field(default_factory=RecipeConfig)

    seed: int = within("[0, inf)", 0)  # all random numbers of the run follow from it

    # conf/speed/ sets the five that follow
    precision: Precision = Precision.fp32  # bf16, fp16: under torch.autocast
    channels_last: bool = False  # memory format of maps and kernels
    compile: bool = False  # torch.compile of the training step
    # torch.compile's mode; those with CUDA graphs are for runs without SRP.
    compile_mode: CompileMode = within(None, CompileMode.default, counts_unless=("compile_mode", "default"))
    tf32: bool = False  # fp32 products and convolutions in TensorFloat-32, where a GPU has it
    cudnn_benchmark: bool = False  # cuDNN tries its kernels for each shape and takes the fastest
    deterministic: bool = False  # kernels that give the same bits every time, slower on a GPU; a CPU needs no asking
    sync_batch_norm: bool = False  # batch norm over the batch of all processes; CUDA devices only
    # Several processes exchange gradients as bf16.
    bf16_gradients: bool = within(None, False, counts_unless=("bf16_gradients", False))

    study: StudyConfig | None = not_identity(None)  # what the runs of a grid are compared for
    dry: bool = not_identity(False)  # true: show the runs, their states and their time, and check one batch of each
    wait: bool = not_identity(True)  # false: return as soon as a cluster has taken the runs

    prune_by: str | None = not_identity(None)  # set by hydra/sweeper=search: a file of the val top-1 to be above

    mode: Mode = not_identity(Mode.train)  # what the command does
    rerun: bool = not_identity(False)  # true: train afresh even if the run is finished
    run: str | None = not_identity(None)  # mode=eval, predict, export, compare: folder of a finished run
    other: str | None = not_identity(None)  # mode=compare: folder of the run that `run` is compared with
    checkpoint: Any = not_identity(CheckpointConfig)  # when to save besides epochs' ends; mode=eval: checkpoint=FILE
    split: SplitName = not_identity(SplitName.test)  # mode=eval: the part to evaluate on
    test_root: str | None = not_identity(None)  # other test pictures for a run, in a folder for each of its classes
    some_classes: bool = not_identity(False)  # true: test_root has a part of the classes; the others' logits are masked
    flip: bool = not_identity(False)  # mode=eval, predict: the mean with the answer to the mirrored picture
    source: str | None = not_identity(None)  # mode=predict: a folder of pictures, a table of them, or one picture
    source_column: str | None = not_identity(None)  # images, or names of image files, in that table; null: the only one
    top: int = not_identity(5, within="[1, inf)")  # mode=predict: how many classes of each picture
    predictions: str | None = not_identity(None)  # mode=predict: a *.csv or *.parquet; null: predictions/ of the run
    format: ExportFormat = not_identity(ExportFormat.timm)  # mode=export: the format to write
    cost: CostConfig = not_identity(CostConfig)  # mode=cost: how it is measured
    evaluators: list[str] = not_identity([])  # measured after the training, or in mode=eval: descriptors, gates...
    cams: int = not_identity(0, within="[0, inf)")  # mode=compare: how many images to show class activation maps of
    trust_targets: bool = not_identity(False)  # true: a config read back may build whatever it names
    device: str = not_identity("auto")  # cuda where there is one, else cpu; or cpu, cuda, cuda:1, free_cuda, mps
    activation_checkpointing: bool = not_identity(False)  # less memory, about a third more time, the same bits
    # 2: checkpoint the activations of every second block, and so on.
    checkpoint_every_block: int = not_identity(1, within="[1, inf)")
    ddp: DdpConfig = not_identity(DdpConfig)  # how several processes exchange gradients
    logger: dict[str, Any] = not_identity(dict)  # where curves and pictures go, each by its name: docs/loggers.md
    # Processes of a machine that read image files; null: by its CPUs.
    workers: int | None = not_identity(None, within="[0, inf)")
    log_every_steps: int = not_identity(10, within="[1, inf)")  # curves have a point for each so many steps
    profile: bool = not_identity(False)  # true: a trace of three steps, in the run's folder profile/
    progress: bool = not_identity(True)  # a progress bar where the output is a terminal
    data_root: str = not_identity("data")  # folder that holds the folders of the data sets
    output_dir: str = not_identity("outputs")  # folder of runs/ and reports/
