"""Typed schemas of the loggers, of which a run may have several."""

from dataclasses import dataclass
from enum import Enum

from omegaconf import MISSING


class WandbMode(Enum):
    online = "online"
    offline = "offline"
    disabled = "disabled"


@dataclass
class LoggerConfig:
    _target_: str = MISSING


@dataclass
class WandbConfig(LoggerConfig):
    _target_: str = "srp_exp.training.loggers.wandb.Wandb"
    project: str = "srp_exp"  # at Weights & Biases
    entity: str | None = None  # team or user; null: the one who is logged in
    mode: WandbMode | None = None  # offline: `wandb sync` uploads it later; null: what WANDB_MODE says, or online


@dataclass
class MLflowConfig(LoggerConfig):
    _target_: str = "srp_exp.training.loggers.mlflow.MLflow"
    experiment: str = "srp_exp"  # of MLflow; made where it doesn't exist
    tracking_uri: str | None = None  # as sqlite:///mlflow.db; null: what MLFLOW_TRACKING_URI says, or MLflow's default
