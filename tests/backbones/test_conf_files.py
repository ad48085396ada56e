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


def test_networks_with_attention_of_their_own_choose_native(composed, timm_backbone):
    config = composed(f"backbone={timm_backbone}")
    assert config.attention.name == ("native" if timm_backbone in NATIVE else "se")
    assert config.backbone.name == config.backbone.model == timm_backbone


def test_the_command_line_wins_over_native(composed):
    assert composed("backbone=seresnet50", "attention=eca").attention.name == "eca"
    assert composed("backbone=timm", "backbone.model=seresnext50_32x4d").attention.name == "native"


def test_file_names_are_config_names(load, small_backbone):
    assert load("backbone", small_backbone)["name"] == small_backbone


def test_attention_file_names_are_config_names(load, attention_file):
    assert load("attention", attention_file)["name"] == attention_file
