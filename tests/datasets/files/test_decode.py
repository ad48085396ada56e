"""Image files as they are in the wild become RGB, or an error that names the file."""

import io
import struct
import subprocess
import sys
import warnings
import zlib

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torchvision.datasets.folder import default_loader

from srp_exp.datasets.files.decode import (
    MOST_PIXELS,
    Reading,
    check_header,
    decode,
    stored,
)
from srp_exp.datasets.files.transforms import cut_to_box
from srp_exp.errors import CorruptImageError, UserError

HEIGHT, WIDTH = 45, 60


def smooth(height: int = HEIGHT, width: int = WIDTH, channels: int = 3) -> np.ndarray:
    """A picture of slow gradients that are different in every channel and corner, (H, W, C) uint8."""
    y, x = np.linspace(0, 1, height)[:, None], np.linspace(0, 1, width)[None]
    planes = [60 + 120 * x + 50 * y, 200 - 90 * x * y, 40 + 150 * y * y - 20 * x, 90 + 100 * x + 0 * y]
    return np.stack(planes[:channels], axis=2).astype(np.uint8)


def encode(image: np.ndarray | Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(file, kind, **options)
    return file.getvalue()


def as_array(image: Tensor) -> np.ndarray:
    assert image.dtype == torch.uint8
    return image.permute(1, 2, 0).numpy().astype(int)


def orientation(number: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = number
    return exif


RGB = smooth()
GREY = RGB[..., 0]
GREY3 = np.stack([GREY] * 3, axis=2)
PALETTE = Image.fromarray(RGB).quantize(32)
PALETTE_COLOURS = np.array(PALETTE.getpalette()).reshape(-1, 3)[np.asarray(PALETTE)]
ALPHA = smooth(channels=4)
GREY_ALPHA = np.dstack([GREY, RGB[..., 1]])


def over(colours: np.ndarray, alpha: np.ndarray, background: tuple[int, int, int] = (255, 255, 255)) -> np.ndarray:
    """A picture (H, W, C) over a background, its opacity in 255ths; rounded as arithmetic has it."""
    part = alpha[..., None] / 255
    return np.floor(colours * part + np.array(background) * (1 - part) + 0.5)


LOSSLESS = {
    "png rgb": (encode(RGB, "PNG"), RGB),
    "png grey": (encode(GREY, "PNG"), GREY3),
    "png one bit": (encode(Image.fromarray(GREY > 128), "PNG"), 255 * (GREY3 > 128)),
    "png alpha": (encode(ALPHA, "PNG"), over(RGB, ALPHA[..., 3])),
    "png opaque": (encode(np.dstack([RGB, np.full_like(GREY, 255)]), "PNG"), RGB),
    "webp alpha": (encode(ALPHA, "WEBP", lossless=True, exact=True), over(RGB, ALPHA[..., 3])),
    "png grey and alpha": (encode(GREY_ALPHA, "PNG"), over(GREY3, RGB[..., 1])),
    "png palette": (encode(PALETTE, "PNG"), PALETTE_COLOURS),
    "png palette and alpha": (
        encode(PALETTE, "PNG", transparency=bytes(range(0, 256, 8))),
        over(PALETTE_COLOURS, 8 * np.asarray(PALETTE)),
    ),
    "png of one transparent colour": (
        encode(RGB, "PNG", transparency=tuple(RGB[0, 0].tolist())),
        np.where((RGB[0, 0] == RGB).all(2, keepdims=True), 255, RGB),
    ),
    "gif of one transparent colour": (
        encode(PALETTE, "GIF", transparency=3),
        np.where(np.asarray(PALETTE)[..., None] == 3, 255, PALETTE_COLOURS),
    ),
    "png rotated": (encode(RGB, "PNG", exif=orientation(6)), RGB),
    "bmp": (encode(RGB, "BMP"), RGB),
    "gif": (encode(PALETTE, "GIF"), PALETTE_COLOURS),
    "gif of two frames": (
        encode(PALETTE, "GIF", save_all=True, append_images=[Image.fromarray(GREY)]),
        PALETTE_COLOURS,
    ),
    "webp": (encode(RGB, "WEBP", lossless=True), RGB),
    "tiff": (encode(RGB, "TIFF"), RGB),
}
JPEGS = {
    "rgb": (encode(RGB, "JPEG", quality=95), RGB),
    "progressive": (encode(RGB, "JPEG", quality=95, progressive=True), RGB),
    "grey": (encode(GREY, "JPEG", quality=95), GREY3),
    "cmyk": (encode(Image.fromarray(RGB).convert("CMYK"), "JPEG", quality=95), RGB),
    "multi-picture": (encode(RGB, "MPO", quality=95, save_all=True, append_images=[Image.fromarray(GREY3)]), RGB),
}


def test_the_size_in_the_header_is_that_of_the_pixels() -> None:
    """Whatever stands before it: a thumbnail has a size of its own, and a profile may take several segments."""
    encodings = [encoded for encoded, _ in JPEGS.values()]
    image = Image.fromarray(RGB)
    for more in ({"exif": orientation(6)}, {"icc_profile": bytes(70_000)}, {"comment": b"a word"}):
        encodings += [encode(image, "JPEG", **more), encode(image, "JPEG", progressive=True, **more)]
    for encoded in encodings:
        thumbnail = b"\xff\xe1\x00\x20Exif\0\0" + encode(RGB[:9, :9], "JPEG")[:24]
        encoded = encoded[:2] + thumbnail + encoded[2:]
        assert decode(encoded, "x").shape == (3, HEIGHT, WIDTH)


def test_lossless_files_give_their_very_colours() -> None:
    for kind, (encoded, colours) in LOSSLESS.items():
        np.testing.assert_array_equal(as_array(decode(encoded, kind)), colours, err_msg=kind)


def test_jpegs_give_their_colours_within_the_loss_of_jpeg() -> None:
    for kind, (encoded, colours) in JPEGS.items():
        difference = np.abs(as_array(decode(encoded, kind)) - colours.astype(int))
        assert difference.mean() < 1.5 and difference.max() < 10, kind


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "MPO"])
def test_the_exif_orientation_is_ignored_as_torchvision_and_timm_do(tmp_path, kind) -> None:
    file = tmp_path / "class" / f"x.{kind.lower()}"
    file.parent.mkdir()
    for number in range(1, 9):
        file.write_bytes(encode(RGB, kind, exif=orientation(number)))
        loaded = default_loader(str(file))  # torchvision's
        with file.open("rb") as opened:
            assert np.array_equal(loaded, Image.open(opened).convert("RGB"))  # what timm's ImageDataset does
        difference = as_array(decode(file.read_bytes(), "x")) - np.asarray(loaded).astype(int)
        assert np.abs(difference).max() <= 1


def test_an_official_box_is_cut_from_the_stored_pixels() -> None:
    for number in range(1, 9):
        picture = decode(encode(RGB, "PNG", exif=orientation(number)), "x.png")
        window = cut_to_box(picture, torch.tensor([10.0, 5.0, 50.0, 25.0]), "x.png")
        np.testing.assert_array_equal(as_array(window), RGB[5:25, 10:50])


def test_a_truncated_file_is_named() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    for kind in ("JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF"):
        whole = encode(noise, kind)
        for part in (0.02, 0.3, 0.6, 0.95):
            with pytest.raises(CorruptImageError, match=r"^train/bird.jpg: not a readable image of \d+ byt") as caught:
                decode(whole[: int(part * len(whole))], "train/bird.jpg")
            assert "\n" not in str(caught.value) and "0x" not in str(caught.value)


DAMAGE = """
import io, numpy as np
from PIL import Image
from srp_exp.datasets.files.decode import decode
from srp_exp.errors import CorruptImageError
random = np.random.default_rng(0)
noise = Image.fromarray(random.integers(0, 256, (45, 60, 3), dtype=np.uint8))
for mode in ("RGB", "L", "P", "RGBA"):
    file, ended = io.BytesIO(), []
    noise.convert(mode).save(file, "PNG")
    for number in range(60):
        damaged = bytearray(file.getvalue())
        at = int(random.integers(41, len(damaged) - 40))
        if number % 3 == 0:
            damaged[at] ^= 1 << number % 8  # a bit
        elif number % 3 == 1:
            damaged[at : at + 30] = bytes(30)
        else:
            damaged[-16 - number % 4] ^= 0x10  # the checksum of the pixels
        try:
            decode(bytes(damaged), "train/bird.png")
        except CorruptImageError as error:
            ended.append(str(error).startswith("train/bird.png: not a readable image"))
    print(mode, len(ended), all(ended))
"""


def test_a_damaged_png_is_named_and_does_not_end_the_process() -> None:
    """As torchvision's decoder does, by a segmentation fault."""
    done = subprocess.run([sys.executable, "-c", DAMAGE], capture_output=True, text=True)
    assert (done.returncode, done.stdout.splitlines()) == (
        0, [f"{mode} 60 True" for mode in ("RGB", "L", "P", "RGBA")],
    ), done.stderr  # fmt: skip


def test_what_is_no_image_is_refused() -> None:
    for content in (b"", b"\xff\xd8\xff", b"<html>404</html>", bytes(1000), b"%!PS-Adobe-3.0 EPSF"):
        with pytest.raises(CorruptImageError, match="page.jpg"):
            decode(content, "page.jpg")


def png_of_16_bits(values: np.ndarray, colour_type: int) -> bytes:
    """A PNG of (H, W, C) values, as its specification has it: 0 is grey, 2 RGB, 4 grey and 6 RGB with alpha."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    height, width, _ = values.shape
    lines = b"".join(b"\0" + line.astype(">u2").tobytes() for line in values)
    header = struct.pack(">IIBBBBB", width, height, 16, colour_type, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")


def pgm(values: np.ndarray, highest: int) -> bytes:
    return b"P5\n%d %d\n%d\n" % (*values.shape[::-1], highest) + values.astype(">u2").tobytes()


TWELVE = (16 * smooth(channels=4)).astype(np.uint16)  # of 12 bits: 0 to 4,095
DEEP = {
    "png": (encode(TWELVE[..., 0], "PNG"), TWELVE[..., :1]),
    "png rgb": (png_of_16_bits(TWELVE[..., :3], 2), TWELVE[..., :3]),
    "tiff": (encode(TWELVE[..., 0], "TIFF"), TWELVE[..., :1]),
    "tiff of 32 bits": (encode(TWELVE[..., 0].astype(np.int32), "TIFF"), TWELVE[..., :1]),
    "tiff of floats": (encode(TWELVE[..., 0].astype(np.float32), "TIFF"), TWELVE[..., :1]),
    "pgm": (pgm(TWELVE[..., 0], 65_535), TWELVE[..., :1]),
    "pgm of 12 bits": (pgm(TWELVE[..., 0], 4_095), TWELVE[..., :1]),
}


def test_values_of_more_than_8_bits_become_levels_of_their_range() -> None:
    low, high = 1_000, 3_000
    for kind, (encoded, values) in DEEP.items():
        np.testing.assert_array_equal(stored(encoded, kind).values.permute(1, 2, 0), values, err_msg=kind)
        levels = np.floor(np.clip((values - float(low)) / (high - low), 0, 1) * 255 + 0.5)
        read = decode(encoded, kind, Reading(value_range=(low, high)))
        np.testing.assert_array_equal(as_array(read), np.broadcast_to(levels, (HEIGHT, WIDTH, 3)), err_msg=kind)
        with pytest.raises(UserError, match=rf"{kind}: has more than 8 bits.*dataset\.value_range=\[low, high\]"):
            decode(encoded, kind)


def test_transparency_of_16_bits() -> None:
    for colour_type, values in ((4, TWELVE[..., :2]), (6, TWELVE)):
        values = np.dstack([values[..., :-1], 16 * values[..., -1:]])
        part = values[..., -1:] / 65_535
        wanted = np.floor(values[..., :-1] / 4_095 * 255 * part + np.array([10, 20, 30]) * (1 - part) + 0.5)
        read = decode(png_of_16_bits(values, colour_type), "x", Reading((10, 20, 30), (0, 4_095)))
        np.testing.assert_array_equal(as_array(read), wanted)


def test_the_background_is_seen_through_transparent_pixels() -> None:
    read = decode(LOSSLESS["png alpha"][0], "x", Reading(background=(0, 100, 50)))
    np.testing.assert_array_equal(as_array(read), over(RGB, ALPHA[..., 3], (0, 100, 50)))


def test_colours_of_16_bits_that_would_lose_8_are_refused() -> None:
    for highest in (b"65535", b"1023"):
        with pytest.raises(CorruptImageError, match=r"x\.ppm: .*more than 8 bits each.*PNG"):
            decode(b"P6\n2 1\n" + highest + b"\n" + bytes(12), "x.ppm", Reading(value_range=(0, 255)))


def test_values_that_are_no_numbers_are_refused() -> None:
    with pytest.raises(CorruptImageError, match=r"depth\.tif: .*no finite numbers"):
        stored(encode(np.array([[1.0, np.nan]], np.float32), "TIFF"), "depth.tif")


def test_one_size_is_too_large_in_all_formats() -> None:
    """Found in the header, so that it costs no memory."""
    for kind in ("JPEG", "PNG", "GIF", "BMP"):
        small = encode(Image.new("L" if kind != "GIF" else "P", (16, 16)), kind)
        for height, width in ((14_000, 13_000), (12_000, 12_000), (9_460, 9_460)):
            encoded = with_size(small, kind, height, width)
            for look in (decode, check_header):
                with pytest.raises(CorruptImageError, match=rf"x: .*{height * width:,} pixels, and {MOST_PIXELS:,} "):
                    look(encoded, "x")


def with_size(encoded: bytes, kind: str, height: int, width: int) -> bytes:
    """The file with another size in its header, where the format has it."""
    places = {"PNG": (16, ">II"), "GIF": (6, "<HH"), "BMP": (18, "<ii")}
    at, form = places.get(kind) or (encoded.index(b"\xff\xc0") + 5, ">HH")
    changed = encoded[:at] + struct.pack(form, height, width) + encoded[at + struct.calcsize(form) :]
    if kind == "PNG":  # whose header has a checksum
        changed = changed[:29] + struct.pack(">I", zlib.crc32(changed[12:29])) + changed[33:]
    return changed


def test_a_range_of_values_is_two_numbers_the_lower_first() -> None:
    for wrong in ((0, 0), (5, 1), (0, float("inf")), (0, 1, 2), (1,)):
        with pytest.raises(UserError, match=r"dataset\.value_range="):
            Reading(value_range=wrong)


def test_nothing_is_printed_or_warned_of(capfd) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for encoded, _ in (LOSSLESS | JPEGS).values():
            decode(encoded, "x")
    assert capfd.readouterr() == ("", "")
