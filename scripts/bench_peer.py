"""Training from JPEGs by srp_exp and by another project's script, images per second end to end, in turns.

    python scripts/bench_peer.py --peer /elsewhere/pytorch-image-models/train.py [--rounds 3] [--images 320]
        [--device cuda] [--batch 128] [--workers 8]

The peer is train.py of huggingface/pytorch-image-models, which its wheel leaves out: bring it from that repository. It
is started as its users start it, and with --amp --amp-dtype bfloat16 --channels-last --torchcompile; ours with
speed=exact and speed=fast. All train legacy_seresnet18 on the same generated pictures (natural_pictures.py) at 128
pixels, by default in batches of 32, with two workers and on the CPU, by SGD, with random resized crops and flips; the
peer's own colour jitter stays. Each is a process of its own, that trains two epochs, of which the second is timed. A
ratio is taken within a round.
"""

import argparse
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from hydra import compose, initialize_config_dir
from natural_pictures import write_pictures
from omegaconf import OmegaConf

from srp_exp.config import CONF_DIR
from srp_exp.config.identity import plain_values
from srp_exp.config.register import register
from srp_exp.datasets.augmentation import FileAugmentation
from srp_exp.datasets.files.file_set import FileSet
from srp_exp.datasets.files.file_split import FileSplit
from srp_exp.datasets.files.source import FolderSource
from srp_exp.runs.build import build_data, build_learner, build_model
from srp_exp.runs.device import build_device, choose_kernels

CLASSES, SIDE, EPOCHS = 10, 128, 2
NAMES = tuple(f"class{number}" for number in range(CLASSES))
FAST_PEER = ["--amp", "--amp-dtype", "bfloat16", "--channels-last", "--torchcompile"]


def prepare(folder: Path, images: int) -> None:
    """Pictures in folders named by their class, under train and validation."""
    for part, count in (("train", images), ("validation", 32)):
        flat = folder / f"flat_{part}"
        flat.mkdir(parents=True)
        write_pictures(flat, count)
        for number, path in enumerate(sorted(flat.rglob("*.jpg"))):
            target = folder / part / NAMES[number % CLASSES]
            target.mkdir(parents=True, exist_ok=True)
            path.rename(target / path.name)


def ours(speed: str, folder: Path, device: str, batch_size: int, workers: int) -> float:
    """Images per second of the second epoch, in this process."""
    register()
    overrides = ["dataset=synthetic", f"dataset.num_classes={CLASSES}", f"dataset.image_size=[{SIDE},{SIDE}]"]
    overrides += [
        f"dataset.train_size={max(100, batch_size)}",
        "dataset.test_size=10",
        "backbone=timm",
        "attention=native",
        "srp=gap",
    ]
    overrides += ["backbone.model=legacy_seresnet18", f"recipe.batch_size={batch_size}"]
    overrides += [f"speed={speed}", f"device={device}", f"workers={workers}"]
    with initialize_config_dir(str(CONF_DIR), version_base=None):
        config = OmegaConf.create(plain_values(compose("config", overrides)))
    choose_kernels(config)
    data = build_data(config, build_device(device))  # its synthetic pictures give the network its shapes
    model, _ = build_model(config, data.dataset, data.device)
    files = sorted(str(path.relative_to(folder / "train")) for path in (folder / "train").rglob("*.jpg"))
    rows = torch.arange(len(files))
    labels = torch.tensor([NAMES.index(Path(file).parent.name) for file in files])
    split = FileSplit(FolderSource(folder / "train", files), rows, labels, rows)
    pictures = FileSet(
        split, split, NAMES, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), FileAugmentation(crop_size=SIDE)
    )
    batches = pictures.training_batches(split, batch_size, 0, data.placement)
    learner = build_learner(config, model.train(), data, batches.steps_per_epoch)
    for epoch in range(EPOCHS):
        start = time.perf_counter()
        for batch in batches.epoch(epoch):
            learner.train_step(batch)
        learner.totals.values.tolist()
    return batches.steps_per_epoch * batch_size / (time.perf_counter() - start)


def peer(script: Path, options: list[str], folder: Path, device: str, batch_size: int, workers: int) -> float:
    """Images per second of the peer's second epoch, as its log says."""
    command = [sys.executable, str(script), "--data-dir", str(folder), "--model", "legacy_seresnet18"]
    command += ["--device", device, "--num-classes", str(CLASSES), "--img-size", str(SIDE)]
    command += ["-b", str(batch_size), "-j", str(workers), "--epochs", str(EPOCHS), "--log-interval", "1"]
    command += ["--output", str(folder / "peer"), *options]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=folder)
    rates = re.findall(rf"Train: {EPOCHS - 1} .*?s, +([\d.]+)/s\)", done.stdout + done.stderr)
    return float(rates[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--images", type=int, default=320)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--ours", help="internal: train with this speed, and print its images per second")
    parser.add_argument("--folder", type=Path, help="of the pictures; made where it isn't there")
    arguments = parser.parse_args()
    how = (arguments.device, arguments.batch, arguments.workers)
    if arguments.ours:
        print(ours(arguments.ours, arguments.folder, *how))
        return
    folder = arguments.folder or Path(tempfile.mkdtemp())
    if not (folder / "train").is_dir():
        prepare(folder, arguments.images)
    names = ("exact", "fast", "peer", "peer, fast")
    speeds: dict[str, list[float]] = {name: [] for name in names}
    for number in range(arguments.rounds):
        for name in names[:: 1 if number % 2 else -1]:
            if name.startswith("peer"):
                speed = peer(arguments.peer.resolve(), FAST_PEER if "fast" in name else [], folder, *how)
            else:
                own = [sys.executable, __file__, "--ours", name, "--folder", str(folder), "--device", how[0]]
                own += ["--batch", str(how[1]), "--workers", str(how[2])]
                done = subprocess.run(own, capture_output=True, text=True, check=True)
                speed = float(done.stdout.split()[-1])
            speeds[name].append(speed)
            print(f"{name}: {speed:.1f} images/s", flush=True)
    for name, other in (("exact", "peer"), ("fast", "peer"), ("fast", "peer, fast")):
        ratios = sorted(a / b for a, b in zip(speeds[name], speeds[other], strict=True))
        print(f"{name} / {other}: {statistics.median(ratios):.2f} ({ratios[0]:.2f} - {ratios[-1]:.2f})")


if __name__ == "__main__":
    main()
