"""mode=predict: the most probable classes of pictures without labels."""

import re
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from omegaconf import DictConfig
from rich.progress import Progress
from torch import Tensor, nn

from srp_exp.config.visible import visible, visible_cell
from srp_exp.datasets.files.picture_reader import read_pictures
from srp_exp.datasets.sets.unlabelled import unlabelled
from srp_exp.errors import UserError
from srp_exp.evaluation.accuracy import evaluation_mode
from srp_exp.evaluation.tested_otherwise import WithMirrored
from srp_exp.files import cache_folder, write_atomically
from srp_exp.runs.build import MOST_WORKERS
from srp_exp.runs.device import build_device, choose_kernels
from srp_exp.runs.load import restored
from srp_exp.runs.read_back.read import asked, read_run
from srp_exp.training.autocast import autocast
from srp_exp.training.processes.distributed import SINGLE, refuse_several
from srp_exp.training.reporting.logs import Terminal

_SHOWN = 10  # pictures whose answers are printed too


def execute(config: DictConfig) -> None:
    """Predict the pictures at config.source with the network that config.run or config.checkpoint names.

    Writes path, class_1, probability_1, class_2, ... of config.top classes into config.predictions. Pictures that can't
    be read are named on stderr and left out. Raises UserError where none can be read.
    """
    refuse_several("mode=predict")
    named = read_run(asked(config))
    trained = named.config
    place = Path(trained.source).expanduser()
    file = _file(trained, named.beside("predictions"), place)
    choose_kernels(trained)
    device = build_device(trained.device)
    run = restored(trained, named.content, named.file, device)
    source = unlabelled(place, trained.source_column, cache_folder(trained.dataset.get("cache_dir")) / "tables")
    network = WithMirrored(run.network) if trained.flip else run.network
    top = min(trained.top, len(run.class_names))
    rows: list[dict[str, Any]] = []
    unread: dict[str, str] = {}
    workers = SINGLE.share_of_workers(trained.workers, MOST_WORKERS)
    console = Terminal(stderr=True)
    with Progress(console=console, transient=True, disable=not (trained.progress and console.is_terminal)) as bar:
        task = bar.add_task("predicting", total=len(source))
        for names, pixels, failed in read_pictures(source, run.transform, trained.recipe.batch_size, workers):
            if pixels is not None:
                images = run.transform.normalise(pixels.to(device))
                answers = top_classes(network, images, autocast(device, trained.precision), top)
                rows += _rows(names, *answers, run.class_names)
            unread |= failed
            bar.advance(task, len(names) + len(failed))
    for name, why in unread.items():
        print(visible(f"{name}: {why}"), file=sys.stderr)
    if not rows:
        raise UserError(f"source={place}: none of its {len(source):,} pictures can be read")
    _write(file, pd.DataFrame(rows))
    for row in rows if len(rows) <= _SHOWN else []:
        shown = (f"{row[f'class_{k}']} {row[f'probability_{k}']:.1%}" for k in range(1, top + 1))
        print(visible(f"{row['path']}  {', '.join(shown)}"))
    print(visible(f"predicted {len(rows):,} of {len(source):,} pictures  {file}"))


@torch.no_grad()
def top_classes(model: nn.Module, images: Tensor, context: torch.autocast, top: int) -> tuple[Tensor, Tensor]:
    """The `top` most probable classes of images (B, C, H, W), (B, top) int64, and their probabilities, on the CPU.

    Of equally probable classes the lower ones come first, as in an evaluation. Raises UserError where the answer isn't
    a number.
    """
    with evaluation_mode(model), context:
        logits = model(images)
    probabilities, classes = logits.float().softmax(1).sort(dim=1, descending=True, stable=True)
    if probabilities.isnan().any():
        raise UserError(
            "the network's answer isn't a number: a value in it left the range; with precision=fp16 take bf16"
        )
    return classes[:, :top].cpu(), probabilities[:, :top].cpu()


def _rows(
    names: list[str], classes: Tensor, probabilities: Tensor, class_names: tuple[str, ...]
) -> list[dict[str, Any]]:
    rows = []
    for name, of_picture, values in zip(names, classes.tolist(), probabilities.tolist(), strict=True):
        row: dict[str, Any] = {"path": name}
        for place, (label, value) in enumerate(zip(of_picture, values, strict=True), start=1):
            row |= {f"class_{place}": class_names[label], f"probability_{place}": value}
        rows.append(row)
    return rows


def _file(config: DictConfig, folder: Path, place: Path) -> Path:
    """Where the predictions go; raises UserError for a name that says no format, before anything is predicted."""
    if config.predictions is None:
        return folder / (re.sub(r"[^\w.-]", "_", "-".join(place.absolute().parts[-2:])) + ".csv")
    file = Path(config.predictions).expanduser()
    if file.suffix not in (".csv", ".parquet"):
        raise UserError(f"predictions={file}: name a file that ends in .csv or .parquet")
    if file.is_dir():
        raise UserError(f"predictions={file}: is a folder; name a file")
    return file


def _write(file: Path, table: pd.DataFrame) -> None:
    texts = [name for name in table.columns if not name.startswith("probability_")]
    table[texts] = table[texts].map(visible if file.suffix == ".parquet" else visible_cell)
    file.parent.mkdir(parents=True, exist_ok=True)
    if file.suffix == ".parquet":
        write_atomically(file, lambda opened: table.to_parquet(opened, index=False))
    else:
        write_atomically(file, table.to_csv(index=False, float_format="%.6g").encode())
