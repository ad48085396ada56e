"""From the bytes of an image file to RGB pixels, whatever kind of file it is.

JPEG, recognised by its first bytes and not by its name, goes through torchvision; what that refuses and every other
format through Pillow: on a damaged PNG torchvision ends the process. All come out as 8-bit RGB: greys and palettes are
spread over the channels, CMYK is converted, 16-bit PNGs keep their upper 8 bits, and alpha is dropped, so that a
transparent pixel shows the colour stored under it. Of an animation the first frame counts.

The EXIF orientation is passed over, as the loaders of torchvision and timm do: pictures and the official boxes are as
the pixels are stored.
"""

import io
import re
from typing import NamedTuple

import numpy as np
import torch
import torchvision  # noqa: F401  its operators
from PIL import Image
from torch import Tensor

from srp_exp.errors import UserError

_JPEG = b"\xff\xd8\xff"
_SCAN, _END = b"\xff\xda", b"\xff\xd9"  # markers of JPEG; its coded pixels contain neither
_FRAMES = frozenset({0xC0, 0xC1, 0xC2})  # markers of a frame: baseline, extended and progressive
_RGB = 3  # torchvision.io.ImageReadMode.RGB
_FORMATS = ("JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF", "PPM")  # the others of Pillow may call programs
_REDUCTIONS = (8, 4)  # of libjpeg's; by 2 it saves a tenth of the time only
_SPARE = 1.5  # as large at least, times the output, stays what is reduced; with less its sharpness would show


class CorruptImageError(UserError):
    """An image file that is cut short, damaged, or no image."""


class Region(NamedTuple):
    """A rectangle of a picture, in pixels."""

    top: int
    left: int
    height: int
    width: int


def decode(encoded: bytes, name: str) -> Tensor:
    """The whole picture as (3, H, W) uint8. Raises CorruptImageError that begins with `name`."""
    try:
        return _decode_with_torchvision(encoded)
    except RuntimeError:
        try:
            return _decode_with_pillow(encoded, reduction=1)
        except Exception as error:  # on damaged files Pillow's plugins raise nearly anything
            raise _corrupt(name, encoded, error) from None


class Picture:
    """An encoded image, decoded no finer than what is asked of it.

    height, width: of the whole picture, in pixels. `name` is for messages.
    """

    def __init__(self, encoded: bytes, name: str):
        self._encoded, self.name = encoded, name
        self._whole: Tensor | None = None
        size = _jpeg_size(encoded) if encoded.startswith(_JPEG) else None
        if size is None:
            self._whole = decode(encoded, name)
            _, self.height, self.width = self._whole.shape
        else:
            self.height, self.width = size

    def pixels(self, region: Region, height: int, width: int) -> Tensor:
        """The pixels of `region`, given in pixels of the whole picture, as (3, H, W) uint8.

        height, width: what the region will be resized to. A JPEG in which it is at least six (twelve) times as
        large is decoded at a quarter (an eighth) of its size, which libjpeg does while it transforms the blocks, and
        (H, W) are those of the region there. What that saves and changes: scripts/bench_input.py. Raises
        CorruptImageError.
        """
        ratio = min(region.height / height, region.width / width)
        reduction = next((reduction for reduction in _REDUCTIONS if reduction * _SPARE <= ratio), 1)
        whole = self._decode(reduction)
        down, across = whole.shape[1] / self.height, whole.shape[2] / self.width
        top, bottom = round(region.top * down), round((region.top + region.height) * down)
        left, right = round(region.left * across), round((region.left + region.width) * across)
        return whole[:, top:bottom, left:right]

    def _decode(self, reduction: int) -> Tensor:
        if self._whole is not None:
            return self._whole
        if reduction == 1:
            return decode(self._encoded, self.name)
        try:
            return _decode_with_pillow(self._encoded, reduction)
        except Exception as error:
            raise _corrupt(self.name, self._encoded, error) from None


def _decode_with_torchvision(encoded: bytes) -> Tensor:
    """Raises RuntimeError for what torchvision can't read.

    Calls the operator below torchvision.io, whose functions warn of their removal since 0.29; where it has happened,
    Pillow, a seventh slower, decodes all.
    """
    if encoded.startswith(_JPEG) and hasattr(torch.ops.image, "decode_jpeg"):
        data = torch.frombuffer(bytearray(encoded), dtype=torch.uint8)
        image: Tensor = torch.ops.image.decode_jpeg(data, _RGB, False)
        return image
    raise RuntimeError("torchvision doesn't decode this format")


def _decode_with_pillow(encoded: bytes, reduction: int) -> Tensor:
    """Decode at 1 / reduction of the size, if it is a JPEG. Raises whatever Pillow raises."""
    Image.init()  # loads the plugins of all formats, once
    image: Image.Image = Image.open(io.BytesIO(encoded), formats=_FORMATS)
    if image.format == "PNG":
        image.verify()  # the checksums of its pixels, which loading passes over
        image = Image.open(io.BytesIO(encoded), formats=("PNG",))
    if reduction > 1:
        if encoded.find(_END, encoded.rfind(_SCAN)) < 0:  # of which Pillow complains at full size only
            raise UserError("image file is truncated")
        image.draft("RGB", (image.width // reduction, image.height // reduction))
    if image.format == "PNG" and image.mode == "I;16":
        image = Image.fromarray((np.array(image) >> 8).astype(np.uint8))
    if image.mode[0] in "IF":
        raise UserError(f"pixels of mode {image.mode} have no known range")
    # Through RGBA, as Pillow warns of a palette with alpha that loses it otherwise.
    rgb = (image.convert("RGBA") if image.mode == "P" else image).convert("RGB")
    return torch.from_numpy(np.array(rgb)).permute(2, 0, 1)


def _jpeg_size(encoded: bytes) -> tuple[int, int] | None:
    """Height and width, from the frame's header; None for what is no plain JPEG, of which `decode` will say more.

    Pillow opens a file in 20 microseconds, and in three times that between pictures, as it reads all headers.
    """
    at = 2
    while at + 9 <= len(encoded) and encoded[at] == 0xFF:
        marker, length = encoded[at + 1], int.from_bytes(encoded[at + 2 : at + 4], "big")
        if marker in _FRAMES:
            height, width = (int.from_bytes(encoded[start : start + 2], "big") for start in (at + 5, at + 7))
            return (height, width) if height and width else None
        if marker == 0xE2 and encoded.startswith(b"MPF\0", at + 4):  # several pictures in one file
            return None
        at += 2 + length
    return None


def _corrupt(name: str, encoded: bytes, error: Exception) -> CorruptImageError:
    first_line = (str(error) or type(error).__name__).splitlines()[0]
    reason = re.sub(r" <_io.BytesIO.*>", "", first_line)
    return CorruptImageError(
        f"{name}: not a readable image of {len(encoded)} bytes ({reason}); "
        f"replace the file, or set dataset.on_corrupt=skip"
    )
