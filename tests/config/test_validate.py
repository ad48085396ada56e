"""The rules that no type can hold."""

import math

import pytest

from srp_exp.config.register import SCHEMAS
from srp_exp.config.schemas.fields import is_within, schema_fields, settings
from srp_exp.config.schemas.run import Config
from srp_exp.config.schemas.training import RecipeConfig
from srp_exp.config.validate import validate


@pytest.mark.parametrize(
    ("interval", "inside", "outside"),
    [
        ("(0, 1)", [1e-300, 0.5, 1 - 1e-16], [0, 1, -0.1, 1.1]),
        ("[0, 1)", [0, 0.0, -0.0, 0.999], [1, -1e-300]),
        ("(0, 1]", [1e-300, 1], [0, 1.0000001]),
        ("[0, 1]", [0, 1], [-1, 2]),
        ("[1, inf)", [1, 10**30], [0, 0.999, math.inf]),
        ("(0, inf)", [5e-324], [0, math.inf, -math.inf]),
    ],
)
def test_brackets_include_and_parentheses_exclude_the_bound(interval, inside, outside) -> None:
    assert [value for value in inside if not is_within(value, interval)] == []
    assert [value for value in [*outside, math.nan] if is_within(value, interval)] == []


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


@pytest.mark.parametrize(
    "overrides",
    [
        (),
        ("srp.last=1", "recipe.label_smoothing=0.999", "seed=0"),
        ("attention=none", "srp=gap"),
        ("attention=gc", "srp=gap"),
        ("recipe.selection=best", "dataset.val_fraction=0.1"),
        ("recipe.accumulate_steps=128",),
        ("recipe.warmup_epochs=9.5",),
        ("compile=true", "compile_mode=max-autotune-no-cudagraphs"),
        ("compile=true", "compile_mode=reduce-overhead", "srp=gap"),
        ("recipe.epochs=1", "recipe.warmup_epochs=0"),
        ("recipe=cifar", "lr_schedule=one_cycle", "recipe.warmup_epochs=500"),  # it has no warm-up: read by nobody
        ("recipe.ema_decay=null", "recipe.clip_norm=null", "srp.ramp_until=null"),
        ("dataset=synthetic", "dataset.image_size=[8,9]"),
    ],
    ids=" ".join,
)
def test_the_last_valid_value_is_accepted(compose, overrides) -> None:
    validate(compose(*overrides))


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("lr_schedule.warmup_epochs=10", "leaves nothing"),
        ("lr_schedule.warmup_epochs=11", "leaves nothing"),
        ("recipe.accumulate_steps=256", "does not divide"),
        ("recipe.selection=best", "validation part"),
        ("attention=none", "average pooling"),
        ("recipe.ema_warmup=true", "set recipe.ema_decay"),
        ("compile_mode=reduce-overhead", "set compile=true"),
        ("compile=true compile_mode=reduce-overhead", "srp|SRP"),
        ("compile=true compile_mode=max-autotune srp=gap recipe.accumulate_steps=2", "recipe.accumulate_steps=1"),
        ("ddp.static_graph=true recipe.accumulate_steps=2", "recipe.accumulate_steps=2"),
        ("checkpoint_every_block=2", "set activation_checkpointing=true"),
        ("mode=cost dry=true", "tries out a training, not mode=cost"),
    ],
)
def test_the_first_invalid_value_is_refused(compose, override, words) -> None:
    with pytest.raises(ValueError, match=words):
        validate(compose(*override.split()))


@pytest.mark.parametrize(("epochs", "warmup"), [(10, 1.0), (2, 1.0), (1, 0.5)])
def test_the_recipes_warm_up_is_shortened_to_fit(compose, epochs, warmup) -> None:
    config = compose("recipe=quick", f"recipe.epochs={epochs}")
    validate(config)
    assert config.recipe.warmup_epochs == 1
    assert config.lr_schedule.warmup_epochs == warmup


def test_every_number_of_a_list_is_checked(compose) -> None:
    with pytest.raises(ValueError, match=r"srp\.scales=\[0\.5, 0\.5, 0\.0\]"):
        validate(compose("srp=stages", "srp.scales=[0.5,0.5,0.0]"))


def test_a_node_without_schema_takes_any_key(compose) -> None:
    config = compose("attention=splat", "+attention.norm_layer.eps=0.1")  # arguments of a class that the user names
    assert schema_fields(config.attention.norm_layer) is None
    assert settings(config.attention.norm_layer) == set()
    validate(config)
