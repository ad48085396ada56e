"""Evaluation of a run folder or a checkpoint file with the configuration that it carries."""

import re
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from srp_exp.training.checkpoints import FINAL, load

TRUSTED = ("srp_exp", "timm", "torch", "torchvision")


def evaluate_run(config: DictConfig, settings: set[str], overrides: list[str]) -> tuple[Path, dict[str, Any]]:
    """Evaluate what config.run or config.checkpoint names on config.split; return the output folder and the metrics.

    What the run is comes from the checkpoint; where and how it is evaluated (the keys in `settings`: split, device,
    data_root...) from `config`. Raises ValueError where `overrides` of the command line would change what the run is.
    """
    from srp_exp.run import evaluate_checkpoint

    checkpoint = _checkpoint(config)
    trained = OmegaConf.create(load(checkpoint)["config"])
    assert isinstance(trained, DictConfig)
    _check_targets(trained, config.trust_targets)
    changed = [o for o in overrides if not _is_setting(o, settings)]
    if changed:
        raise ValueError(f"{', '.join(changed)}: the configuration comes from {checkpoint}; leave it out")
    for name in settings:
        trained[name] = config[name]
    if "root" in trained.dataset:
        trained.dataset.root = config.data_root
    evaluations = (
        Path(config.run) / "evaluation" if config.run else checkpoint.with_name(f"evaluation-{checkpoint.stem}")
    )
    folder = evaluations / config.split
    return folder, evaluate_checkpoint(trained, checkpoint, folder)


def _checkpoint(config: DictConfig) -> Path:
    if (config.run is None) == (config.checkpoint is None):
        raise ValueError("mode=eval needs one of run=FOLDER and checkpoint=FILE")
    if config.checkpoint is not None:
        return Path(config.checkpoint)
    final = Path(config.run) / "checkpoints" / FINAL
    if not final.is_file():
        raise FileNotFoundError(f"run={config.run}: no finished run is there (no {final}); or name a checkpoint=FILE")
    return final


def _is_setting(override: str, settings: set[str]) -> bool:
    return re.split(r"[.=@]", override.lstrip("+~"), maxsplit=1)[0] in settings


def _check_targets(node: Any, trust_all: bool) -> None:
    """Raise ValueError if a configuration read from a file would call code of other packages than TRUSTED."""
    if isinstance(node, DictConfig):
        target = node.get("_target_")
        if target is not None and target.split(".")[0] not in TRUSTED and not trust_all:
            raise ValueError(
                f"{target}: a checkpoint may only name classes of {', '.join(TRUSTED)}; trust_targets=true allows it"
            )
        for value in node.values():
            _check_targets(value, trust_all)
