"""Rules that no type can hold: ranges, unknown keys under `+`, and what one choice demands of another."""

import re
from collections.abc import Iterable

from omegaconf import DictConfig, ListConfig, OmegaConf

from srp_exp.config.evaluators import OF_ATTENTION, check_evaluators
from srp_exp.config.explain import nearest
from srp_exp.config.fields import is_within, schema_fields
from srp_exp.errors import UserError


def validate(config: DictConfig) -> None:
    """Raise ValueError, in one line that names value, place and remedy, unless the configuration can be run."""
    _validate_fields(config, "")
    _validate_dataset(config)
    _validate_training(config)
    _validate_attention(config)
    _validate_evaluators(config)


def not_read(config: DictConfig, overrides: Iterable[str]) -> list[str]:
    """A line for each of `overrides`, as "recipe.lr=0.1", that sets what nothing in `config` reads.

    Of the fields made by `taken_over` only settings that refer to them read something.
    """
    lines = []
    for override in overrides:
        name = override.lstrip("+").partition("=")[0]
        group, _, key = name.rpartition(".")
        node = OmegaConf.select(config, group) if group else None
        field = (schema_fields(node) or {}).get(key) if isinstance(node, DictConfig) else None
        if field is None or not field.metadata.get("taken_over"):
            continue
        if not re.search(rf"\$\{{[^}}]*\b{re.escape(name)}\b", OmegaConf.to_yaml(config)):
            groups = [str(other) for other in config if other != group and OmegaConf.is_dict(config[other])]
            own = [f"{other}.{key}" for other in groups if key in config[other]]
            lines.append(f"{override}: nothing reads it here; {f'set {own[0]}' if own else 'leave it out'}")
    return lines


def _validate_fields(node: DictConfig, prefix: str) -> None:
    fields = schema_fields(node)
    keys = [str(key) for key in node if key != "hydra"]
    for key in keys:
        if fields is not None and key not in fields:
            raise UserError(f"{prefix}{key} is not a setting{nearest(key, fields)}")
    for name, field in (fields or {}).items():
        if name not in node:
            raise UserError(f"{prefix}{name} is missing: it can't be deleted")
        interval = field.metadata.get("within")
        value = node[name]
        if interval is None or value is None:
            continue
        for number in value if isinstance(value, list | ListConfig) else [value]:
            if not is_within(number, interval):
                raise UserError(f"{prefix}{name}={value} is out of range: it must lie in {interval}")
    for key in sorted(keys, key=lambda key: key != "recipe"):  # first, as others take their values from it
        if OmegaConf.is_dict(node[key]):
            _validate_fields(node[key], f"{prefix}{key}.")


def _validate_training(config: DictConfig) -> None:
    recipe = config.recipe
    if not isinstance(config.checkpoint, str) and not OmegaConf.is_dict(config.checkpoint):
        raise UserError(f"checkpoint={config.checkpoint}: give a file, or set checkpoint.every_steps, .every_minutes")
    if recipe.selection.name == "best" and config.dataset.val_fraction == 0:
        raise UserError(
            "recipe.selection=best needs a validation part, since test data selects nothing: set dataset.val_fraction"
        )
    if recipe.batch_size % recipe.accumulate_steps:
        raise UserError(
            f"recipe.accumulate_steps={recipe.accumulate_steps} does not divide recipe.batch_size={recipe.batch_size}"
        )
    if recipe.pretrained and "pretrained" not in config.backbone:
        raise UserError(
            f"recipe.pretrained=true: there are no pretrained weights of backbone={config.backbone.name}; "
            "choose a network of timm, as backbone=seresnet50, or recipe.pretrained=false"
        )
    if config.lr_schedule.get("warmup_epochs", 0) >= recipe.epochs and config.lr_schedule.warmup_epochs > 0:
        raise UserError(
            f"lr_schedule.warmup_epochs={config.lr_schedule.warmup_epochs} leaves nothing of the "
            f"recipe.epochs={recipe.epochs}"
        )


def _validate_dataset(config: DictConfig) -> None:
    if "image_size" in config.dataset and len(config.dataset.image_size) != 2:
        raise UserError(f"dataset.image_size={config.dataset.image_size}: give two numbers, [height, width] in pixels")


def _validate_attention(config: DictConfig) -> None:
    attention, srp = config.attention, config.srp
    if srp._target_ is not None and not attention.average_pooling:
        raise UserError(
            f"srp={srp.name} needs attention with average pooling, and attention={attention.name} has none: "
            "take one of se, ese, eca, ceca, cbam, lcbam, ge, sk, splat, or native for a timm network's own; or srp=gap"
        )


def _validate_evaluators(config: DictConfig) -> None:
    check_evaluators(config.evaluators)
    of_attention = [name for name in config.evaluators if name in OF_ATTENTION]
    if of_attention and config.mode.name == "train" and not config.attention.average_pooling:
        raise UserError(
            f"evaluators: {', '.join(of_attention)} measure attention with average pooling, and "
            f"attention={config.attention.name} has none; leave them out"
        )
