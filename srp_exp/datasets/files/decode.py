"""From the bytes of an image file to RGB pixels of 8 bits: one policy for training, evaluation and prediction.

JPEG, recognised by its content and not by its name, goes through torchvision; what that refuses and every other
format through Pillow: on a damaged PNG torchvision ends the process. Greys and palettes are spread over the channels,
CMYK is converted. What 8-bit RGB can't hold is read as `Reading` says. Of an animation the first frame counts.

The EXIF orientation isn't applied, as in the loaders of torchvision and timm: pictures and the official boxes are as
the pixels are stored.
"""

import io
import re
import warnings
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
import torchvision  # noqa: F401  its operators
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from srp_exp.errors import CorruptImageError, UserError

MOST_PIXELS = 89_478_485
"""Of a picture that is read, whatever its format: the number from which Pillow warns of a decompression bomb."""

MOST_RATIO = 1_000
"""Of its sides: a thinner one would take gigabytes when its shorter side becomes a few hundred pixels."""

_RGB, _AS_STORED = 3, 0  # torchvision.io.ImageReadMode
_FORMATS = ("JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF", "PPM")  # the others of Pillow may call programs
_BITS_PER_SAMPLE, _SAMPLE_FORMAT, _UNSIGNED = 258, 339, 1  # tags of TIFF, and a value of the second

warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)  # at MOST_PIXELS, which are refused


@dataclass(frozen=True)
class Reading:
    """How is read what RGB of 8 bits can't hold.

    background: red, green and blue in [0, 255], seen through transparent pixels. value_range: the values of pictures of
    more than 8 bits that become black and white; what lies outside is cut off. None: not known, and such pictures are
    refused.
    """

    background: tuple[int, ...] = (255, 255, 255)
    value_range: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        if len(self.background) != 3 or not all(0 <= level <= 255 for level in self.background):
            raise UserError(f"dataset.background={list(self.background)}: give red, green and blue, each 0 to 255")
        if self.value_range is not None:
            low, high = self.value_range if len(self.value_range) == 2 else (0, 0)
            if not (low < high and np.isfinite([low, high]).all()):
                raise UserError(
                    f"dataset.value_range={list(self.value_range)}: give the values that are black and white, the "
                    f"lower first, as [0, 4095]"
                )


class Stored(NamedTuple):
    """A picture as its file has it.

    values: (3, H, W) uint8, or (1 or 3, H, W) float64 of more than 8 bits. alpha: (H, W) in [0, 1]; None where all is
    opaque.
    """

    values: Tensor
    alpha: Tensor | None = None

    def rgb(self, name: str, reading: Reading) -> Tensor:
        """(3, H, W) uint8. Raises UserError for more than 8 bits of which no range is known."""
        values, alpha = self
        if values.dtype == torch.uint8 and alpha is None:
            return values
        if values.dtype != torch.uint8:
            if reading.value_range is None:
                raise UserError(
                    f"{name}: has more than 8 bits, and which values are black and white isn't known; train "
                    f"with dataset.value_range=[low, high] or, to measure it, dataset.vet=all, or save it with 8 bits"
                )
            low, high = reading.value_range
            values = ((values - low) * (255 / (high - low))).clamp(0, 255).expand(3, -1, -1)
        if alpha is not None:
            background = torch.tensor(reading.background).view(3, 1, 1)
            values = background + alpha * (values - background)
        return values.round().to(torch.uint8)


def decode(encoded: bytes, name: str, reading: Reading = Reading()) -> Tensor:
    """The picture as (3, H, W) uint8. Raises CorruptImageError that begins with `name`, and as `Stored.rgb`."""
    return stored(encoded, name).rgb(name, reading)


def stored(encoded: bytes, name: str) -> Stored:
    """The picture as its file has it. Raises CorruptImageError that begins with `name`."""
    try:
        image = _open(encoded)
        return _with_torchvision(image, encoded) or _with_pillow(image, encoded)
    except MemoryError:
        raise
    except Exception as error:  # on damaged files Pillow's plugins raise nearly anything
        raise _corrupt(name, encoded, error) from None


def check_header(encoded: bytes, name: str) -> None:
    """Raise CorruptImageError where the first bytes of a file show already that it can't be read."""
    try:
        _open(encoded)
    except Exception as error:
        raise _corrupt(name, encoded, error) from None


def _with_torchvision(image: Image.Image, encoded: bytes) -> Stored | None:
    """None for what torchvision can't read.

    Calls the operator below torchvision.io, whose functions warn of their removal since 0.29; where it has happened,
    Pillow, a seventh slower, decodes all.
    """
    if image.format not in ("JPEG", "MPO") or not hasattr(torch.ops.image, "decode_jpeg"):
        return None
    try:
        return Stored(torch.ops.image.decode_jpeg(_buffer(encoded), _RGB, False))
    except RuntimeError:
        return None


def _with_pillow(image: Image.Image, encoded: bytes) -> Stored:
    """Raises whatever Pillow raises."""
    if image.format == "PNG":
        image.verify()  # the checksums of its pixels, which loading ignores
        image = _open(encoded)
    if image.mode[0] not in "IF" and _bits(image, encoded) > 8:
        return _deep_colours(image, encoded)
    return of_pillow(image)


def of_pillow(image: Image.Image) -> Stored:
    """A picture as Pillow holds it, which keeps 8 bits of a colour. Raises UserError where it isn't read."""
    _check_size(image.height, image.width)
    if image.mode[0] in "IF":
        return _deep_grey(image)
    if not image.has_transparency_data:
        return Stored(_planes(image.convert("RGB")))
    planes = _planes(image.convert("RGBA"))
    return Stored(planes[:3], _opacity(planes[3] / 255))


def _open(encoded: bytes) -> Image.Image:
    Image.init()  # loads the plugins of all formats, once
    try:
        image = Image.open(io.BytesIO(encoded), formats=_FORMATS)
    except UnidentifiedImageError:
        raise UserError(f"no {', '.join(_FORMATS)}: it begins with {encoded[:12]!r}") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        (pixels, *_) = re.findall(r"\d+", str(error))
        _check_size(1, int(pixels))
        raise
    _check_size(image.height, image.width)
    return image


def _check_size(height: int, width: int) -> None:
    if height * width > MOST_PIXELS:
        raise UserError(f"it has {height * width:,} pixels, and {MOST_PIXELS:,} are the most that are read")
    if max(height, width) > MOST_RATIO * min(height, width):
        raise UserError(f"it is a line of {height} x {width} pixels")


def _bits(image: Image.Image, encoded: bytes) -> int:
    """Of a channel of colours, of which Pillow keeps the upper 8 only."""
    if image.format == "PNG":
        return encoded[24]
    if image.format == "TIFF":
        return max(_tag(image, _BITS_PER_SAMPLE))
    return _highest(image).bit_length()


def _tag(image: Any, number: int) -> tuple[int, ...]:
    return tuple(np.atleast_1d(image.tag_v2.get(number, 0)).tolist())


def _highest(image: Any) -> int:
    """The value of white that the header of a PPM or PGM gives; 255 for other formats."""
    arguments = image.tile[0].args if image.format == "PPM" and image.tile else None
    match arguments:
        case (str(), int(highest)):
            return highest
    return 255


def _deep_grey(image: Image.Image) -> Stored:
    highest, values = _highest(image), np.array(image)
    if image.format == "TIFF" and values.dtype == np.int32 and _tag(image, _SAMPLE_FORMAT) == (_UNSIGNED,):
        values = values.view(np.uint32)
    deep = torch.from_numpy(values.astype(np.float64))[None]
    if not deep.isfinite().all():
        raise UserError("some of its pixels are no finite numbers")
    if highest != 255:  # Pillow has stretched them to 65,535
        deep = (deep * (highest / 65_535)).round()
    transparent = image.info.get("transparency") if image.format == "PNG" else None
    return Stored(deep, None if transparent is None else _opacity((deep[0] != transparent).double()))


def _deep_colours(image: Image.Image, encoded: bytes) -> Stored:
    if image.format != "PNG" or not hasattr(torch.ops.image, "decode_png"):
        raise UserError("its colours have more than 8 bits each, which are read from PNG only: save it as a PNG")
    image.load()  # what Pillow has read without complaint doesn't end the process in torchvision
    planes = torch.ops.image.decode_png(_buffer(encoded), _AS_STORED, False).double()
    if len(planes) % 2:
        return Stored(planes)
    return Stored(planes[:-1], _opacity(planes[-1] / 65_535))


def _opacity(alpha: Tensor) -> Tensor | None:
    return alpha if alpha.min() < 1 else None


def _planes(image: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


def _buffer(encoded: bytes) -> Tensor:
    return torch.frombuffer(bytearray(encoded), dtype=torch.uint8)


def _corrupt(name: str, encoded: bytes, error: Exception) -> CorruptImageError:
    first_line = (str(error) or type(error).__name__).splitlines()[0]
    reason = re.sub(r" <_io.BytesIO.*>", "", first_line)
    return CorruptImageError(
        f"{name}: not a readable image of {len(encoded)} bytes ({reason}); "
        f"replace the file, or set dataset.on_corrupt=skip"
    )
