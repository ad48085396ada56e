"""A choice whose file names no schema, as only a file of the user's may: what it leaves out has a default."""

from typing import Any

from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import ValidationError

from srp_exp.config.documented import in_brackets
from srp_exp.config.schemas import datasets, networks, training
from srp_exp.config.schemas import run as schema
from srp_exp.config.schemas.fields import schema_fields
from srp_exp.errors import UserError

BASES: dict[str, type[Any]] = {
    "dataset": datasets.DatasetConfig,
    "attention": networks.AttentionConfig,
    "backbone": networks.BackboneConfig,
    "srp": schema.SrpConfig,
    "optimizer": training.OptimizerConfig,
    "lr_schedule": training.LrScheduleConfig,
    "loss": training.LossConfig,
    "mixing": training.MixingConfig,
}
"""What every choice of a group has; gap, whose `_target_` is null, has less."""

_WRITE = {
    "name": "name: mine",
    "_target_": "_target_: package.module.Class",
    "lr": "lr: 0.1",
    "weight_decay": "weight_decay: 0",
}


def completed(config: DictConfig) -> DictConfig:
    """The configuration with the settings that such a choice leaves out, as every choice of its group has them.

    The same object where each choice has a schema. Raises UserError where a group has no settings, and where a choice
    lacks what has no default, or has a value of the wrong type.
    """
    for group, base in BASES.items():
        if group not in config:  # mode=cost composes one group alone
            continue
        node = config[group]
        if not OmegaConf.is_dict(node):
            raise UserError(f"{group}={node}: give a choice of {group}, or settings, as {group}.name=...")
        if schema_fields(node) or ("_target_" in node and node._target_ is None):
            continue
        known, given = OmegaConf.structured(base), OmegaConf.to_container(node)
        assert isinstance(given, dict)
        try:
            typed = OmegaConf.merge({group: known}, {group: {key: given[key] for key in known.keys() & given.keys()}})
        except ValidationError as error:
            said = f"{error.full_key}={error.value}: {str(error).splitlines()[0]}"
            raise UserError(said + in_brackets(base, str(error.key))) from error
        assert isinstance(typed, DictConfig)
        plain = OmegaConf.to_container(typed[group], enum_to_str=True)
        assert isinstance(plain, dict)
        if lacks := [str(key) for key, value in plain.items() if value == "???"]:
            lines = ", ".join(f"`{_WRITE[key]}`" for key in lacks)
            raise UserError(f"{group}: its file lacks {', '.join(lacks)}; write {lines} into it")
        config = config.copy()
        with open_dict(config):
            config[group] = {**given, **plain}
    return config
