"""What libraries really raise is told in one line; a fault of ours, however alike, keeps its traceback."""

import os
import signal
from typing import Any

import pytest
import torch
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

from srp_exp.config.failures.faults import describe_error, is_one_line, is_users
from srp_exp.config.failures.known_failures import known_failure


def batch_norm() -> None:
    F.batch_norm(torch.zeros(1, 32, 1, 1), None, None, training=True)


def memory() -> None:
    torch.empty(10**15, dtype=torch.uint8)


class Killed(Dataset[int]):
    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> int:
        os.kill(os.getpid(), signal.SIGKILL)
        return index


def worker() -> None:
    list(DataLoader(Killed(), num_workers=1))


def no_compiler() -> None:
    from torch._inductor.exc import InductorError, InvalidCxxCompiler

    try:
        raise InvalidCxxCompiler
    except InvalidCxxCompiler as error:
        raise InductorError(error, None) from error


def old_compiler() -> None:
    from torch._inductor.exc import CppCompileError

    raise CppCompileError(["g++", "x.cpp"], "x.cpp:3:10: fatal error: Python.h: No such file or directory\n more\n")


def hub() -> None:
    from huggingface_hub.errors import LocalEntryNotFoundError

    raise LocalEntryNotFoundError("An error happened while trying to locate the file on the Hub\nand so on")


def pool() -> None:
    from concurrent.futures import ProcessPoolExecutor

    with ProcessPoolExecutor(1) as executor:
        executor.submit(os._exit, 9).result()


@pytest.mark.parametrize(
    ("fail", "named"),
    [
        (batch_norm, ["[1, 32, 1, 1]", "recipe.batch_size", "recipe.accumulate_steps"]),
        (memory, ["1000000000000000 bytes", "recipe.batch_size", "workers"]),
        (worker, ["images", "killed", "memory", "workers"]),
        (pool, ["images", "memory", "workers"]),
        (no_compiler, ["compile=true", "C++ compiler", "CXX", "compile=false"]),
        (old_compiler, ["compile=true", "Python.h: No such file or directory", "compile=false"]),
        (hub, ["hub", "An error happened while trying to locate the file", "path"]),
    ],
)
def test_a_failure_of_a_library_is_one_line_with_a_remedy(fail: Any, named: list[str]) -> None:
    with pytest.raises(Exception) as raised:
        fail()
    line = describe_error(raised.value)
    assert is_users(raised.value) and is_one_line(raised.value)
    assert "\n" not in line
    assert [part for part in named if part not in line] == [], line
    try:
        raise RuntimeError("wrapped") from raised.value
    except RuntimeError as wrapped:
        assert describe_error(wrapped) == line


# As torch and the libraries below it have them in their sources; none of them can be had on every machine.
SAID = {
    "DataLoader worker (pid(s) 12, 13) exited unexpectedly": ["killed", "workers"],
    "ERROR: Unexpected bus error encountered in worker. This might be caused by insufficient shared memory (shm).\n": [
        "/dev/shm",
        "--shm-size",
    ],
    "cumsum_cuda_kernel does not have a deterministic implementation, but you set 'torch.use_deterministic_algorithms"
    "(True)'. You can turn off determinism": ["deterministic=true", "cumsum_cuda_kernel", "deterministic=false"],
    "CUDA error: no kernel image is available for execution on the device\nCUDA kernel errors might": [
        "no kernel image"
    ],
    "[/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:547] Connection closed by peer [127.0.0.1]:2": ["process"],
}


def test_what_cannot_be_made_here_is_known_by_its_words() -> None:
    for said, parts in SAID.items():
        line = known_failure(RuntimeError(said))
        assert line is not None and "\n" not in line
        assert [part for part in parts if part not in line] == [], line


def test_a_fault_of_ours_keeps_its_traceback() -> None:
    for error in (
        RuntimeError("mat1 and mat2 shapes cannot be multiplied"),
        ValueError("Expected more"),
        KeyError("x"),
    ):
        assert known_failure(error) is None and not is_users(error) and not is_one_line(error)
    try:
        try:
            batch_norm()
        except ValueError:
            raise KeyError("a fault while it is handled")  # noqa: B904 - it isn't raised from the failure
    except KeyError as error:
        assert known_failure(error) is None
