"""What a node of the configuration gives its class, and the name of the choice whose class refuses it."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf

from srp_exp.errors import UserError


def arguments(node: DictConfig, without: tuple[str, ...]) -> dict[str, Any]:
    """The node as a dict for hydra's instantiate, without the keys that aren't arguments of its class."""
    values = OmegaConf.to_container(node)
    assert isinstance(values, dict)
    return {str(key): value for key, value in values.items() if key not in without}


def memory_format(config: DictConfig) -> torch.memory_format:
    return torch.channels_last if config.channels_last else torch.contiguous_format


@contextmanager
def named(choice: str) -> Iterator[None]:
    """Name the choice whose class refuses its settings, as torch's SGD does with momentum=0 and nesterov=true."""
    try:
        yield
    except UserError:
        raise
    except (TypeError, ValueError) as error:
        raise UserError(f"{choice}: its class refuses its settings ({error})") from error
