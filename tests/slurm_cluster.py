"""A private SLURM cluster of one node on this machine, from Debian's slurm-wlm: no other user, no accounting, two CPUs.

A requeued job starts again within seconds instead of SLURM's two minutes.
"""

import contextlib
import os
import platform
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

SETTINGS = """
ClusterName=tests
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller_port}
SlurmdPort={node_port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/none
CredType=cred/none
AuthInfo=cred_expire=5
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
SlurmdParameters=config_overrides
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=1,bf_interval=1,batch_sched_delay=0
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
ReturnToService=2
JobRequeue=1
KillWait=30
MessageTimeout=60
SlurmdTimeout=600
NodeName={host} NodeAddr=127.0.0.1 CPUs=2 State=UNKNOWN
PartitionName=tests Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


@dataclass(frozen=True)
class Cluster:
    """A cluster that runs; `environment` is for processes that use it, and for their jobs."""

    folder: Path
    environment: dict[str, str]

    def command(self, *arguments: str) -> str:
        """What a command of SLURM prints, such as command("squeue", "--me"); AssertionError where it fails."""
        done = subprocess.run(arguments, env=self.environment, capture_output=True, text=True)
        assert done.returncode == 0, f"{arguments}: {done.stdout}{done.stderr}"
        return done.stdout

    def jobs(self) -> set[str]:
        return set(self.command("squeue", "--noheader", "--array", "--format=%i").split())


def why_not() -> str:
    """Why no cluster can be started here; empty where one can."""
    missing = [name for name in ("slurmctld", "slurmd", "sbatch", "srun") if shutil.which(name) is None]
    if missing:
        return f"SLURM is not installed ({', '.join(missing)} missing): apt-get install slurm-wlm"
    return "" if os.geteuid() == 0 else "the cluster of the tests needs root"


@contextlib.contextmanager
def private_cluster(folder: Path) -> Iterator[Cluster]:
    """Start a cluster whose files lie in `folder`; stop it, and what runs on it, at the end."""
    controller_port, node_port = _free_ports(2)
    host = platform.node().partition(".")[0]
    for name in ("state", "spool"):
        (folder / name).mkdir()
    settings = SETTINGS.format(host=host, folder=folder, controller_port=controller_port, node_port=node_port)
    (folder / "slurm.conf").write_text(settings)
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = {
        "PATH": path, "HOME": str(folder), "SLURM_CONF": str(folder / "slurm.conf"), "OMP_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": str(Path(__file__).resolve().parents[1]),
    }  # fmt: skip
    cluster = Cluster(folder, environment)
    with contextlib.ExitStack() as stack:
        for daemon in ("slurmctld", "slurmd"):
            stack.enter_context(_daemon(daemon, environment, folder))
        wait_until(lambda: _node_state(environment) == "idle", 60, lambda: _logs(folder))
        stack.callback(_end_jobs, cluster)
        yield cluster


def wait_until(happens: Callable[[], object], seconds: float, describe: Callable[[], str]) -> None:
    """Ask again and again; AssertionError with `describe()` where nothing has happened after `seconds`."""
    end = time.monotonic() + seconds
    while not happens():
        assert time.monotonic() < end, f"nothing in {seconds} s: {describe()}"
        time.sleep(0.1)


@contextlib.contextmanager
def _daemon(name: str, environment: dict[str, str], folder: Path) -> Iterator[None]:
    with (folder / f"{name}.out").open("w") as printed:
        process = subprocess.Popen([name, "-D"], env=environment, stdout=printed, stderr=subprocess.STDOUT)
        try:
            yield
        finally:
            process.terminate()
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _end_jobs(cluster: Cluster) -> None:
    jobs = cluster.jobs()
    if jobs:
        cluster.command("scancel", "--signal=KILL", "--full", *jobs)
        cluster.command("scancel", *jobs)
        wait_until(lambda: not cluster.jobs(), 60, lambda: str(cluster.jobs()))


def _node_state(environment: dict[str, str]) -> str:
    asked = subprocess.run(["sinfo", "--noheader", "--format=%T"], env=environment, capture_output=True, text=True)
    return asked.stdout.strip()


def _logs(folder: Path) -> str:
    return "\n".join(path.read_text()[-2000:] for path in folder.glob("slurm*.*") if path.suffix in (".log", ".out"))


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
