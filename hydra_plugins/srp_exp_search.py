"""The sweeper of hydra/sweeper=search: Optuna proposes each next run from the validation parts of those before."""

import logging
import sys
from typing import Any

from hydra.utils import instantiate
from omegaconf import DictConfig
from rich.console import Console

from hydra_plugins.srp_exp_sweeper import GridSweeper
from srp_exp.commands.listing import terminal
from srp_exp.commands.search import BAR, JOURNAL, check_search, distribution, search_folder, show_trials, shown
from srp_exp.errors import STOPPED, UserError
from srp_exp.runs.folder.lock import only_writer
from srp_exp.runs.folder.store import State, find_run
from srp_exp.studies.grid import PlannedRun
from srp_exp.training.processes.distributed import refuse_several
from srp_exp.training.stopping.pruning import Bar, bar_of, is_behind, read_bar, validations, write_bar

Asked = tuple[Any, PlannedRun]
"""A trial of Optuna, and its run."""


class SearchSweeper(GridSweeper):
    """Asks for values, trains their run, and tells what came out. Its journal lets the same command resume it.

    n_trials: of the whole search. n_jobs: runs at one time, which learn nothing from each other. sampler: of a seed
    makes one of optuna.samplers. prune_after: finished runs from which on one is given up that is behind their median;
    None: none is. A sampler is made anew for each trial, of `seed` and its number: a resumed search proposes what an
    undisturbed one would.
    """

    def __init__(
        self, n_trials: int, n_jobs: int, sampler: DictConfig, seed: int, prune_after: int | None, params: Any = None
    ) -> None:
        super().__init__(n_jobs, params)
        self.n_trials, self.sampler, self.seed, self.prune_after = n_trials, sampler, seed, prune_after

    def sweep(self, arguments: list[str]) -> None:
        """Raises SystemExit with code 1 where a run failed."""
        assert self.config is not None
        refuse_several("-m, which starts its runs itself,")
        given = self._parse([*(f"{key}={value}" for key, value in self.params.items()), *arguments])
        parsed = {override.get_key_element(): override for override in given}
        swept = {key: override for key, override in parsed.items() if override.is_sweep_override()}
        check_search(self.config, swept)
        try:
            import optuna
            from optuna.storages.journal import JournalFileBackend
        except ImportError:
            raise UserError("hydra/sweeper=search needs optuna: pip install 'srp-exp[search]'") from None
        optuna.logging.set_verbosity(logging.WARNING)  # of a new study; what matters is printed here
        space = {key: distribution(override) for key, override in swept.items()}
        fixed = [str(override.input_line) for key, override in parsed.items() if key not in swept]
        folder, console = search_folder(self.config, space), terminal()
        folder.mkdir(parents=True, exist_ok=True)
        with only_writer(folder):
            backend = JournalFileBackend(str(folder / JOURNAL))
            study = optuna.create_study(
                study_name=folder.name, storage=optuna.storages.JournalStorage(backend), direction="maximize",
                load_if_exists=True,
            )  # fmt: skip
            try:
                while asked := self._ask(study, space, [*fixed, f"prune_by='{folder / BAR}'"]):
                    bar = read_bar(folder / BAR)
                    self._train(asked, bar, console)
                    told = [self._tell(study, trial, planned, bar, console) for trial, planned in asked]
                    if not all(told):
                        raise KeyboardInterrupt
                    if self.prune_after is not None:
                        finished = [t.intermediate_values for t in study.trials if t.state.name == "COMPLETE"]
                        write_bar(folder / BAR, bar_of(finished, self.prune_after))
            except KeyboardInterrupt:
                console.print(
                    f"interrupted after {_told(study)} of {self.n_trials} trials; run the same command to resume"
                )
                sys.exit(STOPPED)
            finally:
                show_trials(study.trials, folder, console)
        if any(trial.state.name == "FAIL" for trial in study.trials):
            sys.exit(1)

    def _ask(self, study: Any, space: dict[str, Any], fixed: list[str]) -> list[Asked]:
        """The trials that an interruption left open, else new ones."""
        from optuna.trial import Trial

        trials = [Trial(study, trial._trial_id) for trial in study.trials if not trial.state.is_finished()]
        for number in range(_told(study), self.n_trials)[: 0 if trials else self.max_batch_size]:
            study.sampler = instantiate(self.sampler)(seed=self.seed + number)
            trials.append(study.ask(space))
        asked = []
        for trial in trials:
            (planned,) = self._plan([*fixed, *(f"{key}={shown(value)}" for key, value in trial.params.items())]).runs
            trial.set_user_attr("run", planned.run.folder.name)
            asked.append((trial, planned))
        return asked

    def _train(self, asked: list[Asked], bar: Bar, console: Console) -> None:
        assert self.config is not None
        left = {}
        for trial, planned in asked:
            values = " ".join(f"{key.lstrip('+')}={shown(value)}" for key, value in trial.params.items())
            if self.config.rerun or (planned.is_left and not is_behind(planned.run.history, bar)):
                left[f"trial {trial.number + 1} of {self.n_trials}: {values}"] = planned
            else:
                console.print(f"trial {trial.number + 1} of {self.n_trials}: {values}", highlight=False)
        self._launch(list(left.values()), console, list(left))

    def _tell(self, study: Any, trial: Any, planned: PlannedRun, bar: Bar, console: Console) -> bool:
        """Tell Optuna what came out. Returns False where the run was interrupted: the next command resumes it."""
        run = find_run(planned.run.folder)
        reached = validations(run.history)
        said, style = "", "default"
        if run.is_finished:
            state, said = "COMPLETE", f"val top-1 {run.validated:.2%}"
        elif run.state == State.failed:
            state, said, style = "FAIL", f"failed: {run.failure}", "red"
        elif is_behind(run.history, bar):
            state, said = "PRUNED", f"given up after epoch {max(reached)}, at val top-1 {max(reached.values()):.2%}"
        else:
            return False
        for epoch, value in reached.items():
            trial.report(value, epoch)
        study.tell(trial, run.validated if run.is_finished else None, _state(state))
        console.print(f"trial {trial.number + 1}: {said}", style=style, highlight=False)
        if run.state == State.failed and _told(study) == 1:
            raise UserError(f"the first run of the search failed: {run.failure}")
        return True


def _state(name: str) -> Any:
    from optuna.trial import TrialState

    return TrialState[name]


def _told(study: Any) -> int:
    return sum(trial.state.is_finished() for trial in study.trials)
