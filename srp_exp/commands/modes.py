"""What the command line does, by `mode`. Each prints what came out; the work is done by modules that it imports late.

Composing a configuration and skipping a finished run take no torch, whose import takes seconds.
"""

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from srp_exp.config.choices import other_choice
from srp_exp.config.evaluators import not_measured
from srp_exp.config.fields import settings
from srp_exp.config.identity import flat_identity, names_a_run, plain_values, run_folder, run_id
from srp_exp.files import RESULTS
from srp_exp.training.launch import launched_as


def train(config: DictConfig) -> None:
    """Train a run, or say that it is finished; `dry=true` only tries it out."""
    folder = run_folder(config)
    if names_a_run(config):
        named = f"run={config.run}" if config.run else f"checkpoint={config.checkpoint}"
        raise ValueError(
            f"{named} is for mode=eval, export or compare; a training is resumed by the command that began it"
        )
    if config.dry:
        _try_out(config)
        return
    results_file = folder / RESULTS
    if results_file.exists() and not config.rerun:
        results = json.loads(results_file.read_text())
        print(f"finished already: {folder} (rerun=true trains it afresh)")
        _measure_missing(config, folder)
    else:
        from srp_exp.runs import complete as run  # torch and timm take seconds to import

        results = run.train(OmegaConf.create(plain_values(config)), folder, flat_identity(config))
    if launched_as().rank == 0:
        _print_metrics("test", results["test"])
        print(f"run folder  {folder}")
        if HydraConfig.get().mode == RunMode.RUN:
            print(f"{os.path.relpath(Path(sys.executable).with_name('tensorboard'))} --logdir {folder}")


def _try_out(config: DictConfig) -> None:
    from rich.console import Console

    from srp_exp.studies.grid import Grid, PlannedRun
    from srp_exp.studies.listing import dry_run
    from srp_exp.studies.store import find_run

    run = PlannedRun("", (), config.seed, (), config, find_run(run_folder(config)))
    dry_run(Grid((run,), ()), Console())


def evaluate(config: DictConfig) -> None:
    """Evaluate what a run or a checkpoint holds."""
    from srp_exp.runs.read import evaluate_run

    plain, overrides = OmegaConf.create(plain_values(config)), list(HydraConfig.get().overrides.task)
    folder, details = evaluate_run(plain, settings(config), overrides)
    if launched_as().rank == 0:
        _print_metrics(config.split.name, details)
        print(f"metrics and predictions  {folder}")


def _measure_missing(config: DictConfig, run: Path) -> None:
    """Let the evaluators that have no file in a finished run measure it."""
    folder = run / "evaluation" / "test"
    missing = not_measured(folder, config.evaluators)
    if missing and launched_as().rank == 0:
        from srp_exp.runs.evaluate import measure_checkpoint
        from srp_exp.training.checkpoints import FINAL

        plain = OmegaConf.create(plain_values(config))
        measure_checkpoint(plain, run / "checkpoints" / FINAL, "test", missing, folder)
        print(f"measured {', '.join(missing)}  {folder}")


def compare(config: DictConfig) -> None:
    """Compare two runs on the same images."""
    from srp_exp.commands.compare import compare_runs

    plain, overrides = OmegaConf.create(plain_values(config)), list(HydraConfig.get().overrides.task)
    table, folder = compare_runs(plain, settings(config), overrides)
    print(f"{table}\ncomparison  {folder}")


def export(config: DictConfig) -> None:
    """Write the network of a run in another format."""
    _refuse_several_processes("export")
    from srp_exp.commands.export import export_run

    plain, overrides = OmegaConf.create(plain_values(config)), list(HydraConfig.get().overrides.task)
    file, difference = export_run(plain, settings(config), overrides)
    print(f"exported  {file}  largest difference of the logits {difference:.2g}")


def cost(config: DictConfig) -> None:
    """Measure what SRP costs a network."""
    if names_a_run(config):
        raise ValueError("mode=cost measures a configuration; for what a run trained: mode=eval evaluators=[cost]")
    _refuse_several_processes("cost")
    choices = {choice: other_choice("srp", choice, "cost.srp") for choice in config.cost.srp}
    plain = OmegaConf.create(plain_values(config))
    if plain.srp._target_ is not None:
        choices[plain.srp.name] = plain.srp
    from srp_exp.commands.cost import measure_cost

    print(f"measured  {measure_cost(plain, choices, run_id(config))}")


def _refuse_several_processes(mode: str) -> None:
    if launched_as().size > 1:
        raise ValueError(f"mode={mode} is the work of one process: start it without torchrun")


def _print_metrics(split: str, metrics: dict[str, Any]) -> None:
    shown = [f"{name} {metrics[name]:.2%}" for name in ("top1", "top5") if name in metrics]
    print(f"{split}  {'  '.join(shown)}  loss {metrics['loss']:.4f}")


MODES: dict[str, Callable[[DictConfig], None]] = {
    "train": train,
    "eval": evaluate,
    "export": export,
    "compare": compare,
    "cost": cost,
}
