"""The sweeper of srp-exp: it knows the whole grid before a run begins.

It launches only what is not finished, by whichever launcher is chosen, and goes by the run folders in the end: what a
launcher says of its jobs is not asked, since on a cluster it may never come. It lies here because Hydra takes plugins
from the package hydra_plugins only.
"""

import hashlib
import shlex
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from hydra._internal.core_plugins.basic_launcher import BasicLauncher
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from rich.console import Console

from srp_exp.commands.listing import count_states, print_grid, terminal
from srp_exp.config.identity import output_folder
from srp_exp.errors import STOPPED
from srp_exp.runs.folder.store import State, find_run, note_job
from srp_exp.studies.curves import name_curves
from srp_exp.studies.grid import Grid, PlannedRun, plan
from srp_exp.studies.pairs import check_decidable, plain_study
from srp_exp.training.processes.distributed import refuse_several
from srp_exp.training.stopping.interruption import EXIT_CODE, Interruption


class GridSweeper(BasicSweeper):
    """Plans the grid, launches what is left of it, and shows what has become of it."""

    def sweep(self, arguments: list[str]) -> Any:
        """Raises SystemExit with code 1 where a run failed."""
        config = self.config
        assert config is not None
        refuse_several("-m, which starts its runs itself,")
        if config.mode.name != "train":  # nothing to plan; Hydra's own sweep would leave a multirun.yaml
            return self._launch_all(arguments)
        console = terminal()
        grid = self._plan(arguments)
        if config.study is not None:
            check_decidable(plain_study(config.study), grid.entries)
        if config.dry:
            from srp_exp.commands.dry_run import dry_run

            dry_run(grid, console, config.study)
            return None
        excluded = {one.run for one in (config.study.exclude if config.study else ())}
        curves = output_folder(config) / "curves" / self._name_of(grid, arguments)
        if name_curves(grid, curves):
            console.print(f"curves by method and seed: tensorboard --logdir {shlex.quote(str(curves))}", soft_wrap=True)
        try:
            for runs in self._looks(grid):
                left = [planned for planned in runs if planned.run.folder.name not in excluded]
                self._launch([planned for planned in left if config.rerun or planned.is_left], console)
        except KeyboardInterrupt:
            console.print(
                f"interrupted; {count_states(p.run for p in grid.looked_up().runs)}; run the same command to resume"
            )
            sys.exit(STOPPED)
        grid = grid.looked_up()
        print_grid(grid, console)
        if config.study is None and len(grid.runs) > 1:
            from srp_exp.commands.report.sweep_means import print_means  # scipy takes a second to import

            print_means(grid, console)
        if config.study is not None and config.wait:  # on a cluster there is nothing to report yet
            from srp_exp.commands.report.command import show_report  # scipy takes a second to import

            show_report(grid, config, console)
        if {planned.run.folder.name for planned in grid.runs if planned.run.state == State.failed} - excluded:
            sys.exit(1)
        return None

    def _name_of(self, grid: Grid, arguments: list[str]) -> str:
        """Of the study, as its report's folder; of a plain sweep what it sweeps, and a hash of all of it."""
        assert self.config is not None
        if self.config.study is not None:
            return f"{self.config.study.name}{grid.variant}"
        swept = "-".join(override.key_or_group for override in self._parse(arguments) if override.is_sweep_override())
        return f"{swept.replace('/', '.')[:40]}-{hashlib.sha256(grid.variant.encode()).hexdigest()[:8]}"

    def _looks(self, grid: Grid) -> Iterator[list[PlannedRun]]:
        """The runs that each look needs, as long as the looks before haven't decided; without looks all."""
        assert self.config is not None
        study = self.config.study
        if study is None or not study.looks:
            yield grid.distinct()
            return
        from srp_exp.studies.reports.report import due  # scipy takes a second to import
        from srp_exp.studies.results import collect

        excluded = {one.run for one in study.exclude}
        seen: set[Path] = set()  # a run that fails is tried once by a command
        for number, seeds in enumerate(study.looks):
            grid = grid.looked_up()
            wanted = due(collect(grid, study), number)
            needed = [of for (method, _), of in grid.entries.items() if method in wanted]
            folders = {run.folder for of in needed for run in list(of.values())[:seeds]}
            yield [planned for planned in grid.distinct() if planned.run.folder in folders - seen]
            seen |= folders
            of_look = (p.run for p in grid.looked_up().runs if p.run.folder in folders)
            states = {run.state for run in of_look if run.folder.name not in excluded}
            if not folders or states - {State.finished, State.failed}:
                return  # decided, or others train what this look needs

    def _launch_all(self, arguments: list[str]) -> list[Any]:
        assert self.launcher is not None
        given = [*(f"{key}={value}" for key, value in (self.params or {}).items()), *arguments]
        (combinations,) = self.split_arguments(self._parse(given), None)
        jobs = self.launcher.launch(combinations, initial_job_idx=0)
        return [job.return_value for job in jobs]  # which raises what a job has raised

    def _plan(self, arguments: list[str]) -> Grid:
        assert self.config is not None
        assert self.hydra_context is not None
        config, loader = self.config, self.hydra_context.config_loader
        parsed = self._parse(arguments)
        return plan(config, self.params, parsed, self._parse, lambda o: loader.load_sweep_config(config, o))

    def _parse(self, overrides: list[str]) -> list[Override]:
        assert self.hydra_context is not None
        return OverridesParser.create(config_loader=self.hydra_context.config_loader).parse_overrides(overrides)

    def _launch(self, runs: Sequence[PlannedRun], console: Console, titles: Sequence[str] = ()) -> None:
        """titles: what is said of each run; else its place among them, and its label."""
        assert self.config is not None
        assert self.launcher is not None
        Path(self.config.hydra.sweep.dir).mkdir(parents=True, exist_ok=True)
        one_by_one = isinstance(self.launcher, BasicLauncher)
        size = 1 if one_by_one else self.max_batch_size or max(1, len(runs))
        for title in () if one_by_one else titles:
            console.print(title, highlight=False)
        titles = titles or [f"{number} of {len(runs)}: {planned.label}" for number, planned in enumerate(runs, 1)]
        jobs = []
        for start in range(0, len(runs), size):
            batch = runs[start : start + size]
            overrides = [list(planned.overrides) for planned in batch]
            if one_by_one:
                console.rule(titles[start], align="left", style="default")
                with Interruption().watch() as interruption:  # of a signal between two trainings
                    self.launcher.launch(overrides, initial_job_idx=start)
                if interruption.signal is not None:
                    sys.exit(EXIT_CODE)
                continue
            if type(self.launcher).__name__ != "SlurmLauncher":
                self.launcher.launch(overrides, initial_job_idx=start)
                continue
            from srp_exp.runs import slurm

            submitted = slurm.submit(self.launcher, overrides, start)
            for planned, job in zip(batch, submitted, strict=True):
                note_job(planned.run.folder, job)
            jobs_named = submitted[0] if len(batch) == 1 else f"{submitted[0]} to {submitted[-1]}"
            console.print(f"submitted {len(batch)} run{'s' * (len(batch) > 1)} as {jobs_named}", highlight=False)
            jobs += submitted
        if jobs and self.config.wait:
            with console.status("waiting for SLURM") as status:
                slurm.wait_for(
                    jobs, lambda queue: status.update(count_states(find_run(p.run.folder, lambda: queue) for p in runs))
                )
