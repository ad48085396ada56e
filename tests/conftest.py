"""Shared by all tests: one thread for torch, composed configurations, and the command line run in this process."""

import contextlib
import copy
import functools
import io
import sys
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest
import torch
from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from omegaconf import DictConfig

from srp_exp.__main__ import main
from srp_exp.config import CONF_DIR
from srp_exp.config.register import register

torch.set_num_threads(1)

LONGEST = (
    "test_slurm.py", "test_build.py", "test_distributed_runs.py", "test_kill.py", "test_export.py",
    "test_compile.py", "test_prepare.py", "test_launchers.py",
)  # fmt: skip

Compose = Callable[..., DictConfig]
CommandLine = Callable[..., "Outcome"]


@dataclass(frozen=True)
class Outcome:
    """What a command left: its exit code and what it printed."""

    code: int
    out: str
    err: str


@functools.cache
def composed(overrides: tuple[str, ...]) -> DictConfig:
    register()
    with initialize_config_dir(str(CONF_DIR), version_base=None):
        return hydra_compose("config", overrides=list(overrides))


def compose_config(*overrides: str) -> DictConfig:
    """A copy of its own: Hydra takes thirty times as long to compose as Python to copy."""
    return copy.deepcopy(composed(overrides))


def run_command(*arguments: str) -> Outcome:
    """`srp-exp <arguments>` in this process. Exceptions that would end Python with a traceback are raised."""
    out, err = io.StringIO(), io.StringIO()
    code: int | str | None = 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HYDRA_FULL_ERROR", "0")  # main sets it: put it back afterwards
        patch.setattr(sys, "argv", ["srp-exp", *arguments])
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                main()
            except SystemExit as exit_:
                code = exit_.code
                if isinstance(code, str):  # as Python does with sys.exit("...")
                    err.write(f"{code}\n")
                    code = 1
                # What the exception refers to would else live on, and warn, in a later test.
                traceback.clear_frames(exit_.__traceback__)
    assert code is None or isinstance(code, int)
    return Outcome(code or 0, out.getvalue(), err.getvalue())


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first: begun last, one of them would leave the other worker without work for minutes."""
    items.sort(key=lambda item: LONGEST.index(item.path.name) if item.path.name in LONGEST else len(LONGEST))


@pytest.fixture(scope="session", autouse=True)
def own_cache_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What data sets remember is no user's, in the processes that tests start too."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def compose() -> Compose:
    """`compose(*overrides)`: the configuration that the command line with these overrides gets."""
    return compose_config


@pytest.fixture(scope="session")
def command_line() -> CommandLine:
    """`command_line(*arguments)`: the Outcome of srp-exp with these arguments, run in this process."""
    return run_command
