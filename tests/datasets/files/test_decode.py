"""Image files as they are in the wild become RGB, or an error that names the file."""

import io
import subprocess
import sys
import warnings

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torchvision.datasets.folder import default_loader

from srp_exp.datasets.files.decode import CorruptImageError, Picture, Region, decode
from srp_exp.datasets.files.transforms import window_of

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
DEEP = GREY.astype(np.uint16) * 256 + 200
LOSSLESS = {
    "png rgb": (encode(RGB, "PNG"), RGB),
    "png grey": (encode(GREY, "PNG"), GREY3),
    "png one bit": (encode(Image.fromarray(GREY > 128), "PNG"), 255 * (GREY3 > 128)),
    "png alpha": (encode(smooth(channels=4), "PNG"), RGB),
    "png grey and alpha": (encode(Image.fromarray(np.dstack([GREY, RGB[..., 1]])), "PNG"), GREY3),
    "png palette": (encode(PALETTE, "PNG"), PALETTE_COLOURS),
    "png palette and alpha": (encode(PALETTE, "PNG", transparency=bytes(range(0, 256, 8))), PALETTE_COLOURS),
    "png 16 bit": (encode(DEEP, "PNG"), GREY3),
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


@pytest.mark.parametrize("kind", JPEGS)
@pytest.mark.parametrize("more", [{}, {"exif": orientation(6)}, {"icc_profile": bytes(70_000)}, {"comment": b"a word"}])
def test_the_size_in_the_header_is_that_of_the_pixels(kind, more) -> None:
    """Whatever stands before it: a thumbnail has a size of its own, and a profile may take several segments."""
    if more and kind == "multi-picture":
        pytest.skip("Pillow writes these without")
    image = Image.open(io.BytesIO(JPEGS[kind][0]))
    encoded = JPEGS[kind][0] if not more else encode(image, "JPEG", progressive=kind == "progressive", **more)
    encoded = encoded[:2] + b"\xff\xe1\x00\x20Exif\0\0" + encode(RGB[:9, :9], "JPEG")[:24] + encoded[2:]
    picture = Picture(encoded, kind)
    assert (picture.height, picture.width) == (HEIGHT, WIDTH)
    assert picture.pixels(window_of(picture, None), HEIGHT, WIDTH).shape == (3, HEIGHT, WIDTH)


@pytest.mark.parametrize("kind", LOSSLESS)
def test_lossless_files_give_their_very_colours(kind) -> None:
    encoded, colours = LOSSLESS[kind]
    np.testing.assert_array_equal(as_array(decode(encoded, kind)), colours)


@pytest.mark.parametrize("kind", JPEGS)
def test_jpegs_give_their_colours_within_the_loss_of_jpeg(kind) -> None:
    encoded, colours = JPEGS[kind]
    difference = np.abs(as_array(decode(encoded, kind)) - colours.astype(int))
    assert difference.mean() < 1.5
    assert difference.max() < 10


@pytest.mark.parametrize("number", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "MPO"])
def test_the_exif_orientation_is_passed_over_as_torchvision_and_timm_do(tmp_path, number, kind) -> None:
    file = tmp_path / "class" / f"x.{kind.lower()}"
    file.parent.mkdir()
    file.write_bytes(encode(RGB, kind, exif=orientation(number)))
    loaded = default_loader(str(file))  # torchvision's
    with file.open("rb") as opened:
        assert np.array_equal(loaded, Image.open(opened).convert("RGB"))  # what timm's ImageDataset does
    picture = Picture(file.read_bytes(), "x")
    assert (picture.height, picture.width) == (HEIGHT, WIDTH)
    difference = as_array(decode(file.read_bytes(), "x")) - np.asarray(loaded).astype(int)
    assert np.abs(difference).max() <= 1


@pytest.mark.parametrize("number", [1, 6])
@pytest.mark.parametrize("reduction, size", [(1, (45, 60)), (4, (360, 480)), (8, (720, 960))])
def test_a_picture_is_decoded_as_small_as_it_is_needed(number, reduction, size) -> None:
    stored = smooth(*size)
    picture = Picture(encode(stored, "JPEG", quality=95, exif=orientation(number)), "x.jpg")
    assert (picture.height, picture.width) == size
    height, width = size[0] // reduction, size[1] // reduction
    pixels = as_array(picture.pixels(Region(0, 0, *size), int(height / 1.5), int(width / 1.5)))
    assert pixels.shape == (height, width, 3)
    blocks = stored.astype(int).reshape(height, reduction, width, reduction, 3).mean((1, 3))
    assert np.abs(pixels - blocks).mean() < 2


@pytest.mark.parametrize("number", range(1, 9))
def test_an_official_box_is_cut_from_the_stored_pixels(number) -> None:
    picture = Picture(encode(RGB, "PNG", exif=orientation(number)), "x.png")
    window = window_of(picture, torch.tensor([10.0, 5.0, 50.0, 25.0]))
    np.testing.assert_array_equal(as_array(picture.pixels(window, 20, 40)), RGB[5:25, 10:50])


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF"])
@pytest.mark.parametrize("part", [0.02, 0.3, 0.6, 0.95])
def test_a_truncated_file_is_named(kind, part) -> None:
    whole = encode(np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8), kind)
    cut = whole[: int(part * len(whole))]
    with pytest.raises(CorruptImageError, match=r"^train/bird.jpg: not a readable image of \d+ bytes \(") as caught:
        decode(cut, "train/bird.jpg")
    assert "\n" not in str(caught.value)
    assert "0x" not in str(caught.value)
    with pytest.raises(CorruptImageError, match="train/bird.jpg"):
        picture = Picture(cut, "train/bird.jpg")
        picture.pixels(Region(0, 0, picture.height, picture.width), HEIGHT, WIDTH)


DAMAGE = """
import sys, numpy as np
from srp_exp.datasets.files.decode import CorruptImageError, decode
whole, ended = sys.stdin.buffer.read(), []
random = np.random.default_rng(0)
for number in range(60):
    damaged = bytearray(whole)
    at = int(random.integers(41, len(whole) - 40))
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
print(len(ended), all(ended))
"""


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "RGBA"])
def test_a_damaged_png_is_named_and_does_not_end_the_process(mode) -> None:
    """As torchvision's decoder does, by a segmentation fault."""
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8))
    done = subprocess.run([sys.executable, "-c", DAMAGE], input=encode(noise.convert(mode), "PNG"), capture_output=True)
    assert (done.returncode, done.stdout.split()) == (0, [b"60", b"True"]), done.stderr


@pytest.mark.parametrize("cut", [1, 2, 50, 3000])
def test_a_large_jpeg_cut_at_its_end_is_not_taken_at_a_reduced_size_either(cut) -> None:
    encoded = encode(smooth(400, 400), "JPEG")[:-cut]
    with pytest.raises(CorruptImageError, match="large.jpg"):
        Picture(encoded, "large.jpg").pixels(Region(0, 0, 400, 400), 50, 50)


@pytest.mark.parametrize("content", [b"", b"\xff\xd8\xff", b"<html>404</html>", bytes(1000), b"%!PS-Adobe-3.0 EPSF"])
def test_what_is_no_image_is_refused(content) -> None:
    with pytest.raises(CorruptImageError, match="page.jpg"):
        decode(content, "page.jpg")


def test_pixels_of_unknown_range_are_refused() -> None:
    with pytest.raises(CorruptImageError, match="depth.tif.*mode F have no known range"):
        decode(encode(GREY.astype(np.float32), "TIFF"), "depth.tif")


def test_a_region_is_cut_out_of_the_whole_picture() -> None:
    for encoded, _ in (JPEGS["rgb"], LOSSLESS["png rgb"]):
        cut = Picture(encoded, "x").pixels(Region(5, 11, 20, 30), 19, 29)
        assert torch.equal(cut, decode(encoded, "x")[:, 5:25, 11:41])


@pytest.mark.parametrize("output, reduction", [(67, 1), (66, 4), (34, 4), (33, 8), (10, 8)])
def test_a_jpeg_is_reduced_no_further_than_the_output_allows(output, reduction) -> None:
    image = smooth(600, 800)
    picture = Picture(encode(image, "JPEG", quality=95), "x")
    pixels = as_array(picture.pixels(Region(100, 160, 400, 480), output, output))
    assert pixels.shape == (400 // reduction, 480 // reduction, 3)
    region = image[100:500, 160:640].reshape(400 // reduction, reduction, 480 // reduction, reduction, 3).mean((1, 3))
    assert np.abs(pixels - region).mean() < 1.5


def test_nothing_is_printed_or_warned_of(capfd) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for encoded, _ in (LOSSLESS | JPEGS).values():
            decode(encoded, "x")
    assert capfd.readouterr() == ("", "")
