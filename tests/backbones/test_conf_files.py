"""The files of conf/backbone and conf/attention: their names, and the attention that a backbone chooses."""

import pytest
from hydra import compose, initialize_config_dir

from srp_exp.config import CONF_DIR
from srp_exp.config.register import register

NATIVE = {"seresnet50", "mobilenetv3_large_100", "efficientnet_b0", "regnety_008", "skresnet50", "resnest50d"}


@pytest.fixture
def composed():
    register()
    with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        yield lambda *overrides: compose("config", overrides=list(overrides))


def test_networks_with_attention_of_their_own_choose_native(composed, load, files):
    of_timm = [name for name in files("backbone") if name != "timm" and "model" in load("backbone", name)]
    assert set(of_timm) > NATIVE
    for name in of_timm:
        config = composed(f"backbone={name}")
        assert config.attention.name == ("native" if name in NATIVE else "se")
        assert config.backbone.model == name


def test_the_command_line_wins_over_native(composed):
    assert composed("backbone=seresnet50", "attention=eca").attention.name == "eca"
    assert composed("backbone=timm", "backbone.model=seresnext50_32x4d").attention.name == "native"


def test_file_names_are_config_names(load, files):
    for group in ("backbone", "attention"):
        names = [name for name in files(group) if name != "timm"]  # whose name is that of its model
        assert [load(group, name)["name"] for name in names] == names
