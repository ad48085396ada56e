"""Constructed studies: run folders with known numbers, and the StudyResults that they make."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from srp_exp.runs.folder.store import Run, State
from srp_exp.studies.grid import Cell
from srp_exp.studies.results import Entry, StudyResults

MakeResults = Callable[..., StudyResults]

SRP: dict[str, dict[str, Any]] = {
    "gap": {"name": "gap"},
    "fixed": {"name": "fixed", "scale": 0.5},
    "scheduled": {"name": "scheduled", "first": 1.0, "last": 0.5},
}


def write_run(
    folder: Path, top1: float, *, srp: Mapping[str, Any], backbone: str, seed: int = 0, parameters: int = 271_807
) -> Run:
    """A finished run of three epochs that ends with `top1`, as the training leaves it."""
    folder.mkdir(parents=True)
    config = {"dataset": {"name": "cifar10"}, "srp": dict(srp), "backbone": {"name": backbone}, "seed": seed}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    results = {
        "test": {"top1": top1, "top5": 0.999, "loss": 1 - top1}, "parameters": parameters, "training_seconds": 12.5,
    }  # fmt: skip
    (folder / "results.json").write_text(json.dumps(results))
    provenance = {
        "commit": "0123456789abcdef", "diff": "", "python": "3.11.7", "packages": {"torch": "2.14.1", "timm": "1.0.31"},
        "device": "AMD EPYC", "command": ["srp-exp"], "processes": 1, "threads": 1,
    }  # fmt: skip
    (folder / "provenance.json").write_text(json.dumps(provenance))
    epochs = [{"epoch": e, "train/top1": top1 * e / 3, "test/top1": top1 - 0.1 * (3 - e)} for e in (1, 2, 3)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(epoch) + "\n" for epoch in epochs))
    return Run(folder, State.finished)


@pytest.fixture
def make_results(tmp_path: Path) -> MakeResults:
    """`make_results({(method, cell): {seed: top1 or State}}, warnings=..., fixed=..., study's own keys=...)`.

    A method's name chooses its srp (the part before a blank, gap where it is none of conf/srp); cells are mappings
    written as tuples of pairs. A State in place of a value is a run that isn't finished.
    """

    def make(
        values: Mapping[tuple[str, Cell], Mapping[int, float | State]],
        warnings: tuple[str, ...] = (),
        arguments: tuple[str, ...] = ("study=demo_study",),
        srp: Mapping[str, Mapping[str, Any]] = SRP,
        parameters: Mapping[str, int] | None = None,
        **study: Any,
    ) -> StudyResults:
        entries = []
        for number, ((method, cell), of_seed) in enumerate(values.items()):
            backbone = dict(cell).get("backbone", "resnet20")
            runs, measured = {}, {}
            for seed, value in of_seed.items():
                folder = tmp_path / "runs" / f"run-{number}-{seed}"
                if isinstance(value, State):
                    runs[seed] = Run(folder, value)
                    continue
                choice = srp.get(method.partition(" ")[0], SRP["gap"])
                count = ({} if parameters is None else parameters).get(backbone, 271_807)
                runs[seed] = write_run(folder, value, srp=choice, backbone=backbone, seed=seed, parameters=count)
                measured[seed] = value
            entries.append(Entry(method, cell, runs, measured))
        names = dict.fromkeys(method for method, _ in values)
        plain: dict[str, Any] = {
            "name": "demo_study", "question": "Does SRP beat GAP?", "claim": "SRP improves accuracy",
            "methods": {name: [f"srp={name}"] for name in names}, "comparisons": [], "metric": "top1",
            "higher_is_better": True, "rows": ["method"], "columns": [], "published": [], "each": [], "quick": None,
            "pilot": False, "looks": [], "exclude": [], "spread": 1.25,
            "smallest_effect": {"value": 0.005, "reason": "five of 1,000 images"},
        }  # fmt: skip
        return StudyResults({**plain, **study}, tuple(entries), arguments, warnings)

    return make


@pytest.fixture
def comparison() -> Callable[..., dict[str, Any]]:
    """`comparison(method, baseline, expect, smallest, metric, ...)`: an entry of study.comparisons."""
    return compared


def compared(
    method: str, baseline: str, expect: str = "better", smallest: float = 0.005, metric: str | None = None, **more: Any
) -> dict[str, Any]:
    names = {"method": method, "baseline": baseline, "beyond": [], "either": None}
    effect = {"value": smallest, "reason": "five of 1,000 images"}
    of_metric = {"metric": metric, "higher_is_better": None, "smallest_effect": effect}
    return {**names, "expect": expect, "role": "claim", **of_metric, **more}


@pytest.fixture
def full_study(make_results: MakeResults) -> StudyResults:
    """Three methods, two backbones, three seeds, one run missing, everything that a page can show."""
    tiny, large = (("backbone", "resnet20"),), (("backbone", "resnet56"),)
    values: dict[tuple[str, Cell], dict[int, float | State]] = {
        ("gap", tiny): {0: 0.971, 1: 0.972, 2: 0.973},
        ("fixed", tiny): {0: 0.980, 1: 0.983, 2: 0.986},
        ("scheduled", tiny): {0: 0.984, 1: 0.985, 2: 0.989},
        ("gap", large): {0: 0.980, 1: 0.981, 2: 0.979},
        ("fixed", large): {0: 0.985, 1: 0.988, 2: 0.987},
        ("scheduled", large): {0: 0.990, 1: State.failed, 2: 0.991},
    }
    return make_results(
        values,
        warnings=("runs of different commit in one table: a_1 (3 runs), b & <c> (2 runs)",),
        arguments=("study=demo_study", "recipe.epochs=3"),
        parameters={"resnet20": 271_807, "resnet56": 860_000},
        comparisons=[compared("scheduled", "gap"), compared("scheduled", "fixed", "not_worse", 0.005)],
        columns=["backbone"],
        published=[{"method": "gap", "cell": {"backbone": "resnet20"}, "value": 0.95, "source": "A & B, Table 1"}],
    )
