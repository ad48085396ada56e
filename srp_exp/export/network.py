"""What is exported."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

from torch import Tensor, nn

Logits: TypeAlias = Callable[[Tensor], Tensor]
"""Maps images (B, C, H, W), float32 and normalised, to logits (B, classes)."""


@dataclass(frozen=True)
class Network:
    """A trained network: on the CPU, in evaluation mode, without SRP.

    images: (B, C, H, W) float32, B >= 2, normalised images of the test set. rebuild: makes the network once more, with
    weights of its own. facts: what a user of the file must know, in plain values for JSON: name of the run, classes,
    mean and std of the images. stored: `config` and `data` of the run's checkpoint, from which load_run builds the
    network. timm_model: timm's name of it; None where timm doesn't have it. attention: the choice
    of conf/attention.
    """

    model: nn.Module
    images: Tensor
    rebuild: Callable[[], nn.Module]
    facts: dict[str, Any]
    stored: dict[str, Any]
    timm_model: str | None
    attention: str
