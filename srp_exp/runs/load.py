"""A trained network, ready to use: from a run folder, a checkpoint file, or what mode=export format=hub has written."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from srp_exp.config import CONF_DIR
from srp_exp.datasets.files.preprocess import Preprocess
from srp_exp.datasets.known import preprocess_of, without_pictures
from srp_exp.errors import MissingFileError, UserError
from srp_exp.export.hub import CONFIG, WEIGHTS
from srp_exp.runs.build import build_model
from srp_exp.runs.build.arguments import memory_format
from srp_exp.runs.device import build_device
from srp_exp.runs.evaluate import load_trained
from srp_exp.runs.folder.layout import reading
from srp_exp.runs.read_back.read import leave_out_weights, load_of_run
from srp_exp.runs.read_back.trust import stored_config
from srp_exp.training.checkpoints import FINAL


@dataclass(frozen=True)
class LoadedRun:
    """A trained network and what it needs.

    network: in evaluation mode, images (B, C, H, W) float32 to logits (B, classes). class_names: one per logit.
    transform: a picture of Pillow's, or the path of one, to (C, H, W) float32 on the network's device, as evaluation
    prepares it.
    """

    network: nn.Module
    class_names: tuple[str, ...]
    transform: Preprocess


def load_run(
    run: str | Path, *, device: str = "cpu", conf_folders: Sequence[str | Path] = (), trust_targets: bool = False
) -> LoadedRun:
    """Load the network of a finished run, ready to use.

    It is the plain network, without SRP, which evaluation doesn't use. torch's random state isn't changed.

    Args:
        run: folder of a finished run, a checkpoint file, or a folder that mode=export format=hub has written.
        device: where the network runs, as the setting of that name: cpu, cuda, cuda:1, mps, or auto.
        conf_folders: your own folders of configurations, whose classes may be built besides those of conf/.
        trust_targets: build whatever class the file names; it may run any code, so trust who sent it.

    Returns:
        The network in evaluation mode, its class names, and the transform that makes input of a picture.

    Raises:
        MissingFileError: the folder has no finished run, or the file doesn't exist.
        UserError: the file is damaged, names a class that may not be built, or doesn't say how pictures become input.

    Example:
        run = load_run("outputs/runs/RUN")
        logits = run.network(run.transform("picture.jpg")[None])
        print(run.class_names[logits.argmax()])
    """
    file, content = _content(Path(run).expanduser())
    folders = (CONF_DIR, *(Path(folder).expanduser() for folder in conf_folders))
    config = stored_config(content["config"], file, folders, trust_targets)
    leave_out_weights(config)
    config.channels_last = False
    return restored(config, content, file, build_device(device))


def restored(config: DictConfig, content: dict[str, Any], file: Path, device: torch.device) -> LoadedRun:
    """The network of a checkpoint's `content`, of the stored configuration `config`; no data set is opened.

    file: for messages. Raises UserError where the run's data set is of a kind that the checkpoint says nothing about.
    """
    facts = content.get("data")
    if not facts or "augmentation" not in config.dataset:
        raise UserError(
            f"{file}: doesn't say how pictures become input, since {config.dataset.name} is a data set of a kind "
            "of its own (no ImageSet or FileSet); mode=eval opens it"
        )
    augmentation: Any = instantiate(OmegaConf.to_container(config.dataset.augmentation))
    plain = config.copy()
    plain.srp = {"name": "gap", "_target_": None}
    with torch.random.fork_rng(devices=[]):
        model, _ = build_model(plain, without_pictures(facts, augmentation), device)
    load_trained(model, content, file)
    transform = preprocess_of(facts, augmentation, device, memory_format(config))
    return LoadedRun(model.eval(), tuple(facts["class_names"]), transform)


def _content(place: Path) -> tuple[Path, dict[str, Any]]:
    """The file that says what the run is, and what it and the weights beside it hold."""
    final, described = place / "checkpoints" / FINAL, place / CONFIG
    if place.is_dir() and not final.is_file() and described.is_file():
        with reading(described):
            stored = dict(json.loads(described.read_text())["srp_exp"])
        try:
            return described, {**stored, "model": load_file(place / WEIGHTS)}
        except (SafetensorError, OSError) as error:
            raise UserError(f"{place / WEIGHTS}: can't be read ({error}); restore the file") from None
    if place.is_dir() and not final.is_file():
        raise MissingFileError(f"load_run: {place} has no finished run (no {final}); or name a checkpoint file")
    file = final if place.is_dir() else place
    return file, load_of_run(file)
