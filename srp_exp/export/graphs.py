"""Exports of the whole computation, which need no Python class of the network: ONNX and torch.export.

The number of images in a batch is free, their size is that of the data set.
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from srp_exp.export.network import Logits, Network


def write_onnx(network: Network, file: Path) -> dict[str, Any]:
    """Write an ONNX model, weights inside, with input `images` and output `logits`, in torch's default opset."""
    program = torch.onnx.export(
        network.model,
        (network.images,),
        dynamo=True,
        dynamic_shapes=_free_batch(),
        input_names=["images"],
        output_names=["logits"],
        verbose=False,
    )
    assert program is not None
    program.save(file, external_data=False)
    return {"opset": program.model.opset_imports[""]}


def read_onnx(_: Network, file: Path, __: dict[str, Any]) -> Logits:
    """The logits that onnxruntime computes."""
    import onnxruntime

    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])

    def logits(images: Tensor) -> Tensor:
        (values,) = session.run(["logits"], {"images": images.numpy()})
        return torch.from_numpy(values)

    return logits


def write_program(network: Network, file: Path) -> dict[str, Any]:
    """Write the program that torch.export makes of the network."""
    torch.export.save(torch.export.export(network.model, (network.images,), dynamic_shapes=_free_batch()), file)
    return {}


def read_program(_: Network, file: Path, __: dict[str, Any]) -> Logits:
    """The logits that the program computes."""
    logits: Logits = torch.export.load(file).module()
    return logits


def _free_batch() -> tuple[dict[int, Any]]:
    return ({0: torch.export.Dim("batch")},)
