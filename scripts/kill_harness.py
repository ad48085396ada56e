"""Kill trainings at random moments, and compare what comes of them with trainings that nothing disturbed, bit by bit.

    python scripts/kill_harness.py [--kills 5] [--only plain mixup] [--seed 0] [--control]

Every configuration is trained once to its end. Then the same command starts in a fresh folder and gets SIGKILL, with
all processes of its group, at a random moment; the command is given again, and so on to the end. Runs that end before
`--kills` kills are followed by further ones. What is compared: the last checkpoint by step (model, moving average,
optimizer, schedule, history), final.pt, best.pt, metrics.jsonl, predictions, results.json without its clock, and the
curves of TensorBoard, in which no step may stand twice or be missing. Exit code 1 on any difference.

--control shows that a difference would be seen: it goes on in another order of the data, and from a checkpoint in
which one bit of one weight is changed and the checksum made right.

Trainings are forked from a process that has imported everything, or most kills would fall into Python's imports.
"""

import argparse
import importlib
import importlib.util
import json
import logging
import os
import random
import re
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

os.environ |= {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}  # before torch; a fork survives no other threads

import numpy as np
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import srp_exp.training.checkpoints as checkpoint_files
from srp_exp.__main__ import main as train_command
from srp_exp.datasets.batches import training_rows

Change = Callable[[], None]
"""What is done in the forked process before the training."""

COMMON = (
    "backbone.depth=8", "recipe.batch_size=16", "recipe.epochs=3", "log_every_steps=1",
    "device=cpu", "progress=false",
)  # fmt: skip
IN_MEMORY = (
    "dataset=synthetic", "dataset.train_size=256", "dataset.test_size=64", "dataset.image_size=[16,16]",
    "dataset.augmentation.crop_padding=2", "dataset.augmentation.flip=true",
)  # fmt: skip
IN_FILES = (
    "dataset=cub200", "dataset.verify=warn", "dataset.augmentation.resize=40", "dataset.augmentation.crop_size=32",
)  # fmt: skip
MID_EPOCH = "checkpoint.every_steps=2"
CONFIGURATIONS: dict[str, tuple[str, ...]] = {
    "plain": (),
    "every two steps": (MID_EPOCH,),
    "mixup": ("mixing=mixup", MID_EPOCH),
    "moving average": ("recipe.ema_decay=0.9", "checkpoint.every_steps=3"),
    "accumulation": ("recipe.accumulate_steps=4", "mixing=mixup_cutmix", "checkpoint.every_steps=5"),
    "files, 2 workers": (*IN_FILES, "dataset.augmentation.rand_augment=5", "workers=2", MID_EPOCH),
    "adamw, clipped": ("optimizer=adamw", "lr_schedule=one_cycle", "recipe.clip_norm=0.5", "checkpoint.every_steps=4"),
    "ramp, one region": ("srp=ramped", "srp.share=batch", "srp.regions=2", "checkpoint.every_steps=3"),
    "best of validation": (
        "dataset.val_fraction=0.25", "recipe.selection=best", "recipe.epochs=6", "recipe.ema_decay=0.8", MID_EPOCH,
    ),
    "amid saving": ("backbone.width=6", "checkpoint.every_steps=1", "optimizer=adamw", "recipe.ema_decay=0.9"),
    "bf16": (
        "precision=bf16", "activation_checkpointing=true", "lr_schedule=step", "recipe.warmup_epochs=0", MID_EPOCH,
    ),
}  # fmt: skip
IMPORTED_LATE = (
    "pandas", "pyarrow.parquet", "timm", "torchvision.transforms.v2", "srp_exp.backbones.resnet",
    "srp_exp.runs.complete", "srp_exp.datasets.sets.cub200", "srp_exp.datasets.sets.synthetic",
    "srp_exp.training.lr_schedule",
)  # fmt: skip
BY_THE_CLOCK = ("speed/images_per_second", "speed/data_wait")


@dataclass
class Attempt:
    """A forked training; `pid` leads its process group."""

    pid: int
    code: int | None = None

    def runs(self) -> bool:
        if self.code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.code = os.waitstatus_to_exitcode(status)
        return self.code is None

    def wait(self, seconds: float = 300, until: Callable[[], bool] = lambda: False) -> None:
        """Return at its end, after `seconds`, or when `until` says so."""
        end = time.monotonic() + seconds
        while self.runs() and time.monotonic() < end and not until():
            time.sleep(0.002)

    def kill(self) -> bool:
        """SIGKILL to the group; whether that was its end."""
        if not self.runs():
            return False
        os.killpg(self.pid, signal.SIGKILL)
        _, status = os.waitpid(self.pid, 0)
        self.code = os.waitstatus_to_exitcode(status)
        return self.code == -signal.SIGKILL


@dataclass
class Tally:
    """What was done to the runs of a configuration."""

    runs: int = 0
    amid: Counter[str] = field(default_factory=Counter)
    differences: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        where = ", ".join(f"{count} {name}" for name, count in self.amid.items())
        verdict = "; ".join(["DIFFERENT", *self.differences]) if self.differences else "same bits"
        return f"{self.amid.total():3} kills over {self.runs} runs ({where}): {verdict}"


def start(overrides: tuple[str, ...], output_dir: Path, before: Change = lambda: None) -> Attempt:
    """Fork a training into `output_dir`; what it prints goes to printed.txt there."""
    output_dir.mkdir(parents=True, exist_ok=True)
    # TensorBoard reads event files by the order of their names, which hold the second and the process id.
    time.sleep(1 - time.time() % 1)
    arguments = ["srp-exp", *COMMON, *overrides, f"output_dir={output_dir}"]
    return fork(train_command, arguments, output_dir / "printed.txt", before)


def fork(command: Change, arguments: list[str], printed: Path, before: Change = lambda: None) -> Attempt:
    """Do `before` and `command` with the command line `arguments` in a process of its own."""
    pid = os.fork()
    if pid:
        return Attempt(pid)
    code = 1
    try:
        os.setsid()
        descriptor = os.open(printed, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
        torch.set_num_threads(1)
        sys.argv = arguments
        before()
        command()
        code = 0
    except SystemExit as end:
        print(end, file=sys.stderr)
        code = end.code if isinstance(end.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def folder_of(output_dir: Path) -> Path:
    (folder,) = (path for path in (output_dir / "runs").iterdir() if path.is_dir())
    return folder


def where_it_stood(output_dir: Path) -> str:
    """What the process that was just killed was doing, as its folder shows."""
    checkpoints = list(output_dir.glob("runs/*/checkpoints/*.pt"))
    if any(output_dir.glob("runs/*/checkpoints/.*.tmp")):
        return "amid saving"
    if any(path.name == "final.pt" for path in checkpoints):
        return "amid the last evaluation"
    return "in training" if checkpoints else "before the first checkpoint"


def leaves(value: Any, name: str = "") -> dict[str, Any]:
    """The plain values of nested dicts and lists by dotted name; of tensors dtype, shape and bytes."""
    if isinstance(value, dict):
        return {key: leaf for part in value for key, leaf in leaves(value[part], f"{name}.{part}").items()}
    if isinstance(value, list | tuple):
        return {key: leaf for i, part in enumerate(value) for key, leaf in leaves(part, f"{name}.{i}").items()}
    if isinstance(value, torch.Tensor):
        return {name: (str(value.dtype), tuple(value.shape), value.numpy().tobytes())}
    return {name: repr(value)}


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """(step, value) of every curve that follows from the seed."""
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    events.Reload()
    curves = [tag for tag in events.Tags()["scalars"] if tag not in BY_THE_CLOCK]
    return {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in curves}


def final_state(folder: Path) -> dict[str, Any]:
    """All that two runs with the same command have in common, to the bit."""
    files = sorted((folder / "checkpoints").glob("*"))
    state: dict[str, Any] = {"checkpoint files": [path.name for path in files]}
    for path in (files[-1], *(path for path in files if not path.name.startswith("step-"))):
        content = checkpoint_files.load(path)
        content.pop("config")  # names output_dir
        state |= {f"{path.name}{name}": leaf for name, leaf in leaves(content).items()}
    for name in ("metrics.jsonl", "evaluation/test/predictions.parquet", "evaluation/test/metrics.json"):
        state[name] = (folder / name).read_bytes()
    results = json.loads((folder / "results.json").read_text())
    results.pop("training_seconds")
    state |= {f"results.json {name}": value for name, value in results.items()}
    state |= {f"TensorBoard {tag}": curve for tag, curve in scalars(folder).items()}
    return state


def differences(folder: Path, reference: dict[str, Any]) -> list[str]:
    """Names of what differs in a finished run."""
    state = final_state(folder)
    return sorted(name for name in state.keys() | reference.keys() if state.get(name) != reference.get(name))


def broken_curves(folder: Path, steps: int, epochs: int) -> list[str]:
    """Curves of a run in which a step stands twice or is missing."""
    curves = scalars(folder)
    every_step, every_epoch = list(range(1, steps + 1)), [steps // epochs * epoch for epoch in range(1, epochs + 1)]
    expected = {"train/loss": every_step, "train/top1": every_step, "lr": every_step, "gradient_norm": every_step}
    expected |= {tag: every_epoch for tag in curves if tag.startswith(("test/", "val/", "srp_scale/"))}
    return [f"steps of {tag}" for tag, steps in expected.items() if [step for step, _ in curves[tag]] != steps]


class Harness:
    """The trainings of one configuration, below `folder`."""

    def __init__(self, overrides: tuple[str, ...], folder: Path, draw: random.Random) -> None:
        self.overrides, self.folder, self.draw = overrides, folder, draw
        started = time.monotonic()
        attempt = start(overrides, folder / "undisturbed")
        attempt.wait(until=lambda: any((folder / "undisturbed").glob("runs/*/provenance.json")))
        self.startup = time.monotonic() - started
        attempt.wait()
        self.duration = time.monotonic() - started
        run = self._finished(attempt, folder / "undisturbed")
        self.reference = final_state(run)
        last = json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])
        self.steps, self.epochs = last["step"], last["epoch"]
        broken = broken_curves(run, self.steps, self.epochs)
        if broken:
            raise RuntimeError(f"the undisturbed run itself: {', '.join(broken)}")

    def torment(self, kills: int) -> Tally:
        """Kill runs until there were `kills`; each run goes on to its end and is compared."""
        tally = Tally()
        while tally.amid.total() < kills:
            output_dir = self.folder / f"killed {tally.runs}"
            tally.runs += 1
            while True:
                attempt = start(self.overrides, output_dir)
                if tally.amid.total() < kills:
                    training = self.duration - self.startup
                    attempt.wait(self.startup * 0.8 + self.draw.uniform(0, 0.4) * training)
                    if attempt.kill():
                        tally.amid[where_it_stood(output_dir)] += 1
                        continue
                    # It ended first: the undisturbed run filled caches, or met a busier machine.
                    self.startup, self.duration = 0.8 * self.startup, 0.8 * self.duration
                attempt.wait()
                break
            tally.differences += self.compare(attempt, output_dir)
        return tally

    def control(self, change: Callable[[Path], Change]) -> list[str]:
        """The differences of a run that is killed, spoilt by `change`, and goes on."""
        output_dir = self.folder / f"control {change.__name__}"
        attempt = start(self.overrides, output_dir)
        attempt.wait(until=lambda: len(list(output_dir.glob("runs/*/checkpoints/step-*.pt"))) > 1)
        if not attempt.kill():
            raise RuntimeError(f"the training in {output_dir} ended before it could be killed")
        attempt = start(self.overrides, output_dir, change(folder_of(output_dir) / "checkpoints"))
        attempt.wait()
        return self.compare(attempt, output_dir)

    def compare(self, attempt: Attempt, output_dir: Path) -> list[str]:
        run = self._finished(attempt, output_dir)
        return differences(run, self.reference) + broken_curves(run, self.steps, self.epochs)

    def _finished(self, attempt: Attempt, output_dir: Path) -> Path:
        if attempt.runs() or attempt.code != 0:
            attempt.kill()
            raise RuntimeError(f"exit code {attempt.code}\n{(output_dir / 'printed.txt').read_text()[-3000:]}")
        return folder_of(output_dir)


def another_order(checkpoints: Path) -> Change:
    """Go on with the order of the data of another seed."""

    def change() -> None:
        mock.patch(
            "srp_exp.datasets.data_set.training_rows",
            lambda samples, batch_size, seed, epoch: training_rows(samples, batch_size, seed + 1, epoch),
        ).start()

    return change


def one_bit(checkpoints: Path) -> Change:
    """Change one bit of one weight in the newest checkpoint; its checksum is right."""
    newest = max(checkpoints.glob("step-*.pt"))
    content = checkpoint_files.load(newest)
    weight = next(iter(content["learner"]["model"].values()))
    weight.view(torch.int32).as_strided((1,), (1,))[0] ^= 1 << 10  # in whatever layout the weight lies
    checkpoint_files.write(newest, content)
    return lambda: None


def make_birds(home: Path, classes: int = 3, train: int = 32, test: int = 8) -> None:
    """A few JPEGs in the official layout of CUB-200-2011."""
    lists: dict[str, list[str]] = {name: [] for name in ("images", "image_class_labels", "train_test_split")}
    noise = np.random.default_rng(0)
    for image in range(1, classes * (train + test) + 1):
        label, name = image % classes + 1, f"{image % classes + 1:03d}.Bird/{image}.jpg"
        (home / "images" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(noise.integers(0, 256, (48, 56, 3), np.uint8)).save(home / "images" / name)
        lists["images"].append(f"{image} {name}")
        lists["image_class_labels"].append(f"{image} {label}")
        lists["train_test_split"].append(f"{image} {int(image <= classes * train)}")
    lists["classes"] = [f"{label} {label:03d}.Bird" for label in range(1, classes + 1)]
    for name, lines in lists.items():
        (home / f"{name}.txt").write_text("\n".join(lines) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=5, help="of each configuration")
    parser.add_argument("--only", nargs="+", choices=CONFIGURATIONS, default=list(CONFIGURATIONS), metavar="NAME")
    parser.add_argument("--seed", type=int, default=0, help="of the moments of the kills")
    parser.add_argument("--control", action="store_true", help="show that a difference would be seen")
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="kill-harness-"))
    torch.set_num_threads(1)
    logging.getLogger("tensorboard").setLevel(logging.ERROR)  # it tells of every step that a resumed run purges
    for module in IMPORTED_LATE:
        if importlib.util.find_spec(module):  # pyarrow takes pandas along where it is installed
            importlib.import_module(module)
    kills, failed = 0, False
    for name in arguments.only:
        below = folder / re.sub(r"\W+", "-", name)
        overrides = CONFIGURATIONS[name]
        if set(IN_FILES) <= set(overrides):
            make_birds(below / "data" / "cub200")
            overrides = (*overrides, f"data_root={below / 'data'}")
        else:
            overrides = (*IN_MEMORY, *overrides)
        harness = Harness(overrides, below, random.Random(f"{arguments.seed} {name}"))
        if arguments.control:
            for change in (another_order, one_bit):
                found = harness.control(change)
                failed |= not found
                print(f"{name:20}{change.__name__:15}{'seen: ' + found[0] if found else 'NOT SEEN'}", flush=True)
            continue
        tally = harness.torment(arguments.kills)
        kills += tally.amid.total()
        failed |= bool(tally.differences)
        print(f"{name:20}{harness.steps:4} steps{tally}", flush=True)
    if not arguments.control:
        print(f"{kills} kills over {len(arguments.only)} configurations: {'DIFFERENCES' if failed else 'all the same'}")
    if failed:
        sys.exit(f"what differs lies in {folder}")
    shutil.rmtree(folder)


if __name__ == "__main__":
    main()
