"""The entry point: srp-exp, the same as python -m srp_exp.

Nothing heavy is imported before it is needed: composing a configuration, and skipping a finished run, take no torch.
"""

import json
import os
import sys
import traceback
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from srp_exp.config import CONF_DIR
from srp_exp.config.choices import other_choice
from srp_exp.config.evaluators import not_measured
from srp_exp.config.explain import explain
from srp_exp.config.fields import settings
from srp_exp.config.identity import flat_identity, names_a_run, plain_values, run_folder
from srp_exp.config.register import register
from srp_exp.config.validate import validate
from srp_exp.errors import USER_ERRORS
from srp_exp.files import FAILURE, RESULTS, write_atomically
from srp_exp.launch import launched_as
from srp_exp.studies.objective import objective
from srp_exp.training.lock import InUseError

register()  # on import, since the processes that a launcher starts import `run` and nothing else


@hydra.main(version_base=None, config_path=str(CONF_DIR), config_name="config")
def run(config: DictConfig) -> float | None:
    """Do what `mode` says with one configuration; a training does it in the folder that Hydra has made for it.

    Returns the objective of a training, for a sweeper that searches.
    """
    folder = run_folder(config)
    in_sweep = HydraConfig.get().mode == RunMode.MULTIRUN
    try:
        validate(config)
        match config.mode.name:
            case "eval":
                _evaluate(config)
            case "export":
                _export(config)
            case "compare":
                _compare(config)
            case "cost":
                _cost(config, folder.name)
            case _:
                _train(config, folder)
                return objective(config, folder)
        return None
    except Exception as error:
        known = isinstance(error, USER_ERRORS)
        why = explain(error) if known else f"{type(error).__name__}: {error}"
        if config.mode.name == "train" and not names_a_run(config) and not isinstance(error, InUseError):
            _note_failure(folder, why, in_sweep)
        if in_sweep or _shows_full_errors():
            print(f"srp-exp: {why}", file=sys.stderr)
        if in_sweep or _shows_full_errors() or not known:
            raise  # Hydra goes on with the other runs of a sweep
        sys.exit(f"srp-exp: {why}")
    finally:
        if not names_a_run(config) and folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()  # made by Hydra for a run that did not begin


def _train(config: DictConfig, folder: Path) -> None:
    if names_a_run(config):
        raise ValueError("run and checkpoint are for other modes; a training is resumed by the command that began it")
    results_file = folder / RESULTS
    if results_file.exists() and not config.rerun:
        results = json.loads(results_file.read_text())
        print(f"finished already: {folder} (rerun=true trains it afresh)")
        _measure_missing(config, folder)
    else:
        from srp_exp.run import train  # torch and timm take seconds to import

        results = train(OmegaConf.create(plain_values(config)), folder, flat_identity(config))
    if launched_as().rank == 0:
        _print_metrics("test", results["test"])
        tensorboard = os.path.relpath(Path(sys.executable).with_name("tensorboard"))
        print(f"run folder  {folder}\n{tensorboard} --logdir {folder}")


def _evaluate(config: DictConfig) -> None:
    from srp_exp.evaluate_run import evaluate_run

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
        from srp_exp.run import measure_checkpoint
        from srp_exp.training.checkpoints import FINAL

        plain = OmegaConf.create(plain_values(config))
        measure_checkpoint(plain, run / "checkpoints" / FINAL, "test", missing, folder)
        print(f"measured {', '.join(missing)}  {folder}")


def _compare(config: DictConfig) -> None:
    from srp_exp.compare_run import compare_runs

    plain, overrides = OmegaConf.create(plain_values(config)), list(HydraConfig.get().overrides.task)
    table, folder = compare_runs(plain, settings(config), overrides)
    print(f"{table}\ncomparison  {folder}")


def _export(config: DictConfig) -> None:
    _refuse_several_processes("export")
    from srp_exp.export_run import export_run

    plain, overrides = OmegaConf.create(plain_values(config)), list(HydraConfig.get().overrides.task)
    file, difference = export_run(plain, settings(config), overrides)
    print(f"exported  {file}  largest difference of the logits {difference:.2g}")


def _cost(config: DictConfig, name: str) -> None:
    if names_a_run(config):
        raise ValueError("mode=cost measures a configuration; for what a run trained: mode=eval evaluators=[cost]")
    _refuse_several_processes("cost")
    choices = {choice: other_choice("srp", choice, "cost.srp") for choice in config.cost.srp}
    plain = OmegaConf.create(plain_values(config))
    if plain.srp._target_ is not None:
        choices[plain.srp.name] = plain.srp
    from srp_exp.cost_run import measure_cost

    print(f"measured  {measure_cost(plain, choices, name)}")


def _refuse_several_processes(mode: str) -> None:
    if launched_as().size > 1:
        raise ValueError(f"mode={mode} is the work of one process: start it without torchrun")


def _note_failure(folder: Path, why: str, in_sweep: bool) -> None:
    """Leave `why` in the folder of a run that had begun, or that belongs to a grid, whose table shows it."""
    if launched_as().rank == 0 and folder.is_dir() and (in_sweep or any(folder.iterdir())):
        write_atomically(folder / FAILURE, f"{why}\n{traceback.format_exc()}".encode())


def _print_metrics(split: str, metrics: dict[str, Any]) -> None:
    shown = [f"{name} {metrics[name]:.2%}" for name in ("top1", "top5") if name in metrics]
    print(f"{split}  {'  '.join(shown)}  loss {metrics['loss']:.4f}")


def _shows_full_errors() -> bool:
    return os.environ.get("SRP_EXP_FULL_ERROR") == "1"


def main() -> None:
    """Run the command line; an error that the user can mend is one line and exit code 1.

    SRP_EXP_FULL_ERROR=1 shows the whole traceback, which run.log holds anyway once a training has begun.
    """
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then raises what it would else print over several lines
    try:
        run()
    except USER_ERRORS as error:
        if _shows_full_errors():
            raise
        sys.exit(f"srp-exp: {explain(error)}")


if __name__ == "__main__":
    from srp_exp.__main__ import main as importable  # launchers send `run` to processes by the name of its module

    importable()
