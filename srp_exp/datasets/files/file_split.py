"""A part of a data set whose images are read from files when they are needed."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from srp_exp.datasets.files.decode import Reading, Stored, decode, stored
from srp_exp.datasets.files.source import FolderSource, ImageSource
from srp_exp.datasets.split import digest, parts_at
from srp_exp.errors import CorruptImageError, UserError


@dataclass(frozen=True)
class FileSplit:
    """N images in a source, with their labels.

    rows: (N,) int64, their positions in `source`. labels: (N,) int64. index: (N,) int64, which sample of the
    original set each one is; it stays with the sample when the split is divided. boxes: (N, 4) float32, left,
    top, right and bottom in pixels of the whole picture as it is shown, to which every picture is cut before all
    else; None: pictures stay whole. skipped: how many samples were left out as corrupt. reading: of what 8-bit RGB
    can't hold. Raises UserError where the lengths or the types differ, and where a row isn't in the source.
    """

    source: ImageSource
    rows: Tensor
    labels: Tensor
    index: Tensor
    boxes: Tensor | None = None
    skipped: int = 0
    reading: Reading = Reading()

    def __post_init__(self) -> None:
        wanted: dict[str, tuple[torch.dtype, tuple[int, ...]]]
        wanted = {name: (torch.int64, (len(self),)) for name in ("rows", "labels", "index")}
        if self.boxes is not None:
            wanted["boxes"] = (torch.float32, (len(self), 4))
        for name, (dtype, shape) in wanted.items():
            tensor = getattr(self, name)
            if tensor.dtype != dtype or tensor.shape != shape:
                raise UserError(f"{name} of a split: found {tensor.dtype} {tuple(tensor.shape)}, give {dtype} {shape}")
        if len(self) and not 0 <= int(self.rows.min()) <= int(self.rows.max()) < len(self.source):
            raise UserError(
                f"rows of a split: {int(self.rows.min())} to {int(self.rows.max())}; choose 0 to {len(self.source) - 1}"
            )

    def __len__(self) -> int:
        return self.rows.shape[0]

    def name(self, position: int) -> str:
        """A path, or a file and a row in it, for messages."""
        return self.source.name(int(self.rows[position]))

    def picture(self, position: int) -> Tensor:
        """The whole picture, (3, H, W) uint8. Raises CorruptImageError, UserError or OSError, with its name."""
        row = int(self.rows[position])
        try:
            return decode(self.source.read(row), self.source.name(row), self.reading)
        except CorruptImageError as error:
            if isinstance(self.source, FolderSource):
                error.file = self.source.path(row)
            raise

    def stored(self, position: int) -> tuple[bytes, Stored]:
        """The encoded picture, and what its file has. Raises as `picture`."""
        encoded = self.source.read(int(self.rows[position]))
        return encoded, stored(encoded, self.name(position))

    def digests(self, without: str | None = None) -> dict[str, str]:
        """What changes when the pictures do, when labels or the order do, and when boxes or the range of values do.

        without: the path of a file in the set's folder that may change.
        """
        others = {} if self.boxes is None else {"boxes": digest(self.boxes)}
        if self.reading.value_range is not None:
            others["value range"] = digest(torch.tensor(self.reading.value_range, dtype=torch.float64))
        source = self.source
        pictures = source.digest(without) if isinstance(source, FolderSource) else source.digest()
        return {"pictures": pictures, "labels": digest(self.rows, self.labels, self.index)} | others

    def take(self, positions: Tensor) -> "FileSplit":
        """The samples at `positions`, (M,) int64, in that order; `skipped` stays that of the whole."""
        return replace(self, **parts_at(self, positions))
