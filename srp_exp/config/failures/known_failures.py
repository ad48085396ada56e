"""Failures of libraries that users can mend: what is raised and said, and the line that stands for it.

A line here hides a traceback, so each entry names a kind and a text that no fault of srp_exp would have.
"""

import re
from collections.abc import Iterator

_HUB = "the hub can't be reached ({0}): fetch the file where there is a network and give it by its path"
_MEMORY = "lower workers, recipe.batch_size or dataset.memory_mb, or ask for more memory"
_WORKER = f"a process that reads images was killed, as the system does where memory is short: {_MEMORY}"
_OTHER_PROCESS = "another process of the training has ended: its own message, above or in its log, says why"

TABLE: tuple[tuple[str, str, str], ...] = (
    # The compiler of compile=true.
    (
        "builtins.RuntimeError",
        r"InvalidCxxCompiler|Failed to find C compiler",
        "compile=true: torch finds no C++ compiler here: install g++ or name one in CXX, or set compile=false",
    ),
    (
        "builtins.RuntimeError",
        r"(?s)C\+\+ compile error(?:.*?error: ([^\n]*))?",
        "compile=true: the C++ compiler can't build what torch generates ({0}): "
        "install a newer one, with Python's headers, or set compile=false",
    ),
    ("builtins.RuntimeError", r"Cannot find a working triton", "compile=true: torch needs triton on a GPU: install it"),
    # Workers and memory.
    (
        "builtins.RuntimeError",
        r"DataLoader worker .*(?:is killed by signal: (?:Killed|Terminated)|exited unexpectedly)",
        _WORKER,
    ),
    (
        "builtins.RuntimeError",
        r"bus error encountered in worker|unable to (?:open|mmap|allocate) shared memory|insufficient shared memory",
        "the shared memory (/dev/shm) is full: enlarge it (docker run --shm-size), or lower workers",
    ),
    (
        "concurrent.futures.process.BrokenProcessPool",
        r"terminated abruptly",
        _WORKER,
    ),
    ("builtins.RuntimeError", r"DefaultCPUAllocator: .*allocate (\d+) bytes", f"no memory for {{0}} bytes: {_MEMORY}"),
    ("builtins.MemoryError", r"", f"the memory isn't enough: {_MEMORY}"),
    # The device.
    (
        "builtins.RuntimeError",
        r"CUDA error: (no kernel image is available|out of memory|all CUDA-capable devices are busy)",
        "the GPU can't be used: {0}; choose another, as device=cuda:1, or device=cpu",
    ),
    (
        "builtins.RuntimeError",
        r"(\S+) does not have a deterministic implementation",
        "deterministic=true: torch has no deterministic {0} on this device: set deterministic=false",
    ),
    # Batch norm.
    (
        "builtins.ValueError",
        r"Expected more than 1 value per channel when training, got input size torch\.Size\((.*)\)",
        "batch norm has one value per channel of {0} to normalise by: give each part of a batch more than one image: "
        "raise recipe.batch_size, or lower recipe.accumulate_steps or the number of processes",
    ),
    # The network.
    ("httpx.TransportError", r"(.*)", _HUB),
    ("httpx2.TransportError", r"(.*)", _HUB),
    ("huggingface_hub.errors.OfflineModeIsEnabled", r"(.*)", _HUB),
    ("huggingface_hub.errors.LocalEntryNotFoundError", r"(.*)", _HUB),
    (
        "huggingface_hub.errors.HfHubHTTPError",
        r"(.*)",
        "the hub refuses ({0}): is the name right, and may you read it (hf auth login)?",
    ),
    # Other processes.
    ("builtins.RuntimeError", r"Connection (?:closed by peer|reset by peer)", _OTHER_PROCESS),
    ("builtins.RuntimeError", r"(?i)wait timeout after \d+ms|Timed out waiting \d+ms", _OTHER_PROCESS),
    (
        "torch.distributed.DistNetworkError",
        r"(?s)port: (\d+).*EADDRINUSE",
        "port {0} is in use, where the processes were to meet: give another, as torchrun --master-port=29501",
    ),
)
"""Kind, or one it derives from; a pattern of the message, whose groups are {0}, {1}, ...; the line."""


def known_failure(error: BaseException) -> str | None:
    """The line for `error`, or for what it was raised from; None where the table has none."""
    for cause in _causes(error):
        kinds = {f"{kind.__module__}.{kind.__qualname__}" for kind in type(cause).__mro__}
        for kind, pattern, line in TABLE:
            if kind in kinds and (found := re.search(pattern, str(cause))):
                groups = [" ".join((group or "").split())[:120] for group in found.groups()]
                return line.format(*groups)
    return None


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Itself and what it was raised from on purpose: an error while another is handled is one of its own."""
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__
