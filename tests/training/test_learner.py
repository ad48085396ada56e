"""The step against arithmetic written out in numpy, and the promise that seed and step number are all its chance."""

import copy
import io
import math
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from omegaconf import OmegaConf
from torch import Tensor, nn
from torch.optim import SGD
from torch.optim.lr_scheduler import LambdaLR

from srp_exp.config.schemas.training import average_of_the_start
from srp_exp.datasets import Batch, BatchLoader
from srp_exp.srp import srp_modules
from srp_exp.training.learner import Learner, Mix, StepSettings
from srp_exp.training.losses import CrossEntropy
from srp_exp.training.mixing import MixUpOrCutMix
from srp_exp.training.totals import Totals

MakeLearner = Callable[..., Learner]
AssertSame = Callable[[Any, Any], None]
Array = NDArray[np.float64]

FEATURES, CLASSES = 5, 4
LR, MOMENTUM, WEIGHT_DECAY = 0.3, 0.8, 0.02


def linear_net(dtype: torch.dtype = torch.float64) -> nn.Linear:
    torch.manual_seed(1)
    return nn.Linear(FEATURES, CLASSES, dtype=dtype)


def linear_learner(
    model: nn.Module,
    mix: Mix | None = None,
    lr: float = LR,
    momentum: float = MOMENTUM,
    weight_decay: float = WEIGHT_DECAY,
    label_smoothing: float = 0.0,
    **settings: Any,
) -> Learner:
    """A learner with a rate that halves with every step."""
    optimizer = SGD(model.parameters(), lr=lr, momentum=momentum, nesterov=momentum > 0, weight_decay=weight_decay)
    schedule = LambdaLR(optimizer, lambda step: 0.5**step)
    return Learner(
        model,
        optimizer,
        schedule,
        StepSettings(seed=0, total_steps=10, **settings),
        loss=CrossEntropy(label_smoothing=label_smoothing),
        mix=mix,
        device=torch.device("cpu"),
    )


def vectors(count: int, size: int = 8, dtype: torch.dtype = torch.float64) -> list[Batch]:
    source = torch.Generator().manual_seed(2)
    return [
        Batch(
            torch.randn(size, FEATURES, generator=source, dtype=dtype),
            torch.randint(0, CLASSES, (size,), generator=source),
            torch.arange(size),
        )
        for _ in range(count)
    ]


def soften(images: Tensor, labels: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    """Mixing that draws nothing: 0.7 of the label and 0.3 of the class after it."""
    hard = nn.functional.one_hot(labels, CLASSES).to(images.dtype)
    return images, 0.7 * hard + 0.3 * hard.roll(1, 1)


def train(learner: Learner, batches: Iterable[Batch]) -> Learner:
    for batch in batches:
        learner.train_step(batch)
    return learner


def network_batches(batches: BatchLoader, epochs: int = 1) -> list[Batch]:
    return [batch for epoch in range(epochs) for batch in batches.epoch(epoch)]


def softmax(logits: Array) -> Array:
    exponentials = np.exp(logits - logits.max(1, keepdims=True))
    probabilities: Array = exponentials / exponentials.sum(1, keepdims=True)
    return probabilities


class ByHand:
    """Cross-entropy of a linear layer, its gradient, and SGD with Nesterov momentum, in numpy."""

    def __init__(self, model: nn.Linear) -> None:
        self.weight: Array = model.weight.detach().numpy().copy()
        self.bias: Array = model.bias.detach().numpy().copy()
        self.velocity: list[Array | float] = [0.0, 0.0]
        self.loss = 0.0

    def step(self, images: Array, targets: Array, lr: float) -> None:
        probabilities = softmax(images @ self.weight.T + self.bias)
        self.loss = -(targets * np.log(probabilities)).sum(1).mean()
        error = (probabilities - targets) / len(images)
        for index, (parameter, gradient) in enumerate([(self.weight, error.T @ images), (self.bias, error.sum(0))]):
            decayed = gradient + WEIGHT_DECAY * parameter
            self.velocity[index] = MOMENTUM * self.velocity[index] + decayed
            parameter -= lr * (decayed + MOMENTUM * self.velocity[index])


@pytest.mark.parametrize(("mix", "label_smoothing"), [(None, 0.0), (soften, 0.1)], ids=["hard", "soft"])
def test_steps_are_those_written_out_by_hand(mix: Mix | None, label_smoothing: float) -> None:
    model = linear_net()
    by_hand = ByHand(model)
    learner = linear_learner(model, mix, label_smoothing=label_smoothing)
    losses = []
    for step, batch in enumerate(vectors(4)):
        assert learner.lr == pytest.approx(LR * 0.5**step)
        learner.train_step(batch)
        targets = np.eye(CLASSES)[batch.labels.numpy()]
        if mix is not None:
            targets = 0.7 * targets + 0.3 * np.roll(targets, 1, axis=1)
        targets = (1 - label_smoothing) * targets + label_smoothing / CLASSES
        by_hand.step(batch.images.numpy(), targets, LR * 0.5**step)
        losses.append(by_hand.loss)
        np.testing.assert_allclose(model.weight.detach().numpy(), by_hand.weight, rtol=1e-12, atol=1e-14)
        np.testing.assert_allclose(model.bias.detach().numpy(), by_hand.bias, rtol=1e-12, atol=1e-14)
    assert learner.step == 4
    assert learner.totals.read()["loss"] == pytest.approx(8 * sum(losses), rel=1e-6)


@pytest.mark.parametrize(("parts", "mix"), [(2, None), (4, soften)], ids=["hard", "soft"])
def test_accumulation_equals_the_whole_batch(parts: int, mix: Mix | None) -> None:
    sizes: list[int] = []
    learners = []
    for accumulate_steps in (1, parts):
        model = nn.Sequential(linear_net(), nn.Tanh(), nn.Linear(CLASSES, CLASSES, dtype=torch.float64))
        model.load_state_dict({**model.state_dict(), "2.weight": torch.eye(CLASSES), "2.bias": torch.zeros(CLASSES)})
        model.register_forward_pre_hook(lambda _, inputs: sizes.append(len(inputs[0])))
        learner = linear_learner(model, mix, accumulate_steps=accumulate_steps, label_smoothing=0.1, clip_norm=0.2)
        learners.append(train(learner, vectors(3)))
    whole, accumulated = learners
    assert sizes == [8] * 3 + [8 // parts] * parts * 3
    assert accumulated.step == whole.step == 3
    for parameter, other in zip(whole.model.parameters(), accumulated.model.parameters(), strict=True):
        torch.testing.assert_close(parameter, other, rtol=1e-12, atol=1e-14)
    assert accumulated.totals.read() == pytest.approx(whole.totals.read(), rel=1e-6)


@pytest.mark.parametrize(("clip_norm", "accumulate_steps"), [(0.1, 2), (100.0, 1)])
def test_clipping_bounds_the_norm_and_keeps_the_direction(clip_norm: float, accumulate_steps: int) -> None:
    steps = []
    for clip in (None, clip_norm):
        model = linear_net()
        before = nn.utils.parameters_to_vector(model.parameters()).detach()
        settings = {"clip_norm": clip, "accumulate_steps": accumulate_steps}
        train(linear_learner(model, lr=1.0, momentum=0.0, weight_decay=0.0, **settings), vectors(1))
        steps.append(before - nn.utils.parameters_to_vector(model.parameters()).detach())
    free, clipped = steps
    assert 0.1 < free.norm() < 100  # so that some of the bounds bind, and one doesn't
    factor = min(1.0, clip_norm / free.norm().item())
    torch.testing.assert_close(clipped, free * factor, rtol=1e-4, atol=1e-9)
    assert clipped.norm() <= clip_norm * (1 + 1e-6)


def test_moving_average_follows_its_recursion(make_learner: MakeLearner, batches: BatchLoader) -> None:
    learner = make_learner(ema_decay=0.6)
    average: dict[str, Tensor] | None = None
    for batch in network_batches(batches):
        learner.train_step(batch)
        state = {name: value.detach().double() for name, value in learner.model.state_dict().items()}
        average = (
            copy.deepcopy(state)
            if average is None
            else {name: 0.6 * average[name] + 0.4 * state[name] for name in state}
        )
        found = learner.evaluated_model.state_dict()
        for name, value in average.items():
            if learner.model.state_dict()[name].is_floating_point():
                torch.testing.assert_close(found[name].double(), value, rtol=1e-5, atol=1e-7, msg=name)
    assert learner.evaluated_model is not learner.model
    assert "1.running_mean" in found  # buffers are averaged too, so that weights and statistics fit


def test_without_an_average_the_model_itself_is_the_result(make_learner: MakeLearner) -> None:
    learner = make_learner()
    assert learner.evaluated_model is learner.model


def test_averaging_changes_nothing_in_training(
    make_learner: MakeLearner, batches: BatchLoader, assert_same_state: AssertSame
) -> None:
    plain, averaged = (
        train(make_learner(ema_decay=decay), network_batches(batches)).model.state_dict() for decay in (None, 0.9)
    )
    assert_same_state(plain, averaged)


@pytest.mark.parametrize(
    "precision, dtype, tolerance",
    [("bf16", torch.bfloat16, 2e-2), ("fp16", torch.float16, 3e-3)],
)
def test_autocast_computes_in_half_and_keeps_float32_weights(
    precision: str, dtype: torch.dtype, tolerance: float
) -> None:
    seen = []
    weights = []
    for chosen in ("fp32", precision):
        model = linear_net(torch.float32)
        model.register_forward_hook(lambda _, __, output: seen.append(output.dtype))
        learner = linear_learner(model, precision=chosen, clip_norm=10.0)
        learner.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**8, enabled=chosen == "fp16")
        train(learner, vectors(3, dtype=torch.float32))
        assert {p.dtype for p in model.parameters()} == {torch.float32}
        weights.append(model.weight.detach())
    assert seen == [torch.float32] * 3 + [dtype] * 3
    torch.testing.assert_close(weights[1], weights[0], rtol=0, atol=tolerance)
    assert not torch.equal(weights[1], weights[0])


def test_fp16_skips_a_step_whose_gradients_overflow_and_goes_on() -> None:
    model = linear_net(torch.float32)
    before = copy.deepcopy(model.state_dict())
    learner = linear_learner(model, precision="fp16")
    scale = learner.scaler.get_scale()
    assert scale > 1
    batch = vectors(1, dtype=torch.float32)[0]
    large = Batch(batch.images * 100, batch.labels, batch.index)
    learner.train_step(large)  # its scaled gradients leave the range of float16; the loss is finite
    assert learner.totals.read()["bad_step"] == 0
    assert torch.equal(model.weight, before["weight"])
    assert learner.scaler.get_scale() == scale / 2
    train(learner, [batch] * 6)
    assert learner.step == 7
    assert model.weight.isfinite().all()
    assert not torch.equal(model.weight, before["weight"])


def test_time_ramp_sets_the_scales_of_every_step(make_learner: MakeLearner, batches: BatchLoader) -> None:
    until = 0.5
    learner = make_learner(ramp_until=until, epochs=2)
    regions = list(srp_modules(learner.model).values())
    final = [region.final_scale for region in regions]
    assert final == [0.75, 0.25]
    for step, batch in enumerate(network_batches(batches, epochs=2)):
        learner.train_step(batch)
        weight = min(1, step / 10 / until)
        assert [region.scale for region in regions] == pytest.approx([1 - (1 - scale) * weight for scale in final])


@pytest.mark.parametrize("mix", [None, soften], ids=["hard", "soft"])
def test_totals_equal_a_slow_recount(mix: Mix | None) -> None:
    model = linear_net(torch.float32)
    outputs: list[Tensor] = []
    model.register_forward_hook(lambda _, __, output: outputs.append(output.detach()))
    data = vectors(5, dtype=torch.float32)
    learner = train(linear_learner(model, mix, accumulate_steps=4, label_smoothing=0.1), data)
    labels = [int(label) for batch in data for label in batch.labels]
    logits = [row.tolist() for output in outputs for row in output]
    loss, correct = 0.0, 0
    for label, row in zip(labels, logits, strict=True):
        target = [0.0] * CLASSES
        target[label] += 1.0 if mix is None else 0.7
        target[(label + 1) % CLASSES] += 0.0 if mix is None else 0.3
        log_sum = math.log(sum(math.exp(value) for value in row))
        for weight, value in zip(target, row, strict=True):
            loss -= (0.9 * weight + 0.1 / CLASSES) * (value - log_sum)
        correct += row.index(max(row)) == label
    assert 0 < correct < len(labels)
    assert learner.totals.read() == {
        "loss": pytest.approx(loss, rel=1e-5),
        "correct": correct,
        "samples": len(labels),
        "bad_step": 0,
    }


def test_totals_name_the_first_of_several_bad_steps() -> None:
    totals = Totals(torch.device("cpu"))
    logits, target = torch.zeros(2, CLASSES), torch.tensor([0, 1])
    for step, loss in enumerate([1.0, math.inf, 2.0, math.nan, -math.inf]):
        totals.add(torch.tensor(loss), logits, target, step)
    assert totals.read()["bad_step"] == 2


EVERYTHING = {"ema_decay": 0.9, "ramp_until": 0.8, "clip_norm": 1.0, "accumulate_steps": 2}


def everything(make_learner: MakeLearner, **settings: Any) -> Learner:
    mix = MixUpOrCutMix(mixup_alpha=0.4, cutmix_alpha=1.0, num_classes=3)
    return make_learner(mix=mix, **{**EVERYTHING, **settings})


def through_a_file(state: dict[str, Any]) -> dict[str, Any]:
    """The state as a checkpoint keeps it: tensors and plain values only."""
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    restored: dict[str, Any] = torch.load(file, weights_only=True)
    return restored


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_a_restored_learner_goes_on_bit_for_bit(
    make_learner: MakeLearner, batches: BatchLoader, assert_same_state: AssertSame, precision: str
) -> None:
    data = network_batches(batches)
    straight = train(everything(make_learner, precision=precision), data[:4])
    first = train(everything(make_learner, precision=precision), data[:2])
    state = through_a_file(first.state_dict())
    torch.manual_seed(12345)  # another process has another past
    restored = everything(make_learner, precision=precision)
    nn.init.zeros_(restored.model[0].weight)
    restored.load_state_dict(state)
    assert restored.step == 2
    train(restored, data[2:4])
    assert_same_state(restored.state_dict(), straight.state_dict())


def test_a_step_draws_by_seed_and_number_alone(make_learner: MakeLearner, batches: BatchLoader) -> None:
    batch = network_batches(batches)[0]

    def weights_after(step: int, seed: int, past: int) -> Tensor:
        learner = everything(make_learner, seed=seed)
        learner.step = step
        torch.manual_seed(past)
        learner.train_step(batch)
        return learner.model[4].weight.detach()

    reference = weights_after(step=12, seed=7, past=0)
    assert torch.equal(weights_after(step=12, seed=7, past=1), reference)
    assert not torch.equal(weights_after(step=13, seed=7, past=0), reference)
    assert not torch.equal(weights_after(step=12, seed=8, past=0), reference)


def test_what_is_evaluated_is_never_compiled(make_learner: MakeLearner) -> None:
    """A later evaluation of the checkpoint isn't either, and gives the same bits."""
    learner = make_learner(compile="default")
    assert learner._network is not learner.model
    assert learner.evaluated_model is learner.model
    assert learner.model._compiled_call_impl is None


def test_the_average_warms_up_by_the_number_of_the_step(
    make_learner: MakeLearner, batches: BatchLoader, assert_same_state: AssertSame
) -> None:
    """With decays of at most 1 - t^(-2/3); a learner that goes on in the middle has the same."""
    learner = make_learner(ema_decay=0.7, ema_warmup=True)
    average = None
    data = network_batches(batches)
    for step, batch in enumerate(data, 1):
        learner.train_step(batch)
        weight = learner.model[0].weight.detach().double()
        decay = min(0.7, 1 - step ** (-2 / 3))
        average = weight if average is None else decay * average + (1 - decay) * weight
        found = learner.evaluated_model.state_dict()["0.weight"]
        torch.testing.assert_close(found.double(), average, rtol=1e-5, atol=1e-7)
        if step == 2:
            state = through_a_file(learner.state_dict())
    resumed = make_learner(ema_decay=0.7, ema_warmup=True)
    resumed.load_state_dict(state)
    assert_same_state(train(resumed, data[2:]).state_dict(), learner.state_dict())


@pytest.mark.parametrize(
    ("decay", "warmup", "steps", "said"),
    [
        (0.99, False, 31, "74%"),
        (0.9, False, 31, "4%"),
        (0.8, False, 31, None),
        (0.9999, True, 31, None),
        (None, False, 31, None),
    ],
)
def test_an_average_that_still_is_the_start_is_warned_of(decay, warmup, steps, said) -> None:
    """The weights are 1 at the first step and 0 afterwards: the average is the part of the first step in it."""
    config = OmegaConf.create({"recipe": {"ema_decay": decay, "ema_warmup": warmup}})
    warning = average_of_the_start(config, steps)
    if decay is not None:
        learner = linear_learner(linear_net(), ema_decay=decay, ema_warmup=warmup)
        for step in range(1, steps + 1):
            nn.init.constant_(learner.model.weight, float(step == 1))
            learner.ema.update(learner.model, step)
        part = learner.evaluated_model.weight[0, 0].item()
        assert (part > 0.01) == (said is not None)
        assert said is None or f"{part:.0%}" == said
    assert (warning is None) == (said is None)
    assert warning is None or all(part in warning for part in (said, f"recipe.ema_decay={decay}", "recipe.ema_warmup"))
