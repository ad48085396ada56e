"""Generated pictures with the statistics of photographs, for benchmarks.

Ellipses that hide each other, of radii after a power law, under a texture of 1/f noise: there are flat places, edges
and grain, and the power falls with the frequency to the 2.5, near the square that photographs have. A JPEG of 500 x 375
pixels takes 88 kB at quality 90. Source of the model: Lee, Mumford and Huang, "Occlusion models for natural images",
2001.
"""

import io
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw

from srp_exp.datasets.files.file_split import FileSplit
from srp_exp.datasets.files.source import FolderSource


def natural_picture(seed: int, height: int, width: int) -> Image.Image:
    random = np.random.default_rng(seed)
    image = Image.new("RGB", (width, height))
    canvas = ImageDraw.Draw(image)
    smallest, largest = width / 125, 0.4 * width
    radii = np.sort((smallest**-2 + random.random(600) * (largest**-2 - smallest**-2)) ** -0.5)[::-1]
    for radius in radii:
        x, y = random.random(2) * (width, height)
        flatness = random.uniform(0.5, 1)
        colour = 128 + random.normal(0, 60) + random.normal(0, 20, 3)
        corners = (x - radius, y - radius * flatness, x + radius, y + radius * flatness)
        canvas.ellipse(corners, fill=tuple(colour.clip(0, 255).astype(int).tolist()))
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None])
    frequency[0, 0] = 1
    waves = random.normal(size=frequency.shape) + 1j * random.normal(size=frequency.shape)
    texture = np.fft.irfft2(waves / frequency**1.2, (height, width))
    pixels = np.asarray(image) + 14 * (texture / texture.std())[..., None]
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def encoded_picture(seed: int, height: int, width: int) -> bytes:
    """As JPEG of quality 90."""
    file = io.BytesIO()
    natural_picture(seed, height, width).save(file, "JPEG", quality=90)
    return file.getvalue()


def write_pictures(folder: Path, number: int) -> FileSplit:
    """`number` JPEGs of 500 x 375 pixels in one class folder, as torchvision's ImageFolder wants it."""
    names = [f"class/{position:05d}.jpg" for position in range(number)]
    (folder / "class").mkdir(parents=True)
    for position, name in enumerate(names):
        (folder / name).write_bytes(encoded_picture(position, 375, 500))
    positions = torch.arange(number)
    return FileSplit(FolderSource(folder, names), positions, torch.zeros_like(positions), positions)
