"""A step reads no value from the device and copies none to it, over all pairs of what a step is made of.

Neither takes an accelerator. Reads: fake tensors have shapes and no values, so that whatever reads one fails. Copies:
tensors on the meta device stand for those on an accelerator, and what crosses to it from the CPU is seen.
"""

import importlib
import itertools
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any

import pytest
import torch
from timm.layers import SEModule
from torch import Tensor, nn
from torch._subclasses.fake_tensor import DynamicOutputShapeException, FakeTensorMode
from torch.optim import SGD, AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from srp_exp.datasets import Batch
from srp_exp.srp import apply_srp
from srp_exp.training import learner as learner_module
from srp_exp.training.learner import Learner, Mix, StepSettings
from srp_exp.training.losses import BinaryCrossEntropy, CrossEntropy, Focal, Loss
from srp_exp.training.mixing import CutMix, MixUp
from srp_exp.training.totals import Totals

CLASSES, BATCH = 4, 4
PRECISIONS = ("fp32", "bf16", "fp16")
MIXES: dict[str, Mix | None] = {"none": None, "mixup": MixUp(0.4, CLASSES), "cutmix": CutMix(1.0, CLASSES)}
OPTIMIZERS: dict[str, Callable[..., Optimizer]] = {"sgd": SGD, "adamw": AdamW}
Settings = tuple[str, float | None, str, float | None, bool]
"""precision, ema_decay, mixing, clip_norm, watch: all of the first three, and every pair with the others."""
CLIPPING = ((None, False), (None, True), (1.0, False))  # clipping watches too
SETTINGS: list[Settings] = [
    (precision, ema_decay, mixing, *CLIPPING[(turn + number) % 3])
    for turn, precision in enumerate(PRECISIONS)
    for number, (mixing, ema_decay) in enumerate(itertools.product(MIXES, (None, 0.9)))
]


def network() -> nn.Module:
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), SEModule(8, rd_channels=4), nn.Dropout(0.1),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, CLASSES),
    )  # fmt: skip
    apply_srp(net, 0.5, example_input=torch.zeros(2, 3, 8, 8))
    return net


def on_device(net: nn.Module, device: torch.device) -> nn.Module:
    """`net` with tensors of `device`, on which nothing has a value."""
    for module in net.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            module.register_parameter(name, nn.Parameter(torch.empty(parameter.shape, device=device)))
        for name, buffer in list(module.named_buffers(recurse=False)):
            setattr(module, name, torch.empty(buffer.shape, dtype=buffer.dtype, device=device))
    return net


def steps(
    device: torch.device,
    settings: Settings,
    optimizer: str,
    mix: Mix | None = None,
    fakes: Callable[[], AbstractContextManager[Any]] = nullcontext,
    watching: Callable[[], AbstractContextManager[Any]] = nullcontext,
    before: int = 2,
    loss: Callable[[torch.device], Loss] = lambda _: CrossEntropy(label_smoothing=0.1),
) -> None:
    """Steps of the settings on tensors made in `fakes`, within the ramp of SRP: after `before` ones two `watching`.

    Regions are the whole map in the first two steps, and of one size, smaller than it, in the next four.
    """
    precision, ema_decay, mixing, clip_norm, watch = settings
    model = network()
    step_settings = StepSettings(
        0, 20, precision=precision, accumulate_steps=2, clip_norm=clip_norm, ema_decay=ema_decay,
        ramp_until=0.5,
    )  # fmt: skip
    made = SGD(model.parameters(), lr=0.1)
    mix = MIXES[mixing] if mix is None else mix
    learner = Learner(model, made, LambdaLR(made, float), step_settings, mix=mix, device=device)
    with fakes():
        for net in (model,) if learner.ema is None else (model, learner.ema.module):
            on_device(net, device)  # after the average has copied what it averages: a copy reads
        learner.totals, learner.loss = Totals(device), loss(device)
        learner.optimizer = OPTIMIZERS[optimizer](model.parameters(), lr=0.1, fused=precision == "fp16")
        learner.lr_schedule = LambdaLR(learner.optimizer, lambda step: 0.5**step)
        images = torch.empty(BATCH, 3, 8, 8, device=device)
        labels = torch.empty(BATCH, dtype=torch.int64, device=device)
        for _ in range(before):
            learner.train_step(Batch(images, labels, labels), watch=watch)
        with watching():
            for _ in range(2):
                learner.train_step(Batch(images, labels, labels), watch=watch)
    assert learner.step == before + 2


# Reads


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_step_reads_no_value(precision: str, optimizer: str) -> None:
    for settings in SETTINGS:
        if settings[0] == precision:
            steps(torch.device("cpu"), settings, optimizer, fakes=FakeTensorMode)


LOSSES: dict[str, Callable[..., Loss]] = {
    "cross_entropy": partial(CrossEntropy, label_smoothing=0.1),
    "bce": partial(BinaryCrossEntropy, target_threshold=0.2, label_smoothing=0.1),
    "focal": Focal,
}


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
def test_a_weighted_loss_reads_no_value_and_copies_nothing(
    loss: Callable[..., Loss], accelerator: torch.device
) -> None:
    def weighted(device: torch.device) -> Loss:
        return loss(weight=torch.empty(CLASSES, device=device))

    for mixing in MIXES if loss is not Focal else ("none",):
        settings: Settings = ("fp32", None, mixing, None, False)
        steps(torch.device("cpu"), settings, "sgd", fakes=FakeTensorMode, loss=weighted)
        steps(accelerator, settings, "sgd", watching=no_copies, before=4, loss=weighted)


@pytest.mark.parametrize("read", [Tensor.item, Tensor.nonzero])
def test_the_check_would_notice_a_read(read: Callable[[Tensor], object]) -> None:
    def reading(images: Tensor, labels: Tensor, seed: int) -> tuple[Tensor, Tensor]:
        read(images.sum())
        return images, labels

    with pytest.raises((RuntimeError, DynamicOutputShapeException)):
        steps(torch.device("cpu"), SETTINGS[0], "sgd", reading, fakes=FakeTensorMode)


def test_the_check_would_notice_that_fp16_waits_without_a_fused_optimizer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(OPTIMIZERS, "sgd", lambda parameters, lr, fused: SGD(parameters, lr=lr))
    with pytest.raises(RuntimeError):
        steps(torch.device("cpu"), ("fp16", None, "none", None, False), "sgd", fakes=FakeTensorMode)


# Copies


class Copies(TorchDispatchMode):
    """Fails at an operation that takes a tensor with a shape from the CPU and leaves one on the meta device.

    A number in a tensor without a shape goes to a kernel as an argument, as any number does, unless it is copied.
    """

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        sources = [arg for arg in args if isinstance(arg, Tensor) and arg.device.type == "cpu"]
        arrived = isinstance(result, Tensor) and result.device.type == "meta"
        if arrived and any(arg.dim() > 0 or "copy" in str(func) for arg in sources):
            raise AssertionError(f"{func} copies {[tuple(arg.shape) for arg in sources]} to the device")
        return result


class Literals(TorchFunctionMode):
    """Fails where a tensor is made of Python's numbers, for the device."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if func in (torch.tensor, torch.as_tensor, torch.asarray) and result.device.type == "meta":
            raise AssertionError(f"{args} is copied to the device")
        return result


@contextmanager
def no_copies() -> Iterator[None]:
    with Copies(), Literals():
        yield


@pytest.fixture
def accelerator(monkeypatch: pytest.MonkeyPatch) -> Iterator[torch.device]:
    """The meta device, with a fused optimizer, and without autocast, which converts on the device."""
    optimizers = importlib.import_module("torch.optim.optimizer")
    supported = optimizers._get_fused_kernels_supported_devices
    monkeypatch.setattr(optimizers, "_get_fused_kernels_supported_devices", lambda: [*supported(), "meta"])
    monkeypatch.setattr(learner_module, "autocast", lambda *_: nullcontext())
    yield torch.device("meta")


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_step_copies_nothing_to_the_device(accelerator: torch.device, precision: str) -> None:
    """In a running training: the first steps with regions of a new size copy their sizes, a few numbers, once."""
    for settings in SETTINGS:
        if settings[0] == precision:
            steps(accelerator, settings, "adamw", watching=no_copies, before=4)
            if precision != "fp16":  # there is no fused SGD on the meta device
                steps(accelerator, settings, "sgd", watching=no_copies, before=4)


@pytest.mark.parametrize(
    "copy",
    [
        lambda images: torch.tensor([1.0, 2.0, 3.0, 4.0], device=images.device),
        lambda images: torch.tensor(3).to(images.device),  # as torch's AveragedModel does in every step
        lambda images: images.copy_(torch.zeros(4, 3, 8, 8)),
    ],
)
def test_the_check_would_notice_a_copy(accelerator: torch.device, copy: Callable[[Tensor], object]) -> None:
    def copying(images: Tensor, labels: Tensor, seed: int) -> tuple[Tensor, Tensor]:
        copy(images)
        return images, labels

    with pytest.raises(AssertionError, match="to the device"):
        steps(accelerator, SETTINGS[0], "sgd", copying, watching=no_copies)
