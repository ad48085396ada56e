"""What needs a CUDA device: `pytest -n 0 -m cuda`. Not run by this project so far, whose machines have none.

Each test is small; together they take a few minutes, most of it compiling.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from PIL import Image

from srp_exp.config.identity import plain_values
from srp_exp.datasets import Sharding
from srp_exp.datasets.augmentation import FileAugmentation
from srp_exp.datasets.files.file_set import FileSet
from srp_exp.datasets.files.file_split import FileSplit
from srp_exp.datasets.files.source import FolderSource
from srp_exp.runs.build import build_data, build_learner, build_model
from srp_exp.runs.device import build_device, choose_kernels
from srp_exp.training.learner import Learner

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device here"),
]

ROOT = Path(__file__).resolve().parents[1]
TINY = (
    "dataset=synthetic", "dataset.train_size=88", "dataset.test_size=44", "dataset.image_size=[32,32]",
    "recipe.batch_size=8", "recipe.epochs=2", "recipe.warmup_epochs=0", "recipe.lr=0.02", "backbone.depth=8",
    "device=cuda",
)  # fmt: skip


@pytest.fixture
def learner_of(compose) -> Callable[..., tuple[Learner, list]]:
    """`learner_of(*overrides)`: a learner on the GPU, and the batches of an epoch."""

    def make(*overrides: str) -> tuple[Learner, list]:
        config = OmegaConf.create(plain_values(compose(*TINY, *overrides)))
        choose_kernels(config)
        device = build_device("cuda")
        data = build_data(config, device)
        model, _ = build_model(config, data.dataset, device)
        batches = data.training_batches(config.recipe.batch_size, config.seed)
        learner = build_learner(config, model, data, batches.steps_per_epoch)
        model.train()
        return learner, list(batches.epoch(0))

    yield make
    torch.compiler.reset()
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.allow_tf32 = True
    torch.set_float32_matmul_precision("highest")


def mean_losses(learner: Learner, batches: list) -> list[float]:
    losses = []
    for batch in batches:
        before = learner.totals.values.clone()
        learner.train_step(batch, watch=True)
        loss, _, samples = (learner.totals.values - before)[:3].tolist()
        losses.append(loss / samples)
    return losses


def test_a_step_is_that_of_the_cpu(learner_of, compose) -> None:
    learner, batches = learner_of("srp=gap")
    cpu_config = OmegaConf.create(plain_values(compose(*TINY, "srp=gap", "device=cpu")))
    cpu = build_device("cpu")
    data = build_data(cpu_config, cpu)
    model, _ = build_model(cpu_config, data.dataset, cpu)
    on_cpu = data.training_batches(8, cpu_config.seed)
    other = build_learner(cpu_config, model.train(), data, on_cpu.steps_per_epoch)
    assert mean_losses(learner, batches[:3]) == pytest.approx(mean_losses(other, list(on_cpu.epoch(0))[:3]), rel=1e-3)


@pytest.mark.parametrize(
    ("optimizer", "precision", "mixing"),
    [("sgd", "fp32", "mixup"), ("sgd", "bf16", "cutmix"), ("adamw", "fp16", "none"), ("adamw", "fp32", "cutmix")],
)
def test_nothing_waits_for_the_device(learner_of, precision: str, mixing: str, optimizer: str) -> None:
    learner, batches = learner_of(
        f"precision={precision}", f"mixing={mixing}", f"optimizer={optimizer}", "recipe.ema_decay=0.9",
        "recipe.clip_norm=1.0", "recipe.accumulate_steps=2",
    )  # fmt: skip
    learner.train_step(batches[0])
    torch.cuda.set_sync_debug_mode("error")
    try:
        for batch in batches[1:4]:
            learner.train_step(batch)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert learner.step == 4


@pytest.mark.parametrize("augmentation", ["rand_augment=9", "trivial_augment=true", "color_jitter=0.4", "cutout=4"])
def test_augmentation_waits_for_nothing_and_is_that_of_the_cpu(compose, augmentation: str) -> None:
    pictures = []
    for name in ("cuda", "cpu"):
        config = OmegaConf.create(plain_values(compose(*TINY, f"dataset.augmentation.{augmentation}")))
        batches = build_data(config, build_device(name)).training_batches(8, 0).epoch(0)
        seen = [next(batches)]
        torch.cuda.set_sync_debug_mode("error")
        try:
            seen += batches
        finally:
            torch.cuda.set_sync_debug_mode("default")
        pictures.append(torch.cat([batch.images for batch in seen]).cpu())
    assert (pictures[0] - pictures[1]).abs().max() < 1.5 / 255 / 0.2  # in units of the deviation: 1 of 255


@pytest.mark.parametrize("overrides", [
    ("precision=bf16",), ("precision=fp16",), ("channels_last=false",), ("tf32=true", "cudnn_benchmark=true"),
    ("speed=fast",), ("speed=fast", "activation_checkpointing=true"),
], ids=" ".join)  # fmt: skip
def test_a_faster_step_has_nearly_the_loss_of_the_exact_one(learner_of, overrides: tuple[str, ...]) -> None:
    exact = mean_losses(*(lambda learner, batches: (learner, batches[:4]))(*learner_of("srp=gap")))
    faster = mean_losses(*(lambda learner, batches: (learner, batches[:4]))(*learner_of("srp=gap", *overrides)))
    assert faster[:2] == pytest.approx(exact[:2], rel=5e-2)
    assert np.isfinite(faster).all()


def test_a_resumed_learner_goes_on_bit_for_bit(learner_of) -> None:
    settings = ("deterministic=true", "mixing=mixup", "recipe.ema_decay=0.9")
    straight, batches = learner_of(*settings)
    for batch in batches[:6]:
        straight.train_step(batch)
    first, _ = learner_of(*settings)
    for batch in batches[:3]:
        first.train_step(batch)
    resumed, _ = learner_of(*settings)
    resumed.load_state_dict(first.state_dict())
    for batch in batches[3:6]:
        resumed.train_step(batch)
    torch.use_deterministic_algorithms(False)
    for name, value in straight.model.state_dict().items():
        assert torch.equal(resumed.model.state_dict()[name], value), name


def test_a_run_and_its_evaluation(command_line, tmp_path: Path) -> None:
    assert command_line(*TINY, "speed=fast", f"output_dir={tmp_path}").code == 0
    (folder,) = (path for path in (tmp_path / "runs").iterdir() if path.is_dir())
    results = json.loads((folder / "results.json").read_text())
    assert command_line("mode=eval", f"run={folder}", "device=cuda").code == 0
    again = json.loads((folder / "evaluation" / "test" / "metrics.json").read_text())
    assert again["loss"] == pytest.approx(results["test"]["loss"], rel=1e-3)


@pytest.mark.parametrize("sync_batch_norm", ["false", "true"])
def test_ddp_with_nccl_on_one_device(tmp_path: Path, sync_batch_norm: str) -> None:
    """One process of torchrun on one GPU; two where there are two."""
    number = min(2, torch.cuda.device_count())
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={number}"]
    arguments = [*TINY, f"sync_batch_norm={sync_batch_norm}", f"output_dir={tmp_path}", "recipe.accumulate_steps=2"]
    variables = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [*torchrun, "-m", "srp_exp", *arguments],
        cwd=tmp_path,
        env=variables,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    (results,) = tmp_path.glob("runs/*/results.json")
    assert np.isfinite(json.loads(results.read_text())["test"]["loss"])


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_of_files_are_those_of_the_cpu(tmp_path: Path, workers: int) -> None:
    names = [f"{number}.jpg" for number in range(20)]
    random = np.random.default_rng(0)
    for name in names:
        Image.fromarray(random.integers(0, 256, (40, 50, 3), dtype=np.uint8)).save(tmp_path / name)
    split = FileSplit(FolderSource(tmp_path, names), torch.arange(20), torch.arange(20) % 3, torch.arange(20) + 7)
    files = FileSet(split, split, ("a", "b", "c"), (0.5,) * 3, (0.2,) * 3, FileAugmentation(resize=24, crop_size=16))
    on_gpu, on_cpu = (
        list(files.training_batches(split, 6, 3, Sharding(device, workers=workers)).epoch(0))
        for device in ("cuda", "cpu")
    )
    assert len(on_gpu) == len(on_cpu) == 3
    for batch, other in zip(on_gpu, on_cpu, strict=True):
        assert batch.images.is_cuda and batch.labels.is_cuda
        torch.testing.assert_close(batch.images.cpu(), other.images)
        assert torch.equal(batch.labels.cpu(), other.labels)
        assert torch.equal(batch.index.cpu(), other.index)
