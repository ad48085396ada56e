"""What several commands do: read what was asked for, and print metrics."""

from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from srp_exp.config.fields import settings
from srp_exp.config.identity import plain_values
from srp_exp.errors import UserError
from srp_exp.training.distributed import launched_as


def asked(config: DictConfig) -> tuple[DictConfig, set[str], list[str]]:
    """What `read_run` takes: plain values, the keys that are settings, and the overrides of the command line."""
    return OmegaConf.create(plain_values(config)), settings(config), list(HydraConfig.get().overrides.task)


def refuse_several_processes(mode: str) -> None:
    if launched_as().size > 1:
        raise UserError(f"mode={mode} is the work of one process: start it without torchrun")


def show_metrics(split: str, metrics: dict[str, Any]) -> None:
    shown = [f"{name} {metrics[name]:.2%}" for name in ("top1", "top5") if name in metrics]
    print(f"{split}  {'  '.join(shown)}  loss {metrics['loss']:.4f}")
