"""srp-report: what the runs say, without running any.

srp-report study=demo [the overrides of the grid]    table and verdict of a study, from its finished runs
srp-report FOLDER                                    that of a report in docs/results, from its runs.parquet
srp-report runs [dataset=cifar10 state=failed ...]   all runs, or those with these settings; sort=seconds csv=FILE
srp-report sweep by=srp,recipe.lr [dataset.name=...] mean and deviation over the seeds, by settings; csv=FILE latex=FILE
srp-report compare RUN OTHER [overrides]             two runs: srp-exp mode=compare run=RUN other=OTHER
"""

import argparse
import sys
from pathlib import Path

from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.types import RunMode
from omegaconf import DictConfig
from rich.console import Console

from srp_exp.commands.listing import print_report, terminal
from srp_exp.commands.report.kept import KEPT, read_kept
from srp_exp.commands.report.overview import list_runs
from srp_exp.commands.report.power import measured_spreads, power_table
from srp_exp.commands.report.sweep_means import sweep_runs
from srp_exp.config import CONF_DIR
from srp_exp.config.command_line import check_overrides, searched
from srp_exp.config.failures.explain import nearest
from srp_exp.config.failures.faults import ending_in_one_line
from srp_exp.config.identity import output_folder
from srp_exp.config.register import register
from srp_exp.errors import UserError
from srp_exp.runs.folder.store import find_run
from srp_exp.studies.grid import Grid, plan
from srp_exp.studies.reports.report import Contents, contents, write_report
from srp_exp.studies.reports.tables import Table
from srp_exp.studies.results import collect
from srp_exp.training.reporting.dispensable import outlive_the_console


def report_study(overrides: list[str], console: Console) -> None:
    """Print and write the report of the study that `overrides` name, as the command line of its grid does."""
    config, grid = plan_study(overrides)
    show_report(grid, config, console)


def show_report(grid: Grid, config: DictConfig, console: Console) -> None:
    """Print the report of a study, and write it to <output_dir>/reports/<study and what the command line changed>."""
    made = contents(collect(grid, config.study))
    power = power_table(made.results.study, grid.entries, measured_spreads(made)) if made.measured else None
    show_contents(made, output_folder(config) / "reports" / f"{config.study.name}{grid.variant}", console, power)


def show_contents(made: Contents, folder: Path, console: Console, power: Table | None = None) -> None:
    print_report(made, console)
    for path in write_report(made, folder, power):
        console.print(f"wrote {path}", markup=False, highlight=False, soft_wrap=True)


def shipped_studies() -> list[str]:
    """The names of conf/study/, in order."""
    return sorted(path.stem for path in (CONF_DIR / "study").glob("*.yaml"))


def plan_study(overrides: list[str]) -> tuple[DictConfig, Grid]:
    """The configuration and the grid that `srp-exp <overrides>` has; raises ValueError where they name no study."""
    register()
    check_overrides(overrides)
    with initialize_config_dir(str(CONF_DIR), version_base=None):
        loader = GlobalHydra.instance().config_loader()
        config = loader.load_configuration("config", overrides, run_mode=RunMode.MULTIRUN)
        if config.study is None:
            studies = loader.get_group_options("study")
            raise UserError(f"no study is named: srp-report study=NAME, NAME one of {', '.join(studies)}")
        parse = OverridesParser.create(config_loader=loader).parse_overrides
        params, of_task = config.hydra.sweeper.params or {}, list(config.hydra.overrides.task)
        grid = plan(config, params, parse(of_task), parse, lambda o: loader.load_sweep_config(config, o))
    return config, grid


def compare_runs(arguments: list[str]) -> None:
    """Show in what two runs differ, as mode=compare does."""
    from srp_exp.__main__ import main as srp_exp

    if len(arguments) < 2:
        raise UserError(f"srp-report compare {' '.join(arguments)}: name two run folders")
    run, other, *overrides = arguments
    for folder in (run, other):
        found = find_run(Path(folder))
        if not found.is_finished:
            raise UserError(f"{folder}: not a finished run ({found.state.value})")
    sys.argv = ["srp-exp", "mode=compare", f"run='{run}'", f"other='{other}'", *overrides]
    srp_exp()


def main() -> None:
    """Run the command line; an error that the user can mend is one line and exit code 1."""
    parser = argparse.ArgumentParser(
        usage="srp-report [--config-dir FOLDER] ...",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--config-dir", metavar="FOLDER", help="a folder with a study of your own, in FOLDER/study")
    options, arguments = parser.parse_known_args()
    outlive_the_console()  # `| head` is no reason to write no report
    if not arguments:
        parser.print_help()
        return
    console = terminal()
    with ending_in_one_line("srp-report"):
        of_folder = searched(options.config_dir)
        match arguments:
            case ["runs", *filters]:
                list_runs(filters, console)
            case ["sweep", *filters]:
                sweep_runs(filters, console)
            case ["compare", *folders]:
                compare_runs(folders)
            case [folder] if (Path(folder) / KEPT).is_file():
                made = contents(read_kept(Path(folder) / KEPT))
                show_contents(made, Path("outputs/reports") / made.results.name, console)
            case [word, *_] if "=" not in word:
                raise UserError(f"{word}: it is no command{nearest(word, ['runs', 'compare', 'study=NAME'])}")
            case _:
                report_study([*arguments, *of_folder], console)


if __name__ == "__main__":
    main()
