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
        return parallel
