"""The documents' snippets run, and their commands compose."""

import json
import re
import shlex
import sys
import warnings
from pathlib import Path

import pytest
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.types import RunMode
from omegaconf import OmegaConf

from srp_exp.commands.report.command import main as report_command
from srp_exp.config import CONF_DIR
from srp_exp.config.register import register
from srp_exp.config.validate import validate

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
DOCUMENTS = [README, *sorted((ROOT / "docs").glob("*.md"))]
MEASURED = ROOT / "docs" / "results" / "README.md"
RESULTS = sorted((ROOT / "docs" / "results").glob("*/report.md"))
SNIPPETS = [
    pytest.param(snippet, id=f"{document.stem}-{number}")
    for document in DOCUMENTS
    for number, snippet in enumerate(re.findall(r"```python\n(.*?)```", document.read_text(), re.DOTALL))
]
COMMAND = r"^ +(?:srp-exp|srp-report study=\S+)( [^#\n]*+(?!# refused)|$)"
COMMANDS = {
    document.stem: [
        command
        for command in re.findall(COMMAND, document.read_text(), re.MULTILINE)
        if not re.search(r"--|run=|checkpoint=|[A-Z]{2}|\.\.\.|\$", command)  # which want a run, or stand for a name
    ]
    for document in DOCUMENTS
}
FIRST = {command: page for page in reversed(COMMANDS) for command in COMMANDS[page]}
"""The first page of each command."""

LOOPS = {"accelerate", "fastai", "lightning", "transformers"}
"""Packages with loops of their own, which snippets need and srp_exp doesn't."""


@pytest.mark.parametrize(
    ("page", "name", "methods", "seeds"),
    [(MEASURED, "demo", 2, "(n=6)"), (MEASURED, "main_cifar_quick", 3, "(n=5 of 7)"),
     (README, "main_cifar_quick", 3, "(n=5 of 7)")],
)  # fmt: skip
def test_a_page_has_the_table_of_a_published_report(page: Path, name: str, methods: int, seeds: str) -> None:
    report = (ROOT / "docs" / "results" / name / "report.md").read_text()
    table = report.partition("## Results")[2].partition("## Comparisons")[0].partition("\n| ")[2]
    assert table.count(seeds) == methods
    assert table in page.read_text()


def test_the_differences_are_those_of_the_published_reports() -> None:
    rows = re.findall(r"^\| (\w+_quick) (\| .+)$", MEASURED.read_text(), re.MULTILINE)
    assert len(rows) == 10
    of_three_seeds = re.compile(r"^\| .+ \| (?:[3-9]|\d\d)(?: \(\d+ runs missing\))? \|", re.MULTILINE)
    enough = {report.parent.name for report in RESULTS if of_three_seeds.search(report.read_text())}
    assert {study for study, _ in rows} == enough - {"demo"}
    for study, row in rows:
        assert row in (ROOT / "docs" / "results" / study / "report.md").read_text()


def test_a_published_report_comes_from_one_commit_and_has_its_plot() -> None:
    for report in RESULTS:
        text = report.read_text()
        assert re.search(r"^- commit: [0-9a-f]{10} \(\d+ runs\)$", text, re.MULTILINE), report
        assert "**Warning:**" not in text
        (picture,) = re.findall(r"^!\[.*\]\((.*)\)$", text, re.MULTILINE)
        assert (report.parent / picture).is_file()


CIFAR_SHORT = ROOT / "docs" / "results" / "cifar_short"


def test_the_settings_of_cifar_short_are_told_as_they_came_out() -> None:
    rows = set(re.findall(r"^\| [\dr].*$", (CIFAR_SHORT / "settings.md").read_text(), re.MULTILINE))
    tried, trained = set(), set()
    for run in CIFAR_SHORT.glob("held_out/*"):
        config, last = OmegaConf.load(run / "config.yaml"), last_epoch(run)
        r, a = config.recipe, config.dataset.augmentation
        moved = a.crop_padding if a.crop == "pad" else 32 // 8
        settings = (r.batch_size, r.lr, r.weight_decay, moved, a.cutout or "", r.label_smoothing, r.ema_decay or "")
        shown = (*settings, *(f"{100 * last[name]:.2f}" for name in ("train/top1", "val/top1")))
        tried.add(f"| {' | '.join(map(str, shown))} |")
    for run in CIFAR_SHORT.glob("cifar10_jpeg-*"):
        config = OmegaConf.load(run / "config.yaml")
        assert config.dataset.augmentation.crop_padding == 2
        settings = f"`{beside_cifar_short(run)}`" if beside_cifar_short(run) else "as chosen"
        trained.add(f"| {config.backbone.name} | {config.srp.name} | {settings} | {100 * top1_of(run):.2f} |")
    assert rows == tried | trained and len(rows) == 15
    chosen = OmegaConf.load(CONF_DIR / "recipe" / "cifar_short.yaml")
    best = max(tried, key=lambda row: row.split("|")[-2])
    assert best.startswith(f"| {chosen.batch_size} | {chosen.lr} | {float(chosen.weight_decay)} |")
    assert f"| {chosen.label_smoothing} | {chosen.ema_decay} |" in best


def test_the_accuracies_of_cifar_short_are_those_of_its_runs() -> None:
    text = " ".join(MEASURED.read_text().split())
    top1 = {name: f"{100 * top1_of(run):.2f} %" for name, run in as_chosen("resnet20").items()}
    assert f"gap **{top1['gap']}**, scheduled **{top1['scheduled']}**" in text
    (larger,) = as_chosen("resnet32").values()
    assert f"SE-ResNet-32 with scheduled SRP **{100 * top1_of(larger):.2f} %**" in text
    said = f"gap has {top1['gap']} and scheduled {top1['scheduled']}"
    assert said in (ROOT / "docs" / "method.md").read_text()


def as_chosen(backbone: str) -> dict[str, Path]:
    """The published runs with the recipe as it is, by what pools."""
    runs = [run for run in CIFAR_SHORT.glob(f"*-{backbone}-*") if not beside_cifar_short(run)]
    found = {str(OmegaConf.load(run / "config.yaml").srp.name): run for run in runs}
    assert len(found) == len(runs)
    return found


def beside_cifar_short(run: Path) -> str:
    """The overrides that give `run` its recipe, beside recipe=cifar_short."""
    own, chosen = (OmegaConf.load(file) for file in (run / "config.yaml", CONF_DIR / "recipe" / "cifar_short.yaml"))
    return " ".join(
        f"recipe.{name}={'null' if own.recipe[name] is None else own.recipe[name]}"
        for name, value in chosen.items()
        if name != "name" and own.recipe[name] != value
    )


def top1_of(run: Path) -> float:
    return float(json.loads((run / "results.json").read_text())["test"]["top1"])


def last_epoch(run: Path) -> dict[str, float]:
    return dict(json.loads((run / "metrics.jsonl").read_text().splitlines()[-1]))


@pytest.mark.parametrize("kept", sorted((ROOT / "docs").glob("results/*/runs.parquet")), ids=lambda p: p.parent.name)
def test_a_published_report_comes_out_of_its_runs_byte_for_byte(kept: Path, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["srp-report", str(kept.parent)])
    report_command()
    (again,) = tmp_path.glob("outputs/reports/*/report.md")
    assert again.read_text() == (kept.parent / "report.md").read_text()


def test_the_evaluators_figures_are_those_of_the_published_comparison() -> None:
    table = (ROOT / "docs" / "results" / "compare_cifar" / "comparison.md").read_text()
    rows = re.findall(r"^\| \w+/(\w+) \| (\S+) \| (\S+) \|", table, re.MULTILINE)
    values = {name: (float(a), float(b)) for name, a, b in rows}
    text = (ROOT / "docs" / "evaluators.md").read_text()
    quoted = re.findall(r"`(\w+)`\s(\d+\.(\d+))\sagainst\s(\d+\.\d+)", text)
    assert len(quoted) == 3
    for name, b, digits, a in quoted:
        assert (float(a), float(b)) == tuple(round(value, len(digits)) for value in values[name])
    occluded_a, occluded_b = values["occluded_top1"]
    assert f"({100 * occluded_b:.1f} % against {100 * occluded_a:.1f} %)" in text


def test_the_files_that_documents_name_are_there() -> None:
    named = {
        (document.name, path)
        for document in DOCUMENTS
        for path in re.findall(r"\b(?:tests|scripts|conf|srp_exp|docs)/[\w/.]*\.\w+\b", document.read_text())
    }
    assert len(named) >= 30
    assert [path for path in sorted(named) if not (ROOT / path[1]).exists()] == []


@pytest.mark.parametrize("snippet", SNIPPETS)
def test_snippet_runs(snippet: str, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    for package in sorted(LOOPS.intersection(re.findall(r"^(?:from|import) (\w+)", snippet, re.MULTILINE))):
        pytest.importorskip(package, reason=f"{package} isn't installed")
        warnings.simplefilter("ignore")  # its own; pytest puts the filters back
    exec(compile(snippet, "snippet", "exec"), {})


@pytest.mark.parametrize("page", sorted(set(FIRST.values())))
def test_commands_compose(page: str) -> None:
    register()
    with initialize_config_dir(str(CONF_DIR), version_base=None):
        loader = GlobalHydra.instance().config_loader()
        for command in (command for command, first in FIRST.items() if first == page):
            overrides = [override for override in shlex.split(command) if override != "-m"]
            validate(loader.load_configuration("config", overrides, run_mode=RunMode.MULTIRUN))
