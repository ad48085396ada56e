"""Loggers of a run: all get the same values; one that fails is left out, and begins again at the next save."""

import csv
import json
import logging
import math
import sqlite3
import struct
import time
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch

from srp_exp.training.loggers import logger as logger_module
from srp_exp.training.loggers.csv import CurvesCsv
from srp_exp.training.loggers.guarded import Loggers
from srp_exp.training.loggers.logger import LoggedRun, Logger

PACKAGES = {"wandb": "wandb", "mlflow": "mlflow"}
TINY = (
    "dataset=synthetic", "dataset.train_size=32", "dataset.test_size=16", "dataset.image_size=[16,16]",
    "recipe.batch_size=8", "recipe.epochs=2", "recipe.warmup_epochs=0", "backbone.depth=8", "device=cpu", "srp=fixed",
)  # fmt: skip

Curves = dict[str, dict[int, float]]
"""Value by name and step."""


def needs(logger: str) -> Any:
    package = PACKAGES[logger]
    return pytest.mark.skipif(find_spec(package) is None, reason=f"{package} isn't installed")


def of_csv(folder: Path) -> Curves:
    curves: Curves = {}
    with (folder / "curves.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            points = curves.setdefault(row["name"], {})
            assert int(row["step"]) not in points
            points[int(row["step"])] = float(row["value"])
    return curves


def records(log: bytes) -> Iterator[bytes]:
    """Those of a log as LevelDB writes it: in blocks of 32 KiB, parts headed by checksum, length and kind."""
    place, record = 7, b""  # after wandb's own header
    while place + 7 <= len(log):
        if 2**15 - place % 2**15 < 7:
            place += 2**15 - place % 2**15
        length, kind = struct.unpack("<HB", log[place + 4 : place + 7])
        record += log[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # whole, or the last part
            yield record
            record = b""


def of_wandb(file: Path) -> tuple[str, Curves]:
    """The id and the curves in the records of an offline run; of two values of a step the first, as wandb keeps it."""
    from wandb.proto.wandb_internal_pb2 import Record

    curves, run = Curves(), ""
    for data in records(file.read_bytes()):
        record = Record()
        record.ParseFromString(data)
        run = record.run.run_id or run
        for item in record.history.item:
            name = item.key or item.nested_key[0]
            value = json.loads(item.value_json)
            if isinstance(value, int | float) and not name.startswith("_") and len(item.nested_key) < 2:
                curves.setdefault(name, {}).setdefault(record.history.step.num, value)
    return run, curves


def of_mlflow(file: Path) -> Curves:
    curves: Curves = {}
    with sqlite3.connect(file) as store:
        for name, value, step in store.execute("select key, value, step from metrics"):
            assert step not in curves.setdefault(name, {})
            curves[name][step] = value
    store.close()
    return curves


def assert_same_curves(one: Curves, other: Curves) -> None:
    assert one.keys() == other.keys()
    for name, points in one.items():
        assert other[name] == pytest.approx(points, nan_ok=True), name


@needs("wandb")
@needs("mlflow")
@pytest.mark.filterwarnings("ignore")  # theirs
def test_a_training_logs_the_same_to_all(command_line: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    chosen = "logger=[csv,wandb,mlflow]", "logger.wandb.mode=offline", "logger.mlflow.tracking_uri=sqlite:///m.db"
    outcome = command_line(*TINY, *chosen, "log_every_steps=2")
    assert outcome.code == 0, outcome.err
    assert "tensorboard" not in outcome.out
    (folder,) = (tmp_path / "outputs" / "runs").iterdir()
    assert not [*folder.glob("events*")]
    curves = of_csv(folder)
    assert [*curves["train/loss"]] == [2, 4, 6, 8]
    assert [*curves["test/top1"]] == [4, 8]
    assert [*curves["final/top1"]] == [9]
    assert {str(points) for name, points in curves.items() if name.startswith("srp_scale/")} == {"{4: 0.5, 8: 0.5}"}
    assert_same_curves(of_mlflow(tmp_path / "m.db"), curves)
    with sqlite3.connect(tmp_path / "m.db") as store:
        parameters = dict(store.execute("select key, value from params"))
        assert ("srp_exp.run", folder.name) in [*store.execute("select key, value from tags")]
    store.close()
    assert parameters["srp.scale"] == "0.5"
    assert parameters["recipe.batch_size"] == "8"
    (offline,) = folder.glob("wandb/offline-run-*/*.wandb")
    run, at_wandb = of_wandb(offline)
    assert run == folder.name
    assert_same_curves(at_wandb, {name: points for name, points in curves.items() if not name.startswith("final/")})
    assert [*offline.parent.glob("files/media/images/sample_batch_*.png")]


def run_in(folder: Path, afresh: bool = False) -> LoggedRun:
    return LoggedRun(folder, {"recipe.lr": 0.1, "srp.name": "gap"}, "recipe: {lr: 0.1}\n", afresh)


def logged(logger: Logger, run: LoggedRun, after: int, until: int, value: float = 0.0) -> None:
    """Log every step after `after`, as a start that resumes there and ends, killed or not, at `until`."""
    logger.begin(run, after)
    for step in range(after + 1, until + 1):
        logger.scalars({"train/loss": value + step / 3}, step)
    logger.flush()


def test_csv_drops_what_comes_again(tmp_path: Path) -> None:
    run = run_in(tmp_path)
    first = CurvesCsv()
    logged(first, run, 0, 5)
    with (tmp_path / "curves.csv").open("a") as file:
        file.write("6,train/lo")  # the end of a killed process
    for after, until in ((3, 4), (4, 6)):
        again = CurvesCsv()
        logged(again, run, after, until, value=100.0)
        again.close()
    values = {1: 1 / 3, 2: 2 / 3, 3: 1.0, 4: 100 + 4 / 3, 5: 100 + 5 / 3, 6: 102.0}
    assert of_csv(tmp_path) == {"train/loss": values}
    first.close()


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("mlflow") / "m.db"


@needs("mlflow")
@pytest.mark.filterwarnings("ignore")
def test_mlflow_resumes_the_run_with_its_tag(store: Path, tmp_path: Path) -> None:
    from srp_exp.training.loggers.mlflow import MLflow

    for after, until in ((0, 5), (3, 6)):
        killed = MLflow("experiment", f"sqlite:///{store}")
        logged(killed, run_in(tmp_path), after, until)
    killed.close()
    assert of_mlflow(store) == {"train/loss": {step: pytest.approx(step / 3) for step in range(1, 7)}}
    afresh = MLflow("experiment", f"sqlite:///{store}")
    logged(afresh, run_in(tmp_path, afresh=True), 0, 2, value=100.0)
    afresh.close()
    with sqlite3.connect(store) as opened:
        runs = [*opened.execute("select value, status from tags join runs using (run_uuid) where key = 'srp_exp.run'")]
        of_run = [*opened.execute("select count(*) from metrics group by run_uuid order by 1")]
    opened.close()
    assert sorted(runs) == [(tmp_path.name, "FINISHED"), (f"{tmp_path.name} (before rerun=true)", "FINISHED")]
    assert of_run == [(2,), (6,)]


@needs("wandb")
@pytest.mark.filterwarnings("ignore")
def test_wandb_resumes_under_the_id_of_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import wandb

    from srp_exp.training.loggers.wandb import Wandb

    asked, init = [], wandb.init
    monkeypatch.setattr(wandb, "init", lambda **settings: asked.append(settings) or init(**settings))
    starts = tmp_path / "first" / "run", tmp_path / "second" / "run"  # wandb names its files by the second
    for folder, after, until in zip(starts, (0, 3), (5, 6), strict=True):
        folder.mkdir(parents=True)
        logger = Wandb("project", None, "offline")
        logged(logger, run_in(folder), after, until)
        logger.close()
    assert [(call["id"], call["resume"], call["project"]) for call in asked] == [("run", "allow", "project")] * 2
    for _ in range(100):  # another process of wandb writes, which on a busy machine comes later
        found = [of_wandb(file) for folder in starts for file in folder.glob("wandb/offline-run-*/*.wandb")]
        if all(run and curves.get("train/loss") for run, curves in found):
            break
        time.sleep(0.2)
    assert [run for run, _ in found] == ["run", "run"]
    both: dict[int, float] = {}
    for _, curves in found:
        both = {**curves["train/loss"], **both}
    assert both == {step: pytest.approx(step / 3) for step in range(1, 7)}
    (starts[0] / "wandb-id").unlink()
    for _ in range(2):
        logger = Wandb("project", None, "disabled")
        logger.begin(run_in(starts[0], afresh=True), 0)
        logger.close()
    assert asked[-1]["id"] == asked[-2]["id"] != "run"  # not the earlier training's


class Failing(Logger):
    """Fails while `broken`; notes what arrives."""

    def __init__(self) -> None:
        self.broken, self.seen = False, list[Any]()

    def _note(self, what: Any) -> None:
        if self.broken:
            raise RuntimeError("no\nserver")
        self.seen.append(what)

    def begin(self, run: LoggedRun, step: int) -> None:
        self._note(("begin", step))

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        self._note(step)

    def close(self) -> None:
        self._note("close")


def test_a_logger_that_fails_is_left_out_until_the_next_save(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "srp_exp")
    failing, other = Failing(), Failing()
    loggers = Loggers(run_in(tmp_path), [failing, other])
    loggers.begin(0)
    for step in range(1, 7):
        failing.broken = step in (2, 4)
        loggers.scalars({"loss": math.nan}, step)
        if step in (4, 5):
            loggers.flush(step)
    loggers.picture("regions", torch.zeros(3, 8, 8, dtype=torch.uint8), 6)
    loggers.finish({"final/top1": 0.5}, 7)
    loggers.close()
    assert failing.seen == [("begin", 0), 1, ("begin", 5), 6, 7, "close"]
    assert other.seen == [("begin", 0), *range(1, 8), "close"]
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 2
    assert "Failing" in said[0] and "RuntimeError: no server" in said[0]
    assert "Failing" in said[1]


@pytest.mark.parametrize("name", [*PACKAGES])
def test_a_logger_whose_package_is_missing_is_refused_before_the_training(
    name: str, command_line: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(logger_module, "find_spec", lambda package: None)
    outcome = command_line(*TINY, f"logger={name}")
    assert outcome.code == 1
    assert f"logger={name}" in outcome.err and f"srp-exp[{name}]" in outcome.err
    assert not [*tmp_path.glob("outputs/runs/*/checkpoints")]


@pytest.mark.parametrize(
    ("file", "said"), [("_target_: a.B", "# @package logger"), ("# @package logger.own\na: 1", "_target_")]
)
def test_a_file_of_a_logger_that_lacks_something_is_refused(
    file: str, said: str, command_line: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine" / "logger").mkdir(parents=True)
    (tmp_path / "mine" / "logger" / "own.yaml").write_text(file)
    outcome = command_line("--config-dir=mine", *TINY, "logger=own")
    assert outcome.code == 1
    assert said in outcome.err
