"""How several processes exchange gradients: torch's DistributedDataParallel with settings."""

from dataclasses import dataclass

import torch
from torch import nn
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import bf16_compress_hook
from torch.nn.parallel import DistributedDataParallel


@dataclass(frozen=True)
class Exchange:
    """bucket_mb: gradients that are sent together, while the backward pass continues. static_graph: every step uses the
    same parameters. bf16_gradients: sent and summed in bfloat16, in half the bytes.
    """

    bucket_mb: float = 25.0
    static_graph: bool = False
    bf16_gradients: bool = False

    def parallel(self, model: nn.Module, device: torch.device) -> DistributedDataParallel:
        """`model`, whose gradients are averaged over all processes after a backward pass."""
        parallel = DistributedDataParallel(
            model,
            device_ids=[device] if device.type == "cuda" else None,
            bucket_cap_mb=self.bucket_mb,
            static_graph=self.static_graph,
            gradient_as_bucket_view=True,  # else each gradient is held twice, and copied
        )
        # Training reads no running statistic: they are shared when they are evaluated, not in every forward pass. Set
        # here, since the argument has another name in newer versions of torch.
        parallel.broadcast_buffers = False
        if self.bf16_gradients:
            parallel.register_comm_hook(None, bf16_compress_hook)
        _order_buckets(parallel)
        return parallel


class _Sum(nn.Module):
    """Zero, with a gradient of zero for each parameter, the last one's first."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self._model = model

    def forward(self) -> torch.Tensor:
        used = [p for p in self._model.parameters() if p.requires_grad]
        return torch.stack([(p * 0).sum() for p in used]).sum()


def _order_buckets(parallel: DistributedDataParallel) -> None:
    """Let DDP put the gradients into the buckets that it keeps for the rest of the training.

    It does so once, after the first backward pass, in the order in which gradients were ready. How more than two
    processes sum a number depends on its place in a bucket: a resumed training would make its first step with other
    buckets than one that was never interrupted, and end with different bits.
    """
    model = parallel.module
    parallel.module = _Sum(model)
    parallel().backward()
    parallel.module = model
    parallel.zero_grad()
