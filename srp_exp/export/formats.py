"""The formats of an export: how each is written and read again, and how far its logits may be off.

A new format is one row of FORMATS, and its name in srp_exp/config/schemas/run.py.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from srp_exp.export import graphs, hub, weights
from srp_exp.export.network import Logits, Network


@dataclass(frozen=True)
class Format:
    """One form of an export.

    write: writes the file and returns facts that its reader needs. read: the logits that the file computes; it takes
    the network for what the file leaves out, and those facts. tolerance: largest difference of a logit from the run's,
    as part of the largest logit or of 1, whichever is more; 0 asks for the same bits. packages: what it needs beyond
    what srp_exp needs.
    """

    file_name: str
    write: Callable[[Network, Path], dict[str, Any]]
    read: Callable[[Network, Path, dict[str, Any]], Logits]
    tolerance: float = 0.0
    packages: tuple[str, ...] = ()


FORMATS = {
    "timm": Format("timm.pt", weights.write_timm, weights.read_timm),
    "safetensors": Format(
        "model.safetensors", weights.write_safetensors, weights.read_safetensors, packages=("safetensors",)
    ),
    # onnxruntime fuses batch norms into convolutions, and adds in another order than torch.
    "onnx": Format(
        "model.onnx",
        graphs.write_onnx,
        graphs.read_onnx,
        tolerance=1e-4,
        packages=("onnx", "onnxscript", "onnxruntime"),
    ),
    # A folder.
    "hub": Format("hub", hub.write_hub, hub.read_hub_folder, packages=("safetensors", "huggingface_hub")),
    "torch_export": Format("model.pt2", graphs.write_program, graphs.read_program),
}
"""By the name that format=NAME takes."""
