"""mode=eval: what a run or a checkpoint file holds, evaluated on a split and measured."""

from omegaconf import DictConfig

from srp_exp.commands.shared import show_metrics
from srp_exp.config.visible import visible
from srp_exp.runs.evaluate import evaluate_checkpoint, part_name
from srp_exp.runs.read_back.read import asked, read_run
from srp_exp.training.processes.distributed import launched_as


def execute(config: DictConfig) -> None:
    """Evaluate what config.run or config.checkpoint names, with the configuration of `read_run`, on config.split.

    With config.test_root on the pictures there; they have a folder beside that of the split.
    """
    trained = read_run(asked(config))
    asked_for = trained.config
    folder = trained.beside("evaluation") / part_name(asked_for)
    details = evaluate_checkpoint(trained, folder)
    if launched_as().rank == 0:
        classes = len(details["top1_per_class"])
        show_metrics(asked_for.test_root or asked_for.split, details, classes, details["never_predicted"])
        print(visible(f"metrics and predictions  {folder}"))
