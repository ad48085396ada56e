"""Transforms: what torchvision's own pipelines make of the same draws, and nothing but the seed decides."""

import io
import pickle

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import v2

from srp_exp.datasets.augmentation import FileAugmentation
from srp_exp.datasets.files.decode import decode
from srp_exp.datasets.files.transforms import (
    Transform,
    cut_to_box,
    cutout,
    eval_transform,
    train_transform,
)

MEAN = (0.5, 0.4, 0.3)
SIZES = [(90, 120), (120, 90), (64, 64), (65, 200), (40, 50)]
SMALL = {"resize": 64, "crop_size": 56, "eval_crop_size": 56}
PLAIN = FileAugmentation(**SMALL)


def encoded_picture(height: int, width: int, grain: int = 8) -> bytes:
    """A PNG, or a JPEG where it is large, of random blobs of `grain` pixels: neither flat nor noise."""
    shape = (height // grain + 1, width // grain + 1, 3)
    coarse = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    image = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
    file = io.BytesIO()
    image.save(file, "PNG" if height * width < 200_000 else "JPEG", quality=95)
    return file.getvalue()


def see(transform: Transform, encoded: bytes, seed: int = 0) -> Tensor:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return transform(decode(encoded, "x"))


def reference(pipeline: v2.Transform, encoded: bytes, seed: int = 0) -> Tensor:
    torch.manual_seed(seed)
    image: Tensor = pipeline(decode(encoded, "x"))
    return image


def reference_of_pillow(pipeline: list[v2.Transform], encoded: bytes) -> Tensor:
    """The pipeline of an image of Pillow's, as torchvision and timm evaluate."""
    seen: Tensor = v2.Compose([v2.ToPILImage(), *pipeline, v2.PILToTensor()])(decode(encoded, "x"))
    return seen


def test_evaluation_is_torchvisions_resize_and_centre_crop_or_squash() -> None:
    squash = eval_transform(FileAugmentation(**SMALL, eval_crop="squash", interpolation="bicubic"))
    resize = v2.Resize((64, 64), v2.InterpolationMode.BICUBIC)
    for size in SIZES:
        encoded = encoded_picture(*size)
        image = see(eval_transform(PLAIN), encoded)
        assert image.shape == (3, 56, 56)
        assert torch.equal(image, reference_of_pillow([v2.Resize(64), v2.CenterCrop(56)], encoded))
        assert torch.equal(see(squash, encoded), reference_of_pillow([resize, v2.CenterCrop(56)], encoded))


def test_evaluation_has_a_size_of_its_own() -> None:
    augmentation = FileAugmentation(crop_size=40, eval_crop_size=48, resize=50)
    encoded = encoded_picture(90, 120)
    assert see(train_transform(augmentation, MEAN), encoded).shape == (3, 40, 40)
    expected = reference_of_pillow([v2.Resize(50), v2.CenterCrop(48)], encoded)
    assert torch.equal(see(eval_transform(augmentation), encoded), expected)


WIDE = {"resize": [48, 80], "crop_size": [40, 64], "eval_crop_size": [40, 64]}
COVERING = {(90, 120): (60, 80), (120, 90): (106, 80), (64, 64): (80, 80), (65, 200): (48, 147), (40, 50): (64, 80)}
"""By hand, of 48 x 80: 48 / 90 < 80 / 120, so the width becomes 80, and so on."""


@pytest.mark.parametrize("size", SIZES)
def test_a_picture_is_cut_to_a_size_that_is_no_square(size) -> None:
    encoded = encoded_picture(*size)
    center = reference_of_pillow([v2.Resize(COVERING[size]), v2.CenterCrop((40, 64))], encoded)
    assert torch.equal(see(eval_transform(FileAugmentation(**WIDE)), encoded), center)
    squash = reference_of_pillow([v2.Resize((48, 80)), v2.CenterCrop((40, 64))], encoded)
    assert torch.equal(see(eval_transform(FileAugmentation(**WIDE, eval_crop="squash")), encoded), squash)
    flip = v2.RandomHorizontalFlip()
    ratio = (0.75 * 1.6, 4 / 3 * 1.6)  # around that of the crop
    pipelines = {
        "random_resized": [v2.RandomResizedCrop((40, 64), scale=(0.2, 1.0), ratio=ratio), flip],
        "random": [v2.Resize(COVERING[size]), v2.RandomCrop((40, 64)), flip],
    }
    for crop, pipeline in pipelines.items():
        image = see(train_transform(FileAugmentation(**WIDE, crop=crop, min_area=0.2), MEAN), encoded, 1)
        assert torch.equal(image, reference(v2.Compose(pipeline), encoded, 1)), crop


def test_evaluation_of_a_large_picture_is_that_of_all_its_pixels() -> None:
    encoded = encoded_picture(900, 1200)
    expected = reference_of_pillow([v2.Resize(64), v2.CenterCrop(56)], encoded)
    assert torch.equal(see(eval_transform(PLAIN), encoded), expected)


@pytest.mark.parametrize(
    ("size", "interpolation"), [(size, "bilinear" if at % 2 else "bicubic") for at, size in enumerate(SIZES)]
)
def test_training_is_torchvisions_pipeline_with_the_same_draws(size, interpolation) -> None:
    encoded, mode = encoded_picture(*size), v2.InterpolationMode(interpolation)
    flip = v2.RandomHorizontalFlip()
    pipelines = {
        "random_resized": [v2.RandomResizedCrop(56, scale=(0.2, 1.0), interpolation=mode, antialias=True), flip],
        "random": [v2.Resize(64, mode, antialias=True), v2.RandomCrop(56), flip],
        "pad": [v2.Resize(56, mode, antialias=True), v2.CenterCrop(56), v2.RandomCrop(56, padding=4), flip],
    }
    for crop, pipeline in pipelines.items():
        padding = 4 if crop == "pad" else 0
        augmentation = FileAugmentation(
            crop=crop, **SMALL, min_area=0.2, interpolation=interpolation, crop_padding=padding
        )
        for seed in range(3):
            image = see(train_transform(augmentation, MEAN), encoded, seed)
            assert torch.equal(image, reference(v2.Compose(pipeline), encoded, seed))


BILINEAR = v2.InterpolationMode.BILINEAR
OPERATIONS: dict[str, tuple[dict[str, float], v2.Transform]] = {
    "jitter": ({"color_jitter": 0.4}, v2.ColorJitter(0.4, 0.4, 0.4)),
    "rand_augment": ({"rand_augment": 9}, v2.RandAugment(num_ops=2, magnitude=9, interpolation=BILINEAR)),
    "trivial_augment": ({"trivial_augment": True}, v2.TrivialAugmentWide(interpolation=BILINEAR)),
    "random_erasing": ({"random_erasing": 0.5}, v2.RandomErasing(0.5, value=[128, 102, 76])),
}


@pytest.mark.parametrize("names", [*((name,) for name in OPERATIONS), ("jitter", "rand_augment", "random_erasing")])
def test_the_choices_are_torchvisions_operations_in_its_order(names) -> None:
    encoded = encoded_picture(90, 120)
    settings = {name: value for chosen in names for name, value in OPERATIONS[chosen][0].items()}
    augmentation = FileAugmentation(**SMALL, flip=False, **settings)
    pipeline = [v2.RandomResizedCrop(56, antialias=True), *(OPERATIONS[name][1] for name in names)]
    for seed in range(8):
        image = see(train_transform(augmentation, MEAN), encoded, seed)
        assert image.dtype == torch.uint8
        assert torch.equal(image, reference(v2.Compose(pipeline), encoded, seed))


def test_cutout_covers_every_pixel_as_often_as_its_squares_do() -> None:
    """Over all 56 x 56 centres: as a slow loop has it, with what lies outside cut off."""
    erased = torch.zeros(56, 56)
    white = torch.full((3, 56, 56), 255, dtype=torch.uint8)
    with pytest.MonkeyPatch.context() as patch:
        for top in range(56):
            for left in range(0, 56, 5):
                centre = iter((top, left))
                patch.setattr(torch, "randint", lambda side, _, centre=centre: torch.tensor(next(centre)))
                image = cutout(white, 16, [1, 2, 3])
                inside = torch.zeros(56, 56, dtype=torch.bool)
                for row in range(top - 8, top + 8):
                    for column in range(left - 8, left + 8):
                        if 0 <= row < 56 and 0 <= column < 56:
                            inside[row, column] = True
                assert torch.equal(image[0] == 1, inside)
                assert torch.equal(image[:, inside][:, 0], torch.tensor([1, 2, 3], dtype=torch.uint8))
                assert (image[:, ~inside] == 255).all()
                erased += inside
    assert (white == 255).all()
    assert erased.min() > 0


def test_cutout_draws_its_centre_uniformly() -> None:
    torch.manual_seed(0)
    black = torch.zeros(3, 4, 5, dtype=torch.uint8)
    counts = sum((cutout(black, 1, [255] * 3)[0] > 0).int() for _ in range(4000))
    assert (counts - 200).abs().max() < 5 * 200**0.5


def test_a_box_is_widened_to_whole_pixels_of_the_picture() -> None:
    picture = torch.arange(90 * 120).view(1, 90, 120)
    for box, rows, columns in (
        ((10.2, 20.0, 80.5, 89.9), (20, 90), (10, 81)),
        ((0, 0, 120, 90), (0, 90), (0, 120)),
        ((-5.5, -1, 300, 400), (0, 90), (0, 120)),
        ((119.5, 89.5, 119.9, 89.9), (89, 90), (119, 120)),
    ):
        assert torch.equal(cut_to_box(picture, torch.tensor(box), "x"), picture[:, slice(*rows), slice(*columns)])
    for box in ((120.0, 0.0, 130.0, 9.0), (5.0, 5.0, 5.0, 9.0), (9.0, 9.0, 5.0, 5.0)):
        with pytest.raises(ValueError, match=r"bird.jpg: the box .* has no pixel of the 90 x 120 picture"):
            cut_to_box(torch.zeros(3, 90, 120), torch.tensor(box), "bird.jpg")


def test_evaluation_draws_nothing() -> None:
    state = torch.get_rng_state()
    eval_transform(PLAIN)(decode(encoded_picture(90, 120), "x"))
    assert torch.equal(torch.get_rng_state(), state)


def test_transforms_can_be_handed_to_another_process() -> None:
    augmentation = FileAugmentation(**SMALL, color_jitter=0.4, rand_augment=9, random_erasing=0.5, cutout=8)
    transform = train_transform(augmentation, MEAN)
    encoded = encoded_picture(90, 120)
    assert torch.equal(see(pickle.loads(pickle.dumps(transform)), encoded), see(transform, encoded))


def test_settings_that_contradict_are_refused() -> None:
    for changes, message in (
        ({"crop": "random", "crop_size": 300}, "crop_size=300: choose 1 to 256 pixels, those of resize"),
        ({"eval_crop_size": [100, 300]}, r"eval_crop_size=\(100, 300\): choose 1 to resize=256 pixels"),
        ({"eval_crop_size": 300}, "eval_crop_size=300: choose 1 to resize=256 pixels"),
        ({"rand_augment": 3, "trivial_augment": True}, "rand_augment=3: choose 0, or trivial_augment=false"),
        ({"crop_padding": 4}, "crop_padding=4: choose 0, or crop=pad"),
    ):
        with pytest.raises(ValueError, match=rf"^dataset\.augmentation\.{message}"):
            FileAugmentation(**changes)
