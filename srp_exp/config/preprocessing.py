"""How pretrained weights want pictures, as timm states it with them; a data set's settings take it unless given.

The values stand in the configuration of the run so, and count in its hash.
"""

import math
from enum import Enum
from functools import cache
from typing import Any

from omegaconf import DictConfig


def from_weights(fact: str, otherwise: Any = None, *, _root_: DictConfig) -> Any:
    """A fact of the weights that the network begins with; `otherwise` where it begins with none, or isn't timm's.

    facts: mean, std, crop_size, crop_pct, interpolation, eval_crop; and memory_mb, 0, since pictures in memory keep
    their size. A file of weights (backbone.weights) is taken to want what timm's own weights of that network want. The
    first call imports timm, which takes seconds.
    """
    return facts_of_weights(_root_.backbone.model).get(fact, otherwise) if _begins_with_weights(_root_) else otherwise


def eval_resize(eval_crop_size: Any, crop: Enum, crop_pct: float) -> Any:
    """The side in pixels whose middle `eval_crop_size` pixels are the part `crop_pct`, rounded down as timm does.

    Sides, where eval_crop_size is a list. crop: of training; `pad` shows whole pictures, and evaluation with it.
    """
    return eval_crop_size if crop.name == "pad" else _larger(eval_crop_size, crop_pct)


def _larger(size: Any, part: float) -> Any:
    if isinstance(size, int):
        return math.floor(size / part)
    is_list = not isinstance(size, float) and all(isinstance(side, int) for side in size)  # else `validate` refuses it
    return [math.floor(side / part) for side in size] if is_list else size


@cache
def facts_of_weights(model: str) -> dict[str, Any]:
    """What timm's configuration of the weights of `model` states; nothing where timm doesn't know them."""
    from timm.data.config import resolve_data_config
    from timm.models import get_pretrained_cfg

    try:
        weights = get_pretrained_cfg(model)
    except RuntimeError:  # a tag that doesn't exist: building the network names those that do
        weights = None
    if weights is None:
        return {}
    stated = resolve_data_config(pretrained_cfg=weights.to_dict())
    _, height, width = stated["input_size"]
    size = height if height == width else [height, width]
    facts = {name: stated[name] for name in ("crop_pct", "interpolation")}
    colours = {name: list(stated[name]) for name in ("mean", "std")}
    return facts | colours | {"eval_crop": stated["crop_mode"], "crop_size": size, "memory_mb": 0.0}


def describe_preprocessing(config: DictConfig) -> str | None:
    """One line for the log: which settings are as the weights want them, and which aren't; None without weights.

    config: of a run, resolved to plain values.
    """
    if not _begins_with_weights(config) or not (facts := facts_of_weights(config.backbone.model)):
        return None
    dataset: Any = config.dataset
    augmentation: Any = dataset.get("augmentation") or {}
    wanted = {name: (dataset[name], facts[name]) for name in ("mean", "std") if dataset[name] is not None}
    if "eval_crop_size" in augmentation:
        size, part = augmentation.eval_crop_size, facts["crop_pct"]
        wanted |= {name: (augmentation[name], facts[name]) for name in ("interpolation", "eval_crop")}
        wanted |= {"eval_crop_size": (size, facts["crop_size"]), "resize": (augmentation.resize, _larger(size, part))}
    taken = [f"{name}={value}" for name, (value, fact) in wanted.items() if value == fact]
    other = [f"{name}={value} (not {fact})" for name, (value, fact) in wanted.items() if value != fact]
    return f"as the weights of {config.backbone.model} want pictures: {', '.join(taken) or 'nothing'}" + (
        f"; set otherwise: {', '.join(other)}" if other else ""
    )


def _begins_with_weights(config: DictConfig) -> bool:
    backbone = config.get("backbone")
    names_weights = backbone is not None and "pretrained" in backbone and "model" in backbone
    return names_weights and (backbone.pretrained or backbone.weights is not None)
