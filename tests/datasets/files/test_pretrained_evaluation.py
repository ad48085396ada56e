"""Evaluation of a network with pretrained weights sees what timm's own transform makes of a picture, to 1 of 255.

From the command line's settings to the pixels. timm's configurations of the weights come with timm; the weights
themselves aren't needed.
"""

import io
import math
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from PIL import Image
from timm.data import create_transform, resolve_data_config
from timm.models import get_pretrained_cfg, list_pretrained
from torch import Tensor

from srp_exp.config.identity import plain_values, run_id
from srp_exp.config.preprocessing import describe_preprocessing
from srp_exp.config.validate import validate
from srp_exp.datasets.batches import Normalisation
from srp_exp.datasets.files.decode import decode
from srp_exp.datasets.files.transforms import eval_transform

MODELS = [
    "resnet50.a1_in1k", "resnet18.tv_in1k", "inception_v3.tv_in1k", "tf_efficientnet_b3.ns_jft_in1k",
    "vit_base_patch16_224.augreg2_in21k_ft_in1k", "convnext_base.fb_in22k_ft_in1k_384",
    "eva02_base_patch14_448.mim_in22k_ft_in1k", "maxvit_tiny_tf_384.in1k",
]  # fmt: skip
PICTURES = Path(__file__).parents[4] / "shared" / "data" / "imagenette_128.tar"
FACTS = ("input_size", "crop_pct", "crop_mode", "interpolation", "mean", "std")
SIZES = [(375, 500), (500, 333), (333, 333), (150, 640), (1600, 2100), (48, 64)]  # height, width


def generated(height: int, width: int) -> bytes:
    """A JPEG of blobs and grain at several scales."""
    random = np.random.default_rng(height * width)
    image = np.zeros((height, width, 3))
    for grain in (2, 8, 40):
        coarse = random.integers(0, 256, (height // grain + 2, width // grain + 2, 3), dtype=np.uint8)
        image += np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)) / 3
    file = io.BytesIO()
    Image.fromarray(image.astype(np.uint8)).save(file, "JPEG", quality=92)
    return file.getvalue()


@pytest.fixture(scope="module")
def generated_pictures() -> list[bytes]:
    return [generated(*size) for size in SIZES]


@pytest.fixture(scope="module")
def real_pictures() -> list[bytes]:
    if not PICTURES.is_file():
        pytest.skip("needs the photographs of ../shared/data")
    found = []
    with tarfile.open(PICTURES) as archive:
        for member in archive:
            if member.name.endswith(".JPEG") and "/val/" in f"/{member.name}":
                content = archive.extractfile(member)
                assert content is not None
                found.append(content.read())
                if len(found) == 8:
                    break
    return found


def composed(compose: Any, model: str, *overrides: str) -> Any:
    config = compose(
        "dataset=imagenet", "backbone=timm", f"backbone.model={model}", "backbone.pretrained=true", *overrides
    )
    validate(config)
    return OmegaConf.create(plain_values(config))


def seen(config: Any, encoded: bytes) -> Tensor:
    dataset = config.dataset
    augmentation = instantiate(OmegaConf.to_container(dataset.augmentation))
    pixels = eval_transform(augmentation)(decode(encoded, "x"))
    normalise = Normalisation(tuple(dataset.mean), tuple(dataset.std), "cpu", torch.contiguous_format)
    return normalise(pixels[None])[0]


def check(config: Any, model: str, pictures: list[bytes]) -> None:
    wanted = resolve_data_config(pretrained_cfg=get_pretrained_cfg(model).to_dict())
    transform = create_transform(**wanted, is_training=False)
    level = 1 / 255 / torch.tensor(wanted["std"])[:, None, None]
    for encoded in pictures:
        expected = transform(Image.open(io.BytesIO(encoded)).convert("RGB"))
        found = seen(config, encoded)
        assert found.shape == expected.shape
        assert ((found - expected).abs() / level).max() < 1.01


def test_the_models_are_of_many_families() -> None:
    modules = {timm.models.model_entrypoint(name.partition(".")[0]).__module__ for name in MODELS}
    assert len(modules) >= 6
    configs = [get_pretrained_cfg(name) for name in MODELS]
    assert {config.interpolation for config in configs} == {"bilinear", "bicubic"}
    assert {config.crop_mode for config in configs} == {"center", "squash"}
    assert len({config.crop_pct for config in configs}) >= 5 and len({config.mean for config in configs}) > 1


@pytest.mark.parametrize("model", MODELS)
def test_generated_pictures_are_seen_as_timm_shows_them(compose, model, generated_pictures) -> None:
    check(composed(compose, model), model, generated_pictures)


@pytest.mark.parametrize("model", MODELS[3:6])
def test_photographs_are_seen_as_timm_shows_them(compose, model, real_pictures) -> None:
    check(composed(compose, model), model, real_pictures)


def test_every_weights_of_a_thousand_classes_can_be_had(compose) -> None:
    """All that timm's differ in becomes settings; those that show more than the picture are refused in one line."""
    config = compose("dataset=imagenet", "backbone=timm", "backbone.model=resnet18", "backbone.pretrained=true")
    refused, known = [], set()
    for model in list_pretrained():
        weights = get_pretrained_cfg(model)
        facts = tuple(str(getattr(weights, name)) for name in FACTS)
        if weights.num_classes != 1000 or facts in known:
            continue
        known.add(facts)
        config.backbone.model = model
        augmentation = OmegaConf.to_container(config.dataset.augmentation, resolve=True, enum_to_str=True)
        assert augmentation["eval_crop_size"] == augmentation["crop_size"] == weights.input_size[1], model
        assert augmentation["resize"] == math.floor(weights.input_size[1] / weights.crop_pct), model
        assert (augmentation["interpolation"], augmentation["eval_crop"]) == (weights.interpolation, weights.crop_mode)
        assert tuple(config.dataset.mean) == tuple(weights.mean) and tuple(config.dataset.std) == tuple(weights.std)
        try:
            instantiate(augmentation)
        except Exception as error:  # hydra's, around ours
            assert "eval_crop_size" in str(error)
            refused.append(model)
    assert refused == ["volo_d4_448.sail_in1k", "volo_d5_512.sail_in1k"]


def test_what_is_given_wins_and_counts(compose) -> None:
    model = "convnext_base.fb_in22k_ft_in1k_384"
    plain = composed(compose, model)
    given = composed(
        compose, model, "dataset.mean=[0.5,0.5,0.5]", "dataset.augmentation.crop_size=320",
        "dataset.augmentation.interpolation=bilinear",
    )  # fmt: skip
    assert (plain.dataset.augmentation.crop_size, plain.dataset.augmentation.interpolation) == (384, "bicubic")
    assert list(given.dataset.mean) == [0.5] * 3
    assert given.dataset.augmentation.interpolation == "bilinear"
    assert (given.dataset.augmentation.eval_crop_size, given.dataset.augmentation.resize) == (320, 320)
    same = composed(compose, model, "dataset.augmentation.crop_size=384", "dataset.augmentation.resize=384")
    assert plain == same  # what the weights say anyway is the same run


def test_weights_with_other_wants_are_another_run(compose) -> None:
    base = ("dataset=imagenet", "backbone=timm", "backbone.model=vit_base_patch16_224.augreg_in21k_ft_in1k")
    ids = [run_id(compose(*base, f"backbone.pretrained={choice}")) for choice in ("true", "false")]
    assert ids[0] != ids[1]
    scratch, pretrained = (compose(*base, f"backbone.pretrained={choice}").dataset for choice in ("false", "true"))
    assert (scratch.mean, list(pretrained.mean)) == (None, [0.5] * 3)


def test_a_file_of_weights_wants_what_timms_weights_of_the_network_want(compose, tmp_path) -> None:
    (tmp_path / "w.pth").touch()
    config = compose("dataset=imagenet", "backbone=seresnet50", f"backbone.weights={tmp_path / 'w.pth'}")
    assert config.dataset.augmentation.interpolation.name == "bicubic"


def test_images_in_memory_are_normalised_as_the_weights_want(compose) -> None:
    model = "backbone.model=vit_base_patch16_224.augreg_in21k_ft_in1k"
    config = compose("dataset=cifar10", "backbone=timm", model, "backbone.pretrained=true")
    assert list(config.dataset.mean) == list(config.dataset.std) == [0.5] * 3
    assert compose("dataset=mnist5k", "backbone=timm", model, "backbone.pretrained=true").dataset.mean is None


def test_the_log_says_what_was_taken_and_what_was_not(compose) -> None:
    assert describe_preprocessing(compose("dataset=imagenet", "backbone=seresnet50")) is None
    line = describe_preprocessing(composed(compose, "seresnet50.ra2_in1k", "dataset.augmentation.crop_size=320"))
    assert line == (
        "as the weights of seresnet50.ra2_in1k want pictures: mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225], "
        "interpolation=bicubic, eval_crop=center, resize=365; set otherwise: eval_crop_size=320 (not 224)"
    )


def test_small_pictures_are_resized_for_weights_and_keep_their_size_without(compose: Any) -> None:
    for name in ("folder", "parquet"):
        network = f"dataset={name}", "backbone=timm", "backbone.model=seresnet50.ra2_in1k"
        assert compose(*network, "backbone.pretrained=true").dataset.memory_mb == 0
        assert compose(*network).dataset.memory_mb == 1000
