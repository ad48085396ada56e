"""Reading a run folder or a checkpoint file with the configuration that it carries."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from srp_exp.config.identity import plain_values
from srp_exp.config.schemas.fields import settings
from srp_exp.errors import MissingFileError, UserError
from srp_exp.runs.folder.layout import refuse_other_run
from srp_exp.runs.read_back.data_now import place_data, says_where
from srp_exp.runs.read_back.trust import stored_config
from srp_exp.training.checkpoints import FINAL, load


@dataclass(frozen=True)
class Asked:
    """What a command line asks about something trained.

    config: plain values. settings: its keys that say where and how the run is looked at. overrides: as they were given.
    conf_folders: whose files say which classes there are, conf/ and that of --config-dir.
    """

    config: DictConfig
    settings: set[str]
    overrides: list[str]
    conf_folders: tuple[Path, ...]


class Trained(NamedTuple):
    """A run or a checkpoint file, read once.

    config: what it is, and where and how it is looked at. file: the checkpoint, and content: what that holds.
    """

    config: DictConfig
    file: Path
    content: dict[str, Any]

    @property
    def folder(self) -> Path:
        """The folder of the run that the checkpoint belongs to, if it lies where runs keep theirs."""
        return _run_of(self.file)

    def beside(self, kind: str) -> Path:
        """Folder for what is made of it: <run>/<kind>, or <kind>-<checkpoint's name> beside the file."""
        run = self.config.run
        return Path(run) / kind if run else self.file.with_name(f"{kind}-{self.file.stem}")


def asked(config: DictConfig) -> Asked:
    """What the command line asks about what `run` or `checkpoint` names."""
    hydra = HydraConfig.get()
    folders = tuple(Path(source.path) for source in hydra.runtime.config_sources if source.schema == "file")
    return Asked(OmegaConf.create(plain_values(config)), settings(config), list(hydra.overrides.task), folders)


def read_run(asked: Asked) -> Trained:
    """What `run` or `checkpoint` names.

    What the run is comes from the checkpoint; where and how it is looked at (the settings: split, device, data_root...)
    from what was asked. Raises UserError where an override would change what the run is, and where the checkpoint's
    configuration would build what it may not.
    """
    config = asked.config
    checkpoint = _checkpoint(config)
    content = load_of_run(checkpoint)
    trained = stored_config(content["config"], checkpoint, asked.conf_folders, config.trust_targets)
    given = {re.split("[=@]", override.lstrip("+~"), maxsplit=1)[0]: override for override in asked.overrides}
    changed = [o for key, o in given.items() if key.partition(".")[0] not in asked.settings and not says_where(key)]
    if changed:
        raise UserError(
            f"{', '.join(changed).replace('++', '')}: what a run is comes from {checkpoint}; leave it out (where its "
            "data are now: dataset.root=FOLDER)"
        )
    place_data(trained, config, given)
    leave_out_weights(trained)
    for name in asked.settings & {str(key) for key in config}:
        trained[name] = config[name]
    return Trained(trained, checkpoint, content)


def _run_of(checkpoint: Path) -> Path:
    return checkpoint.resolve().parent.parent


def load_of_run(checkpoint: Path) -> dict[str, Any]:
    """The content of a checkpoint; raises UserError where it lies in the folder of a run that didn't write it."""
    content = load(checkpoint)
    refuse_other_run(checkpoint, _run_of(checkpoint), str(content.get("name")).partition("/")[0])
    return content


def leave_out_weights(trained: DictConfig) -> None:
    """Let the network of `trained` be built without weights to begin with: its checkpoint has all of them."""
    for name, nothing in (("pretrained", False), ("weights", None)):
        if name in trained.backbone:
            trained.backbone[name] = nothing


def _checkpoint(config: DictConfig) -> Path:
    if (config.run is None) != isinstance(config.checkpoint, str):
        raise UserError(f"mode={config.mode} needs one of run=FOLDER and checkpoint=FILE")
    if isinstance(config.checkpoint, str):
        return Path(config.checkpoint)
    final = Path(config.run) / "checkpoints" / FINAL
    if not final.is_file():
        raise MissingFileError(f"run={config.run}: not a finished run (no {final}); or name a checkpoint=FILE")
    return final
