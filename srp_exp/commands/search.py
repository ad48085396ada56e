"""What a search maximises: top-1 on the validation part, never on the test split."""

from pathlib import Path

from omegaconf import DictConfig

from srp_exp.errors import UserError
from srp_exp.runs.store import find_run

METRIC = "val/top1"


def objective(config: DictConfig, folder: Path) -> float | None:
    """The validation top-1 of the finished run in `folder`, at the epoch whose weights are its result.

    None where the run holds out no validation part.
    """
    if config.dataset.val_fraction == 0:
        return None
    values = [metrics[METRIC] for metrics in find_run(folder).history if METRIC in metrics]
    return float(max(values) if config.recipe.selection.name == "best" else values[-1])


def check_search(config: DictConfig) -> None:
    """Raise ValueError where a search would have nothing to go by, or nobody to hear it from."""
    if config.mode.name != "train":
        raise UserError(f"mode={config.mode.name}: hydra/sweeper=search goes by what trainings reach; leave it out")
    if config.dry:
        raise UserError("dry=true: hydra/sweeper=search chooses its runs as it goes; leave it out")
    if config.dataset.val_fraction == 0:
        raise UserError(
            "hydra/sweeper=search needs a validation part, since test data selects nothing: set dataset.val_fraction, "
            "such as 0.1"
        )
    if config.hydra.launcher._target_.endswith(".SlurmLauncher"):
        raise UserError(
            "hydra/launcher=slurm: hydra/sweeper=search would wait for ever for a job that was killed; take "
            "hydra/launcher=processes in an allocation of SLURM"
        )
