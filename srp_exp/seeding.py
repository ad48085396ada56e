"""Random seeds as pure functions of what they are for.

Every random draw of a run comes from a generator named by (seed, purpose, indices), where the indices are the
epoch, the step, the sample or the rank. No generator is passed along or saved: whoever knows the names can
repeat the draw, so a resumed run draws the same numbers.
"""

import hashlib
from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray

from srp_exp.errors import UserError

_UINT64_RANGE = 2**64


def derive(seed: int, purpose: str, *indices: int) -> int:
    """Derive a 63-bit seed, a pure function of its arguments, through numpy's SeedSequence.

    Each argument fills a fixed number of 32-bit words (seed and indices two, purpose four), so that no two
    argument lists share their words. The purpose enters as SHA-256 of its UTF-8 bytes, which is the same in
    every process.

    Returns an integer in [0, 2**63). Raises ValueError where seed or an index is outside [0, 2**64).
    """
    return int(derive_many(1, seed, purpose, *indices)[0])


def derive_many(count: int, seed: int, purpose: str, *indices: int) -> NDArray[np.uint64]:
    """`count` seeds as of `derive`, of which the n-th doesn't depend on `count`; a tenth of the time of as many calls.

    The first is `derive(seed, purpose, *indices)`.
    """
    words = [*_words(seed, purpose), *_purpose_words(purpose)]
    for index in indices:
        words += _words(index, purpose)
    return np.random.SeedSequence(words).generate_state(count, np.uint64) >> np.uint64(1)


def generator(seed: int, purpose: str, *indices: int) -> torch.Generator:
    """A fresh CPU generator seeded with `derive(seed, purpose, *indices)`.

    torch's CPU generator (a Mersenne Twister) keeps the low 32 bits of its seed.
    """
    return torch.Generator().manual_seed(derive(seed, purpose, *indices))


@cache
def _purpose_words(purpose: str) -> tuple[int, ...]:
    return tuple(np.frombuffer(hashlib.sha256(purpose.encode()).digest()[:16], dtype="<u4").tolist())


def _words(value: int, purpose: str) -> tuple[int, int]:
    """The low and the high 32 bits of `value`."""
    if not 0 <= value < _UINT64_RANGE:
        raise UserError(f"seed or index {value} for the purpose {purpose!r}: choose one in [0, 2**64)")
    return value & 0xFFFFFFFF, value >> 32
