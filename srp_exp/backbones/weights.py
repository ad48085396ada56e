"""Weights for a network from a file: safetensors, or what torch.save wrote, read without running any code in it."""

import logging
from collections.abc import Collection, Sequence
from pathlib import Path

import torch
from timm.models import load_state_dict
from torch import Tensor, nn

from srp_exp.errors import MissingFileError, UserError

_LOG = logging.getLogger("srp_exp")
_SHOWN = 5  # keys named in a message


def load_weights(network: nn.Module, file: Path, heads: Sequence[str], may_lack: Collection[str] = ()) -> None:
    """Load `file` into `network`, but for a classifier of another size, which stays as it was initialised.

    The file holds a state_dict, by itself or under one of the names that timm knows: state_dict_ema, model_ema,
    state_dict, model (as in this project's checkpoints), the first that exists. What all keys begin with besides,
    such as module., net. or _orig_mod. of whatever held the network, is taken off. heads: the names of the network's
    classifiers. may_lack: parameters that the file need not have, such as those of attention that was put in.

    Raises FileNotFoundError, and ValueError for an unreadable file and for any other parameter that is missing,
    superfluous or of another shape; the message names the first of them.
    """
    wanted = network.state_dict()
    found = _without_prefix(_read(file), wanted.keys(), file)
    in_head = {key for key in wanted if key.startswith(tuple(f"{head}." for head in heads))}
    if any(key in found and found[key].shape != wanted[key].shape for key in in_head):
        found |= {key: wanted[key] for key in in_head}
    shapes = [
        f"{key} {tuple(found[key].shape)} instead of {tuple(wanted[key].shape)}"
        for key in wanted
        if key in found and found[key].shape != wanted[key].shape
    ]
    missing = [key for key in wanted if key not in found and key not in may_lack]
    superfluous = [key for key in found if key not in wanted]
    problems = [
        f"{what} {len(keys)} ({', '.join(keys[:_SHOWN])}{', ...' if len(keys) > _SHOWN else ''})"
        for what, keys in (("missing", missing), ("unknown to the network", superfluous), ("of another shape", shapes))
        if keys
    ]
    if problems:
        raise UserError(
            f"backbone.weights={file}: parameters that don't match: {'; '.join(problems)}; "
            f"choose the backbone and the attention that the weights belong to"
        )
    network.load_state_dict(found, strict=False)


def _without_prefix(state: dict[str, Tensor], wanted: Collection[str], file: Path) -> dict[str, Tensor]:
    """`state` without what all its keys begin with, as net. in net.fc.weight, as long as none of them is `wanted`."""
    taken = ""
    while not state.keys() & wanted:
        prefixes = {key.partition(".")[0] for key in state if "." in key}
        if len(prefixes) != 1 or not all("." in key for key in state):
            return state
        (prefix,) = prefixes
        taken += f"{prefix}."
        state = {key.removeprefix(f"{prefix}."): value for key, value in state.items()}
    if taken:
        _LOG.info("backbone.weights=%s: every key begins with %s, which is taken off", file, taken)
    return state


def _read(file: Path) -> dict[str, Tensor]:
    if not file.is_file():
        raise MissingFileError(f"backbone.weights={file}: there is no such file")
    try:
        state = load_state_dict(str(file), device="cpu", weights_only=True)
    except Exception as error:  # torch.load raises nearly anything on a damaged file
        raise UserError(
            f"backbone.weights={file}: neither safetensors (named *.safetensors) nor a state_dict that torch.load "
            f"reads with weights_only ({(str(error) or type(error).__name__).splitlines()[0]})"
        ) from None
    if not state or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise UserError(f"backbone.weights={file}: holds no state_dict of tensors")
    return state
