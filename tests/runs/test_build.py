"""Every file of conf/ composes, builds and trains a step; SRP changes no evaluation, whatever it is put into.

The tests are parametrised over the files, so that a new one is tested without a line here. Every backbone trains a step
at its full depth, each with another file of the groups that any backbone takes. Evaluation is compared at two blocks
per stage, for each backbone that differs in more than its depth and for each attention in two families of backbones;
SRP_EXP_FULL_TESTS=1 takes all pairs there, at full depth.
"""

import functools
import hashlib
import io
import itertools
import os
import pickle
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import timm
import torch
from hydra.errors import InstantiationException
from omegaconf import DictConfig, OmegaConf
from PIL import Image
from torch import Tensor, nn

from srp_exp.config import CONF_DIR
from srp_exp.config.failures.explain import explain
from srp_exp.config.identity import plain_values
from srp_exp.config.validate import validate
from srp_exp.errors import UserError
from srp_exp.runs.build import build_data, build_learner, build_model
from srp_exp.runs.build import learner as learner_module
from srp_exp.runs.device import build_device
from srp_exp.srp import Linear, apply_srp

CPU = torch.device("cpu")
TIMM = "srp_exp.backbones.timm_models.build"
TIMM_RESNETS = {"resnet50", "resnet101", "resnext50_32x4d", "seresnet50", "timm"}  # in which attention can be chosen
MODEL_OF_TIMM = "backbone.model=seresnet18"  # timm.yaml leaves it open
NO_AVERAGE_POOLING = {"none", "gc"}
DEEPER = {"resnet101", "seresnet50"}  # networks of timm that only repeat the blocks of another file's
FULL_DEPTH = os.environ.get("SRP_EXP_FULL_TESTS") == "1"


def names(group: str) -> list[str]:
    return sorted(path.stem for path in (CONF_DIR / group).glob("*.yaml"))


def two_blocks_per_stage(backbone: DictConfig) -> int:
    """The depth of a small-image network with two blocks (dense layers) in each stage."""
    family = backbone._target_.split(".")[-2]
    if family == "resnext" or backbone.get("bottleneck"):
        return 20  # 9n + 2
    return {"resnet": 14, "preresnet": 14, "wrn": 16, "densenet": 16}[family]  # 6n + 2 and 6n + 4


FILES = sorted(path.relative_to(CONF_DIR).with_suffix("").as_posix() for path in CONF_DIR.glob("*/*.yaml"))


def of_different_blocks() -> list[str]:
    """The files of conf/backbone, and of those that differ in nothing but their depth the first one."""
    kept: dict[str, str] = {}
    for name in names("backbone"):
        file = OmegaConf.to_container(OmegaConf.load(CONF_DIR / "backbone" / f"{name}.yaml"))
        assert isinstance(file, dict)
        blocks = sorted((key, str(value)) for key, value in file.items() if key not in ("name", "depth", "defaults"))
        if name not in DEEPER:
            kept.setdefault(str(blocks) if "depth" in file else name, name)
    return names("backbone") if FULL_DEPTH else sorted(kept.values())


ONE_OF_EACH_BUILDER = ("resnet110", "preresnet110", "wrn16_8", "densenet_bc_100_12", "resnext29_8x64d", "resnet50")
WITH_AVERAGE_POOLING = [name for name in names("attention") if name not in {*NO_AVERAGE_POOLING, "native"}]


def text_of(backbone: str) -> str:
    return (CONF_DIR / "backbone" / f"{backbone}.yaml").read_text()


def brings_its_own(backbone: str) -> bool:
    return "attention: native" in text_of(backbone)


def combinations() -> list[tuple[str, str]]:
    """Backbones and attentions, some of which can't be together."""
    if FULL_DEPTH:
        return list(itertools.product(names("backbone"), names("attention")))
    found = {
        (backbone, "native" if brings_its_own(backbone) else WITH_AVERAGE_POOLING[number % len(WITH_AVERAGE_POOLING)])
        for number, backbone in enumerate(of_different_blocks())
    }
    for number, attention in enumerate(names("attention")):
        found |= {(ONE_OF_EACH_BUILDER[(number + turn) % 6], attention) for turn in (0, 3)}
    return sorted(found | {("efficientnet_b0", "none"), ("efficientnet_b0", "se")})


IN_TURNS = ("recipe", "srp", "loss", "lr_schedule", "mixing", "optimizer", "logger")


def rows() -> list[tuple[str, ...]]:
    """Files that are tested together: with each backbone the next file of the groups that any backbone takes."""
    found = []
    attentions = itertools.cycle(name for name in names("attention") if name != "native")
    for number, backbone in enumerate(names("backbone")):
        row = {group: (choices := names(group))[number % len(choices)] for group in IN_TURNS}
        row["attention"] = "native" if brings_its_own(backbone) or backbone == "timm" else next(attentions)
        if row["attention"] in NO_AVERAGE_POOLING:
            row["srp"] = "gap"
        if row["loss"] == "focal":
            row["mixing"] = "none"
            row["recipe"] = "cifar" if row["recipe"] == "cifar_short" else row["recipe"]  # it smooths labels
        if row["srp"] == "stages" and "backbone/timm@" in text_of(backbone):  # which is written for three stages
            row["srp"] = "scheduled"
        found.append((f"backbone/{backbone}", *(f"{group}/{name}" for group, name in row.items())))
    left = [file for file in FILES if file not in itertools.chain(*found)]
    return found + [
        ("backbone/resnet20", file) if file.split("/")[0] in {*IN_TURNS, "attention"} else (file,) for file in left
    ]


ROWS = rows()


@pytest.fixture(scope="module")
def part(compose):
    """`part(group, name)`: the composed node of one file of conf/, composed once."""

    @functools.cache
    def compose_part(group: str, name: str) -> DictConfig:
        extra = [MODEL_OF_TIMM] if (group, name) == ("backbone", "timm") else []
        node = compose(f"{group}={name}", *extra)
        assert isinstance(node, DictConfig)
        return node

    return compose_part


@pytest.fixture(scope="module")
def config_of(part):
    """`config_of(backbone, attention)`: the plain configuration of a combination, without SRP."""

    def combine(backbone: str, attention: str, full_depth: bool = FULL_DEPTH) -> DictConfig:
        config = part("srp", "gap").copy()
        config.backbone = part("backbone", backbone).backbone
        config.attention = part("attention", attention).attention
        if not full_depth and config.backbone._target_.startswith("srp_exp.backbones.") and "depth" in config.backbone:
            config.backbone.depth = min(config.backbone.depth, two_blocks_per_stage(config.backbone))
        plain = OmegaConf.create(plain_values(config))
        assert isinstance(plain, DictConfig)
        return plain

    return combine


# --- Every file ----------------------------------------------------------------------------------


def sets_the_data(file: str) -> bool:
    """Whether a study has settings of its own data set, which another set may not take."""
    return re.search(r"^dataset:", (CONF_DIR / f"{file}.yaml").read_text(), re.MULTILINE) is not None


def tiny(compose, files: tuple[str, ...]) -> DictConfig:
    """A configuration with these files of conf/, and the smallest that there is of all else."""
    file = files[0]
    group = file.split("/")[0]
    overrides = [file.replace("/", "=") for file in files]
    if group != "dataset" and not sets_the_data(file):
        overrides += ["dataset=synthetic", "dataset.train_size=10", "dataset.test_size=10"]
        overrides += ["dataset.image_size=[32,32]", "dataset.num_classes=4"]
    if file == "backbone/timm":
        overrides.append(MODEL_OF_TIMM)
    if file == "dataset/hub":
        overrides.append("dataset.path=some/set")
    probe = compose(*overrides)
    if group != "backbone" and "depth" in probe.backbone:
        overrides.append("backbone.depth=8")
    if not probe.attention.average_pooling:
        overrides.append("srp=gap")
    if probe.dataset.train_per_class is not None:
        overrides.append("dataset.train_per_class=2")
    if "pretrained" in probe.recipe:
        overrides.append("recipe.pretrained=false")  # nothing is downloaded
    return compose(*overrides, "recipe.warmup_epochs=0", "recipe.batch_size=2")


@pytest.fixture(scope="module")
def cifar_files(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Both CIFAR folders with two images per file, and torchvision's MD5 sums of them; gives their root."""
    with pytest.MonkeyPatch.context() as patch:
        yield write_cifar(patch, tmp_path_factory.mktemp("cifar"))


def write_cifar(monkeypatch: pytest.MonkeyPatch, root: Path) -> Path:
    import torchvision

    random = np.random.default_rng(0)
    for official, key, classes in (
        (torchvision.datasets.CIFAR10, "labels", 10),
        (torchvision.datasets.CIFAR100, "fine_labels", 100),
    ):
        folder = root / official.base_folder
        folder.mkdir()
        (root / official.__name__.lower()).touch()  # says which sets are here

        def write(folder: Path, name: str, content: object) -> str:
            data = pickle.dumps(content)
            (folder / name).write_bytes(data)
            return hashlib.md5(data, usedforsecurity=False).hexdigest()

        for files in ("train_list", "test_list"):
            sums = []
            for name, _ in getattr(official, files):
                pixels = random.integers(0, 256, (2, 3072), dtype=np.uint8)
                sums.append([name, write(folder, name, {"data": pixels, key: [0, classes - 1]})])
            monkeypatch.setattr(official, files, sums)
        class_names = {official.meta["key"]: [f"name{label}" for label in range(classes)]}
        md5 = write(folder, official.meta["filename"], class_names)
        monkeypatch.setattr(official, "meta", {**official.meta, "md5": md5})
    return root


def small_pictures(root, file):
    """Four classes of two pictures each, as a set of one's own, of 32 x 32 pixels."""
    random = np.random.default_rng(0)
    rows = []
    for part in ("train", "test"):
        images = []
        for number in range(8):
            buffer = io.BytesIO()
            Image.fromarray(random.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(buffer, "PNG")
            images.append(buffer.getvalue())
            path = root / part / f"class{number % 4}" / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(images[-1])
            rows.append(f"{path},class{number % 4},{part}\n")
        if file == "dataset/csv":
            (root / "labels.csv").write_text("".join(["file,class,split\n", *rows]))
        if file in ("dataset/parquet", "dataset/table"):
            shutil.rmtree(root / part)
            pq.write_table(pa.table({"image": images, "label": [0, 1, 2, 3] * 2}), root / f"{part}.parquet")
    return root


def test_every_file_is_in_a_row() -> None:
    assert {file for row in ROWS for file in row} == set(FILES)


@pytest.mark.parametrize("files", ROWS, ids=" ".join)
def test_every_file_composes_builds_and_trains_one_step(compose, cifar_files, files) -> None:
    config, file = tiny(compose, files), files[0]
    config.data_root = str(cifar_files)
    if file in ("dataset/folder", "dataset/parquet", "dataset/csv", "dataset/table"):
        config.dataset.root = str(small_pictures(cifar_files / "own" / file, file))
    validate(config)
    config = OmegaConf.create(plain_values(config))
    if (
        "root" in config.dataset
        and not (cifar_files / config.dataset.name).exists()
        and "own" not in config.dataset.root
    ):
        pytest.skip(f"{config.dataset.name} is read from files: composed and validated only")
    device = build_device("cpu")
    data = build_data(config, device)
    model, records = build_model(config, data.dataset, device)
    assert bool(records) == (config.srp._target_ is not None)
    batches = data.training_batches(config.recipe.batch_size, config.seed)
    learner = build_learner(config, model, data, batches.steps_per_epoch)
    for group in learner.optimizer.param_groups:
        group["lr"] = max(group["lr"], 1e-3)  # a warm-up begins at 0, where nothing could be seen to move
    before = [parameter.detach().clone() for parameter in model.parameters()]
    learner.train_step(next(batches.epoch(0)))
    totals = learner.totals.read()
    assert learner.step == 1
    assert totals["samples"] == config.recipe.batch_size
    assert totals["bad_step"] == 0
    after = list(model.parameters())
    assert all(parameter.isfinite().all() for parameter in after)
    moved = sum(not torch.equal(old, new) for old, new in zip(before, after, strict=True))
    assert moved > len(after) / 2
    assert data.evaluation_batches("test", 4) is data.evaluation_batches("test", 4)  # whose workers stay


UNEQUAL = ("dataset=synthetic", "dataset.train_size=12", "dataset.test_size=8", "dataset.num_classes=4", "srp=gap",
           "dataset.image_size=[16,16]", "backbone.depth=8", "recipe.batch_size=4", "device=cpu")  # fmt: skip


@pytest.mark.parametrize(
    ("overrides", "parts"),
    [
        (("loss=focal", "recipe.label_smoothing=0.1"), ["recipe.label_smoothing=0.1", "loss=focal"]),
        (
            ("loss=focal", "loss._target_=torch.nn.SoftMarginLoss", "recipe.class_weights=balanced"),
            ["loss=focal", "class_weights=balanced"],
        ),
        (("loss._target_=torch.nn.MultiMarginLoss", "loss.name=margin", "mixing=cutmix"), ["loss=margin", "cutmix"]),
        (("loss._target_=torch.sub",), ["loss=cross_entropy", "refuses its settings"]),
        (("loss._target_=torch.nn.CrossEntropyLoss", "+loss.reduction=none"), ["loss=cross_entropy", "the mean loss"]),
    ],
)
def test_what_a_loss_can_not_do_is_refused_before_training(compose, overrides, parts) -> None:
    config = OmegaConf.create(plain_values(compose(*UNEQUAL, *overrides)))
    data = build_data(config, build_device("cpu"))
    model, _ = build_model(config, data.dataset, data.device)
    with pytest.raises(UserError) as refused:
        build_learner(config, model, data, 3)
    assert [part for part in parts if part not in str(refused.value)] == [], refused.value
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("loss", ["cross_entropy", "focal"])
def test_classes_are_weighed_and_sampled_by_the_part_that_trains(compose, loss) -> None:
    overrides = (*UNEQUAL, "dataset.val_fraction=0.34", f"loss={loss}")
    config = OmegaConf.create(plain_values(compose(*overrides, "recipe.class_weights=balanced")))
    data = build_data(config, build_device("cpu"))
    model, _ = build_model(config, data.dataset, data.device)
    learner = build_learner(config, model, data, 1)
    counts = data.splits["train"].labels.bincount(minlength=4)
    torch.testing.assert_close(learner.loss.weight * counts, torch.full((4,), counts.sum() / 4))
    learner.train_step(next(data.training_batches(4, 0).epoch(0)))
    assert learner.totals.read()["bad_step"] == 0
    sampled = OmegaConf.create(plain_values(compose(*overrides, "recipe.sampler=balanced")))
    batches = build_data(sampled, build_device("cpu")).training_batches(4, 0)
    epochs = [torch.cat([batch.index for batch in batches.epoch(epoch)]) for epoch in range(4)]
    assert any(len(index.unique()) < len(index) for index in epochs)  # drawn with replacement


# --- Every backbone x attention ------------------------------------------------------------------


def problem(config: DictConfig, brings_its_own: bool) -> str | None:
    """What makes a combination impossible, as this test knows it; None: it can be built."""
    backbone, attention = config.backbone, config.attention.name
    chosen = attention not in ("none", "native")
    if chosen and backbone._target_ == TIMM and backbone.model not in {*TIMM_RESNETS, "seresnet18"}:
        return "timm's ResNet family"
    if attention == "none" and brings_its_own:
        return "attention=native"
    if attention == "native" and not brings_its_own:
        return "attention=se"
    return None


def dataset_of(config: DictConfig) -> SimpleNamespace:
    """What build_model asks of a data set. timm's networks are made for larger images: 16 x 16 leaves them nothing."""
    side = 32 if config.backbone._target_ == TIMM else 16
    return SimpleNamespace(num_classes=10, channels=3, image_size=(side, side))


def randomise(model: nn.Module) -> None:
    """Random norm weights and statistics: the zeros that some networks begin with would hide what attention does."""
    generator = torch.Generator().manual_seed(1)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.weight, module.bias, module.running_mean, module.running_var):
                if tensor is not None:
                    tensor.data.uniform_(0.5, 1.0, generator=generator)


@torch.no_grad()
def evaluate(model: nn.Module, images: Tensor) -> Tensor:
    """Logits in evaluation mode; fails where a random number is drawn."""
    model.eval()
    state = torch.random.get_rng_state()
    logits: Tensor = model(images)
    assert torch.equal(torch.random.get_rng_state(), state)
    return logits


@pytest.mark.parametrize(("backbone", "attention"), combinations())
def test_srp_changes_no_evaluation(config_of, part, backbone, attention) -> None:
    config = config_of(backbone, attention)
    dataset = dataset_of(config)
    expected_problem = problem(config, part("backbone", backbone).attention.name == "native")
    if expected_problem is not None:
        with pytest.raises((ValueError, InstantiationException)) as error:
            build_model(config, dataset, CPU)
        line = explain(error.value)
        assert "\n" not in line
        assert expected_problem in line
        return
    check_evaluation(config)


def check_evaluation(config: DictConfig) -> None:
    """Evaluation before and after apply_srp: the same bits, keys and parameters, and no random number."""
    dataset = dataset_of(config)
    model, records = build_model(config, dataset, CPU)
    assert records == []
    randomise(model)
    images = torch.randn(2, 3, *dataset.image_size, generator=torch.Generator().manual_seed(0))
    plain, keys = evaluate(model, images), list(model.state_dict())
    assert plain.isfinite().all()
    assert plain.std() > 0
    parameters = sum(parameter.numel() for parameter in model.parameters())
    if config.attention.name in NO_AVERAGE_POOLING:
        with pytest.raises(ValueError, match="no channel attention with average pooling"):
            apply_srp(model, Linear(1.0, 0.5), example_input=images)
        return
    found = apply_srp(model, Linear(1.0, 0.5), example_input=images)
    assert found[0].scale == 1.0
    assert found[-1].scale == 0.5
    assert torch.equal(evaluate(model, images), plain)
    assert list(model.state_dict()) == keys
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters


@pytest.mark.parametrize("attention", ["se", "sk", "cbam"])
def test_srp_changes_training(config_of, attention) -> None:
    """Else the equality above would show nothing. With scale 1 the training is that of the plain network too."""
    config = config_of("resnet20", attention)
    outputs = {}
    for scale in (None, 1.0, 0.3):
        model, _ = build_model(config, dataset_of(config), CPU)
        randomise(model)
        images = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
        if scale is not None:
            apply_srp(model, scale, example_input=images)
        torch.manual_seed(0)
        outputs[scale] = model.train()(images)
    assert torch.equal(outputs[1.0], outputs[None])
    assert not torch.equal(outputs[0.3], outputs[None])


# --- What is built -------------------------------------------------------------------------------


def test_the_seed_decides_the_initial_weights_and_srp_does_not(compose) -> None:
    def weights(*overrides: str) -> list[Tensor]:
        config = OmegaConf.create(plain_values(compose("backbone.depth=8", *overrides)))
        return list(build_model(config, dataset_of(config), CPU)[0].parameters())

    first, again, gap, other = weights(), weights(), weights("srp=gap"), weights("seed=1")
    assert all(map(torch.equal, first, again))
    assert all(map(torch.equal, first, gap))  # so that SRP and GAP are compared from the same start
    assert not all(map(torch.equal, first, other))


def test_a_device_that_is_not_there_is_named() -> None:
    no_number = "can't be used here" if torch.cuda.is_available() else "there is no CUDA device here"
    for name, why in (("gpu", "can't be used here"), ("cpuu", "can't be used here"), ("cuda:99", no_number)):
        with pytest.raises(UserError, match=f"device={name}:? {why} .*try device=auto"):
            build_device(name)


def test_without_cuda_its_devices_are_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match="device=cuda:0: there is no CUDA device here .*try device=auto"):
        build_device("cuda:0")


def test_channels_last_gives_the_same_numbers(compose) -> None:
    outputs = []
    for flag in ("false", "true"):
        config = OmegaConf.create(plain_values(compose("backbone.depth=8", f"channels_last={flag}")))
        model, _ = build_model(config, dataset_of(config), CPU)
        outputs.append(evaluate(model, torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))))
    torch.testing.assert_close(*outputs)


def test_the_schedule_reaches_every_module(compose) -> None:
    config = OmegaConf.create(plain_values(compose("backbone.depth=8", "srp.first=0.9", "srp.last=0.3")))
    _, records = build_model(config, dataset_of(config), CPU)
    assert [round(record.scale, 9) for record in records] == [0.9, 0.6, 0.3]


@pytest.mark.parametrize("model", ["efficientnet_b0", "seresnet18"])
def test_synchronised_norms_evaluate_as_the_plain_ones(compose, monkeypatch, model) -> None:
    """Norms of timm hold an activation. The learner for a GPU is caught before it needs one."""
    monkeypatch.setattr(learner_module, "Learner", lambda model, *_, **__: model)
    monkeypatch.setattr(learner_module, "_build_loss", lambda *_: None)
    config = OmegaConf.create(
        plain_values(
            compose(
                "backbone=timm", f"backbone.model={model}", "attention=native", "srp=gap", "recipe.pretrained=false",
                "sync_batch_norm=true",
            )
        )
    )  # fmt: skip
    torch.manual_seed(0)
    network = timm.create_model(model, num_classes=4).train()
    images = torch.randn(4, 3, 64, 64)
    network(images)  # so that the running statistics are those of something
    with torch.no_grad():
        expected = network.eval()(images)
        data = SimpleNamespace(device=torch.device("cuda"), dataset=SimpleNamespace(num_classes=4))
        converted = build_learner(config, network, data, steps_per_epoch=5)
        assert any(isinstance(module, nn.SyncBatchNorm) for module in converted.modules())
        assert torch.equal(converted.eval()(images), expected)
