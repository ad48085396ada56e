"""dry=true: what a grid would train, how long it would take, and what would fail."""

import statistics
import sys
from collections import defaultdict
from typing import Any

from omegaconf import OmegaConf
from rich.console import Console

from srp_exp.commands.listing import print_grid, print_table
from srp_exp.config.failures.faults import describe_error, is_one_line
from srp_exp.config.identity import plain_values
from srp_exp.config.schemas.study import StudyConfig
from srp_exp.errors import first_few
from srp_exp.studies.grid import SEED, Cell, Grid, PlannedRun


def dry_run(grid: Grid, console: Console, study: StudyConfig | None = None) -> None:
    """Print the runs, the methods, the time that is left, the power of the study, and what would fail.

    Of runs that differ in their seed alone the first is checked. Exits with code 1 if something would fail.
    """
    print_grid(grid, console)
    for method, run in {planned.method: planned for planned in grid.runs if planned.method}.items():
        console.print(f"{method}: {' '.join(run.config.study.methods[method])}")
    alike: dict[tuple[str, Cell], list[PlannedRun]] = defaultdict(list)
    for planned in grid.distinct():
        alike[planned.method, planned.cell].append(planned)
    total, everything = 0.0, 0.0
    failures: dict[str, list[PlannedRun]] = defaultdict(list)
    opened: dict[str, Any] = {}
    for runs in alike.values():
        left = [planned for planned in runs if planned.is_left and not planned.run.is_finished]
        whole = [p.run for p in runs if p.run.is_finished and len(p.run.starts) <= 1]  # not the end of one
        finished = [run.results["training_seconds"] for run in whole]
        if not left:
            everything += sum(finished)
            continue
        console.print(f"checking a batch of {left[0].label}", style="dim", highlight=False)
        try:
            step_time = _check(left[0], opened)
        except Exception as error:
            if not is_one_line(error):
                raise
            failures[describe_error(error)] += left
            continue
        seconds = statistics.median(finished) if finished else step_time
        total += seconds * len(left)
        everything += seconds * len(runs)
    if total:
        console.print(f"about {_duration(total)} on one device, judging by finished runs, or by a batch measured here")
    for cause, runs in failures.items():
        count = f"{len(runs)} run{'s' * (len(runs) > 1)}"
        of = dict.fromkeys(planned.label.rpartition(f"{SEED}=")[0].strip() for planned in runs)
        console.print(f"{count} would fail: {cause}", style="red", soft_wrap=True)
        console.print(f"  {first_few(list(filter(None, of)))}".rstrip(), highlight=False)
    if failures:
        sys.exit(1)
    if study is not None:
        say_power(grid, study, everything / 3600, console)


def say_power(grid: Grid, study: StudyConfig, hours: float, console: Console) -> None:
    """Print the chance of each verdict and the hours that it takes, at the spread of the finished runs."""
    from srp_exp.commands.report.power import measured_spreads, power_table  # scipy takes a second to import
    from srp_exp.studies.reports.report import contents
    from srp_exp.studies.results import collect

    made = contents(collect(grid, study))
    if made.measured:
        print_table(power_table(made.results.study, grid.entries, measured_spreads(made), hours), console)


def _check(planned: PlannedRun, opened: dict[str, Any]) -> float:
    """Take one batch through the data, the network and its gradient; return the seconds of the whole training."""
    from srp_exp.runs.rehearsal import rehearse  # torch and timm take seconds to import

    return rehearse(OmegaConf.create(plain_values(planned.config)), opened)


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    if minutes < 1:
        return f"{seconds:.0f} s"
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min"
