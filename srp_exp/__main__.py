"""The entry point: srp-exp, the same as python -m srp_exp."""

import contextlib
import os
import sys
import traceback
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from srp_exp.commands import command
from srp_exp.config import CONF_DIR
from srp_exp.config.choices import completed
from srp_exp.config.command_line import check_command_line
from srp_exp.config.failures.faults import describe_error, is_one_line, is_users
from srp_exp.config.help import help_text
from srp_exp.config.identity import names_a_run, run_folder
from srp_exp.config.register import register
from srp_exp.config.validate import not_read, validate
from srp_exp.errors import STOPPED, UserError
from srp_exp.files import write_atomically
from srp_exp.runs.folder.layout import RESULTS, failure_file
from srp_exp.runs.folder.lock import InUseError
from srp_exp.training.processes.distributed import launched_as
from srp_exp.training.reporting.dispensable import outlive_the_console

# Before torch is imported: threads of OpenMP that spin while they wait would take the CPUs from other trainings.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
register()  # on import, since the processes that a launcher starts import `execute` and nothing else


@hydra.main(version_base=None, config_path=str(CONF_DIR), config_name="config")
def execute(config: DictConfig) -> None:
    """Do what `mode` says with one configuration; a training does it in the folder that Hydra has made for it."""
    outlive_the_console()  # in a process that a launcher has started too
    config = completed(config)
    folder = run_folder(config)
    in_sweep = HydraConfig.get().mode == RunMode.MULTIRUN
    try:
        validate(config)
        if not in_sweep:  # a grid has been checked as one
            _check_single(config)
        command(config.mode.name)(config)
    except Exception as error:
        why, mendable = describe_error(error), is_users(error)
        if config.mode.name == "train" and not names_a_run(config) and not isinstance(error, InUseError):
            _note_failure(folder, why, in_sweep or not mendable)
        if not in_sweep and _hides_traceback(error):
            sys.exit(f"srp-exp: {why}")
        print(f"srp-exp: {why}", file=sys.stderr)
        raise  # Hydra continues with the other runs of a sweep
    finally:
        if not names_a_run(config) and folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()  # made by Hydra for a run that did not begin


def _check_single(config: DictConfig) -> None:
    """Raise UserError for settings that a single run would pass over."""
    if config.study is not None:
        raise UserError(
            f"study={config.study.name} is a grid: write `hydra: {{mode: MULTIRUN}}` into its file, or give -m"
        )
    for choice, only in (("hydra/launcher", "basic"), ("hydra/sweeper", "grid")):
        if (chosen := HydraConfig.get().runtime.choices[choice]) != only:
            raise UserError(f"{choice}={chosen}: it is for sweeps, and this is one run; give -m before it")
    for line in not_read(config, HydraConfig.get().overrides.task):
        raise UserError(line)


def _note_failure(folder: Path, why: str, always: bool) -> None:
    """Leave `why` in the folder of a run that has begun, or `always`: a grid's table shows it, a fault's is needed."""
    text = f"{why}\n{traceback.format_exc()}"
    with contextlib.suppress(OSError):  # a full disk, say, of which the failure is to tell
        if folder.is_dir() and (always or any(folder.iterdir())) and not (folder / RESULTS).exists():
            write_atomically(failure_file(folder, launched_as().rank), text.encode())


def _hides_traceback(error: BaseException) -> bool:
    return is_one_line(error) and os.environ.get("SRP_EXP_FULL_ERROR") != "1"


def main() -> None:
    """Run the command line; an error that the user can mend is one line and exit code 1.

    So is one of the machine, such as a full disk; a fault of the program keeps its traceback. SRP_EXP_FULL_ERROR=1
    shows every traceback; that of a training lies in its run.log, or where it had not begun in failure.txt.
    """
    outlive_the_console()
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then raises what it would else print over several lines
    try:
        sys.argv[1:] = check_command_line(sys.argv[1:])
        if {"--help", "-h"} & set(sys.argv[1:]):
            print(help_text(sys.argv[1:]))
        else:
            execute()
    except KeyboardInterrupt:
        again = "the same command" + " without rerun=true" * ("rerun=true" in sys.argv)
        print(f"srp-exp: interrupted; run {again} to resume", file=sys.stderr)
        sys.exit(STOPPED)
    except Exception as error:
        if not _hides_traceback(error):
            raise
        sys.exit(f"srp-exp: {describe_error(error)}")


if __name__ == "__main__":
    from srp_exp.__main__ import main as importable  # launchers send `execute` to processes by its module's name

    importable()
