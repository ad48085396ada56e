"""Build the objects of a run from its configuration, resolved to plain values.

Only commands/ and runs/ ever see a configuration.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from timm.layers.norm_act import convert_sync_batchnorm
from torch import Tensor, nn

from srp_exp.config.schemas.datasets import OF_EVERY_SET
from srp_exp.datasets import Batch, DataSet, Sharding, TrainingBatches, hold_out, with_statistics
from srp_exp.datasets.known import without_pictures
from srp_exp.datasets.on_disk.picture_set import PictureSet
from srp_exp.datasets.other_test import other_test
from srp_exp.datasets.subset import with_subset
from srp_exp.errors import UserError
from srp_exp.seeding import derive
from srp_exp.srp import SrpRecords, apply_srp, find_attention
from srp_exp.srp.finding.findings import by_reason
from srp_exp.training.activation_checkpointing import checkpoint_activations
from srp_exp.training.freezing import freeze
from srp_exp.training.learner import Learner, StepSettings, check_parts
from srp_exp.training.loggers.logger import Logger
from srp_exp.training.losses import Loss, balanced, soft_labels
from srp_exp.training.mixing import Mix
from srp_exp.training.optimizer import parameter_groups
from srp_exp.training.processes.distributed import SINGLE, Processes
from srp_exp.training.processes.exchange import Exchange
from srp_exp.training.reporting.logs import LOG

MOST_WORKERS = 16
"""Of a process: more are not worth it to read files."""


@dataclass(frozen=True)
class Data:
    """A data set with its parts, train, val (None: no validation part) and test, and where its batches go.

    balanced: whether training draws all classes equally often.
    """

    dataset: DataSet
    splits: dict[str, Any]
    placement: Sharding
    balanced: bool = False
    _evaluations: dict[tuple[str, int], Iterable[Batch]] = field(default_factory=dict)

    @property
    def device(self) -> torch.device:
        return torch.device(self.placement.device)

    def training_batches(self, batch_size: int, seed: int) -> TrainingBatches:
        return self.dataset.training_batches(self.splits["train"], batch_size, seed, self.placement, self.balanced)

    def pictures(self, split: str, rows: Tensor) -> Tensor:
        """The pictures (M, C, H, W) in [0, 1] at rows (M,) of a split, as evaluation sees them."""
        here = Sharding(self.placement.device)
        (batch,) = self.dataset.reader(self.splits[split], here, None).batches(0, [rows])
        return self.shown(batch.images)

    def shown(self, images: Tensor) -> Tensor:
        """Images (B, C, H, W) of a batch in [0, 1], on the CPU."""
        mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (self.dataset.mean, self.dataset.std))
        return (images.cpu() * std + mean).clamp(0, 1)

    def evaluation_batches(self, split: str, batch_size: int) -> Iterable[Batch]:
        """The same loader each time. Raises UserError where the data set has no such split."""
        chosen = self.splits[split]
        if chosen is None:
            raise UserError(f"split={split}: this run has no validation part (dataset.val_fraction=0)")
        if (split, batch_size) not in self._evaluations:
            batches = self.dataset.evaluation_batches(chosen, batch_size, self.placement)
            self._evaluations[split, batch_size] = batches
        return self._evaluations[split, batch_size]


def build_dataset(config: DictConfig, facts: Mapping[str, Any] | None = None) -> DataSet:
    """The data set. facts: what a checkpoint keeps of it, with which a set in files opens no training picture."""
    arguments = _arguments(config.dataset, without=OF_EVERY_SET)
    own = config.dataset
    if facts and facts["in_files"]:
        make = instantiate({**arguments, "_partial_": True})
        only_test = isinstance(make.func, type) and issubclass(make.func, PictureSet)
        made = make(known=facts) if only_test else make()
    else:
        made = instantiate(arguments)
    dataset: DataSet = with_statistics(made, own.mean, own.std)
    return with_subset(dataset, own.train_per_class, own.test_on_unused, own.subset_seed)


def build_data(
    config: DictConfig, device: torch.device, processes: Processes = SINGLE, facts: Mapping[str, Any] | None = None
) -> Data:
    """The data set, as rank 0 finds or makes it first, and where its batches go.

    workers: of a machine, divided over its processes. facts: what a checkpoint keeps of the set, where no training
    picture is needed; with config.test_root, which has its pictures, the set isn't opened then.
    """
    if facts and config.test_root is not None:
        augmentation = instantiate(_arguments(config.dataset.augmentation, without=()))
        dataset = without_pictures(facts, augmentation)
    else:
        with processes.in_turns():
            dataset = build_dataset(config, facts)
    train, val = (dataset.train, dataset.val) if facts else _divided(config, dataset)
    test = dataset.test
    if config.test_root is not None:
        test = other_test(Path(config.test_root).expanduser(), dataset, config.some_classes)
    splits = {"train": train, "val": val, "test": test}
    workers = processes.share_of_workers(config.workers, MOST_WORKERS)
    placement = Sharding(device, _memory_format(config), processes.rank, processes.size, workers)
    return Data(dataset, splits, placement, config.recipe.sampler == "balanced")


def _divided(config: DictConfig, dataset: DataSet) -> tuple[Any, Any]:
    """The part that trains, and the validation part: the set's own, or what is held out; None where there is none."""
    fraction = config.dataset.val_fraction
    if dataset.val is None:
        if fraction == 0 and config.recipe.selection == "best":
            raise UserError(
                "recipe.selection=best needs a validation part, since test data selects nothing: set "
                "dataset.val_fraction; the data set brings none"
            )
        return hold_out(dataset.train, fraction, config.seed, dataset.class_names)
    if fraction:
        raise UserError(f"dataset.val_fraction={fraction}: the data set brings a validation part; set it to 0")
    return dataset.train, dataset.val


def build_model(config: DictConfig, dataset: DataSet, device: torch.device) -> tuple[nn.Module, SrpRecords]:
    """The network, initialised from the seed, with SRP where it is chosen, and the records of apply_srp.

    Raises ValueError where the network, the attention and SRP don't go together.
    """
    torch.manual_seed(derive(config.seed, "initialisation"))
    attention = config.attention
    factory = None
    if attention._target_ is not None:
        factory = instantiate(_arguments(attention, without=("name", "replaces_conv", "average_pooling")))
    model: nn.Module = instantiate(
        _arguments(config.backbone, without=("name", "weights_sha256")),
        attention=None if attention.replaces_conv else factory,
        conv=factory if attention.replaces_conv else None,
        num_classes=dataset.num_classes,
        in_channels=dataset.channels,
    )
    example = torch.zeros(2, dataset.channels, *dataset.image_size)
    if attention._target_ is None:
        _check_native(attention.average_pooling, config.backbone.name, _has_attention(model, example))
    records = _apply_srp(config.srp, model, example) if config.srp._target_ is not None else SrpRecords([], [])
    return model.to(device).to(memory_format=_memory_format(config)), records


def build_learner(
    config: DictConfig, model: nn.Module, data: Data, steps_per_epoch: int, processes: Processes = SINGLE
) -> Learner:
    """The learner of `model`.

    Raises ValueError for synchronised batch norm on a CPU, where torch has none, and for a batch that the processes
    can't divide.
    """
    recipe, device = config.recipe, data.device
    check_parts(recipe.batch_size, recipe.accumulate_steps, processes.size, config.mixing._target_ is not None)
    if config.sync_batch_norm:
        if device.type != "cuda":
            raise UserError(f"sync_batch_norm=true: torch has it on CUDA devices only, not on {device}")
        model = convert_sync_batchnorm(model)  # torch's own would drop the activations in timm's norms
    if config.activation_checkpointing and not checkpoint_activations(model, config.checkpoint_every_block):
        raise UserError(f"activation_checkpointing=true: {config.backbone.name} has no blocks in an nn.Sequential")
    if recipe.freeze is not None:
        freeze(model, recipe.freeze)
    chosen = config.optimizer
    groups = parameter_groups(model, chosen.weight_decay, chosen.decay_norm_and_bias, chosen.lr, chosen.head_lr_factor)
    of_groups = ("name", "weight_decay", "decay_norm_and_bias", "head_lr_factor")
    make_optimizer = instantiate(_arguments(chosen, without=of_groups))
    with _named(f"optimizer={chosen.name}"):
        optimizer = make_optimizer(groups)
    make_schedule = instantiate(_arguments(config.lr_schedule, without=("name",)))
    with _named(f"lr_schedule={config.lr_schedule.name}"):
        lr_schedule = make_schedule(optimizer, epochs=recipe.epochs, steps_per_epoch=steps_per_epoch)
    settings = StepSettings(
        seed=config.seed,
        total_steps=recipe.epochs * steps_per_epoch,
        precision=config.precision,
        accumulate_steps=recipe.accumulate_steps,
        clip_norm=recipe.clip_norm,
        ema_decay=recipe.ema_decay,
        ema_warmup=recipe.ema_warmup,
        ramp_until=config.srp.get("ramp_until"),
        compile=config.compile_mode if config.compile else None,
    )
    loss = _build_loss(config, data)
    mix = _build_mix(config.mixing, data.dataset.num_classes)
    exchange = Exchange(config.ddp.bucket_mb, config.ddp.static_graph, config.bf16_gradients)
    return Learner(
        model,
        optimizer,
        lr_schedule,
        settings,
        loss=loss,
        mix=mix,
        device=device,
        processes=processes,
        exchange=exchange,
    )


def build_loggers(config: DictConfig) -> list[Logger]:
    """The loggers, which have written nothing yet. Raises UserError where one needs a package that isn't installed."""
    return [instantiate(_arguments(node, without=())) for node in config.logger.values()]


def _build_loss(config: DictConfig, data: Data) -> Loss:
    """The loss, with the weights of the classes and the smoothing of labels where the recipe sets them.

    Raises UserError where its class takes none of these, or no soft labels of mixing.
    """
    recipe, classes = config.recipe, data.dataset.num_classes
    named, given = f"loss={config.loss.name}", dict[str, Any]()
    if recipe.class_weights == "balanced":
        given["weight"] = balanced(data.splits["train"].labels, classes).to(data.device)
    if recipe.label_smoothing:
        given["label_smoothing"] = recipe.label_smoothing
    make_loss = instantiate(_arguments(config.loss, without=("name",)))
    with _named(
        f"{named} with recipe.label_smoothing={recipe.label_smoothing:g}, class_weights={recipe.class_weights}"
    ):
        loss: Loss = make_loss(**given)
    labels = torch.zeros(2, dtype=torch.int64, device=data.device)
    mixes = config.mixing._target_ is not None
    try:
        tried = loss(torch.zeros(2, classes, device=data.device), soft_labels(labels, classes) if mixes else labels)
    except (TypeError, ValueError, RuntimeError) as error:
        targets = f"the soft labels of mixing={config.mixing.name}" if mixes else "labels"
        raise UserError(f"{named}: its class refuses {targets} ({str(error).partition(chr(10))[0]})") from error
    if not (isinstance(tried, torch.Tensor) and tried.ndim == 0):
        raise UserError(f"{named}: its class returns {tried!r:.60}: let it return the mean loss, a tensor ()")
    return loss


def _build_mix(mixing: DictConfig, num_classes: int) -> Mix | None:
    if mixing._target_ is None:
        return None
    make_mix = instantiate(_arguments(mixing, without=("name",)))
    with _named(f"mixing={mixing.name}"):
        mix: Mix = make_mix(num_classes=num_classes)
    return mix


@contextmanager
def _named(choice: str) -> Iterator[None]:
    """Name the choice whose class refuses its settings, as torch's SGD does with momentum=0 and nesterov=true."""
    try:
        yield
    except UserError:
        raise
    except (TypeError, ValueError) as error:
        raise UserError(f"{choice}: its class refuses its settings ({error})") from error


def _apply_srp(srp: DictConfig, model: nn.Module, example: torch.Tensor) -> SrpRecords:
    schedule = instantiate(_arguments(srp, without=("name", "share", "regions", "placement", "ramp_until")))
    settings = {"share": srp.share, "regions": srp.regions, "placement": srp.placement}
    records = apply_srp(model, schedule, **settings, example_input=example)
    for line in by_reason(records.left_out):
        LOG.info("SRP leaves out %s", line)
    return records


def _has_attention(model: nn.Module, example: torch.Tensor) -> bool:
    return any(pooling.gates for pooling in find_attention(model, example).poolings)


def _check_native(wanted: bool, backbone: str, has_attention: bool) -> None:
    """Raise ValueError where `none` meets a network with attention of its own, or `native` one without."""
    if has_attention and not wanted:
        raise UserError(f"attention=none: {backbone} brings its own attention; set attention=native")
    if wanted and not has_attention:
        raise UserError(f"attention=native: {backbone} brings no attention of its own; choose one, as attention=se")


def _arguments(node: DictConfig, without: tuple[str, ...]) -> dict[str, Any]:
    """The node as a dict for hydra's instantiate, without the keys that aren't arguments of its class."""
    values = OmegaConf.to_container(node)
    assert isinstance(values, dict)
    return {str(key): value for key, value in values.items() if key not in without}


def _memory_format(config: DictConfig) -> torch.memory_format:
    return torch.channels_last if config.channels_last else torch.contiguous_format
