"""Build networks from the files of conf/backbone and conf/attention, without Hydra's composition."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hydra.utils import instantiate
from omegaconf import OmegaConf
from torch import nn

CONF = Path(__file__).resolve().parents[2] / "conf"
TIMM = "srp_exp.backbones.timm_models.build"
OTHER_SIZES = {  # every family at its smallest, for tests that need each family but no particular size
    "srp_exp.backbones.resnet.build": {"depth": 8, "bottleneck": False},
    "srp_exp.backbones.preresnet.build": {"depth": 11, "bottleneck": True},
    "srp_exp.backbones.wrn.build": {"depth": 10, "width": 1},
    "srp_exp.backbones.resnext.build": {"depth": 11, "cardinality": 2, "group_width": 8},
    "srp_exp.backbones.densenet.build": {"depth": 10},
}


def load(group: str, name: str) -> dict[str, Any]:
    """One file of conf/<group>/ without its defaults list; interpolations stay as they stand."""
    config = OmegaConf.to_container(OmegaConf.load(CONF / group / f"{name}.yaml"))
    assert isinstance(config, dict)
    return {str(key): value for key, value in config.items() if key != "defaults"}


def build(name: str, attention: str = "none", channels: int = 3, classes: int = 10, **values: Any) -> nn.Module:
    """The network of conf/backbone/<name>.yaml with ``values`` overridden, as the entry point builds it."""
    backbone = load("backbone", name) | values
    backbone.pop("name")
    chosen = load("attention", attention)
    for key in ("name", "average_pooling"):  # for the entry point, not for the layer
        chosen.pop(key, None)
    place = "conv" if chosen.pop("replaces_conv") else "attention"
    options = {} if chosen["_target_"] is None else {place: instantiate(chosen)}
    network: nn.Module = instantiate(backbone, num_classes=classes, in_channels=channels, **options)
    return network


def files(group: str) -> list[str]:
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))


@pytest.fixture(name="build")
def build_fixture() -> Callable[..., nn.Module]:
    return build


@pytest.fixture(name="load")
def load_fixture() -> Callable[[str, str], dict[str, Any]]:
    return load


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Parametrise over the files, so that a new file is tested for free."""
    targets = {name: OmegaConf.load(CONF / "backbone" / f"{name}.yaml")["_target_"] for name in files("backbone")}
    choices = {
        "small_backbone": [name for name, target in targets.items() if target != TIMM],
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
