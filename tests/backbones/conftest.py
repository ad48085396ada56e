"""Build networks from the choices of conf/backbone and conf/attention, without the entry point."""

import copy
import functools
from collections.abc import Callable
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from torch import nn

from srp_exp.config import CONF_DIR
from srp_exp.config.register import register

TIMM = "srp_exp.backbones.timm_models.build"
OTHER_SIZES = {  # every family at its smallest, for tests that need each family but no particular size
    "srp_exp.backbones.resnet.build": {"depth": 8, "bottleneck": False},
    "srp_exp.backbones.preresnet.build": {"depth": 11, "bottleneck": True},
    "srp_exp.backbones.wrn.build": {"depth": 10, "width": 1},
    "srp_exp.backbones.resnext.build": {"depth": 11, "cardinality": 2, "group_width": 8},
    "srp_exp.backbones.densenet.build": {"depth": 10},
}


@functools.cache
def composed(group: str, name: str) -> DictConfig:
    register()
    with initialize_config_dir(str(CONF_DIR), version_base=None):
        chosen: DictConfig = compose("config", overrides=[f"{group}={name}"])[group]
    return chosen


def load(group: str, name: str, **values: Any) -> dict[str, Any]:
    """What conf/<group>/<name>.yaml and the schema's defaults say, with ``values`` overridden; resolved."""
    chosen = copy.deepcopy(composed(group, name))
    chosen.update(values)
    config = OmegaConf.to_container(chosen, resolve=True, enum_to_str=True)
    assert isinstance(config, dict)
    return {str(key): value for key, value in config.items()}


def build(name: str, attention: str = "none", channels: int = 3, classes: int = 10, **values: Any) -> nn.Module:
    """The network of conf/backbone/<name>.yaml with ``values`` overridden, as the entry point builds it."""
    backbone = load("backbone", name, **values)
    for key in ("name", "weights_sha256"):  # for the entry point, not for the network
        backbone.pop(key, None)
    chosen = load("attention", attention)
    for key in ("name", "average_pooling"):  # for the entry point, not for the layer
        chosen.pop(key, None)
    place = "conv" if chosen.pop("replaces_conv") else "attention"
    options = {} if chosen["_target_"] is None else {place: instantiate(chosen)}
    network: nn.Module = instantiate(backbone, num_classes=classes, in_channels=channels, **options)
    return network


def files(group: str) -> list[str]:
    return sorted(path.stem for path in (CONF_DIR / group).glob("*.yaml"))


@pytest.fixture(name="build")
def build_fixture() -> Callable[..., nn.Module]:
    return build


@pytest.fixture(name="load")
def load_fixture() -> Callable[[str, str], dict[str, Any]]:
    return load


@pytest.fixture(name="files")
def files_fixture() -> Callable[[str], list[str]]:
    return files


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Parametrise over the files, so that a new file is tested for free."""
    targets = {name: composed("backbone", name)["_target_"] for name in files("backbone")}
    choices = {
        "timm_backbone": [name for name, target in targets.items() if target == TIMM and name != "timm"],
        "family": [target for target in dict.fromkeys(targets.values()) if target != TIMM],
        "attention_file": [name for name in files("attention") if name not in ("none", "native")],
    }
    for argument, values in choices.items():
        if argument == "family" and argument in metafunc.fixturenames:
            smallest = [(next(n for n in targets if targets[n] == t), OTHER_SIZES.get(t, {})) for t in values]
            metafunc.parametrize(argument, smallest, ids=[t.split(".")[-2] for t in values])
        elif argument in metafunc.fixturenames:
            metafunc.parametrize(argument, values)
