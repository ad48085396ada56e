"""One training step, and all the state that a training carries from step to step."""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from timm.utils.model_ema import ModelEmaV3
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from srp_exp.datasets import Batch
from srp_exp.seeding import derive
from srp_exp.srp import set_progress
from srp_exp.training.autocast import autocast
from srp_exp.training.losses import CrossEntropy, Loss
from srp_exp.training.mixing import Mix
from srp_exp.training.processes.distributed import SINGLE, Processes
from srp_exp.training.processes.exchange import Exchange
from srp_exp.training.throughput import Stopwatch
from srp_exp.training.totals import Totals

_EXCHANGE, _CROSS_ENTROPY = Exchange(), CrossEntropy()


@dataclass(frozen=True)
class StepSettings:
    """How a step is made; ranges and defaults: srp_exp/config/schemas/run.py."""

    seed: int
    total_steps: int
    precision: str = "fp32"
    accumulate_steps: int = 1
    clip_norm: float | None = None
    ema_decay: float | None = None
    ema_warmup: bool = False
    ramp_until: float | None = None
    compile: str | None = None


class Learner:
    """A model in training. `step` counts the optimizer steps made, of which the last was at `last_lr`; `epoch` the
    epochs finished.

    With several processes each has a learner, and an equal part of every batch; their gradients are averaged. Buffers,
    such as running statistics, are those of its own images; rank 0's are saved and evaluated.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizer,
        lr_schedule: LRScheduler,
        settings: StepSettings,
        *,
        loss: Loss = _CROSS_ENTROPY,
        mix: Mix | None = None,
        device: torch.device,
        processes: Processes = SINGLE,
        exchange: Exchange = _EXCHANGE,
    ) -> None:
        self.model, self.optimizer, self.lr_schedule = model, optimizer, lr_schedule
        self.settings, self.device, self.processes = settings, device, processes
        self.loss, self.mix = loss, mix
        parallel = processes.size > 1
        self._parallel = exchange.parallel(model, device) if parallel else None
        network = model if self._parallel is None else self._parallel
        # The model itself stays as it is, so that an evaluation computes the same in training and later.
        self._network = network if settings.compile is None else torch.compile(network, mode=settings.compile)
        self.autocast = autocast(device, settings.precision)
        # torch warns of a wrong order of calls where fp16 skips the first step, whose gradients overflowed.
        optimizer._opt_called = True  # type: ignore[attr-defined]
        self.scaler = torch.amp.GradScaler(device.type, enabled=settings.precision == "fp16")
        decay = settings.ema_decay
        # From the second step on; with a warm-up the decay at step t is at most 1 - t^(-2/3), as timm has it.
        self.ema = None if decay is None else _Average(model, decay=decay, use_warmup=settings.ema_warmup)
        self.step, self.epoch, self.last_lr = 0, 0, 0.0
        self.history: list[dict[str, Any]] = []
        self.totals = Totals(device)
        # The totals at the last report, from which the next one counts.
        self.reported = dict.fromkeys(("loss", "correct", "samples"), 0.0)
        self.gradient_norm = torch.zeros((), device=device)
        self.stopwatch = Stopwatch(device)

    @property
    def evaluated_model(self) -> nn.Module:
        """The model that is the result: the moving average where there is one."""
        return self.model if self.ema is None else self.ema.module

    @property
    def lr(self) -> float:
        """Learning rate of the next step."""
        return float(self.optimizer.param_groups[0]["lr"])

    def train_step(self, batch: Batch, watch: bool = False) -> None:
        """Make one optimizer step. All randomness follows from (seed, step, rank).

        Nothing waits for the device, and nothing is copied to it; with fp16 that takes a fused optimizer. With `watch`
        it measures `gradient_norm`, that of all parameters' gradients before clipping.
        """
        seed, rank = self.settings.seed, self.processes.rank
        torch.manual_seed(derive(seed, "step", self.step, rank))
        self._set_ramp(self.step)
        images, targets = batch.images, batch.labels
        if self.mix is not None:
            images, targets = self.mix(images, targets, derive(seed, "mixing", self.step))
        self._compute_gradients(images, targets, watch)
        self.last_lr = self.lr
        self._update_weights(watch)
        self.step += 1
        if self.ema is not None:
            self.ema.update(self.model, self.step)

    def _compute_gradients(self, images: Tensor, targets: Tensor, watch: bool) -> None:
        """The gradient of the mean loss over the batches of all processes, one part of the batch after the other."""
        parts = list(zip(*(t.tensor_split(self.settings.accumulate_steps) for t in (images, targets)), strict=True))
        for number, (part, target) in enumerate(parts, 1):
            with self._exchange(number == len(parts)):
                timed = len(part) if watch and number == 1 and self.processes.size > 1 else 0
                with self.autocast, self.stopwatch.over(timed):
                    logits = self._network(part)
                    loss = self.loss(logits, target)
                self.scaler.scale(loss * (len(part) / len(images))).backward()
            self.totals.add(loss.detach(), logits.detach(), target, self.step)

    def _exchange(self, now: bool) -> AbstractContextManager[None]:
        """Whether the processes average their gradients after the backward pass inside, or keep adding their own."""
        return nullcontext() if now or self._parallel is None else self._parallel.no_sync()

    def _set_ramp(self, step: int) -> None:
        if self.settings.ramp_until is not None:
            set_progress(self.model, step / self.settings.total_steps, self.settings.ramp_until)

    def _update_weights(self, watch: bool) -> None:
        clip_norm = self.settings.clip_norm
        if watch or clip_norm is not None:
            self.scaler.unscale_(self.optimizer)
            parameters = [p for p in self.model.parameters() if p.grad is not None]
            self.gradient_norm = nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
            if clip_norm is not None:
                nn.utils.clip_grads_with_norm_(parameters, clip_norm, self.gradient_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad()
        self.lr_schedule.step()

    def state_dict(self) -> dict[str, Any]:
        """Everything that a training needs to resume; tensors and plain values only. That of rank 0 is saved."""
        return {
            "model": self.model.state_dict(),
            "ema": None if self.ema is None else self.ema.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "lr_schedule": self.lr_schedule.state_dict(),
            "scaler": self.scaler.state_dict(),
            "totals": self.totals.state(),
            "reported": self.reported,
            "step": self.step,
            "epoch": self.epoch,
            "last_lr": self.last_lr,
            "history": self.history,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Resume from a state made by `state_dict` of a learner built alike."""
        self.model.load_state_dict(state["model"])
        if self.ema is not None:
            self.ema.load_state_dict(state["ema"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.lr_schedule.load_state_dict(state["lr_schedule"])
        self.scaler.load_state_dict(state["scaler"])
        self.totals.load(state["totals"], self.processes.rank, self.processes.size)
        self.step, self.epoch, self.last_lr = state["step"], state["epoch"], state["last_lr"]
        self.history, self.reported = state["history"], state["reported"]
        self._set_ramp(max(0, self.step - 1))  # as the last step left it, for who looks before the next


class _Average(ModelEmaV3):
    """timm's average, which makes two state_dicts a step: milliseconds of Python for a large network."""

    def __init__(self, model: nn.Module, **settings: Any) -> None:
        super().__init__(model, **settings)
        self._tensors: list[list[Tensor]] = []

    def apply_update_(self, model: nn.Module, decay: float) -> None:
        if not self._tensors:
            pairs = list(zip(self.module.state_dict().values(), model.state_dict().values(), strict=True))
            averaged, copied = ([p for p in pairs if p[0].is_floating_point() == kind] for kind in (True, False))
            self._tensors = [[pair[i] for pair in kind] for kind in (averaged, copied) for i in (0, 1)]
        average, values, copies, counts = self._tensors
        self._foreach_lerp_(average, values, weight=1.0 - decay)
        if copies:
            torch._foreach_copy_(copies, counts)
