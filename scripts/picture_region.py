"""The regions that a step of SE-ResNet-50 with scheduled SRP pooled over, on a photograph; writes docs/region.png.

    python scripts/picture_region.py

The photograph comes with scikit-learn: by danielbuechele, https://www.flickr.com/photos/danielbuechele/6061409035,
CC BY 2.0 (https://creativecommons.org/licenses/by/2.0/); cut to its middle square here, and dimmed outside the regions.
"""

from pathlib import Path

import matplotlib.pyplot as plt
import timm
import torch
from matplotlib.patches import Rectangle
from sklearn.datasets import load_sample_image
from torchvision.transforms.v2 import functional as F

from srp_exp.srp import apply_srp, read_regions

DOCUMENT = Path(__file__).parent.parent / "docs" / "region.png"
SIDE, SHOWN, DIM = 448, (3, 8, 13, 15), 0.35  # pixels; modules; brightness of what isn't pooled


def main() -> None:
    pixels = torch.tensor(load_sample_image("china.jpg")).permute(2, 0, 1)
    photograph = F.center_crop(F.resize(pixels, [SIDE]), [SIDE])
    batch = F.normalize(photograph.float()[None] / 255, [0.5] * 3, [0.5] * 3).expand(2, -1, -1, -1)
    torch.manual_seed(1)
    model = timm.create_model("legacy_seresnet50")
    records = apply_srp(model, example_input=batch)
    model.train()(batch)
    regions = read_regions(model)  # of both samples of the batch, which are the same picture

    figure, axes = plt.subplots(1, len(SHOWN), figsize=(8, 2.15), layout="constrained")
    for axis, number in zip(axes, SHOWN, strict=True):
        record = records[number]
        stride = SIDE // record.map_size[0]
        top, left, height, width = (stride * regions[record.name][0, 0]).tolist()
        seen = photograph.float() * DIM
        rows, columns = slice(top, top + height), slice(left, left + width)
        seen[:, rows, columns] = photograph[:, rows, columns].float()
        axis.imshow(seen.byte().permute(1, 2, 0))
        axis.add_patch(Rectangle((left, top), width - 1, height - 1, fill=False, edgecolor="white"))
        axis.set(xticks=[], yticks=[])
        axis.set_title(f"module {number + 1} of {len(records)}, scale {record.scale:.2f}", fontsize=8)
    figure.savefig(DOCUMENT, dpi=110, metadata={"Software": None})


if __name__ == "__main__":
    main()
