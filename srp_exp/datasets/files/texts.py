"""A million paths as one string of bytes: fast to load, and never copied by the processes that share it."""

from collections.abc import Iterable, Iterator, Sequence
from typing import overload

import numpy as np
from numpy.typing import NDArray


class Texts(Sequence[str]):
    """Texts one after another, immutable. encoded: their bytes. ends: (N,) int64, the byte after each one's last.

    A list of strings would be copied into every process, page by page, as Python counts its references.
    """

    def __init__(self, encoded: bytes, ends: NDArray[np.int64]):
        self.encoded, self.ends = encoded, ends

    @classmethod
    def of(cls, texts: Iterable[str]) -> "Texts":
        """The texts of any iterable; those that are Texts already as they are."""
        if isinstance(texts, Texts):
            return texts
        parts = [text.encode("utf-8", "surrogateescape") for text in texts]
        return cls(b"".join(parts), np.cumsum([len(part) for part in parts], dtype=np.int64))

    def __len__(self) -> int:
        return len(self.ends)

    @overload
    def __getitem__(self, position: int) -> str: ...
    @overload
    def __getitem__(self, position: slice) -> Sequence[str]: ...
    def __getitem__(self, position: int | slice) -> str | Sequence[str]:
        if isinstance(position, slice):
            return [self[number] for number in range(*position.indices(len(self)))]
        number = range(len(self))[position]  # raises IndexError, and counts negative ones from the end
        start = self.ends[number - 1] if number else 0
        return self.encoded[start : self.ends[number]].decode("utf-8", "surrogateescape")

    def __iter__(self) -> Iterator[str]:
        start = 0
        for end in self.ends.tolist():
            yield self.encoded[start:end].decode("utf-8", "surrogateescape")
            start = end
