"""Two processes against one, over everything that a step is made of: one pair of processes makes all cases."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from timm.layers import SqueezeExcite
from torch import Tensor, nn
from torch.distributed import GradBucket
from torch.multiprocessing import start_processes
from torch.optim import SGD
from torch.optim.lr_scheduler import LambdaLR

from srp_exp.datasets import Batch
from srp_exp.training.learner import Learner, StepSettings
from srp_exp.training.losses import CrossEntropy
from srp_exp.training.mixing import CutMix, MixUp
from srp_exp.training.processes.distributed import SINGLE, Processes, connected
from srp_exp.training.processes.exchange import Exchange
from srp_exp.training.processes.parts import check_parts

BATCH, STEPS, CLASSES = 12, 3, 4
SPOILT = {0: 2, 1: 1}
"""By rank, the step at which its loss isn't finite."""
LOSS = CrossEntropy(torch.tensor([0.2, 1.0, 3.0, 0.5]), label_smoothing=0.1)  # whose weights differ between the parts
MIXES = {"none": None, "mixup": MixUp(0.4, CLASSES), "cutmix": CutMix(1.0, CLASSES)}

Case = tuple[int, float | None, float | None, str, str]
"""accumulate_steps, ema_decay, clip_norm, precision, mixing."""
WATCHED: Case = (1, None, None, "fp32", "none")
CASES: list[Case] = [  # every number of parts, and every pair of average, clipping and precision
    WATCHED,
    (1, 0.6, 0.05, "fp32", "cutmix"),
    (2, None, 0.05, "bf16", "mixup"),
    (3, 0.6, None, "bf16", "none"),
    (4, 0.6, 0.05, "fp32", "cutmix"),
    (5, None, None, "fp32", "mixup"),
    (5, 0.6, 0.05, "fp32", "none"),
]


def network() -> nn.Module:
    """No batch norm, by which the images of a part see each other."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, 2, 1), nn.GroupNorm(2, 8), nn.ReLU(), SqueezeExcite(8, 0.5),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, CLASSES),
    )  # fmt: skip


def batch_of(step: int, rank: int, size: int) -> Batch:
    source = torch.Generator().manual_seed(step)
    images = torch.randn(BATCH, 3, 8, 8, generator=source)
    labels = torch.randint(0, CLASSES, (BATCH,), generator=source)
    return Batch(images[rank::size], labels[rank::size], torch.arange(BATCH)[rank::size])


def make_learner(
    case: Case,
    processes: Processes,
    model: nn.Module | None = None,
    exchange: Exchange = Exchange(),  # noqa: B008
) -> Learner:
    accumulate_steps, ema_decay, clip_norm, precision, mixing = case
    model = network() if model is None else model
    optimizer = SGD(model.parameters(), lr=0.3, momentum=0.9)
    settings = StepSettings(
        5, STEPS, precision=precision, accumulate_steps=accumulate_steps,
        clip_norm=clip_norm, ema_decay=ema_decay,
    )  # fmt: skip
    schedule = LambdaLR(optimizer, lambda step: 1.0)
    cpu = torch.device("cpu")
    return Learner(
        model, optimizer, schedule, settings, loss=LOSS, mix=MIXES[mixing], device=cpu, processes=processes,
        exchange=exchange,
    )  # fmt: skip


def train(case: Case, processes: Processes, exchange: Exchange = Exchange()) -> list[dict[str, Any]]:  # noqa: B008
    """What each step left: the gradients that the optimizer got, the norm, the losses so far, the average's weights."""
    learner = make_learner(case, processes, exchange=exchange)
    left = []
    gradients: list[Tensor] = []
    learner.optimizer.register_step_pre_hook(
        lambda optimizer, *_: gradients.extend(
            p.grad.clone() for group in optimizer.param_groups for p in group["params"] if p.grad is not None
        )
    )
    for step in range(STEPS):
        gradients.clear()
        learner.train_step(batch_of(step, processes.rank, processes.size), watch=True)
        left.append({
            "gradients": list(gradients),
            "norm": learner.gradient_norm.clone(),
            "totals": totals_of_all(learner),
            "result": [p.detach().clone() for p in learner.evaluated_model.parameters()],
        })  # fmt: skip
    return left


def totals_of_all(learner: Learner) -> dict[str, float]:
    rows = learner.processes.gather(learner.totals.values.tolist())
    return learner.totals.join(rows)


def first_bad_step(processes: Processes) -> dict[str, float]:
    learner = make_learner((1, None, None, "fp32", "none"), processes)
    for step in range(STEPS):
        batch = batch_of(step, processes.rank, processes.size)
        if step == SPOILT[processes.rank]:
            batch.images[0] = torch.nan
        learner.train_step(batch)
    return totals_of_all(learner)


class Buffered(nn.Module):
    """Counts its passes in a buffer, which a broadcast of rank 0's would even out."""

    def __init__(self, rank: int) -> None:
        super().__init__()
        self.inner, self.rank = network(), rank
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.seen += 1 + self.rank
        return self.inner(x)  # type: ignore[no-any-return]


def exchanges(processes: Processes) -> tuple[int, float]:
    """How often gradients are exchanged in a step of four parts, and what a buffer holds after it."""
    model = Buffered(processes.rank)
    learner = make_learner((4, None, None, "fp32", "none"), processes, model)
    reduced: list[bool] = []

    def count(_: object, bucket: GradBucket) -> torch.futures.Future[Tensor]:
        reduced.append(bucket.is_last())
        future: torch.futures.Future[Tensor] = torch.futures.Future()
        future.set_result(bucket.buffer())
        return future

    assert learner._parallel is not None
    learner._parallel.register_comm_hook(None, count)
    learner.train_step(batch_of(0, processes.rank, processes.size))
    return sum(reduced), float(model.seen)


class RegisteredBackwards(nn.Module):
    """Its gradients are ready in the order of its parameters, where DDP expects the opposite one."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([*network()][::-1])

    def forward(self, x: Tensor) -> Tensor:
        for layer in [*self.layers][::-1]:
            x = layer(x)
        return x


def buckets(processes: Processes) -> list[list[list[torch.Size]]]:
    """The shapes of the parameters in each bucket, in each of two steps."""
    small = Exchange(bucket_mb=0.0005)
    learner = make_learner((1, None, None, "fp32", "none"), processes, RegisteredBackwards(), small)
    sent: list[list[list[torch.Size]]] = [[], []]

    def note(_: object, bucket: GradBucket) -> torch.futures.Future[Tensor]:
        sent[learner.step].append([p.shape for p in bucket.parameters()])
        future: torch.futures.Future[Tensor] = torch.futures.Future()
        future.set_result(bucket.buffer())
        return future

    assert learner._parallel is not None
    learner._parallel.register_comm_hook(None, note)
    for step in range(2):
        learner.train_step(batch_of(step, processes.rank, processes.size))
    return sent


EXCHANGES = {
    "small buckets": Exchange(bucket_mb=0.001),
    "static graph": Exchange(static_graph=True),
    "bf16": Exchange(bf16_gradients=True),
}


def one_of_two(rank: int, folder: str, port: int) -> None:
    import os

    torch.set_num_threads(1)
    os.environ |= {
        "RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_RANK": str(rank), "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }  # fmt: skip
    with connected(torch.device("cpu")) as processes:
        results = {"steps": [train(case, processes) for case in CASES], "bad": first_bad_step(processes)}
        results["exchanged"] = {name: train(WATCHED, processes, how) for name, how in EXCHANGES.items()}
        results |= {"exchanges": exchanges(processes), "buckets": buckets(processes)}
        torch.save(results, Path(folder) / f"{rank}.pt")


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What each of two processes found."""
    import socket

    folder = tmp_path_factory.mktemp("two")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    start_processes(one_of_two, (str(folder), port), nprocs=2, start_method="spawn")
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(2)]


@pytest.mark.parametrize("number", range(len(CASES)), ids=["-".join(map(str, case)) for case in CASES])
def test_two_processes_make_the_steps_of_one(two: list[dict[str, Any]], number: int) -> None:
    precision = CASES[number][3]
    tolerance = {"fp32": {"rtol": 1e-4, "atol": 1e-6}, "bf16": {"rtol": 4e-2, "atol": 4e-3}}[precision]
    alone = train(CASES[number], SINGLE)
    for found in two:
        for expected, step in zip(alone, found["steps"][number], strict=True):
            torch.testing.assert_close(step["gradients"], expected["gradients"], **tolerance)
            torch.testing.assert_close(step["norm"], expected["norm"], rtol=tolerance["rtol"], atol=0)
            torch.testing.assert_close(step["result"], expected["result"], **tolerance)
            assert step["totals"]["loss"] == pytest.approx(expected["totals"]["loss"], rel=tolerance["rtol"] / 4)
            assert step["totals"]["samples"] == expected["totals"]["samples"]
    assert two[0]["steps"][number][-1]["totals"] == two[1]["steps"][number][-1]["totals"]
    assert np.isfinite(alone[-1]["totals"]["loss"])


@pytest.mark.parametrize("name", EXCHANGES)
def test_however_gradients_are_sent_they_are_those_of_one(two: list[dict[str, Any]], name: str) -> None:
    alone = train(WATCHED, SINGLE)[0]["gradients"]
    for found in two:
        sent = found["exchanged"][name][0]["gradients"]
        torch.testing.assert_close(
            sent, alone, rtol=1e-2 if name == "bf16" else 1e-4, atol=1e-3 if name == "bf16" else 1e-6
        )
        assert (name == "bf16") == any((a - b).abs().max() > 1e-5 for a, b in zip(sent, alone, strict=True))


def test_the_first_bad_step_is_that_of_the_rank_which_was_first(two: list[dict[str, Any]]) -> None:
    assert [found["bad"]["bad_step"] for found in two] == [1 + min(SPOILT.values())] * 2


def test_gradients_are_exchanged_once_a_step_and_buffers_never(two: list[dict[str, Any]]) -> None:
    assert [found["exchanges"] for found in two] == [(1, 4.0), (1, 8.0)]


def test_the_first_step_sends_gradients_as_all_others_do(two: list[dict[str, Any]]) -> None:
    """More than two processes sum in an order that depends on the buckets; a resumed training has a first step too."""
    for first, second in (found["buckets"] for found in two):
        assert first == second and len(first) > 1


INDIVISIBLE = [
    (12, 4, 2, False, ["recipe.batch_size=12 on 2 processes", "6 images", "accumulate_steps=4", "multiple of 8"]),
    (12, 1, 4, True, ["recipe.batch_size=12 on 4 processes", "3 images", "mixing", "multiple of 8"]),
]


def test_a_batch_that_cannot_be_divided_is_refused() -> None:
    for batch_size, accumulate_steps, processes, mixes, words in INDIVISIBLE:
        with pytest.raises(ValueError) as refused:
            check_parts(batch_size, accumulate_steps, processes, mixes)
        assert all(word in str(refused.value) for word in words), refused.value


def test_a_batch_that_can_be_divided_is_taken() -> None:
    check_parts(12, 3, 2, mixes=True)
    check_parts(12, 1, 4, mixes=False)
    check_parts(9, 3, 1, mixes=True)
