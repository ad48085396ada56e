"""mode=eval: what a run or a checkpoint file holds, evaluated on a split and measured."""

from omegaconf import DictConfig

from srp_exp.commands.shared import asked, show_metrics
from srp_exp.runs.evaluate import evaluate_checkpoint
from srp_exp.runs.read import beside, read_run
from srp_exp.training.launch import launched_as


def execute(config: DictConfig) -> None:
    """Evaluate what config.run or config.checkpoint names, with the configuration of `read_run`, on config.split."""
    trained, checkpoint = read_run(*asked(config))
    folder = beside(checkpoint, config.run, "evaluation") / trained.split
    details = evaluate_checkpoint(trained, checkpoint, folder)
    if launched_as().rank == 0:
        show_metrics(trained.split, details)
        print(f"metrics and predictions  {folder}")
