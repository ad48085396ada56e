"""Reading a run folder or a checkpoint file with the configuration that it carries."""

import re
from pathlib import Path
from typing import Any

from hydra.utils import get_object
from omegaconf import DictConfig, ListConfig, OmegaConf

from srp_exp.errors import MissingFileError, UserError
from srp_exp.runs.folder import refuse_other_run
from srp_exp.training.checkpoints import FINAL, load

TRUSTED = (
    "srp_exp.backbones", "srp_exp.datasets", "srp_exp.srp", "srp_exp.training",
    "timm.layers", "timm.models", "torch.nn", "torch.optim", "torchvision.transforms",
)  # fmt: skip
"""Packages whose classes a checkpoint may name. Not all of torch: torch.hub.load, say, runs code from the network."""


def read_run(config: DictConfig, settings: set[str], overrides: list[str]) -> tuple[DictConfig, Path]:
    """The configuration of what config.run or config.checkpoint names, and the checkpoint file.

    What the run is comes from the checkpoint; where and how it is looked at (the keys in `settings`: split, device,
    data_root...) from `config`. Raises ValueError where `overrides` of the command line would change what the run is.
    """
    checkpoint = _checkpoint(config)
    trained = OmegaConf.create(load_of_run(checkpoint)["config"])
    assert isinstance(trained, DictConfig)
    _check_targets(trained, config.trust_targets)
    changed = [o for o in overrides if not _is_setting(o, settings)]
    if changed:
        raise UserError(f"{', '.join(changed)}: the configuration comes from {checkpoint}; leave it out")
    if "root" in trained.dataset:
        trained.dataset.root = _moved(trained.dataset.root, trained.data_root, config.data_root)
    leave_out_weights(trained)
    for name in settings & {str(key) for key in config}:
        trained[name] = config[name]
    return trained, checkpoint


def run_of(checkpoint: Path) -> Path:
    """The folder of the run that a checkpoint belongs to, if it lies where runs keep theirs."""
    return checkpoint.resolve().parent.parent


def load_of_run(checkpoint: Path) -> dict[str, Any]:
    """The content of a checkpoint; raises UserError where it lies in the folder of a run that didn't write it."""
    content = load(checkpoint)
    refuse_other_run(checkpoint, run_of(checkpoint), str(content.get("name")).partition("/")[0])
    return content


def leave_out_weights(trained: DictConfig) -> None:
    """Let the network of `trained` be built without weights to begin with: its checkpoint has all of them."""
    for name, nothing in (("pretrained", False), ("weights", None)):
        if name in trained.backbone:
            trained.backbone[name] = nothing


def beside(checkpoint: Path, run: str | None, kind: str) -> Path:
    """Folder for what is made of a checkpoint: <run>/<kind>, or <kind>-<checkpoint's name> beside the file."""
    return Path(run) / kind if run else checkpoint.with_name(f"{kind}-{checkpoint.stem}")


def _moved(root: str, old: str, new: str) -> str:
    """`root` with `old` at its beginning replaced by `new`; as it is where it doesn't lie in `old`."""
    path = Path(root)
    return str(Path(new) / path.relative_to(old)) if path.is_relative_to(old) else root


def _checkpoint(config: DictConfig) -> Path:
    if (config.run is None) != isinstance(config.checkpoint, str):
        raise UserError(f"mode={config.mode} needs one of run=FOLDER and checkpoint=FILE")
    if isinstance(config.checkpoint, str):
        return Path(config.checkpoint)
    final = Path(config.run) / "checkpoints" / FINAL
    if not final.is_file():
        raise MissingFileError(f"run={config.run}: no finished run is there (no {final}); or name a checkpoint=FILE")
    return final


def _is_setting(override: str, settings: set[str]) -> bool:
    return re.split(r"[.=@]", override.lstrip("+~"), maxsplit=1)[0] in settings


def _check_targets(node: Any, trust_all: bool) -> None:
    """Raise ValueError if a configuration read from a file would call code of other packages than TRUSTED."""
    if isinstance(node, ListConfig):
        values = list(node)
    elif isinstance(node, DictConfig) and not node._is_none():
        target = node.get("_target_")
        if target is not None and not trust_all and not _is_trusted(str(target)):
            raise UserError(
                f"{target}: a checkpoint may only name classes of {', '.join(TRUSTED)}; trust_targets=true allows it"
            )
        values = list(node.values())
    else:
        return
    for value in values:
        _check_targets(value, trust_all)


def _is_trusted(target: str) -> bool:
    """Whether `target` lies in TRUSTED, and was defined there: torch.os.system does not, whoever imports os."""
    if not _lies_in_trusted(target):
        return False
    defined_in = getattr(get_object(target), "__module__", None) or ""
    return _lies_in_trusted(defined_in)


def _lies_in_trusted(name: str) -> bool:
    return any(name == package or name.startswith(f"{package}.") for package in TRUSTED)
