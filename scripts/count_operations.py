"""How many operations SRP adds to a training step: a small network on a GPU is bound by the number of its launches.

    python scripts/count_operations.py

prints, for each network, schedule and sharing, the operations that torch dispatches in forward and backward with global
average pooling and with SRP, and their ratio; and the same without those that only look at memory otherwise (views).
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import timm
import torch
import torch.nn.functional as F
from timm.layers.squeeze_excite import SqueezeExcite
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from srp_exp.backbones.resnet import build
from srp_exp.srp import Schedule, apply_srp, remove_srp
from srp_exp.srp.region import SHARES, Share
from srp_exp.srp.schedule import Fixed, Linear


def se_resnet20() -> nn.Module:
    attention = partial(SqueezeExcite, rd_ratio=0.0625, rd_divisor=1)
    return build(depth=20, attention=attention, num_classes=10, in_channels=3)


NETWORKS: dict[str, tuple[Callable[[], nn.Module], int]] = {
    "SE-ResNet-20": (se_resnet20, 32),
    "seresnet50": (partial(timm.create_model, "seresnet50", num_classes=10), 64),
}
SCHEDULES: dict[str, Schedule] = {"scheduled": Linear(1.0, 0.5), "fixed": Fixed(0.5)}


class Counted(TorchDispatchMode):
    """Counts the operations that run in it, and those of them that compute."""

    operations = computing = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.operations += 1
        self.computing += not func.is_view
        return func(*args, **(kwargs or {}))


def training_step(net: nn.Module, side: int, batch: int = 8) -> Counted:
    """Forward and backward of a batch, counted at the second time, when all is planned."""
    images, labels = torch.randn(batch, 3, side, side), torch.randint(10, (batch,))
    counted = Counted()
    for _ in range(2):
        counted = Counted()
        with counted:
            F.cross_entropy(net.train()(images), labels).backward()
    return counted


def compare(network: str, schedule: Schedule, share: Share) -> tuple[Counted, Counted]:
    """A step with SRP, and one without."""
    make, side = NETWORKS[network]
    torch.manual_seed(0)
    net = make()
    apply_srp(net, schedule, share=share, example_input=torch.empty(2, 3, side, side))
    with_srp = training_step(net, side)
    remove_srp(net)
    return with_srp, training_step(net, side)


def main() -> None:
    print("| network | schedule | share | gap | SRP | ratio | computing: gap | SRP | ratio |")
    print("| --- | --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    for network in NETWORKS:
        for name, schedule in SCHEDULES.items():
            for share in SHARES:
                srp, gap = compare(network, schedule, share)
                counts = [(gap.operations, srp.operations), (gap.computing, srp.computing)]
                cells = " | ".join(f"{a} | {b} | {b / a:.3f}" for a, b in counts)
                print(f"| {network} | {name} | {share} | {cells} |")


if __name__ == "__main__":
    main()
