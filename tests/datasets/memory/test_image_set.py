"""The facts that a set states, and that every file of conf/dataset/ fits the class it names."""

import inspect
from pathlib import Path

import hydra
import pytest
from omegaconf import OmegaConf

from srp_exp.config.schemas.datasets import OF_EVERY_SET
from srp_exp.datasets import ImageSet

FILES = sorted((Path(__file__).parents[3] / "conf" / "dataset").glob("*.yaml"))
IN_MEMORY = ["cifar10", "cifar100", "mnist5k", "synthetic"]
CONFIGS = [path for path in FILES if path.stem in IN_MEMORY]


def test_facts_follow_from_images_and_names(make_set):
    dataset = make_set()
    assert (dataset.num_classes, dataset.channels, dataset.image_size) == (3, 3, (5, 7))


def test_padding_as_large_as_the_image_is_refused(make_set):
    with pytest.raises(ValueError, match=r"dataset\.augmentation\.crop_padding=5: choose"):
        make_set(crop_padding=5)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_a_config_file_gives_its_class_every_argument(compose, path):
    config = OmegaConf.to_container(compose(f"dataset={path.stem}").dataset)
    target = hydra.utils.get_class(config["_target_"])
    assert issubclass(target, ImageSet)
    assert config["name"] == path.stem
    not_for_the_class = {"_target_", *OF_EVERY_SET}
    assert set(config) - not_for_the_class == set(inspect.signature(target).parameters)
