"""Prepare a data set: extract its archives into a checked folder, and make a compact copy of it.

    python scripts/prepare_data.py dataset=cub200 archive=PATH [resize=512] [quality=90] [output=FOLDER] [override ...]

archive: an archive, a folder that holds the official ones, or a list, as archive=[A,B]; without it the set in
dataset.root is taken. resize: write a copy with that shorter side in pixels, a file for each split, to output (default:
<dataset.root>-<resize>); train from it with dataset.root=<output> dataset.copy_side=<resize> and the same other
settings of the data set. workers=N: threads.

Interrupted or killed, the same command resumes where it stopped.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.utils import get_class, instantiate
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress

from srp_exp.config import CONF_DIR
from srp_exp.config.command_line import searched
from srp_exp.config.failures.faults import ending_in_one_line
from srp_exp.config.identity import plain_values
from srp_exp.config.register import register
from srp_exp.config.schemas.datasets import OF_EVERY_SET
from srp_exp.config.validate import validate
from srp_exp.datasets.files.file_set import FileSet
from srp_exp.datasets.prepare.archives import Advance
from srp_exp.datasets.prepare.copy import CopySettings
from srp_exp.datasets.prepare.prepare import MakeSet, Report, make_copy, unpack
from srp_exp.errors import UserError
from srp_exp.runs.folder.digests import digests_of


@dataclass
class Choices:
    """The settings of this script; all others are those of srp-exp."""

    archive: Any = None
    resize: int | None = None
    quality: int = 90
    output: str | None = None


@dataclass(frozen=True)
class Bars:
    """The Report of the terminal."""

    progress: Progress

    def say(self, text: str) -> None:
        self.progress.console.print(text, soft_wrap=True, markup=False, highlight=False)

    def track(self, title: str, total: int) -> Advance:
        task = self.progress.add_task(escape(title), total=total)
        return lambda done: self.progress.advance(task, done)


def read_arguments(arguments: Sequence[str]) -> tuple[Choices, DictConfig]:
    own = [argument for argument in arguments if argument.partition("=")[0] in Choices.__dataclass_fields__]
    choices = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(Choices), OmegaConf.from_dotlist(own)))
    assert isinstance(choices, Choices)
    others = [argument for argument in arguments if argument not in own]
    options = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    options.add_argument("--config-dir", "-cd")
    chosen, others = options.parse_known_args(others)
    register()
    with initialize_config_dir(str(CONF_DIR), version_base=None):
        config = compose("config", [*searched(chosen.config_dir), *others])
    validate(config)
    return choices, OmegaConf.create(plain_values(config))


def set_maker(dataset: DictConfig) -> MakeSet:
    """What opens the set of the configuration in another folder; with its boxes, so that a copy has them too."""
    arguments = {str(key): dataset[key] for key in dataset if key not in OF_EVERY_SET}
    set_class: Any = get_class(dataset._target_)

    def make(root: Path, cache_dir: str | None) -> FileSet:
        changed: dict[str, Any] = {"root": str(root), "copy_side": None, "memory_mb": 0}
        if "crop_to_box" in arguments:
            changed["crop_to_box"] = set_class.has_boxes(root)
        if cache_dir is not None:  # a first look at the facts only
            changed |= {"cache_dir": cache_dir, "on_corrupt": "stop", "vet": "none"}
        made: FileSet = instantiate(arguments | changed)
        return made

    return make


def prepare(choices: Choices, config: DictConfig, report: Report) -> None:
    dataset = config.dataset
    set_class: Any = get_class(dataset._target_)
    name = getattr(set_class, "set_name", None)
    if name is None:
        raise UserError(f"dataset={dataset.name}: there is nothing to prepare; choose imagenet, cub200, cars or dogs")
    root = Path(dataset.root).expanduser().resolve()
    paths = choices.archive if isinstance(choices.archive, list) else [choices.archive]
    archives = [Path(path).expanduser() for path in paths if path is not None]
    make_set = set_maker(dataset)
    strict = dataset.get("verify", "strict") == "strict"
    unpack(set_class, root, archives, strict, make_set, report)
    made = make_set(root, None)
    sizes = f"{len(made.train):,} training and {len(made.test):,} test images of {made.num_classes} classes"
    report.say(f"{root}: {sizes}, checked")
    if choices.resize is not None:
        output = Path(choices.output or f"{root}-{choices.resize}").expanduser().resolve()
        workers = max(1, len(os.sched_getaffinity(0)) if config.workers is None else config.workers)
        original = {"settings": made.settings, "digests": digests_of(made)}
        settings = CopySettings(name, made.class_names, choices.resize, choices.quality, workers, original)
        make_copy(made, output, settings, report)
        changed = f"dataset.root={output} dataset.copy_side={choices.resize}"
        report.say(f"train from the copy with {changed} and the other dataset settings of this command")


def main(arguments: Sequence[str]) -> None:
    """Run the command line; an error that the user can mend is one line and exit code 1."""
    if not arguments or {"-h", "--help"} & set(arguments):
        print(__doc__)
        return
    try:
        with ending_in_one_line("prepare_data"):
            choices, config = read_arguments(arguments)
            with Progress(console=Console(stderr=True)) as progress:
                prepare(choices, config, Bars(progress))
    except KeyboardInterrupt:
        print("interrupted; run the same command to resume", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main(sys.argv[1:])
