"""Where a result comes from: code, packages, device and command of a run."""

import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import torch


def provenance(device: torch.device, processes: int = 1) -> dict[str, Any]:
    """Commit and uncommitted changes of the source tree, packages, device, host and command.

    commit and diff are None where srp_exp isn't run from a git checkout. Nothing is taken from the environment
    variables, which may hold secrets.
    """
    commit = _git("rev-parse", "HEAD")
    return {
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
        "commit": commit and commit.strip(),
        "diff": _git("diff", "HEAD"),
        "python": platform.python_version(),
        "packages": {dist.metadata["Name"]: dist.version for dist in metadata.distributions()},
        "device": device_name(device),
        "host": platform.node(),
        "threads": torch.get_num_threads(),
        "processes": processes,
    }


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
