"""The coverage of random regions over a map, for both placements; writes docs/coverage.png.

    python scripts/picture_coverage.py

The probability with which a position lies in the region: counted over all regions, as the formula in docs/method.md.
"""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from numpy.typing import NDArray

from srp_exp.srp.region import PLACEMENTS, RegionPlacement, corner_range, region_side

DOCUMENT = Path(__file__).parent.parent / "docs" / "coverage.png"
SIDE, SCALES = 14, (0.25, 0.5, 0.75)


def coverage(placement: RegionPlacement, scale: float, side: int) -> NDArray[np.float64]:
    """Probability (side,) that a position of an axis lies in the region: each corner counted."""
    length = region_side(scale, side)
    corners = corner_range(placement, length, side)
    counts = np.zeros(side)
    for corner in range(corners):
        counts[(corner + np.arange(length)) % side] += 1
    return np.asarray(counts / corners)


def formula(placement: RegionPlacement, scale: float, side: int) -> NDArray[np.float64]:
    """In closed form: min(i + 1, side - i, length, corners) / corners; length / side where the region wraps."""
    length = region_side(scale, side)
    corners = side - length + 1
    positions = np.arange(side)
    if placement == "wrap":
        return np.full(side, length / side)
    nearest = np.minimum(positions + 1, side - positions)
    return np.asarray(np.minimum(nearest, min(length, corners)) / corners)


def main() -> None:
    figure, axes = plt.subplots(len(PLACEMENTS), len(SCALES), figsize=(7, 5), layout="constrained")
    for row, placement in zip(axes, PLACEMENTS, strict=True):
        for axis, scale in zip(row, SCALES, strict=True):
            rows = coverage(placement, scale, SIDE)
            assert np.allclose(rows, formula(placement, scale, SIDE))
            image = axis.imshow(np.outer(rows, rows), vmin=0, vmax=1, cmap="viridis")
            axis.set(title=f"{placement}, scale {scale}", xticks=[], yticks=[])
    figure.colorbar(image, ax=axes, shrink=0.7, label="probability to be pooled")
    figure.savefig(DOCUMENT, dpi=80, metadata={"Software": None})


if __name__ == "__main__":
    main()
