"""Pictures in a folder for each class, as a user has them: two classes that a network can tell by their brightness."""

from pathlib import Path

import torch
from PIL import Image


def make_cats_and_dogs(home: Path, height: int, width: int) -> Path:
    """home/train and home/test with four noisy PNGs of a cat and of a dog each, from `width` pixels wide on."""
    draw = torch.Generator().manual_seed(0)
    for part in ("train", "test"):
        for label, name in enumerate(("cat", "dog")):
            (home / part / name).mkdir(parents=True)
            for number in range(4):
                pixels = torch.randint(0, 128, (height, width + number, 3), generator=draw) + 100 * label
                Image.fromarray(pixels.byte().numpy()).save(home / part / name / f"{number}.png")
    return home
