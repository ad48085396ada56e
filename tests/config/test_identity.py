"""The run id covers everything that can change the result of a run, and nothing that cannot."""

import copy
import enum
import os
import re
import subprocess
import sys
from typing import Any

import pytest
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import ValidationError

from srp_exp.config import CONF_DIR
from srp_exp.config.identity import flat_identity, identity_of, plain_values, run_folder, run_id
from srp_exp.config.register import SCHEMAS, register
from srp_exp.config.schemas.study import StudyConfig

# Written down here on purpose, not read from the schemas: a change of this list has to be meant.
NOT_IDENTITY = {
    "dataset.name", "attention.name", "backbone.name", "srp.name", "recipe.name", "optimizer.name", "lr_schedule.name",
    "loss.name", "mixing.name",
    "mode", "rerun", "run", "test_root", "checkpoint.every_steps", "checkpoint.every_minutes", "split", "trust_targets",
    "device", "activation_checkpointing", "checkpoint_every_block", "ddp.bucket_mb", "ddp.static_graph",
    "log_every_steps", "profile", "progress", "data_root", "output_dir",
    "dataset.root",
    "dataset.download", "study", "dry", "wait", "other", "format", "evaluators", "cams",
    "cost.rounds", "cost.srp", "logger.tensorboard._target_", "prune_by",
    "source", "source_column", "predictions", "top", "flip", "some_classes",
}  # fmt: skip
NOT_IDENTITY_OF_FILES = {"workers", "dataset.cache_dir", "dataset.vet"}  # of sets of image files
DEPENDS = {  # each has a test
    "recipe.evaluate_every_epochs", "recipe.lr", "recipe.weight_decay", "recipe.warmup_epochs", "recipe.pretrained",
    "backbone.pretrained", "dataset.test_on_unused", "dataset.subset_seed",
    "backbone.weights",  # the content of the file counts, and not its path
}  # fmt: skip
BASES = {  # together they hold every schema
    "defaults": (),
    "cifar": ("dataset=cifar10", "backbone=wrn16_8", "attention=cbam", "srp=fixed", "optimizer=adamw",
              "lr_schedule=step", "loss=bce", "mixing=mixup", "recipe=cifar"),
    "synthetic": ("dataset=synthetic", "backbone=resnext29_8x64d", "attention=splat", "srp=stages",
                  "lr_schedule=one_cycle", "loss=focal", "mixing=mixup_cutmix"),
    "timm": ("dataset=imagenet", "backbone=resnet50", "attention=sk", "srp=cosine"),  # and image files
    "native": ("dataset=cub200", "backbone=seresnet50", "srp=ramped"),
    "densenet": ("backbone=densenet_bc_100_12", "attention=ge"),
    "gc": ("attention=gc", "srp=gap"),
    "eca": ("attention=eca",),
    "ese": ("attention=ese",),
}  # fmt: skip


def leaves(node: DictConfig, prefix: str = "") -> list[str]:
    """Dotted names of all settings below `node`."""
    names = []
    for key in node:
        child = node._get_node(key)
        is_group = isinstance(child, DictConfig) and not child._is_none()
        names += leaves(child, f"{prefix}{key}.") if is_group else [f"{prefix}{key}"]
    return names


def another(value: Any) -> Any:
    """A value of the same type."""
    match value:
        case bool():
            return not value
        case enum.Enum():
            return next(other for other in type(value) if other is not value)
        case int() | float():
            return value + 1 if isinstance(value, int) else value / 2 + 0.1875
        case str():
            return f"{value}_changed"
        case list():
            return [*value[:-1], another(value[-1])] if value else ["given"]
    raise TypeError(value)


def set_to_something(config: DictConfig, name: str) -> None:
    """Give a setting that is None a value of its type."""
    for value in (0.75, 3, "given", "backbone", [0.25], StudyConfig(name="given")):
        try:
            OmegaConf.update(config, name, value, merge=False)
        except ValidationError:
            continue
        return
    raise TypeError(name)


def changed(config: DictConfig, name: str) -> DictConfig:
    """A copy of `config` in which one setting has another value."""
    other = copy.deepcopy(config)
    value = OmegaConf.select(other, name)
    if OmegaConf.is_list(value):
        value = OmegaConf.to_container(value)
    if value is None:
        set_to_something(other, name)
    else:
        OmegaConf.update(other, name, another(value))
    assert OmegaConf.select(other, name) != value, name
    return other


def hash_of(config: DictConfig) -> str:
    return run_id(config).rpartition("-")[2]


def test_every_setting_counts_that_can_change_the_result_and_no_other(compose) -> None:
    """Every setting of every schema is changed once; no two of the changed runs share a folder."""
    tried = set()
    for overrides in BASES.values():
        config = compose(*overrides)
        places = {name: OmegaConf.select(config, name.rpartition(".")[0]) for name in leaves(config)}
        names = {name for name, place in places.items() if (name, OmegaConf.get_type(place)) not in tried}
        tried |= {(name, OmegaConf.get_type(places[name])) for name in names}
        own, hashes = hash_of(config), {name: hash_of(changed(config, name)) for name in names}
        counting = {name for name in names if hashes[name] != own} - DEPENDS
        assert counting == names - NOT_IDENTITY - NOT_IDENTITY_OF_FILES - DEPENDS
        assert len({hashes[name] for name in counting}) == len(counting)
    assert len(tried) > 150


def test_the_list_of_what_does_not_count_names_settings_that_exist(compose) -> None:
    names = {name for overrides in BASES.values() for name in leaves(compose(*overrides))}
    assert names >= NOT_IDENTITY


def test_a_loss_that_is_the_default_stands_in_no_identity(compose) -> None:
    """Nor do equal weights of classes and the usual sampler: runs without them keep the hash that they had."""
    of_default, of_focal = (identity_of(compose(*loss)) for loss in ((), ("loss=focal",)))
    assert "loss" not in of_default
    assert {"class_weights", "sampler"}.isdisjoint(of_default["recipe"])
    assert of_focal["loss"].keys() == {"_target_", "gamma", "alpha"}


def test_the_interval_of_evaluation_counts_where_it_decides_what_the_best_epoch_is_chosen_from(compose) -> None:
    selecting = ("recipe.selection=best", "dataset.val_fraction=0.1")
    every, every_fifth = (compose(*selecting, f"recipe.evaluate_every_epochs={n}") for n in (1, 5))
    assert run_id(every) != run_id(every_fifth)
    assert run_id(compose()) == run_id(compose("recipe.evaluate_every_epochs=5"))  # the last epoch is the result


SAME = [
    (("seed=3", "srp.last=0.4", "mixing=mixup"), ("mixing=mixup", "seed=3", "srp.last=0.4")),
    (("recipe.lr=1",), ("recipe.lr=1.0",)),
    (("recipe.lr=0.05",), ("recipe.lr=5e-2",)),
    (("attention=se", "srp=scheduled", "seed=0", "loss=cross_entropy"), ()),
    (("recipe.lr=${optimizer.weight_decay}",), ("recipe.lr=5e-4",)),
    (("recipe.ema_decay=null",), ()),
    (("experiment=demo",), ("mixing=mixup", "speed=fast", "compile=false")),
    (("seed=5", "device=cpu", "output_dir=/elsewhere", "progress=false", "rerun=true"), ("seed=5",)),
    (("dataset=cifar10", "data_root=/data", "dataset.download=true"), ("dataset=cifar10",)),
    (("backbone=seresnet50", "attention=native"), ("backbone=seresnet50",)),
    (("recipe.lr=0.30000000000000004",), ("recipe.lr=0.3",)),
    (("recipe=imagenet", "recipe.batch_size=768"), ("recipe=imagenet", "recipe.batch_size=768", "recipe.lr=0.3")),
    (("recipe.lr=0.2",), ("optimizer.lr=0.2",)),
    (("optimizer=adamw", "recipe.lr=0.2", "recipe.weight_decay=0.1"), ("optimizer=adamw",)),
    (("lr_schedule=one_cycle", "recipe.warmup_epochs=3"), ("lr_schedule=one_cycle",)),
    (("recipe.label_smoothing=-0.0",), ()),
    (("dataset=cub200", "dataset.augmentation.min_area=0.5"), ("dataset=cub200",)),  # its crop has none
    (("dataset=folder", "dataset.split_seed=1"), ("dataset=folder",)),
]


def test_the_same_configuration_has_one_id_however_it_is_written(compose) -> None:
    for overrides, same in SAME:
        one, other = compose(*overrides), compose(*same)
        assert run_id(one) == run_id(other), overrides
        assert identity_of(one) == identity_of(other)  # and it is trained with the same numbers


DIFFERENT = [
    (("recipe.lr=0.3",), ("recipe.lr=0.30001",)),
    (("recipe.lr=0.2",), ("recipe.weight_decay=0.2",)),
    (("recipe.warmup_epochs=3",), ()),
    (("optimizer=adamw", "optimizer.lr=0.2"), ("optimizer=adamw",)),
    (("backbone=resnet50", "recipe.pretrained=true"), ("backbone=resnet50",)),
    (("srp.last=1e-13",), ("srp.last=2e-13",)),
    (("dataset=imagenet", "dataset.augmentation.min_area=0.5"), ("dataset=imagenet",)),
    (
        ("dataset=folder", "dataset.test_fraction=0.2", "dataset.split_seed=1"),
        ("dataset=folder", "dataset.test_fraction=0.2"),
    ),
]


def test_what_is_read_counts(compose) -> None:
    for overrides, other in DIFFERENT:
        assert run_id(compose(*overrides)) != run_id(compose(*other)), overrides


GROUPS = [*(group for group in SCHEMAS if group != "logger"), "recipe"]  # several loggers may be chosen; none counts
CHOICES = [(group, file.stem) for group in GROUPS for file in sorted((CONF_DIR / group).glob("*.yaml"))]


NEEDED = {"timm": ["backbone.model=resnet50"], "hub": ["dataset.path=some/set"]}  # by choices, which have no default


@pytest.mark.parametrize("group", GROUPS)
def test_a_choice_and_its_values_written_out_over_another_have_one_hash(compose, group) -> None:
    """Over the default of the group where it has the same settings, else over another choice of them, else itself."""
    attention = [] if group == "attention" else ["attention=se"]  # which any backbone can have
    choices = {
        name: compose(*attention, f"{group}={name}", *NEEDED.get(name, [])) for of, name in CHOICES if of == group
    }
    for name, config in choices.items():
        names = [at for at in leaves(config[group], f"{group}.") if at != f"{group}.name"]
        alike = [other for other, of in choices.items() if leaves(of[group]) == leaves(config[group]) and other != name]
        other = default_of(group) if default_of(group) in alike else next(iter(alike), name)
        again = copy.deepcopy(choices[other])
        values = OmegaConf.create(plain_values(config))
        for at in names:
            OmegaConf.update(again, at, OmegaConf.select(values, at), merge=False)
        OmegaConf.update(again, f"{group}.name", "renamed")
        assert hash_of(again) == hash_of(config), (name, other)
        assert other == name or hash_of(choices[other]) != hash_of(config), (name, other)


def default_of(group: str) -> str:
    defaults = OmegaConf.load(CONF_DIR / "config.yaml").defaults
    return next(str(entry[group]) for entry in defaults if not isinstance(entry, str) and group in entry)


def test_a_training_is_found_under_whichever_names_it_was_begun(compose, tmp_path) -> None:
    output = f"output_dir={tmp_path}"
    spelt = ("srp.first=1", "srp.last=0.5", "srp.ramp_until=0.5")
    named, written = compose("srp=ramped", output), compose("srp=scheduled", *spelt, output)
    assert run_folder(written).name == run_id(written) != run_id(named)
    run_folder(named).mkdir(parents=True)
    assert run_folder(written) == run_folder(named)
    other_data = compose("srp=scheduled", *spelt, "dataset.name=mine", output)
    assert run_folder(other_data).name == run_id(other_data)  # the name stands for data that lie elsewhere
    assert run_folder(compose("srp=scheduled", *spelt, "seed=1", output)).name.startswith("mnist5k-resnet20-se-sched")
    (tmp_path / "runs" / run_id(written)).mkdir()
    assert run_folder(written).name == run_id(written)  # its own, where both are there


def test_the_id_names_dataset_backbone_attention_and_srp(compose) -> None:
    for overrides, pattern in (
        ((), "mnist5k-resnet20-se-scheduled"),
        (("srp=gap", "attention=none"), "mnist5k-resnet20-none-gap"),
        (("dataset=cifar100", "backbone=wrn28_10", "attention=cbam", "srp=fixed"), "cifar100-wrn28_10-cbam-fixed"),
        (("backbone=timm", "backbone.model=seresnext50_32x4d"), "mnist5k-seresnext50_32x4d-native-scheduled"),
        (("backbone=timm", "backbone.model=resnet50.a1_in1k"), r"mnist5k-resnet50\.a1_in1k-native-scheduled"),
        (("backbone.name=../a b",), "mnist5k-.._a_b-se-scheduled"),  # one folder below runs/, whatever the name
    ):
        config = compose(*overrides)
        assert re.fullmatch(f"{pattern}-[0-9a-f]{{10}}", run_id(config))
        assert run_folder(config).parent.as_posix() == "outputs/runs"
        assert run_folder(config).name == run_id(config)


def test_the_home_folder_is_no_folder_named_tilde(compose, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert run_folder(compose("output_dir='~/out'")).parent == tmp_path / "out" / "runs"
    register()
    overrides = ["output_dir='~/out'", "hydra/launcher=slurm"]
    with initialize_config_dir(str(CONF_DIR), version_base=None):
        config = GlobalHydra.instance().config_loader().load_configuration("config", overrides, RunMode.MULTIRUN)
    assert config.hydra.launcher.submitit_folder == f"{tmp_path}/out/slurm/%j"


def test_the_id_is_the_same_in_every_process(compose) -> None:
    script = """
from hydra import compose, initialize_config_dir
from srp_exp.config import CONF_DIR
from srp_exp.config.identity import run_id
from srp_exp.config.register import register
register()
with initialize_config_dir(str(CONF_DIR), version_base=None):
    print(run_id(compose("config", overrides=["attention=splat", "srp=stages"])))
"""
    ids = {run_id(compose("attention=splat", "srp=stages"))}
    for hash_seed in ("1", "2"):  # of Python's sets and dicts of strings
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
        done = subprocess.run(
            [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True
        )
        ids.add(done.stdout.strip())
    assert len(ids) == 1


def test_the_flat_identity_holds_the_same_values(compose) -> None:
    config = compose("srp=stages")
    flat = flat_identity(config)
    assert flat["optimizer.lr"] == 0.1
    assert flat["srp.name"] == "stages"  # what a person looks for, though the hash has no use for it
    assert flat["srp.scales"] == "[1.0, 0.75, 0.5]"
    assert flat["compile"] is False
    assert "device" not in flat
    assert "recipe.ema_decay" not in flat  # TensorBoard takes no None
    assert identity_of(config)["recipe"]["ema_decay"] is None
    values = plain_values(config)
    for group in ("dataset", "recipe", "srp"):  # in the order of the configuration, whatever Python's hash seed
        there = [name.split(".")[1] for name in flat if name.startswith(f"{group}.")]
        assert list(dict.fromkeys(there)) == [name for name in values[group] if name in there]
