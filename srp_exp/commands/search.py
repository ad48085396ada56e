"""A search: over which values, where it is kept, and what came out of its trials.

It goes by top-1 on the validation part, never by the test split.
"""

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.override_parser.types import IntervalSweep, Override, RangeSweep
from omegaconf import DictConfig
from rich.console import Console

from srp_exp.commands.listing import print_lines
from srp_exp.config.identity import identity_of, output_folder
from srp_exp.errors import UserError
from srp_exp.files import write_atomically
from srp_exp.studies.grid import SEED

if TYPE_CHECKING:
    import optuna

JOURNAL, BAR, TRIALS = "journal.log", "pruning.json", "trials.csv"
"""In the folder of a search: what Optuna knows, below what a run is given up, and the table."""


def check_search(config: DictConfig, swept: Iterable[str]) -> None:
    """Raise UserError where a search would have nothing to go by, or nothing to choose."""
    if config.mode.name != "train":
        raise UserError(f"mode={config.mode.name}: hydra/sweeper=search goes by what trainings reach; leave it out")
    if config.study is not None:
        raise UserError(f"study={config.study.name}: hydra/sweeper=search has no methods to compare; leave it out")
    if config.dry:
        raise UserError("dry=true: hydra/sweeper=search chooses its runs as it goes; leave it out")
    if not config.wait:
        raise UserError("wait=false: hydra/sweeper=search proposes a run by those before it; leave it out")
    if config.dataset.val_fraction == 0:
        raise UserError(
            "hydra/sweeper=search needs a validation part, since test data selects nothing: set dataset.val_fraction, "
            "such as 0.1"
        )
    if SEED in swept:
        raise UserError("seed: hydra/sweeper=search would choose the luckiest seed; give one value")
    if not list(swept):
        raise UserError("hydra/sweeper=search has nothing to choose: give values, as 'srp.last=interval(0.2,1)'")


def distribution(override: Override) -> "optuna.distributions.BaseDistribution":
    """What Optuna draws from for a sweep: interval(a,b), range(a,b,step), tag(log,interval(a,b)), or a choice."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    match override.value():
        case IntervalSweep(start=int(low), end=int(high), tags=tags):
            return IntDistribution(low, high, log="log" in tags)
        case IntervalSweep(start=low, end=high, tags=tags):
            assert low is not None and high is not None
            return FloatDistribution(float(low), float(high), log="log" in tags)
        case RangeSweep() as numbers:
            values = sorted(numbers.range())
            if all(isinstance(value, int) for value in values):
                return IntDistribution(int(values[0]), int(values[-1]), step=abs(int(numbers.step)))
            return FloatDistribution(float(values[0]), float(values[-1]), step=abs(float(numbers.step)))
    return CategoricalDistribution(list(override.sweep_string_iterator()))


def search_folder(config: DictConfig, space: dict[str, Any]) -> Path:
    """<output_dir>/searches/<what is searched>-<hash>, the same for the same runs. config: that without the sweeps."""
    exact = repr((identity_of(config), sorted((key, repr(of)) for key, of in space.items())))
    names = "-".join(key.lstrip("+") for key in space)[:80]
    return output_folder(config) / "searches" / f"{names}-{hashlib.sha256(exact.encode()).hexdigest()[:8]}"


def show_trials(trials: Sequence["optuna.trial.FrozenTrial"], folder: Path, console: Console) -> None:
    """Print the trials, the best first, with their values and runs, and write them to `folder`."""
    from srp_exp.studies.reports.csv_rows import csv  # scipy takes a second to import

    names = list(dict.fromkeys(key.lstrip("+") for trial in trials for key in trial.params))
    order = sorted(trials, key=lambda trial: (trial.value is None, -(trial.value or 0), trial.number))
    lines = [
        {
            "trial": trial.number + 1,
            "val top-1": trial.value if trial.state.name == "COMPLETE" else None,
            "epochs": max(trial.intermediate_values, default=0),
            "state": {"COMPLETE": "finished", "PRUNED": "given up", "FAIL": "failed"}.get(trial.state.name, "begun"),
            **{key.lstrip("+"): value for key, value in trial.params.items()},
            "run": trial.user_attrs.get("run", ""),
        }
        for trial in sorted(order, key=lambda trial: trial.state.name != "COMPLETE")
    ]
    write_atomically(folder / TRIALS, csv(lines).encode())
    print_lines(lines, names, console)
    best = lines[0] if lines and lines[0]["state"] == "finished" else None
    if best is not None:
        values = " ".join(f"{key.lstrip('+')}={shown(best[key.lstrip('+')])}" for key in order[0].params)
        console.print(f"best: val top-1 {best['val top-1']:.2%} with {values}", highlight=False, soft_wrap=True)
        console.print(f"      {folder.parent.parent / 'runs' / best['run']}", highlight=False, soft_wrap=True)
    console.print(f"wrote {folder / TRIALS}; to look at it: optuna-dashboard {folder / JOURNAL}", soft_wrap=True)


def shown(value: Any) -> str:
    """A value of a trial, as it stands on the command line."""
    return repr(value) if isinstance(value, float) else str(value)
