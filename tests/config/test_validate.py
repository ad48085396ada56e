"""The rules that no type can hold."""

import math

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf

from srp_exp.config.register import SCHEMAS
from srp_exp.config.schemas.fields import is_within, schema_fields, settings
from srp_exp.config.schemas.run import Config
from srp_exp.config.schemas.training import RecipeConfig
from srp_exp.config.validate import validate
from srp_exp.errors import UserError


def test_brackets_include_and_parentheses_exclude_the_bound() -> None:
    for interval, inside, outside in (
        ("(0, 1)", [1e-300, 0.5, 1 - 1e-16], [0, 1, -0.1, 1.1]),
        ("[0, 1)", [0, 0.0, -0.0, 0.999], [1, -1e-300]),
        ("(0, 1]", [1e-300, 1], [0, 1.0000001]),
        ("[0, 1]", [0, 1], [-1, 2]),
        ("[1, inf)", [1, 10**30], [0, 0.999, math.inf]),
        ("(0, inf)", [5e-324], [0, math.inf, -math.inf]),
    ):
        assert [value for value in inside if not is_within(value, interval)] == [], interval
        assert [value for value in [*outside, math.nan] if is_within(value, interval)] == [], interval


def test_every_interval_in_the_schemas_can_be_read_and_holds_its_default() -> None:
    schemas = [Config, RecipeConfig, *(schema for group in SCHEMAS.values() for schema in group.values())]
    checked = 0
    for schema in schemas:
        for name, field in schema.__dataclass_fields__.items():
            interval = field.metadata.get("within")
            default = field.default_factory() if callable(field.default_factory) else field.default
            if interval is not None and not isinstance(default, str) and default is not None:
                for value in default if isinstance(default, list) else [default]:
                    assert is_within(value, interval), (schema.__name__, name)
                    checked += 1
    assert checked > 30


VALID = [
    "",
    "srp.last=1 recipe.label_smoothing=0.999 seed=0",
    "attention=none srp=gap",
    "attention=gc srp=gap",
    "recipe.selection=best dataset.val_fraction=0.1",
    "recipe.accumulate_steps=128",
    "recipe.warmup_epochs=9.5",
    "compile=true compile_mode=max-autotune-no-cudagraphs",
    "compile=true compile_mode=reduce-overhead srp=gap",
    "recipe.epochs=1 recipe.warmup_epochs=0",
    "recipe=cifar lr_schedule=one_cycle recipe.warmup_epochs=500",  # it has no warm-up: read by nobody
    "recipe.ema_decay=null recipe.clip_norm=null srp.ramp_until=null",
    "dataset=synthetic dataset.image_size=[8,9]",
    "dataset=cub200 recipe=finegrained recipe.pretrained=false",
]
# Overrides -> what the error must contain.
INVALID = {
    "srp.last=1.5": ["srp.last=1.5", "(0, 1]"],
    "srp.last=0": ["srp.last=0.0", "(0, 1]"],
    "srp.last=nan": ["srp.last=nan", "(0, 1]"],
    "srp.regions=0": ["srp.regions=0", "[1, inf)"],
    "srp=stages srp.scales=[1,2]": ["srp.scales=[1.0, 2.0]", "(0, 1]"],
    "srp=stages srp.scales=[0.5,0.5,0.0]": ["srp.scales=[0.5, 0.5, 0.0]", "(0, 1]"],
    "recipe.epochs=0": ["recipe.epochs=0", "[1, inf)"],
    "recipe.sampler=balanced recipe.class_weights=balanced": ["recipe.class_weights=balanced", "recipe.sampler"],
    "loss=focal loss.alpha=2": ["loss.alpha=2.0", "[0, 1]"],
    "recipe.label_smoothing=1": ["recipe.label_smoothing=1.0", "[0, 1)"],
    "recipe.ema_decay=1": ["recipe.ema_decay=1.0", "(0, 1)"],
    "recipe.clip_norm=0": ["recipe.clip_norm=0.0", "(0, inf)"],
    "recipe.lr=inf": ["recipe.lr=inf", "(0, inf)"],
    "recipe.weight_decay=-1": ["recipe.weight_decay=-1.0", "[0, inf)"],
    "optimizer=adamw optimizer.betas=[0.9,1]": ["optimizer.betas=[0.9, 1.0]", "[0, 1)"],
    "lr_schedule=step lr_schedule.milestones=[0.5,1]": ["lr_schedule.milestones=[0.5, 1.0]", "(0, 1)"],
    "mixing=mixup mixing.alpha=0": ["mixing.alpha=0.0", "(0, inf)"],
    "dataset.val_fraction=1": ["dataset.val_fraction=1.0", "[0, 1)"],
    "dataset=synthetic dataset.image_size=[4,32]": ["dataset.image_size=[4, 32]", "[8, inf)"],
    "dataset=synthetic dataset.image_size=[32]": ["dataset.image_size=[32]", "height, width in pixels"],
    "dataset=cub200 dataset.copy_side=0": ["dataset.copy_side=0", "out of range"],
    "dataset=cub200 dataset.augmentation.min_area=0": ["dataset.augmentation.min_area=0.0", "out of range"],
    "dataset=cub200 dataset.augmentation.rand_augment=31": ["dataset.augmentation.rand_augment=31", "out of range"],
    "attention.rd_ratio=2": ["attention.rd_ratio=2.0", "(0, 1]"],
    "backbone=wrn28_10 backbone.dropout=1": ["backbone.dropout=1.0", "[0, 1)"],
    "attention=none": ["srp=scheduled", "attention=none", "average pooling", "ceca", "srp=gap"],
    "attention=gc": ["srp=scheduled", "attention=gc", "ceca", "srp=gap"],
    "recipe.selection=best": ["recipe.selection=best", "dataset.val_fraction", "validation part"],
    "recipe.early_stopping=2 dataset.val_fraction=0.1": ["recipe.early_stopping=2", "recipe.selection=best"],
    "recipe.early_stopping=2 recipe.selection=best": ["recipe.selection=best", "dataset.val_fraction"],
    "dataset=folder dataset.augmentation.crop_size=[32,64,3]": ["crop_size=[32, 64, 3]", "[height,width]"],
    "dataset=folder dataset.augmentation.crop_size=large": ["crop_size=large", "[height,width]"],
    "dataset=folder dataset.augmentation.crop_size=[0,64]": ["crop_size=[0, 64]", "[1, inf)"],
    "dataset.test_on_unused=true": ["dataset.test_on_unused=true", "dataset.train_per_class"],
    "recipe.freeze=backbone": ["recipe.freeze=backbone", "recipe.pretrained=true"],
    "dataset=cub200 recipe=finegrained": ["recipe.pretrained=true", "backbone=resnet20", "timm"],
    "recipe.accumulate_steps=3": ["recipe.accumulate_steps=3", "recipe.batch_size=128"],
    "recipe.accumulate_steps=256": ["recipe.accumulate_steps=256", "does not divide"],
    "lr_schedule.warmup_epochs=10": ["lr_schedule.warmup_epochs=10.0", "recipe.epochs=10"],
    "lr_schedule.warmup_epochs=11": ["lr_schedule.warmup_epochs=11.0", "recipe.epochs=10"],
    "recipe.ema_warmup=true": ["recipe.ema_warmup=true", "recipe.ema_decay"],
    "compile_mode=reduce-overhead": ["compile_mode=reduce-overhead", "compile=true"],
    "compile=true compile_mode=reduce-overhead": ["compile_mode=reduce-overhead", "SRP"],
    "compile=true compile_mode=max-autotune srp=gap recipe.accumulate_steps=2": ["recipe.accumulate_steps=1"],
    "ddp.static_graph=true recipe.accumulate_steps=2": ["ddp.static_graph=true", "recipe.accumulate_steps=2"],
    "checkpoint_every_block=2": ["checkpoint_every_block=2", "activation_checkpointing=true"],
    "mode=cost dry=true": ["dry=true", "mode=cost"],
}


@pytest.fixture(scope="module")
def configuration(compose):
    """`configuration(line)`: as the command line makes it, of which Hydra composes the choices alone."""

    def configured(line: str) -> DictConfig:
        overrides = [OverridesParser.create().parse_override(override) for override in line.split()]
        choices = [given.input_line for given in overrides if given.key_or_group in {*SCHEMAS, "recipe"}]
        config = compose(*choices)
        for given in overrides:
            if given.input_line not in choices:
                OmegaConf.update(config, given.key_or_group, given.value(), force_add=False)
        return config

    return configured


def test_the_last_valid_value_is_accepted(configuration) -> None:
    for line in VALID:
        validate(configuration(line))


@pytest.mark.parametrize("lines", [[*INVALID][::2], [*INVALID][1::2]], ids=["one", "other"])
def test_the_first_invalid_value_is_refused(configuration, lines) -> None:
    for line in lines:
        with pytest.raises(UserError) as refused:
            validate(configuration(line))
        said = str(refused.value)
        assert [part for part in INVALID[line] if part not in said] == [], said


def test_the_recipes_warm_up_is_shortened_to_fit(compose) -> None:
    for epochs, warmup in ((10, 1.0), (2, 1.0), (1, 0.5)):
        config = compose("recipe=quick", f"recipe.epochs={epochs}")
        validate(config)
        assert (config.recipe.warmup_epochs, config.lr_schedule.warmup_epochs) == (1, warmup)


def test_a_node_without_schema_takes_any_key(compose) -> None:
    config = compose("attention=splat", "+attention.norm_layer.eps=0.1")  # arguments of a class that the user names
    assert schema_fields(config.attention.norm_layer) is None
    assert settings(config.attention.norm_layer) == set()
    validate(config)
