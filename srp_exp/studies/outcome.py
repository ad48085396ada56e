"""What has become of a grid: the states of its runs, and of a study the report."""

from pathlib import Path

from omegaconf import DictConfig
from rich.console import Console

from srp_exp.studies.collect import collect
from srp_exp.studies.grid import Grid
from srp_exp.studies.listing import print_grid


def show_outcome(grid: Grid, config: DictConfig, console: Console) -> None:
    """Print the runs of `grid`; of a study print the report and write it to <output_dir>/reports/<study>/.

    Where the command doesn't wait for a cluster there is nothing to report yet.
    """
    print_grid(grid, console)
    if config.study is not None and config.wait:
        show_report(grid, config, console)


def show_report(grid: Grid, config: DictConfig, console: Console) -> None:
    """Print the report of a study, and write it."""
    from srp_exp.studies.report import print_report, write_report

    results = collect(grid, config.study)
    print_report(results, console)
    folder = Path(config.output_dir) / "reports" / config.study.name
    for path in write_report(results, folder):
        console.print(f"wrote {path}", markup=False, highlight=False, soft_wrap=True)
