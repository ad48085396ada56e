"""Runs on a SLURM cluster, by hydra-submitit-launcher's jobs.

The launcher's own way of waiting asks sacct, and waits for ever where a job was killed and there is no accounting data
base. Here the jobs are submitted as it does, and squeue tells whether they are still there.
"""

import contextlib
import io
import shutil
import time
from collections.abc import Callable, Sequence
from typing import Any

from hydra.core.singleton import Singleton
from hydra_plugins.hydra_submitit_launcher.config import BaseQueueConf
from hydra_plugins.hydra_submitit_launcher.submitit_launcher import SlurmLauncher
from omegaconf import OmegaConf

from srp_exp.errors import UserError
from srp_exp.runs.folder.store import slurm_jobs

POLL_SECONDS = 5.0


def submit(launcher: SlurmLauncher, overrides: Sequence[Sequence[str]], first_number: int) -> list[str]:
    """Submit a job for each list of overrides, as one array; return their names as squeue prints them.

    Raises ValueError where SLURM isn't installed or doesn't take the jobs, with the reason that it gives.
    """
    import submitit
    from submitit.core.utils import FailedJobError

    missing = [command for command in ("sbatch", "srun", "squeue") if shutil.which(command) is None]
    if missing:
        raise UserError(
            f"hydra/launcher=slurm: SLURM is not installed here (no {', '.join(missing)}); start the study where its "
            "commands are, or leave the launcher out"
        )
    parameters: dict[str, Any] = dict(launcher.params)
    folder, timeouts = parameters.pop("submitit_folder"), parameters.pop("max_num_timeout")
    executor = submitit.AutoExecutor(folder=folder, cluster="slurm", slurm_max_num_timeout=timeouts)
    common = set(OmegaConf.structured(BaseQueueConf))
    executor.update_parameters(
        **{k if k in common else f"slurm_{k}": v for k, v in parameters.items()},
        slurm_srun_args=["--kill-on-bad-exit=1"],  # else the tasks beside one that fails hold their GPUs
    )
    numbers = range(first_number, first_number + len(overrides))
    try:
        with contextlib.redirect_stderr(io.StringIO()):  # submitit prints what it raises
            jobs = executor.map_array(
                launcher,
                [list(o) for o in overrides],
                ["hydra.sweep.dir"] * len(overrides),
                list(numbers),
                [f"job {number}" for number in numbers],
                [Singleton.get_state()] * len(overrides),
            )
    except FailedJobError as error:
        raise UserError(f"SLURM did not take the jobs: {_reason(str(error))}; see hydra.launcher") from None
    return [str(job.job_id) for job in jobs]


def wait_for(jobs: Sequence[str], report: Callable[[set[str]], None]) -> None:
    """Return when SLURM has none of `jobs` any more, however they ended.

    While they wait or run, `report` is called with the queue as squeue has just told it, which is asked once each time.
    """
    while (queue := slurm_jobs()) & set(jobs):
        report(queue)
        time.sleep(POLL_SECONDS)


def _reason(message: str) -> str:
    """The lines of sbatch that say why, in one."""
    lines = [line.strip() for line in message.splitlines()]
    said = [line.removeprefix("sbatch: ").removeprefix("error: ") for line in lines if line.startswith("sbatch: ")]
    return "; ".join(said) or " ".join(lines)
