"""Two finished runs side by side."""

import io
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from planned_grids import finish, plan
from rich.console import Console

from srp_exp.studies.store import find_run
from srp_exp.studies.two_runs import print_comparison


def predict(folder: Path, right: list[bool]) -> None:
    (folder / "evaluation" / "test").mkdir(parents=True)
    table = {"index": range(len(right)), "label": [1] * len(right), "prediction": [int(r) for r in right]}
    columns = pa.table({name: list(values) for name, values in table.items()})
    pq.write_table(columns, folder / "evaluation" / "test" / "predictions.parquet")


def compared(first: Path, second: Path) -> list[list[str]]:
    text = io.StringIO()
    print_comparison(find_run(first), find_run(second), Console(file=text, width=200))
    return [line.split() for line in text.getvalue().splitlines()]


@pytest.fixture
def folders(tmp_path) -> tuple[Path, Path]:
    gap, fixed, _ = plan("seed=0", output_dir=tmp_path).runs
    return finish(gap, 0.5), finish(fixed, 0.75, commit="fedcba9876543210")


def test_settings_origin_and_metrics_are_compared(folders) -> None:
    lines = compared(*folders)
    assert lines[0] == ["setting", *(folder.name for folder in folders)]
    assert ["srp", "gap", "fixed"] in lines
    assert ["srp.scale", "-", "0.5"] in lines
    assert ["commit", "0123456789abcdef", "fedcba9876543210"] in lines
    assert ["top1", "0.5", "0.75", "+0.25"] in lines
    assert ["parameters", "75000", "75000", "+0"] in lines
    same = {"seed", "recipe.lr", "dataset", "host", "device", "output_dir"}
    assert same.isdisjoint(line[0] for line in lines if line)


def test_images_that_one_alone_has_right_are_counted(folders) -> None:
    predict(folders[0], [True] * 5 + [False] * 6 + [True])
    predict(folders[1], [True] * 4 + [False] + [True] * 6 + [True])
    last = " ".join(compared(*folders)[-1])
    # Of seven images the first has one right: exact binomial test, 2 (1 + 7) / 2^7.
    assert last == "right on one side only: 1 and 6 images; McNemar's exact test p = 0.125"


def test_what_an_evaluator_measured_in_one_of_them_is_shown(folders) -> None:
    (folders[1] / "evaluation" / "test").mkdir(parents=True)
    (folders[1] / "evaluation" / "test" / "gates.json").write_text(json.dumps({"summary": {"spread": 0.25}}))
    assert ["gates.spread", "-", "0.25"] in compared(*folders)


def test_runs_of_different_data_sets_have_no_common_predictions(folders, tmp_path) -> None:
    digits = finish(plan("seed=0", output_dir=tmp_path / "other").runs[0])
    text = (digits / "config.yaml").read_text().replace("name: synthetic", "name: mnist5k")
    (digits / "config.yaml").write_text(text)
    assert compared(folders[0], digits)[-1] == ["the", "predictions", "are", "of", "different", "data", "sets"]
