"""The sweeper of hydra/sweeper=search: Optuna's, which starts only where its runs have an objective."""

from typing import Any

from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from srp_exp.commands.search import check_search


class SearchSweeper(Sweeper):
    """Takes the parameters of hydra-optuna-sweeper's."""

    def __init__(self, **parameters: Any) -> None:
        from hydra_plugins.hydra_optuna_sweeper.optuna_sweeper import OptunaSweeper  # an extra, unlike this file

        self.optuna = OptunaSweeper(**parameters)

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Raises ValueError where no run of the search would have an objective."""
        check_search(config)
        self.optuna.setup(hydra_context=hydra_context, task_function=task_function, config=config)

    def sweep(self, arguments: list[str]) -> None:
        self.optuna.sweep(arguments)
