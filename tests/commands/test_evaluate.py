"""What holds for every look at a run: its checkpoint is read once, and no picture of the result is needed."""

import errno
import json
from pathlib import Path
from typing import Any

import pytest
from class_folders import make_cats_and_dogs

from srp_exp.runs import evaluate
from srp_exp.runs.read_back import read

TINY = (
    "dataset=folder", "backbone.depth=8", "recipe.epochs=1", "recipe.batch_size=4", "recipe.warmup_epochs=0",
    "dataset.augmentation.crop_size=16", "dataset.augmentation.eval_crop_size=16", "dataset.augmentation.resize=16",
)  # fmt: skip
LOOK = ("device=cpu", "workers=0")


@pytest.fixture(scope="module")
def trained(command_line, tmp_path_factory) -> tuple[Path, Path]:
    """A run, and the folder of its pictures."""
    home = tmp_path_factory.mktemp("evaluate")
    root = make_cats_and_dogs(home / "pics", 20, 20)
    outcome = command_line(*TINY, *LOOK, f"dataset.root={root}", f"output_dir={home / 'out'}")
    assert outcome.code == 0, outcome.err
    (run,) = (home / "out" / "runs").iterdir()
    return run, root


@pytest.mark.parametrize(
    "mode", ["eval evaluators=[descriptors]", "predict source=PICTURES", "export format=safetensors"]
)
def test_the_checkpoint_is_read_once(command_line, trained, monkeypatch, mode) -> None:
    run, root = trained
    files, load = list[Path](), read.load

    def counted(file: Path) -> dict[str, Any]:
        files.append(file)
        return load(file)

    monkeypatch.setattr(read, "load", counted)
    arguments = f"mode={mode}".replace("PICTURES", str(root)).split()
    outcome = command_line(*arguments, f"run={run}", *LOOK)
    assert outcome.code == 0, outcome.err
    assert files == [run / "checkpoints" / "final.pt"]


def test_an_evaluation_without_its_pictures(command_line, trained, monkeypatch, caplog) -> None:
    """They can't be drawn: the metrics and predictions are there, and the log says what isn't."""

    def fails(*_: Any) -> Any:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(evaluate, "result_pictures", fails)
    outcome = command_line("mode=eval", f"run={trained[0]}", "split=train", *LOOK)
    assert outcome.code == 0, outcome.err
    assert "the pictures of the result: can't be written (No space left on device)" in caplog.text
    found = trained[0] / "evaluation" / "train"
    assert json.loads((found / "metrics.json").read_text())["samples"] == 8
    assert (found / "predictions.parquet").is_file() and not list(found.glob("*.png"))
