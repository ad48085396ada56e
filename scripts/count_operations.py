"""How many launches SRP adds to a training step on CUDA: what a small network on a GPU is bound by. Needs no GPU.

    python scripts/count_operations.py

prints, for each network, schedule and sharing, the operations that compute (views and empty tensors launch nothing) in
forward and backward with global average pooling and with SRP, and their ratio. The network runs on the CPU; regions are
pooled by the operators that a GPU runs, each of them one kernel.
Then the same of a batch of 128 CIFAR-shaped images held in memory, whose augmentation a GPU makes for several batches
at once.
"""

from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any
from unittest import mock

import timm
import torch
import torch.nn.functional as F
from timm.layers.squeeze_excite import SqueezeExcite
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from srp_exp.backbones.resnet import build
from srp_exp.datasets import ImageSet, Sharding, Split
from srp_exp.datasets.augmentation import Augmentation
from srp_exp.srp import Schedule, apply_srp, region_mean, remove_srp
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


class Launches(TorchDispatchMode):
    """Counts the operations in it that compute, by name."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name: str = func.name()
        if not (func.is_view or name.startswith(("aten::empty", "aten::new_empty", "aten::detach"))):
            self.counts[name] += 1
        return func(*args, **(kwargs or {}))


def training_step(net: nn.Module, side: int, batch: int = 8) -> Counter[str]:
    """Launches of forward and backward of a batch, of the second one: the first may look at types."""
    images, labels = torch.randn(batch, 3, side, side), torch.randint(10, (batch,))
    net.train()
    with mock.patch.object(region_mean, "_has_kernel", lambda x: True):
        for _ in range(2):
            net.zero_grad()
            launches = Launches()
            with launches:
                F.cross_entropy(net(images), labels).backward()
    return launches.counts


def compare(network: str, schedule: Schedule, share: Share) -> tuple[Counter[str], Counter[str]]:
    """Launches of a step with SRP, and of one without."""
    make, side = NETWORKS[network]
    torch.manual_seed(0)
    net = make()
    apply_srp(net, schedule, share=share, example_input=torch.empty(2, 3, side, side))
    with_srp = training_step(net, side)
    remove_srp(net)
    return with_srp, training_step(net, side)


AUGMENTATIONS: dict[str, dict[str, Any]] = {
    "crop and flip": {"crop_padding": 4, "flip": True},
    "RandAugment": {"rand_augment": 9},
    "TrivialAugment": {"trivial_augment": True},
    "colour jitter": {"color_jitter": 0.4},
    "all of them but TrivialAugment": {"crop_padding": 4, "flip": True, "rand_augment": 9, "color_jitter": 0.4},
}


def launches_of_a_batch(augmentation: dict[str, Any], together: int, batches: int = 40, batch_size: int = 128) -> float:
    """Launches of a batch where `together` batches are augmented at once; reading it counts."""
    images = torch.randint(256, (batches * batch_size, 3, 32, 32), dtype=torch.uint8)
    split = Split(images, torch.arange(len(images)) % 2, torch.arange(len(images)))
    made = ImageSet(split, split, ("a", "b"), (0.5,) * 3, (0.2,) * 3, Augmentation(**augmentation))
    reader = made.reader(split, Sharding(), 0)
    reader.batches_together = lambda batch_size: together  # type: ignore[method-assign]
    launches = Launches()
    with launches:
        for _ in reader.batches(0, list(torch.arange(len(images)).split(batch_size))):
            pass
    return launches.counts.total() / batches


def main() -> None:
    print("| network | schedule | share | gap | SRP | ratio |")
    print("| --- | --- | --- | ---: | ---: | ---: |")
    for network in NETWORKS:
        for name, schedule in SCHEDULES.items():
            for share in SHARES:
                srp, gap = (counts.total() for counts in compare(network, schedule, share))
                print(f"| {network} | {name} | {share} | {gap} | {srp} | {srp / gap:.3f} |")
    print("\n| augmentation | launches of a batch | made for 40 batches at once |\n| --- | ---: | ---: |")
    for name, augmentation in AUGMENTATIONS.items():
        alone, together = (launches_of_a_batch(augmentation, number) for number in (1, 40))
        print(f"| {name} | {alone:.0f} | {together:.1f} |")


if __name__ == "__main__":
    main()
