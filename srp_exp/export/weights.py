"""Exports of the weights alone: for timm's own network, and as safetensors."""

import json
from pathlib import Path
from typing import Any

import timm
import torch
from timm.layers.create_attn import get_attn
from torch import Tensor

from srp_exp.errors import UserError
from srp_exp.export.network import Logits, Network


def write_timm(network: Network, file: Path) -> dict[str, Any]:
    """Write a state_dict that timm.create_model(architecture, **kwargs) loads; returns architecture and kwargs.

    Raises ValueError where timm has no such network, or one with other parameters.
    """
    kwargs = timm_kwargs(network)
    if kwargs is None:
        raise UserError(
            f"format=timm: timm's {network.timm_model} has other parameters than it has here with "
            f"attention={network.attention}; take format=safetensors, onnx, torch_export or hub"
        )
    torch.save(state_of(network), file)
    return {"architecture": network.timm_model, "kwargs": kwargs, "timm": timm.__version__}


def timm_kwargs(network: Network) -> dict[str, Any] | None:
    """The arguments with which timm.create_model builds a network of the same parameters; None where none do."""
    if network.timm_model is None:
        return None
    for kwargs in _possible_kwargs(network):
        with torch.device("meta"):
            plain = timm.create_model(network.timm_model, **kwargs)
        if _shapes(plain.state_dict()) == _shapes(state_of(network)):
            return kwargs
    return None


def read_timm(_: Network, file: Path, facts: dict[str, Any]) -> Logits:
    """The logits of timm's own network with the weights of the file."""
    model = timm.create_model(facts["architecture"], checkpoint_path=file, **facts["kwargs"])  # refuses other names
    logits: Logits = model.eval()
    return logits


def write_safetensors(network: Network, file: Path) -> dict[str, Any]:
    """Write the state_dict, with the network's facts as metadata: text as it is, other values as JSON."""
    from safetensors.torch import save_file

    texts = {name: fact if isinstance(fact, str) else json.dumps(fact) for name, fact in network.facts.items()}
    save_file(state_of(network), file, metadata=texts)
    return {}


def read_safetensors(network: Network, file: Path, _: dict[str, Any]) -> Logits:
    """The logits of a new network of the same kind with the weights of the file."""
    from safetensors.torch import load_file

    model = network.rebuild()
    model.load_state_dict(load_file(file))
    return model.eval()


def _possible_kwargs(network: Network) -> list[dict[str, Any]]:
    """timm's arguments to try: those of the network as timm defines it, then with the attention by timm's name."""
    plain = {"num_classes": len(network.facts["class_names"]), "in_chans": network.images.shape[1]}
    try:
        get_attn(network.attention)
    except AssertionError:  # no attention of timm, such as `native`
        return [plain]
    return [plain, {**plain, "block_args": {"attn_layer": network.attention}}]


def state_of(network: Network) -> dict[str, Tensor]:
    """The state_dict on the CPU, each tensor with memory of its own, as safetensors wants it."""
    state = network.model.state_dict()
    return {name: tensor.cpu().clone(memory_format=torch.contiguous_format) for name, tensor in state.items()}


def _shapes(state: dict[str, Tensor]) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in state.items()}
