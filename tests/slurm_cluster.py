"""A private SLURM cluster on this machine, from Debian's slurm-wlm: no other user, no accounting, nodes of two CPUs.

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
SlurmUser=root
SlurmdUser=root
AuthType=auth/none
CredType=cred/none
AuthInfo=cred_expire=5
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
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
PartitionName=tests Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""
NODE = "NodeName={name} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs=2 State=UNKNOWN"


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
def private_cluster(folder: Path, nodes: int = 1) -> Iterator[Cluster]:
    """Start a cluster whose files lie in `folder`; stop it, and what runs on it, at the end.

    The first node, which has the first task of a job, has the name of this machine: the others find it by that.
    """
    controller_port, *node_ports = _free_ports(1 + nodes)
    host = platform.node().partition(".")[0]
    names = [host, *(f"{host}{number}" for number in range(2, nodes + 1))]
    for name in ("state", *(f"spool-{name}" for name in names)):
        (folder / name).mkdir()
    settings = SETTINGS.format(host=host, folder=folder, controller_port=controller_port)
    lines = [NODE.format(name=name, host=host, port=port) for name, port in zip(names, node_ports, strict=True)]
    (folder / "slurm.conf").write_text("\n".join([settings, *lines, ""]))
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = {
        "PATH": path, "HOME": str(folder), "SLURM_CONF": str(folder / "slurm.conf"), "OMP_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": str(Path(__file__).resolve().parents[1]),
    }  # fmt: skip
    cluster = Cluster(folder, environment)
    with contextlib.ExitStack() as stack:
        stack.enter_context(_daemon(("slurmctld",), environment, folder))
        for name in names:
            stack.enter_context(_daemon(("slurmd", "-N", name), environment, folder))
        wait_until(lambda: _node_states(environment) == ["idle"] * nodes, 60, lambda: _logs(folder))
        stack.callback(_end_jobs, cluster)
        yield cluster


def wait_until(happens: Callable[[], object], seconds: float, describe: Callable[[], str]) -> None:
    """Ask again and again; AssertionError with `describe()` where nothing has happened after `seconds`."""
    end = time.monotonic() + seconds
    while not happens():
        assert time.monotonic() < end, f"nothing in {seconds} s: {describe()}"
        time.sleep(0.1)


@contextlib.contextmanager
def _daemon(command: tuple[str, ...], environment: dict[str, str], folder: Path) -> Iterator[None]:
    with (folder / f"{'-'.join(command)}.out").open("w") as printed:
        process = subprocess.Popen([*command, "-D"], env=environment, stdout=printed, stderr=subprocess.STDOUT)
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


def _node_states(environment: dict[str, str]) -> list[str]:
    command = ["sinfo", "--noheader", "--Node", "--format=%T"]
    return subprocess.run(command, env=environment, capture_output=True, text=True).stdout.split()


def _logs(folder: Path) -> str:
    return "\n".join(path.read_text()[-2000:] for path in folder.glob("slurm*.*") if path.suffix in (".log", ".out"))


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
