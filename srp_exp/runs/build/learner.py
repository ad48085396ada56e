"""The learner of a run: optimizer, schedule, loss and mixing around its network."""

from typing import Any

import torch
from hydra.utils import instantiate
from omegaconf import DictConfig
from timm.layers.norm_act import convert_sync_batchnorm
from torch import nn

from srp_exp.errors import UserError
from srp_exp.runs.build.arguments import arguments, named
from srp_exp.runs.build.data import Data
from srp_exp.training.activation_checkpointing import checkpoint_activations
from srp_exp.training.freezing import freeze
from srp_exp.training.learner import Learner, StepSettings
from srp_exp.training.losses import Loss, balanced, soft_labels
from srp_exp.training.mixing import Mix
from srp_exp.training.optimizer import parameter_groups
from srp_exp.training.processes.distributed import SINGLE, Processes
from srp_exp.training.processes.exchange import Exchange
from srp_exp.training.processes.parts import check_parts


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
    make_optimizer = instantiate(arguments(chosen, without=of_groups))
    with named(f"optimizer={chosen.name}"):
        optimizer = make_optimizer(groups)
    make_schedule = instantiate(arguments(config.lr_schedule, without=("name",)))
    with named(f"lr_schedule={config.lr_schedule.name}"):
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


def _build_loss(config: DictConfig, data: Data) -> Loss:
    """The loss, with the weights of the classes and the smoothing of labels where the recipe sets them.

    Raises UserError where its class takes none of these, or no soft labels of mixing.
    """
    recipe, classes = config.recipe, data.dataset.num_classes
    chosen, given = f"loss={config.loss.name}", dict[str, Any]()
    if recipe.class_weights == "balanced":
        given["weight"] = balanced(data.splits["train"].labels, classes).to(data.device)
    if recipe.label_smoothing:
        given["label_smoothing"] = recipe.label_smoothing
    make_loss = instantiate(arguments(config.loss, without=("name",)))
    with named(
        f"{chosen} with recipe.label_smoothing={recipe.label_smoothing:g}, class_weights={recipe.class_weights}"
    ):
        loss: Loss = make_loss(**given)
    labels = torch.zeros(2, dtype=torch.int64, device=data.device)
    mixes = config.mixing._target_ is not None
    try:
        tried = loss(torch.zeros(2, classes, device=data.device), soft_labels(labels, classes) if mixes else labels)
    except (TypeError, ValueError, RuntimeError) as error:
        targets = f"the soft labels of mixing={config.mixing.name}" if mixes else "labels"
        raise UserError(f"{chosen}: its class refuses {targets} ({str(error).partition(chr(10))[0]})") from error
    if not (isinstance(tried, torch.Tensor) and tried.ndim == 0):
        raise UserError(f"{chosen}: its class returns {tried!r:.60}: let it return the mean loss, a tensor ()")
    return loss


def _build_mix(mixing: DictConfig, num_classes: int) -> Mix | None:
    if mixing._target_ is None:
        return None
    make_mix = instantiate(arguments(mixing, without=("name",)))
    with named(f"mixing={mixing.name}"):
        mix: Mix = make_mix(num_classes=num_classes)
    return mix
