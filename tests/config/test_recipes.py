"""The recipes of image files: the rate follows the batch, pretrained weights are asked of timm's networks only."""

import pytest

from srp_exp.config.identity import run_id, sha256_of_file
from srp_exp.config.validate import validate


def test_the_learning_rate_of_imagenet_follows_the_batch(compose) -> None:
    for batch_size, lr in ((256, 0.1), (1024, 0.4), (64, 0.025)):
        config = compose("recipe=imagenet", f"recipe.batch_size={batch_size}")
        assert config.optimizer.lr == pytest.approx(lr)
    assert compose("recipe=imagenet", "recipe.batch_size=64", "recipe.lr=0.3").optimizer.lr == 0.3


def test_imagenet_is_trained_as_published(compose) -> None:
    config = compose("dataset=imagenet", "recipe=imagenet")
    validate(config)
    recipe, augmentation = config.recipe, config.dataset.augmentation
    assert (recipe.epochs, recipe.batch_size, recipe.weight_decay, recipe.label_smoothing) == (100, 256, 1e-4, 0.1)
    assert (config.lr_schedule.name, config.lr_schedule.warmup_epochs) == ("cosine", 5)
    assert (augmentation.crop.name, augmentation.resize, augmentation.crop_size) == ("random_resized", 256, 224)


def test_the_sizes_of_evaluation_follow_a_crop_that_is_no_square(compose) -> None:
    config = compose("dataset=imagenet", "dataset.augmentation.crop_size=[192,256]")
    validate(config)
    augmentation = config.dataset.augmentation
    assert (augmentation.eval_crop_size, augmentation.resize) == ([192, 256], [219, 292])  # over 0.875


@pytest.mark.parametrize("dataset", ["cub200", "cars", "dogs"])
def test_fine_grained_training_begins_with_pretrained_weights_at_448_pixels(compose, dataset) -> None:
    config = compose(f"dataset={dataset}", "recipe=finegrained", "backbone=seresnet50")
    validate(config)
    recipe, augmentation = config.recipe, config.dataset.augmentation
    assert (recipe.epochs, recipe.batch_size, recipe.lr, config.optimizer.lr) == (95, 16, 0.01, 0.01)
    assert (augmentation.crop.name, augmentation.resize, augmentation.crop_size) == ("random", 512, 448)
    assert config.backbone.pretrained is True
    assert compose("backbone=seresnet50").backbone.pretrained is False


def test_the_content_of_a_weights_file_counts_and_its_path_does_not(compose, tmp_path) -> None:
    one, same, other = (tmp_path / name for name in ("one.pth", "same.pth", "other.pth"))
    one.write_bytes(b"weights")
    same.write_bytes(b"weights")
    other.write_bytes(b"others")
    ids = [run_id(compose("backbone=resnet50", f"backbone.weights={file}")) for file in (one, same, other)]
    assert ids[0] == ids[1] != ids[2]
    assert run_id(compose("backbone=resnet50")) not in ids
    before = sha256_of_file(str(one))
    one.write_bytes(b"changed content")
    assert sha256_of_file(str(one)) != before
    assert run_id(compose("backbone=resnet50", f"backbone.weights={one}")) != ids[0]
