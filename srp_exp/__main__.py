"""The entry point: srp-exp, the same as python -m srp_exp."""

import os
import sys
import traceback
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from srp_exp.commands.modes import MODES
from srp_exp.commands.search import objective
from srp_exp.config import CONF_DIR
from srp_exp.config.explain import explain
from srp_exp.config.identity import names_a_run, run_folder
from srp_exp.config.register import register
from srp_exp.config.validate import validate
from srp_exp.errors import STOPPED, USER_ERRORS
from srp_exp.files import FAILURE, write_atomically
from srp_exp.runs.lock import InUseError
from srp_exp.training.launch import launched_as

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
        MODES[config.mode.name](config)
        return objective(config, folder) if config.mode.name == "train" and not config.dry else None
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


def _note_failure(folder: Path, why: str, in_sweep: bool) -> None:
    """Leave `why` in the folder of a run that had begun, or that belongs to a grid, whose table shows it."""
    if launched_as().rank == 0 and folder.is_dir() and (in_sweep or any(folder.iterdir())):
        write_atomically(folder / FAILURE, f"{why}\n{traceback.format_exc()}".encode())


def _shows_full_errors() -> bool:
    return os.environ.get("SRP_EXP_FULL_ERROR") == "1"


def main() -> None:
    """Run the command line; an error that the user can mend is one line and exit code 1.

    SRP_EXP_FULL_ERROR=1 shows the whole traceback, which run.log holds anyway once a training has begun.
    """
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then raises what it would else print over several lines
    try:
        run()
    except KeyboardInterrupt:
        print("srp-exp: stopped; the same command goes on", file=sys.stderr)
        sys.exit(STOPPED)
    except USER_ERRORS as error:
        if _shows_full_errors():
            raise
        sys.exit(f"srp-exp: {explain(error)}")


if __name__ == "__main__":
    from srp_exp.__main__ import main as importable  # launchers send `run` to processes by the name of its module

    importable()
