"""How a picture becomes what a network takes, as in the evaluation of the data set that it was trained on."""

import os
from dataclasses import dataclass
from pathlib import Path

from PIL import Image
from torch import Tensor

from srp_exp.datasets.batches import Normalisation
from srp_exp.datasets.files.decode import Reading, decode, of_pillow
from srp_exp.datasets.files.transforms import Transform


@dataclass(frozen=True)
class Preprocess:
    """Maps one picture to (C, H, W) float32, the size and channels that the network takes, normalised.

    transform: (3, H', W') uint8 to (C, H, W) uint8. A path is read to the same bits as in evaluation. A picture of
    Pillow's can differ in the last bits, where its decoder does, and holds 8 bits of a colour.
    """

    reading: Reading
    transform: Transform
    normalise: Normalisation

    def __call__(self, picture: Image.Image | str | os.PathLike[str]) -> Tensor:
        """Raises CorruptImageError, which names the file, if it can't be read, and OSError if it doesn't exist."""
        if isinstance(picture, Image.Image):
            pixels = self.transform(of_pillow(picture).rgb("the picture", self.reading))
        else:
            pixels = self.pixels(Path(picture).read_bytes(), os.fspath(picture))
        return self.normalise(pixels[None])[0]

    def pixels(self, encoded: bytes, name: str) -> Tensor:
        """(C, H, W) uint8, not yet normalised. Raises CorruptImageError or UserError that begins with `name`."""
        return self.transform(decode(encoded, name, self.reading))
