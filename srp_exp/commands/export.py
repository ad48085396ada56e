"""mode=export: the network of a run or a checkpoint file in another format."""

from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf

from srp_exp.backbones import timm_models
from srp_exp.config.schemas.run import Config
from srp_exp.config.visible import visible
from srp_exp.datasets import DataSet
from srp_exp.datasets.known import facts_of
from srp_exp.export import Network, check_possible, export
from srp_exp.runs.build import build_model
from srp_exp.runs.evaluate import restore
from srp_exp.runs.folder.store import find_run
from srp_exp.runs.read_back.read import Trained, asked, leave_out_weights, read_run
from srp_exp.srp import remove_srp
from srp_exp.training.processes.distributed import refuse_several

_TIMM = f"{timm_models.__name__}.{timm_models.build.__name__}"
_IMAGES = 8  # of the test set, on which an export is checked


def execute(config: DictConfig) -> None:
    """Export what config.run or config.checkpoint names as config.format, into the run's folder `export`.

    The configuration is that of `read_run`. Everything runs on the CPU and in float32, whatever device and precision
    the run had. Raises UserError where the format is not possible for the network, or the file computes something else.
    """
    refuse_several("mode=export")
    named = read_run(asked(config))
    trained = named.config
    timm_model = trained.backbone.model if trained.backbone._target_ == _TIMM else None
    check_possible(trained.format, trained.backbone.name, timm_model)
    trained.device = "cpu"
    trained.channels_last = False  # the order of the bytes in memory changes the last bits of a convolution
    subject, dataset = restore(named, "test")
    model, images = subject.model, next(iter(subject.batches())).images[:_IMAGES]
    with torch.no_grad():
        expected = [model(images), model(images[:1])]
    remove_srp(model)

    def rebuild() -> torch.nn.Module:
        plain = trained.copy()
        plain.srp = {"name": "gap", "_target_": None}
        return build_model(plain, dataset, torch.device("cpu"))[0]

    facts = _facts(named, dataset, images)
    network = Network(model, images, rebuild, facts, _stored(named.content), timm_model, trained.attention.name)
    file, difference = export(network, trained.format, named.beside("export"), expected)
    print(visible(f"exported  {file}  largest difference of the logits {difference:.2g}"))


def _facts(named: Trained, dataset: DataSet, images: torch.Tensor) -> dict[str, Any]:
    trained = named.config
    _, _, height, width = images.shape
    augmentation: Any = trained.dataset.get("augmentation") or {}
    known = facts_of(dataset)
    held = known.get("held", True)  # those keep their size
    how = () if held else ("resize", "eval_crop", "interpolation")
    resized = {name: augmentation[name] for name in how if name in augmentation}
    test = {"test": find_run(Path(trained.run)).results["test"]} if trained.run else {}
    return {
        "checkpoint": named.content["name"],  # the run, whose name holds the hash of its configuration, and the file
        **{group: trained[group].name for group in ("dataset", "backbone", "attention", "srp")},
        "seed": trained.seed,
        "class_names": list(dataset.class_names),
        "images": {
            "channels": dataset.channels,
            "height": height,
            "width": width,
            "mean": list(dataset.mean),  # the network takes (pixel / 255 - mean) / std
            "std": list(dataset.std),
            **known.get("reading", {}),  # of pictures in files: background and value_range of `Reading`
            **resized,  # of pictures in files: how they become height x width pixels, as of FileAugmentation
        },
        **test,  # of the finished run
    }


def _stored(content: dict[str, Any]) -> dict[str, Any]:
    """What a checkpoint of this content says of its run, without the folders of this machine."""
    config = OmegaConf.create(content["config"])
    config.data_root, config.output_dir = Config.data_root, Config.output_dir
    for name in ("root", "cache_dir"):
        if config.dataset.get(name) is not None:
            config.dataset[name] = Path(config.dataset[name]).name
    leave_out_weights(config)
    return {"config": OmegaConf.to_yaml(config), "data": content.get("data")}
