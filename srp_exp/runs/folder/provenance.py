"""Where a result comes from: code, packages, device and command of a run."""

import json
import platform
import subprocess
import sys
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from srp_exp.files import write_atomically
from srp_exp.runs.folder.layout import PROVENANCE, differences, read_starts
from srp_exp.training.reporting.logs import LOG


def note_start(folder: Path, device: torch.device, processes: int) -> None:
    """Add the origin of this start to the file PROVENANCE of a run folder, and log where it differs from the last's."""
    earlier, start = read_starts(folder), provenance(device, processes)
    content = {**start, "earlier_starts": earlier} if earlier else start
    write_atomically(folder / PROVENANCE, json.dumps(content, indent=1).encode())
    LOG.info("run %s on %s", folder, f"{processes} x {device.type}" if processes > 1 else device)
    for difference in differences([*earlier[-1:], start]):
        LOG.warning("resumed in a different environment: %s", difference)


def provenance(device: torch.device, processes: int = 1) -> dict[str, Any]:
    """Time, commit and uncommitted changes of the source tree, packages, device and its driver, host and command.

    commit and diff are None where srp_exp isn't run from a git checkout. Nothing is taken from the environment
    variables, which may hold secrets.
    """
    commit = _git("rev-parse", "HEAD")
    return {
        "time": f"{datetime.now(UTC):%FT%TZ}",
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
        "commit": commit and commit.strip(),
        "diff": _git("diff", "HEAD"),
        "python": platform.python_version(),
        "packages": {dist.metadata["Name"]: dist.version for dist in metadata.distributions()},
        "device": device_name(device),
        "driver": _driver(),
        "cudnn": torch.backends.cudnn.version() if device.type == "cuda" else None,
        "tf32": torch.backends.cudnn.allow_tf32,
        "cudnn_benchmark": torch.backends.cudnn.benchmark,
        "host": platform.node(),
        "threads": torch.get_num_threads(),
        "processes": processes,
    }


def _driver() -> str | None:
    """The version of NVIDIA's driver, as its kernel module tells it; None where there is none."""
    file = Path("/sys/module/nvidia/version")
    return file.read_text().strip() if file.exists() else None


def device_name(device: torch.device) -> str:
    """Name of a CUDA device or of the processor."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.partition(": ")[2] for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def _git(*arguments: str) -> str | None:
    """Answer of git in the checkout of srp_exp; None where it isn't installed from one, but lies in another's, say."""
    source = Path(__file__).resolve()
    git = ["git", "-C", str(source.parent)]
    try:
        subprocess.run([*git, "ls-files", "--error-unmatch", source.name], capture_output=True, check=True)
        return subprocess.run(
            [*git, *arguments], capture_output=True, encoding="utf-8", errors="replace", check=True
        ).stdout
    except (OSError, subprocess.CalledProcessError):
        return None
