"""The network of a run: backbone, attention and SRP."""

import torch
from hydra.utils import instantiate
from omegaconf import DictConfig
from torch import nn

from srp_exp.datasets import DataSet
from srp_exp.errors import UserError
from srp_exp.runs.build.arguments import arguments, memory_format
from srp_exp.seeding import derive
from srp_exp.srp import SrpRecords, apply_srp, find_attention
from srp_exp.srp.finding.findings import by_reason
from srp_exp.training.reporting.logs import LOG


def build_model(config: DictConfig, dataset: DataSet, device: torch.device) -> tuple[nn.Module, SrpRecords]:
    """The network, initialised from the seed, with SRP where it is chosen, and the records of apply_srp.

    Raises ValueError where the network, the attention and SRP don't go together.
    """
    torch.manual_seed(derive(config.seed, "initialisation"))
    attention = config.attention
    factory = None
    if attention._target_ is not None:
        factory = instantiate(arguments(attention, without=("name", "replaces_conv", "average_pooling")))
    model: nn.Module = instantiate(
        arguments(config.backbone, without=("name", "weights_sha256")),
        attention=None if attention.replaces_conv else factory,
        conv=factory if attention.replaces_conv else None,
        num_classes=dataset.num_classes,
        in_channels=dataset.channels,
    )
    example = torch.zeros(2, dataset.channels, *dataset.image_size)
    if attention._target_ is None:
        _check_native(attention.average_pooling, config.backbone.name, _has_attention(model, example))
    records = _apply_srp(config.srp, model, example) if config.srp._target_ is not None else SrpRecords([], [])
    return model.to(device).to(memory_format=memory_format(config)), records


def _apply_srp(srp: DictConfig, model: nn.Module, example: torch.Tensor) -> SrpRecords:
    schedule = instantiate(arguments(srp, without=("name", "share", "regions", "placement", "ramp_until")))
    settings = {"share": srp.share, "regions": srp.regions, "placement": srp.placement}
    records = apply_srp(model, schedule, **settings, example_input=example)
    for line in by_reason(records.left_out):
        LOG.info("SRP leaves out %s", line)
    return records


def _has_attention(model: nn.Module, example: torch.Tensor) -> bool:
    return any(pooling.gates for pooling in find_attention(model, example).poolings)


def _check_native(wanted: bool, backbone: str, has_attention: bool) -> None:
    """Raise ValueError where `none` meets a network with attention of its own, or `native` one without."""
    if has_attention and not wanted:
        raise UserError(f"attention=none: {backbone} brings its own attention; set attention=native")
    if wanted and not has_attention:
        raise UserError(f"attention=native: {backbone} brings no attention of its own; choose one, as attention=se")
