"""What SRP costs: parameters, multiply-adds, time and memory of networks on the same batch.

The networks take turns within every round, so that a disturbance of the machine meets all of them; a ratio is taken
within a round, and its quartiles over the rounds are reported. A network measured against its own copy gives the
error of the method.

A training step is forward, cross-entropy, backward and SGD with momentum, without what is the same with and without
SRP: augmentation, mixing, logging. Multiply-adds are those of convolutions and matrix products, as
torch.utils.flop_counter counts them; the few elementwise operations that SRP adds in training are not among them, but
show in the time.
"""

import itertools
import os
import statistics
import time
from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from srp_exp.datasets import Batch
from srp_exp.errors import UserError
from srp_exp.evaluation.evaluators import Subject
from srp_exp.srp import remove_srp

_ROUNDS = 30
"""Of the evaluator, beyond those to warm up."""

_WARMUP_ROUNDS = 3


def multiply_adds(model: nn.Module, images: Tensor) -> int:
    """Of one image's forward pass; images: (B, C, H, W), on the meta device too."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(images)
    return int(counter.get_total_flops()) // 2 // len(images)


class Contender:
    """A network on a fixed batch, whose training step and evaluation are to be measured.

    `macs` and `train_macs` are the multiply-adds of one image's forward pass in evaluation and in training, counted
    before the network is compiled (of the backward pass torch counts those of grouped convolutions wrongly);
    `parameters` is the number of its parameters. The learning rate is 0: a step does the same work, and the weights
    stay as they are. The statistics of batch norm move.
    """

    def __init__(self, model: nn.Module, batch: Batch, autocast: torch.autocast) -> None:
        self.model, self.images, self.labels, self.autocast = model, batch.images, batch.labels, autocast
        self.device = batch.images.device
        self.optimizer = torch.optim.SGD(model.parameters(), lr=0.0, momentum=0.9)
        self.parameters = sum(parameter.numel() for parameter in model.parameters())
        self.macs, self.train_macs = self._macs(training=False), self._macs(training=True)

    def train_step(self) -> None:
        self.model.train()
        with torch.enable_grad():
            with self.autocast:
                loss = F.cross_entropy(self.model(self.images), self.labels)
            loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()

    @torch.no_grad()
    def evaluate(self) -> None:
        self.model.eval()
        with self.autocast:
            self.model(self.images)

    def _macs(self, training: bool) -> int:
        with self.autocast:
            return multiply_adds(self.model.train(training), self.images)


@dataclass(frozen=True)
class Quartiles:
    low: float
    median: float
    high: float

    def __str__(self) -> str:
        return f"{self.median:.3f} ({self.low:.3f} - {self.high:.3f})"


@dataclass(frozen=True)
class Cost:
    """Of one network: seconds are medians, ratios are to the first network of the comparison.

    macs, train_macs: as in `Contender`. memory_mib: `peak_memory` of a training step.
    """

    parameters: int
    macs: int
    train_macs: int
    train_seconds: float
    train_ratio: Quartiles
    eval_seconds: float
    eval_ratio: Quartiles
    memory_mib: float
    memory_ratio: float


def compare_costs(contenders: Mapping[str, Contender], rounds: int) -> dict[str, Cost]:
    """The cost of each network, with ratios to the first one. Raises ValueError unless the device is cpu or cuda."""
    reference, first = next(iter(contenders.items()))
    if first.device.type not in ("cpu", "cuda"):
        raise UserError(f"device={first.device}: the cost is measured on cpu and cuda only")
    train = seconds_in_turns({name: c.train_step for name, c in contenders.items()}, rounds, first.device)
    evaluation = seconds_in_turns({name: c.evaluate for name, c in contenders.items()}, rounds, first.device)
    memory = {name: peak_memory(c.train_step, first.device) for name, c in contenders.items()}
    return {
        name: Cost(
            parameters=contender.parameters,
            macs=contender.macs,
            train_macs=contender.train_macs,
            train_seconds=statistics.median(train[name]),
            train_ratio=ratio(train[name], train[reference]),
            eval_seconds=statistics.median(evaluation[name]),
            eval_ratio=ratio(evaluation[name], evaluation[reference]),
            memory_mib=memory[name] / 2**20,
            memory_ratio=memory[name] / memory[reference],
        )
        for name, contender in contenders.items()
    }


def seconds_in_turns(
    actions: Mapping[str, Callable[[], None]], rounds: int, device: torch.device
) -> dict[str, list[float]]:
    """Seconds of each action in each of `rounds` rounds, in which every action runs once."""
    order = list(actions)
    seconds: dict[str, list[float]] = {name: [] for name in actions}
    for number in range(_WARMUP_ROUNDS + rounds):
        for name in order:
            start = time.perf_counter()
            actions[name]()
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            if number >= _WARMUP_ROUNDS:
                seconds[name].append(time.perf_counter() - start)
        order.reverse()  # whoever follows whom must not matter
    return seconds


def ratio(seconds: list[float], to: list[float]) -> Quartiles:
    """Quartiles of the ratios within the rounds, of which there must be two or more."""
    return Quartiles(*statistics.quantiles([one / other for one, other in zip(seconds, to, strict=True)], n=4))


def peak_memory(action: Callable[[], None], device: torch.device) -> int:
    """Highest sum in bytes of the tensors that `action` holds at one time, beyond those that exist before it."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        action()
        return torch.cuda.max_memory_allocated(device) - before
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # the profiler would tell on standard error that there is no GPU
    with torch.profiler.profile(profile_memory=True) as profiler:
        action()
    results = profiler.profiler and profiler.profiler.kineto_results
    assert results is not None
    changes = sorted((event.start_ns(), event.nbytes()) for event in results.events() if event.name() == "[memory]")
    peak: int = max(itertools.accumulate(size for _, size in changes))
    return peak


def cost(subject: Subject) -> dict[str, Any]:
    """Evaluator: the subject's network over the same network without SRP, on the first batch of the split.

    Of a network without SRP it compares two equal copies: the error of the method. The subject stays as it is.
    """
    torch.manual_seed(subject.seed)
    batch = next(iter(subject.batches()))
    own, plain = deepcopy(subject.model), deepcopy(subject.model)
    remove_srp(plain)
    contenders = {"gap": Contender(plain, batch, subject.autocast), "own": Contender(own, batch, subject.autocast)}
    measured = compare_costs(contenders, _ROUNDS)["own"]
    return {
        "summary": {
            "parameters": measured.parameters,
            "macs": measured.macs,
            "train_step_ratio": measured.train_ratio.median,
            "eval_ratio": measured.eval_ratio.median,
            "memory_ratio": measured.memory_ratio,
        },
        "quartiles": {
            "train_step_ratio": [measured.train_ratio.low, measured.train_ratio.high],
            "eval_ratio": [measured.eval_ratio.low, measured.eval_ratio.high],
        },
        "batch": list(batch.images.shape),
        "rounds": _ROUNDS,
    }
