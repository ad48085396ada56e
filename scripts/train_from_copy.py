"""Train a network from a folder of pictures and from the prepared copy of it, and compare the two trainings.

    python scripts/train_from_copy.py ARCHIVE [--side 128] [override ...]

ARCHIVE: a tar of train/<class>/ and val/<class>/, as ../shared/data/imagenette_128.tar. The overrides are those of
srp-exp, after these: seresnet18 of timm with scheduled SRP, ten epochs, pictures read from files in both. The copy
keeps the bytes of pictures whose shorter side isn't beyond `--side`: of these both must end in the same weights.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tarfile
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from srp_exp.training.checkpoints import FINAL, load, model_state

NETWORK = ["backbone=timm", "backbone.model=seresnet18", "srp=scheduled", "recipe=cifar_quick", "recipe.epochs=10"]
NETWORK += ["recipe.batch_size=64", "recipe.lr=0.1", "speed=fast", "dataset.memory_mb=0"]


def python(*arguments: str) -> None:
    subprocess.run([sys.executable, *arguments], check=True, stdout=sys.stderr)


def train(output_dir: Path, *overrides: str) -> tuple[dict[str, Any], float, dict[str, torch.Tensor]]:
    """results.json of a training, its images per second (median of reports after the first epoch), and its weights."""
    python("-m", "srp_exp", f"output_dir={output_dir}", *overrides)
    (run,) = (output_dir / "runs").iterdir()
    first_epoch = json.loads((run / "metrics.jsonl").read_text().splitlines()[0])["step"]
    reports = EventAccumulator(str(run)).Reload().Scalars("speed/images_per_second")
    speed = statistics.median(report.value for report in reports if report.step > first_epoch)
    return json.loads((run / "results.json").read_text()), speed, model_state(load(run / "checkpoints" / FINAL))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("archive", type=Path)
    parser.add_argument("--side", type=int, default=128, help="the shorter side of the copy's pictures in pixels")
    parser.add_argument("overrides", nargs="*")
    options = parser.parse_args()
    with TemporaryDirectory() as place:
        folder, copy = Path(place, "folder"), Path(place, "copy")
        with tarfile.open(options.archive) as archive:
            archive.extractall(folder, filter="data")
        prepare = "dataset=folder", f"dataset.root={folder}", f"resize={options.side}", f"output={copy}"
        python("scripts/prepare_data.py", *prepare)
        common = ["dataset=folder", f"dataset.augmentation.crop_size={options.side}", *NETWORK, *options.overrides]
        ways = {
            "folder": [f"dataset.root={folder}"],
            "copy": [f"dataset.root={copy}", f"dataset.copy_side={options.side}"],
        }
        found = {name: train(Path(place, f"of {name}"), *common, *own) for name, own in ways.items()}
    print("| read from | test top-1 (%) | training, images/s | the whole run (s) |")
    print("|---|---:|---:|---:|")
    for name, (results, speed, _) in found.items():
        print(f"| {name} | {100 * results['test']['top1']:.2f} | {speed:.1f} | {results['training_seconds']:.0f} |")
    one, other = (weights for *_, weights in found.values())
    same = one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)
    print(f"\nweights {'equal to the bit' if same else 'DIFFERENT'}")
    sys.exit(not same)


if __name__ == "__main__":
    main()
