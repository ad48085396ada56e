"""Class activation maps of trained networks, side by side on the same images. Needs the extra `cams`.

Source: Grad-CAM (Selvaraju et al., arXiv:1610.02391, eq. 1 and 2), computed by the package grad-cam: the map of a class
is the part above zero of a sum of the channels of the last feature map, weighted by the mean gradient of the class's
logit with respect to each; it is enlarged to the image and spread over [0, 1].
"""

import copy
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from srp_exp.datasets import Batch
from srp_exp.errors import UserError
from srp_exp.evaluation.figures import BLUE, ORANGE
from srp_exp.srp import remove_srp

try:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from pytorch_grad_cam import GradCAM
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
except ImportError as error:
    raise UserError(f"cams: {error.name} can't be imported ({error}); pip install 'srp-exp[cams]'") from error

_INCHES = 1.7  # side of an image in the figure
_DPI = 100


@dataclass(frozen=True)
class ActivationMaps:
    """maps: (N, H, W) float32 in [0, 1], of the class that is each image's label. probabilities: (N, classes)."""

    maps: np.ndarray[Any, np.dtype[np.float32]]
    probabilities: Tensor


def activation_maps(model: nn.Module, images: Tensor, labels: Tensor) -> ActivationMaps:
    """Grad-CAM of the labels (N,) on images (N, C, H, W), both on the device of `model`, which stays as it is.

    The network is looked at in evaluation mode and without SRP, at its last map wider than one position.
    """
    plain = copy.deepcopy(model).eval()
    remove_srp(plain)
    layer = last_map(plain, images[:1])
    with torch.enable_grad(), GradCAM(model=plain, target_layers=[layer]) as cam:
        maps = cam(input_tensor=images, targets=[ClassifierOutputTarget(label) for label in labels.tolist()])
        probabilities = cam.outputs.detach().float().softmax(1).cpu()
    return ActivationMaps(maps.astype(np.float32), probabilities)


def last_map(model: nn.Module, images: Tensor) -> nn.Module:
    """The last module to finish that gives a map (B, C, H, W) with H * W > 1. Raises ValueError where none does."""
    finished: list[nn.Module] = []

    def note(module: nn.Module, _: Any, output: Any) -> None:
        if module is not model and isinstance(output, Tensor) and output.dim() == 4 and output[0, 0].numel() > 1:
            finished.append(module)

    handles = [module.register_forward_hook(note) for module in model.modules()]
    with torch.no_grad():
        model(images)
    for handle in handles:
        handle.remove()
    if not finished:
        raise UserError(f"cams: no module of {type(model).__name__} gives a map (B, C, H, W) of several positions")
    return finished[-1]


def take(batches: Iterable[Batch], positions: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Images (N, C, H, W) and labels (N,) at ascending positions of the split."""
    images, labels, start = [], [], 0
    for batch in batches:
        rows = [p - start for p in positions if start <= p < start + len(batch.labels)]
        images.append(batch.images[rows])
        labels.append(batch.labels[rows])
        start += len(batch.labels)
        if start > positions[-1]:
            break
    return torch.cat(images), torch.cat(labels)


def side_by_side(
    images: Tensor, labels: Tensor, class_names: Sequence[str], columns: dict[str, ActivationMaps]
) -> Figure:
    """One row for each image: as it is, then with the maps of each network over it.

    images: (N, C, H, W) in [0, 1] with one or three channels; `columns` by the name of the network.
    """
    shown = images.float().cpu().permute(0, 2, 3, 1).expand(-1, -1, -1, 3).numpy()
    width = len(columns) + 1
    figure = Figure(
        figsize=(_INCHES * width + 0.2, (_INCHES + 0.3) * len(images) + 0.4), dpi=_DPI, layout="constrained"
    )
    axes = figure.subplots(len(images), width, squeeze=False)
    for row, (image, label) in enumerate(zip(shown, labels.tolist(), strict=True)):
        _draw(axes[row, 0], image, class_names[label], "black")
        for column, maps in enumerate(columns.values(), start=1):
            probabilities = maps.probabilities[row]
            answer = int(probabilities.argmax())
            right = answer == label
            text = f"{'✓' if right else '✗'} {class_names[answer]} {probabilities[answer]:.0%}"
            _draw(axes[row, column], image, text, BLUE if right else ORANGE)
            axes[row, column].imshow(maps.maps[row], cmap="viridis", alpha=0.5, vmin=0, vmax=1)
    for axis, name in zip(axes[0], ["image and label", *columns], strict=True):
        axis.annotate(
            name, (0.5, 1.16), xycoords="axes fraction", ha="center", va="bottom", weight="bold", annotation_clip=False
        )
    return figure


def _draw(axis: Axes, image: Any, title: str, colour: str) -> None:
    axis.imshow(image, interpolation="nearest")
    axis.set_title(title, fontsize=9, color=colour, pad=3)
    axis.set_axis_off()
