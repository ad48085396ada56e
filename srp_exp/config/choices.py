"""The settings of a choice that the composed configuration did not take."""

from hydra import compose
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig, OmegaConf

from srp_exp.config.explain import nearest
from srp_exp.config.identity import plain_values
from srp_exp.errors import UserError


def other_choice(group: str, name: str, setting: str) -> DictConfig:
    """The plain settings in conf/<group>/<name>.yaml, or in a folder given by --config-dir, while the command runs.

    Raises ValueError, naming the `setting` that asks for it, where there is no such file.
    """
    names = GlobalHydra.instance().config_loader().get_group_options(group)
    if name not in names:
        raise UserError(f"{setting}={name}: there is no {group}={name}{nearest(name, names)}")
    choice: DictConfig = OmegaConf.create(plain_values(compose(f"{group}/{name}"))[group])
    return choice
