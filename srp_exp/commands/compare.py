"""mode=compare: two finished runs on the same images: settings, metrics, measures, and class activation maps."""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
from omegaconf import DictConfig, OmegaConf

from srp_exp.config.evaluators import measured_file, not_measured
from srp_exp.config.identity import flat_identity, output_folder
from srp_exp.config.metrics import worth_showing
from srp_exp.config.visible import visible
from srp_exp.errors import MissingFileError, UserError
from srp_exp.evaluation.mcnemar import mcnemar
from srp_exp.files import write_atomically, write_together
from srp_exp.runs.evaluate import evaluate_checkpoint, measure_checkpoint, part_name, restore
from srp_exp.runs.folder.layout import RESULTS, reading
from srp_exp.runs.folder.store import find_run
from srp_exp.runs.read_back.read import Asked, Trained, asked, read_run
from srp_exp.studies.reports.table_formats import escape_markdown

COMPARED_METRICS = ("top1", "top5", "balanced_top1", "macro_f1", "loss")
SAME_IMAGES = {
    "root", "cache_dir", "download", "verify", "on_corrupt", "copy_side", "crop_to_box", "augmentation", "mean", "std",
    "val_fraction", "train_per_class", "test_on_unused", "subset_seed",
}  # fmt: skip
"""Settings of a data set that may differ: where it lies, how images are prepared, and which are in a split.

Those of the split that is compared have to be the same.
"""


@dataclass(frozen=True)
class _Run:
    """A finished run, and the folder of its evaluation on the split that is compared."""

    trained: Trained
    folder: Path

    @property
    def config(self) -> DictConfig:
        return self.trained.config

    @property
    def name(self) -> str:
        return self.trained.folder.name


def execute(config: DictConfig) -> None:
    """Compare config.run (A) with config.other (B) on config.split or config.test_root; print the table and its folder.

    What isn't evaluated or measured yet is now. Writes <split>.json, <split>.md and, with cams=N, <split>-cams.png and
    TensorBoard events into <output_dir>/reports/compare-<A>-<B>. Raises UserError where the images differ.
    """
    question = asked(config)
    config = question.config
    if config.run is None or config.other is None:
        raise UserError("mode=compare needs two finished runs: run=FOLDER other=FOLDER")
    if config.cams:
        import srp_exp.evaluation.cams  # noqa: F401 - whether it can be imported, before anything is measured
    a, b = (_read(question, folder) for folder in (config.run, config.other))
    _check_same_images(a, b)
    for run in (a, b):
        _complete(run, config)
    if not _labels(a).equals(_labels(b)):
        raise UserError(f"{a.name} and {b.name} hold different images in split={config.split}; compare another split")
    right = [_right(run) for run in (a, b)]
    report = {
        "a": a.name,
        "b": b.name,
        "split": part_name(config),
        "settings": _different_settings(a, b),
        "origin": _origins(config.run, config.other),
        "values": _values(a, b, config.evaluators),
        "mcnemar": _mcnemar(*right),
        "modules": {name: [_measured(run, name).get("modules") for run in (a, b)] for name in config.evaluators},
    }
    folder = output_folder(config) / "reports" / f"compare-{a.name}-{b.name}"
    folder.mkdir(parents=True, exist_ok=True)
    table = _markdown(report)
    content = json.dumps(report, indent=1).encode()
    write_together(folder, {f"{part_name(config)}.json": content, f"{part_name(config)}.md": table.encode()})
    if config.cams:
        _draw_cams(a, b, config, folder)
    print(visible(f"{table}\ncomparison  {folder}"))


def _read(question: Asked, folder: str) -> _Run:
    if not (Path(folder) / RESULTS).is_file():
        raise MissingFileError(f"{folder}: not a finished run (no {RESULTS})")
    named = OmegaConf.merge(question.config, {"run": folder})
    assert isinstance(named, DictConfig)
    trained = read_run(replace(question, config=named))
    evaluated = trained.beside("evaluation") / part_name(question.config)
    trained.config.run = None  # it says where the run lies, not what it is
    return _Run(trained, evaluated)


def _check_same_images(a: _Run, b: _Run) -> None:
    """Raise ValueError where the data sets differ in more than what SAME_IMAGES names."""
    for name, (one, other) in _different_settings(a, b).items():
        group, _, setting = name.partition(".")
        if group == "dataset" and setting.partition(".")[0] not in SAME_IMAGES:
            raise UserError(
                f"{a.name} and {b.name} are of different data sets, {name}={one} and {other}: "
                "choose two runs of the same images"
            )


def _complete(run: _Run, config: DictConfig) -> None:
    """Evaluate and measure what has no file yet."""
    if not (run.folder / "metrics.json").is_file():
        evaluate_checkpoint(run.trained, run.folder)
    missing = not_measured(run.folder, config.evaluators)
    measure_checkpoint(run.trained, config.split, missing, run.folder)


def _labels(run: _Run) -> Any:
    file = run.folder / "predictions.parquet"
    with reading(file):
        return pq.read_table(file, columns=["index", "label"])


def _right(run: _Run) -> Any:
    """Whether each prediction is right, in the order of the index; UserError where the metrics aren't those of them."""
    file = run.folder / "predictions.parquet"
    with reading(file):
        answers = pq.read_table(file, columns=["index", "label", "prediction"]).sort_by("index")
        right = answers["label"].to_numpy() == answers["prediction"].to_numpy()
    found, told = float(right.mean()), _metrics(run)["top1"]
    if abs(found - told) > 1e-6:
        raise UserError(
            f"{run.folder}: metrics.json has top1={told:.4g} and predictions.parquet {found:.4g}, so one of them is of "
            "another run: remove the folder, and it is evaluated again"
        )
    return right


def _metrics(run: _Run) -> dict[str, Any]:
    file = run.folder / "metrics.json"
    with reading(file):
        return dict(json.loads(file.read_text()))


def _measured(run: _Run, evaluator: str) -> dict[str, Any]:
    file = measured_file(run.folder, evaluator)
    with reading(file):
        measured = dict(json.loads(file.read_text()))
        return {**measured, "summary": dict(measured["summary"])}


def _values(a: _Run, b: _Run, evaluators: list[str]) -> dict[str, list[float | None]]:
    """[A, B, B - A] by name, metrics first; None where a value is undefined or only one of the runs has it."""
    sides: list[dict[str, float | None]] = []
    for run in (a, b):
        metrics = _metrics(run)
        values: dict[str, float | None] = {}
        values |= worth_showing({name: metrics[name] for name in COMPARED_METRICS if name in metrics})
        for evaluator in evaluators:
            summary = _measured(run, evaluator)["summary"]
            values |= {f"{evaluator}/{name}": value for name, value in summary.items()}
        sides.append(values)
    rows: dict[str, list[float | None]] = {}
    for name in dict.fromkeys([*sides[0], *sides[1]]):
        one, other = sides[0].get(name), sides[1].get(name)
        rows[name] = [one, other, None if one is None or other is None else other - one]
    return rows


def _different_settings(a: _Run, b: _Run) -> dict[str, list[Any]]:
    """[A, B] of each setting that isn't the same in both; None where a run has no such setting."""
    one, other = flat_identity(a.config), flat_identity(b.config)
    names = dict.fromkeys([*one, *other])
    return {name: [one.get(name), other.get(name)] for name in names if one.get(name) != other.get(name)}


def _origins(*folders: str) -> dict[str, list[Any]]:
    """[A, B] of commit, device and host."""
    a, b = (find_run(Path(folder)) for folder in folders)
    both = {name: [a.provenance.get(name), b.provenance.get(name)] for name in ("device", "host")}
    return {"commit": [a.commit, b.commit], **both}


def _mcnemar(a: Any, b: Any) -> dict[str, float]:
    """How many images one alone has right, and the exact p-value of McNemar's test."""
    test = mcnemar(a, b)
    return {"only_a": test.only_a, "only_b": test.only_b, "p": test.p}


def _markdown(report: dict[str, Any]) -> str:
    def row(name: str, cells: list[Any]) -> str:
        return f"| {escape_markdown(name)} | {' | '.join('' if c is None else escape_markdown(c) for c in cells)} |"

    commits = zip("AB", report["origin"]["commit"], strict=True)
    lines = [f"{letter}: {report[letter.lower()]}, commit {commit}  " for letter, commit in commits]
    lines += [f"split: {report['split']}", ""]
    differing = report["settings"] | {name: both for name, both in report["origin"].items() if both[0] != both[1]}
    if differing:
        lines += ["| setting | A | B |", "|---|---|---|"]
        lines += [row(name, [None if v is None else str(v) for v in both]) for name, both in differing.items()]
        lines.append("")
    lines += ["| value | A | B | B - A |", "|---|---:|---:|---:|"]
    for name, (one, other, difference) in report["values"].items():
        cells = [None if value is None else f"{value:.4g}" for value in (one, other)]
        lines.append(row(name, [*cells, None if difference is None else f"{difference:+.2g}"]))
    test = report["mcnemar"]
    right = f"Right in one alone: {test['only_a']} images in A, {test['only_b']} in B"
    lines += ["", f"{right}; McNemar's exact test p = {test['p']:.3g} (of these two networks, not of the methods)."]
    return "\n".join(lines) + "\n"


def _draw_cams(a: _Run, b: _Run, config: DictConfig, folder: Path) -> None:
    """Draw images spread evenly over the split, each run's maps on its own copy of them; shown is that of A."""
    from torch.utils.tensorboard import SummaryWriter

    from srp_exp.evaluation.cams import activation_maps, side_by_side, take
    from srp_exp.evaluation.figures import pixels, png

    columns = {}
    samples = _labels(a).num_rows
    positions = np.unique(np.linspace(0, samples - 1, min(config.cams, samples)).round().astype(int)).tolist()
    for title, run in (("B", b), ("A", a)):
        subject, dataset = restore(run.trained, config.split)
        images, labels = take(subject.batches(), positions)
        columns[title] = activation_maps(subject.model, images, labels)
    mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (dataset.mean, dataset.std))
    shown = (images.cpu() * std + mean).clamp(0, 1)
    titles = _titles(a, b)
    figure = side_by_side(shown, labels, dataset.class_names, {titles[0]: columns["A"], titles[1]: columns["B"]})
    picture = pixels(figure)
    write_atomically(folder / f"{part_name(config)}-cams.png", png(picture))
    with SummaryWriter(str(folder)) as writer:
        writer.add_image(f"cams/{part_name(config)}", picture, 0, dataformats="HWC")


def _titles(a: _Run, b: _Run) -> tuple[str, str]:
    """A and B with the one name that tells them apart, if there is one."""
    names = [[run.config[group].name for group in ("srp", "attention", "backbone")] for run in (a, b)]
    differing = [pair for pair in zip(*names, strict=True) if pair[0] != pair[1]]
    if len(differing) != 1:
        return "A", "B"
    return f"A: {differing[0][0]}", f"B: {differing[0][1]}"
