"""Rules that no type can hold: ranges, unknown keys under `+`, and what one choice demands of another."""

import dataclasses
import re
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf

from srp_exp.config.choices import BASES, completed
from srp_exp.config.documented import in_brackets
from srp_exp.config.evaluators import OF_ATTENTION, check_evaluators
from srp_exp.config.failures.explain import nearest
from srp_exp.config.identity import names_a_run
from srp_exp.config.schemas.datasets import InMemoryConfig, PublishedConfig
from srp_exp.config.schemas.fields import is_within, schema_fields
from srp_exp.errors import UserError


def validate(config: DictConfig) -> None:
    """Raise ValueError, in one line that names value, place and remedy, unless the configuration can be run."""
    config = completed(config)
    without = {"dataset"} if names_a_run(config) else set[str]()  # that of the run is read
    validate_fields(config, "", without)
    _validate_own(config)
    _validate_test_root(config)
    _validate_prediction(config)
    _validate_subset(config)
    _validate_training(config)
    _validate_speed(config)
    _validate_attention(config)
    _validate_evaluators(config)
    _validate_loggers(config)


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


def validate_fields(node: DictConfig, prefix: str, without: Collection[str] = ()) -> None:
    """Raise ValueError for a key without a field, or a value out of range, in `node`, whose name is `prefix`.

    What is below the keys `without` isn't looked at.
    """
    fields, schema = schema_fields(node), OmegaConf.get_type(node)
    keys = [str(key) for key in node if key != "hydra"]
    for key in keys:
        if fields is not None and key not in fields:
            raise UserError(f"{prefix}{key} is not a setting{nearest(key, fields)}")
    for name, field in (fields or {}).items():
        if OmegaConf.is_missing(node, name):
            raise UserError(f"{prefix}{name} has no value: give one, as {prefix}{name}=...{in_brackets(schema, name)}")
        if name not in node:
            raise UserError(f"{prefix}{name} is missing: it can't be deleted")
        _validate_value(f"{prefix}{name}", node[name], field.metadata, in_brackets(schema, name))
    below = [key for key in keys if key not in without]
    for key in sorted(below, key=lambda key: key != "recipe"):  # first, as others take their values from it
        value = node[key]
        for place, child in enumerate(value) if OmegaConf.is_list(value) else [("", value)]:
            if OmegaConf.is_dict(child):
                validate_fields(child, f"{prefix}{key}[{place}]." if place != "" else f"{prefix}{key}.")


def _validate_own(config: DictConfig) -> None:
    """Whether the values of a choice without a schema that every choice of its group has are in range."""
    for group, base in BASES.items():
        for field in () if schema_fields(config[group]) else dataclasses.fields(base):
            _validate_value(
                f"{group}.{field.name}", config[group][field.name], field.metadata, in_brackets(base, field.name)
            )


def _validate_value(name: str, value: Any, metadata: Mapping[str, Any], meaning: str) -> None:
    interval, length = metadata.get("within"), metadata.get("length")
    numbers = list(value) if isinstance(value, ListConfig | list) else [value]  # a resolver gives a list
    if metadata.get("is_size") and not (len(numbers) in (1, 2) and all(type(number) is int for number in numbers)):
        raise UserError(f"{name}={value}: give whole pixels of a side, or [height,width]{meaning}")
    if length is not None and value is not None and len(numbers) != length:
        raise UserError(f"{name}={value}: give {length} numbers{meaning}")
    if interval is not None and value is not None and not all(is_within(number, interval) for number in numbers):
        raise UserError(f"{name}={value} is out of range: it must lie in {interval}{meaning}")


def _validate_training(config: DictConfig) -> None:
    recipe = config.recipe
    if config.dry and config.mode.name != "train":
        raise UserError(f"dry=true: tries out a training, not mode={config.mode.name}; leave it out")
    if not isinstance(config.checkpoint, str) and not OmegaConf.is_dict(config.checkpoint):
        raise UserError(f"checkpoint={config.checkpoint}: give a file, or set checkpoint.every_steps, .every_minutes")
    has_no_val = issubclass(OmegaConf.get_type(config.dataset) or dict, InMemoryConfig | PublishedConfig)
    if recipe.selection.name == "best" and config.dataset.val_fraction == 0 and has_no_val:  # others may bring one
        raise UserError(
            "recipe.selection=best needs a validation part, since test data selects nothing: set dataset.val_fraction"
        )
    if recipe.early_stopping is not None and recipe.selection.name != "best":
        raise UserError(
            f"recipe.early_stopping={recipe.early_stopping}: the last epoch would be the result, which is "
            f"{recipe.early_stopping} evaluations past the best; set recipe.selection=best"
        )
    has_weights = config.backbone.get("pretrained") or config.backbone.get("weights")
    if recipe.freeze is not None and not has_weights and schema_fields(config.backbone):  # a user's may load its own
        raise UserError(
            f"recipe.freeze={recipe.freeze.name}: {config.backbone.name} would keep what it was initialised with; "
            "set recipe.pretrained=true, or backbone.weights=FILE"
        )
    if config.deterministic and config.cudnn_benchmark:
        raise UserError(
            "deterministic=true and cudnn_benchmark=true: kernels chosen by trying differ from run to run; set "
            "cudnn_benchmark=false"
        )
    if recipe.batch_size % recipe.accumulate_steps:
        raise UserError(
            f"recipe.accumulate_steps={recipe.accumulate_steps} does not divide recipe.batch_size={recipe.batch_size}"
        )
    if config.optimizer.get("nesterov") and config.optimizer.get("momentum") == 0:
        raise UserError("optimizer.momentum=0: Nesterov's needs some; set optimizer.nesterov=false")
    if recipe.class_weights.name == "balanced" == recipe.sampler.name:
        raise UserError(
            "recipe.class_weights=balanced and recipe.sampler=balanced: rare classes would count twice as much as "
            "they need; choose one of the two"
        )
    if recipe.ema_warmup and recipe.ema_decay is None:
        raise UserError("recipe.ema_warmup=true: there is no average to warm up; set recipe.ema_decay, or leave it out")
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


def _validate_speed(config: DictConfig) -> None:
    mode = config.compile_mode.name
    if mode != "default" and not config.compile:
        raise UserError(f"compile_mode={mode}: nothing is compiled; set compile=true, or leave it out")
    if mode in ("reduce-overhead", "max-autotune"):
        other = "take compile_mode=max-autotune-no-cudagraphs"
        if config.srp._target_ is not None:
            raise UserError(f"compile_mode={mode}: SRP's random numbers would outlive a CUDA graph's memory; {other}")
        if config.recipe.accumulate_steps > 1:
            raise UserError(
                f"compile_mode={mode}: a CUDA graph would overwrite the gradients of the part before; {other}, or set "
                "recipe.accumulate_steps=1"
            )
    if config.ddp.static_graph and config.recipe.accumulate_steps > 1:
        raise UserError(
            f"ddp.static_graph=true: torch's static graph takes no recipe.accumulate_steps="
            f"{config.recipe.accumulate_steps}; set one of them back"
        )
    every = config.checkpoint_every_block
    if every > 1 and not config.activation_checkpointing:
        raise UserError(f"checkpoint_every_block={every}: set activation_checkpointing=true, or leave it out")


def _validate_test_root(config: DictConfig) -> None:
    looks_at_a_run = config.mode.name in ("eval", "export") or (config.mode.name == "compare" and config.other)
    if config.test_root is not None and not (looks_at_a_run and config.split.name == "test"):
        raise UserError(
            f"test_root={config.test_root}: is for mode=eval run=FOLDER with split=test, mode=export and mode=compare; "
            "leave it out"
        )
    if config.some_classes and (config.test_root is None or config.mode.name == "export"):
        raise UserError("some_classes=true: is for test_root=FOLDER of mode=eval and mode=compare; leave it out")


def _validate_prediction(config: DictConfig) -> None:
    mode = config.mode.name
    if config.flip and mode not in ("eval", "predict"):
        raise UserError(f"flip=true: is for mode=eval and mode=predict, not mode={mode}; leave it out")
    if config.flip and config.evaluators:
        raise UserError("flip=true: evaluators measure the network on pictures as they are; leave one of the two out")
    if mode == "predict" and config.source is None:
        raise UserError("mode=predict needs source=FOLDER, a table of pictures, or one picture")
    for name in ("source", "source_column", "predictions"):
        if mode != "predict" and config[name] is not None:
            raise UserError(f"{name}={config[name]}: is for mode=predict, not mode={mode}; leave it out")


def _validate_subset(config: DictConfig) -> None:
    if config.dataset.test_on_unused and config.dataset.train_per_class is None:
        raise UserError("dataset.test_on_unused=true: no picture is unused; set dataset.train_per_class")


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


def _validate_loggers(config: DictConfig) -> None:
    for name, node in config.logger.items():
        if not OmegaConf.is_dict(node):
            raise UserError(
                f"logger.{name}={node}: the first line of a logger's file has to be `# @package logger.NAME`"
            )
        if node.get("_target_") is None:
            raise UserError(
                f"logger.{name} lacks _target_: write the class into its file, as _target_: loggers.MyLogger"
            )
