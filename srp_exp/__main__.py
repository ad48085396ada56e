"""The entry point: srp-exp, the same as python -m srp_exp.

Nothing heavy is imported before it is needed: composing a configuration, and skipping a finished run, take no torch.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from srp_exp.config import CONF_DIR
from srp_exp.config.explain import explain
from srp_exp.config.fields import settings
from srp_exp.config.identity import flat_identity, names_a_run, plain_values, run_folder
from srp_exp.config.register import register
from srp_exp.config.validate import validate
from srp_exp.files import RESULTS
from srp_exp.launch import launched_as

USER_ERRORS = (ValueError, OSError, HydraException, OmegaConfBaseException)


@hydra.main(version_base=None, config_path=str(CONF_DIR), config_name="config")
def run(config: DictConfig) -> None:
    """Train or evaluate one configuration, in the folder that Hydra has made for it."""
    folder = run_folder(config)
    try:
        validate(config)
        if config.mode.name == "eval":
            _evaluate(config)
        else:
            _train(config, folder)
    except USER_ERRORS as error:
        if _shows_full_errors() or HydraConfig.get().mode == RunMode.MULTIRUN:
            print(f"srp-exp: {explain(error)}", file=sys.stderr)
            raise  # Hydra goes on with the other runs of a sweep
        sys.exit(f"srp-exp: {explain(error)}")
    finally:
        if not names_a_run(config) and folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()  # made by Hydra for a run that did not begin


def _train(config: DictConfig, folder: Path) -> None:
    if names_a_run(config):
        raise ValueError("run and checkpoint are for mode=eval; a training is resumed by the command that began it")
    results_file = folder / RESULTS
    if results_file.exists() and not config.rerun:
        results = json.loads(results_file.read_text())
        print(f"finished already: {folder} (rerun=true trains it afresh)")
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
    register()
    try:
        run()
    except USER_ERRORS as error:
        if _shows_full_errors():
            raise
        sys.exit(f"srp-exp: {explain(error)}")


if __name__ == "__main__":
    main()
