"""Checkpoints: whole or absent, the last two and the best, and no code of a file is ever run."""

import copy
import os
import pickle
import random
import resource
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, BinaryIO

import pytest
import torch
from torch import nn
from torch.optim import SGD, AdamW, Optimizer

from srp_exp.datasets import BatchLoader
from srp_exp.errors import UserError
from srp_exp.training import checkpoints as checkpoints_module
from srp_exp.training import lr_schedule
from srp_exp.training.checkpoints import Checkpoints, load, model_state, write
from srp_exp.training.learner import Learner, StepSettings
from srp_exp.training.resume import load_best, resume

MakeLearner = Callable[..., Learner]
AssertSame = Callable[[Any, Any], None]


@pytest.fixture
def checkpoints(tmp_path: Path) -> Checkpoints:
    return Checkpoints(tmp_path / "checkpoints", "seed: 3\n")


@pytest.fixture
def learner(make_learner: MakeLearner) -> Learner:
    return make_learner(ema_decay=0.9)


def names(checkpoints: Checkpoints) -> list[str]:
    return sorted(path.name for path in checkpoints.folder.iterdir())


def save_at(checkpoints: Checkpoints, learner: Learner, step: int, is_best: bool = False) -> None:
    learner.step = step
    checkpoints.save(learner, is_best)


def test_the_last_two_and_the_best_are_kept(
    checkpoints: Checkpoints, learner: Learner, assert_same_state: AssertSame
) -> None:
    assert checkpoints.latest() is None
    for step, is_best in [(5, False), (10, True), (1000, False), (2000, False)]:
        save_at(checkpoints, learner, step, is_best)
        assert checkpoints.latest() == checkpoints.folder / f"step-{step:09d}.pt"
    assert names(checkpoints) == ["best.pt", "step-000001000.pt", "step-000002000.pt"]
    assert load(checkpoints.best)["learner"]["step"] == 10
    save_at(checkpoints, learner, 3000, is_best=True)
    checkpoints.wait()
    assert load(checkpoints.best)["learner"]["step"] == 3000
    assert checkpoints.latest() == checkpoints.folder / "step-000003000.pt"
    newest = load(checkpoints.folder / "step-000003000.pt")
    assert_same_state(load(checkpoints.best)["learner"], newest["learner"])


def test_resuming_takes_the_newest(
    checkpoints: Checkpoints, make_learner: MakeLearner, batches: BatchLoader, assert_same_state: AssertSame
) -> None:
    learner = make_learner(ema_decay=0.9)
    for batch in batches.epoch(0):
        learner.train_step(batch)
        checkpoints.save(learner, is_best=False)
    checkpoints.wait()
    other = make_learner(ema_decay=0.9)
    resume(Checkpoints(checkpoints.folder, "seed: 3\n"), other)
    assert_same_state(other.state_dict(), learner.state_dict())
    untouched = make_learner(ema_decay=0.9)
    expected = make_learner(ema_decay=0.9).state_dict()
    resume(Checkpoints(checkpoints.folder / "empty", ""), untouched)
    assert_same_state(untouched.state_dict(), expected)


def test_a_checkpoint_can_be_evaluated_alone(
    checkpoints: Checkpoints, learner: Learner, batches: BatchLoader, assert_same_state: AssertSame
) -> None:
    for batch in batches.epoch(0):
        learner.train_step(batch)
    checkpoints.save(learner, is_best=True)
    checkpoints.finish(learner.evaluated_model.state_dict())
    for path in (checkpoints.latest(), checkpoints.best, checkpoints.final):
        assert path is not None
        content = load(path)
        assert content["config"] == "seed: 3\n"
        found = model_state(content)
        assert_same_state(found, dict(learner.evaluated_model.state_dict()))
    assert not torch.equal(found["0.weight"], learner.model.state_dict()["0.weight"])


def test_the_final_one_holds_the_result_alone_and_is_not_resumed(checkpoints: Checkpoints, learner: Learner) -> None:
    checkpoints.finish(learner.evaluated_model.state_dict())
    assert load(checkpoints.final).keys() == {"config", "name", "model"}
    assert checkpoints.latest() is None


@pytest.mark.parametrize(
    ("make_optimizer", "make_schedule", "precision"),
    [
        (
            partial(AdamW, lr=1e-3),
            partial(lr_schedule.cosine, warmup_epochs=1, final_factor=0.0),
            "fp16",
        ),
        (
            partial(SGD, lr=0.1, momentum=0.9, nesterov=True),
            partial(lr_schedule.step, warmup_epochs=1, milestones=[0.5, 0.8], gamma=0.1),
            "fp16",
        ),
        (
            partial(AdamW, lr=1e-3),
            partial(lr_schedule.one_cycle, peak_at=0.3, start_factor=0.04, final_factor=0.0),
            "fp32",
        ),
    ],
    ids=["adamw cosine fp16", "sgd step fp16", "adamw one_cycle fp32"],
)
def test_the_state_of_every_choice_can_be_read_back(
    checkpoints: Checkpoints,
    batches: BatchLoader,
    assert_same_state: AssertSame,
    make_optimizer: Callable[..., Optimizer],
    make_schedule: Callable[..., Any],
    precision: str,
) -> None:
    def make() -> Learner:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Flatten(), nn.Linear(192, 3))
        optimizer = make_optimizer(model.parameters())
        schedule = make_schedule(optimizer, epochs=4, steps_per_epoch=5)
        settings = StepSettings(0, 20, precision=precision)
        learner = Learner(model, optimizer, schedule, settings, device=torch.device("cpu"))
        learner.scaler = torch.amp.GradScaler("cpu", init_scale=8.0, enabled=precision == "fp16")
        return learner

    straight, stopped, resumed = make(), make(), make()
    for epoch in range(4):
        for batch in batches.epoch(epoch):
            straight.train_step(batch)
            (stopped if straight.step <= 7 else resumed).train_step(batch)
            if straight.step == 7:
                checkpoints.save(stopped, is_best=False)
                checkpoints.wait()
                resume(checkpoints, resumed)
    assert_same_state(resumed.state_dict(), straight.state_dict())


# A disk that fails


@pytest.mark.parametrize(("existing", "written"), [(True, 1000), (False, 0)])
def test_a_write_that_fails_leaves_the_old_file_and_no_other(
    checkpoints: Checkpoints,
    learner: Learner,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    existing: bool,
    written: int,
) -> None:
    if existing:
        save_at(checkpoints, learner, 5, is_best=True)
        checkpoints.finish(learner.model.state_dict())
    before = {path.name: path.read_bytes() for path in checkpoints.folder.iterdir()}

    def failing(state: object, file: BinaryIO) -> None:
        file.write(b"x" * written)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", failing)
    for step in (5, 10):
        caplog.clear()
        save_at(checkpoints, learner, step, is_best=True)
        checkpoints.wait()
        (record,) = caplog.records
        assert record.levelname == "ERROR"
        assert f"step-{step:09d}.pt not saved" in record.getMessage()
        assert "No space left" in record.getMessage()
        assert "\n" not in record.getMessage()
    with pytest.raises(OSError, match="No space left"):
        checkpoints.finish(learner.model.state_dict())
    assert {path.name: path.read_bytes() for path in checkpoints.folder.iterdir()} == before


@contextmanager
def files_no_larger_than(size: int) -> Iterator[None]:
    """A limit of the kernel: what a full disk does, with another number of error. Meant to hold for one save alone."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("size", [0, 5000])
def test_a_full_disk_fails_the_save_and_nothing_else(
    checkpoints: Checkpoints,
    make_learner: MakeLearner,
    assert_same_state: AssertSame,
    caplog: pytest.LogCaptureFixture,
    size: int,
) -> None:
    learner = make_learner()
    save_at(checkpoints, learner, 5, is_best=True)
    checkpoints.wait()
    assert checkpoints.best.stat().st_size > 10_000
    before = {path.name: path.read_bytes() for path in checkpoints.folder.iterdir()}
    with files_no_larger_than(size):
        save_at(checkpoints, learner, 10)
        checkpoints.wait()
        messages = [record.getMessage() for record in caplog.records]
        with pytest.raises(OSError, match="File too large"):
            checkpoints.finish(learner.model.state_dict())
    assert len(messages) == 1
    assert "step-000000010.pt not saved (File too large)" in messages[0]
    assert "next interval" in messages[0]
    assert {path.name: path.read_bytes() for path in checkpoints.folder.iterdir()} == before
    resumed = make_learner()
    resume(Checkpoints(checkpoints.folder, ""), resumed)
    assert resumed.step == 5
    save_at(checkpoints, learner, 15)
    checkpoints.finish(learner.model.state_dict())
    assert names(checkpoints) == ["best.pt", "final.pt", "step-000000005.pt", "step-000000015.pt"]
    resume(Checkpoints(checkpoints.folder, ""), resumed)
    assert_same_state(resumed.state_dict(), learner.state_dict())


def test_the_best_epoch_is_saved_later_where_the_disk_was_full(
    checkpoints: Checkpoints, learner: Learner, make_learner: MakeLearner
) -> None:
    save_at(checkpoints, learner, 5, is_best=True)
    checkpoints.wait()
    with files_no_larger_than(1000):
        save_at(checkpoints, learner, 10, is_best=True)
        checkpoints.wait()
        with pytest.raises(UserError, match=r"best\.pt could not be saved: make room"):
            load_best(checkpoints, make_learner(ema_decay=0.9))  # not silently the epoch that was the best before
    save_at(checkpoints, learner, 12)
    other = make_learner(ema_decay=0.9)
    load_best(checkpoints, other)
    assert other.step == 10
    assert names(checkpoints) == ["best.pt", "step-000000005.pt", "step-000000012.pt"]


def test_a_folder_that_was_deleted_is_made_again(checkpoints: Checkpoints, learner: Learner) -> None:
    checkpoints.folder.rmdir()
    save_at(checkpoints, learner, 5)
    checkpoints.wait()
    assert names(checkpoints) == ["step-000000005.pt"]


@pytest.mark.parametrize("linked", ["run/checkpoints", "run"])
def test_what_was_moved_behind_a_link_is_resumed(tmp_path: Path, learner: Learner, linked: str) -> None:
    """To a larger disk, where it has another name."""
    before = Checkpoints(tmp_path / "run" / "checkpoints", "")
    save_at(before, learner, 5)
    before.wait()
    (tmp_path / linked).rename(tmp_path / "scratch")
    (tmp_path / linked).symlink_to(tmp_path / "scratch")
    found = Checkpoints(tmp_path / "run" / "checkpoints", "").newest()
    assert found is not None and found[1]["learner"]["step"] == 5


def test_a_link_to_nothing_is_named(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").symlink_to(tmp_path / "scratch")
    with pytest.raises(UserError, match=r"checkpoints is no folder: .* links to"):
        Checkpoints(tmp_path / "checkpoints", "")


def test_a_fault_of_the_writing_thread_ends_the_training(
    checkpoints: Checkpoints, learner: Learner, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> None:
        raise TypeError("a fault")

    monkeypatch.setattr(checkpoints_module, "write", fails)
    save_at(checkpoints, learner, 5)
    with pytest.raises(TypeError, match="a fault"):
        checkpoints.wait()
    checkpoints.wait()  # it is raised once


def test_what_a_killed_write_left_is_removed_at_resuming(checkpoints: Checkpoints, learner: Learner) -> None:
    save_at(checkpoints, learner, 5)
    checkpoints.wait()
    for name in (".step-000000010.pt.123.tmp", ".best.pt.99.tmp"):
        (checkpoints.folder / name).write_bytes(b"half a file")
    resume(Checkpoints(checkpoints.folder, "", writes=False), learner)
    assert len(names(checkpoints)) == 3  # a process that doesn't write deletes nothing
    resume(Checkpoints(checkpoints.folder, ""), learner)
    assert names(checkpoints) == ["step-000000005.pt"]


# Beside the training


class SlowDisk:
    """Holds every write back until `go` is set."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.go = threading.Event()
        write_for_real = checkpoints_module.write

        def wait_and_write(path: Path, content: dict[str, Any]) -> None:
            assert self.go.wait(60)
            write_for_real(path, content)

        monkeypatch.setattr(checkpoints_module, "write", wait_and_write)


def test_the_state_saved_is_that_of_the_call(
    checkpoints: Checkpoints,
    make_learner: MakeLearner,
    batches: BatchLoader,
    assert_same_state: AssertSame,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    learner, disk = make_learner(ema_decay=0.9), SlowDisk(monkeypatch)
    for batch in batches.epoch(0):
        learner.train_step(batch)
    learner.history.append({"epoch": 1, "val/top1": 0.5})
    expected = copy.deepcopy(learner.state_dict())
    checkpoints.save(learner, is_best=True)
    assert names(checkpoints) == []  # it came back before anything was written
    for batch in batches.epoch(1):
        learner.train_step(batch)
    learner.history[0]["val/top1"] = 0.0
    learner.history.append({"epoch": 2})
    learner.totals.values.zero_()
    assert not torch.equal(learner.model.state_dict()["0.weight"], expected["model"]["0.weight"])
    disk.go.set()
    checkpoints.wait()
    for path in (checkpoints.best, checkpoints.folder / "step-000000005.pt"):
        saved = load(path)["learner"]
        assert list(saved) == list(expected)
        other = make_learner(ema_decay=0.9)
        other.load_state_dict(saved)
        assert_same_state(other.state_dict(), expected)


def test_the_next_save_waits_for_the_one_before(
    checkpoints: Checkpoints, learner: Learner, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = SlowDisk(monkeypatch)
    save_at(checkpoints, learner, 1)
    threading.Timer(0.2, disk.go.set).start()
    save_at(checkpoints, learner, 2)
    assert "step-000000001.pt" in names(checkpoints)
    assert checkpoints.latest() == checkpoints.folder / "step-000000002.pt"


def test_intervals_in_steps_and_in_minutes(tmp_path: Path, learner: Learner, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr(checkpoints_module, "time", SimpleNamespace(monotonic=lambda: now[0]))
    never = Checkpoints(tmp_path / "never", "")
    often = Checkpoints(tmp_path / "often", "", every_steps=3, every_minutes=0.5)
    assert [step for step in range(1, 10) if often.due_by_steps(step)] == [3, 6, 9]
    assert not any(never.due_by_steps(step) for step in range(1, 10))
    due = []
    for _ in range(6):
        now[0] += 12
        due.append(often.due_by_time())
        if due[-1]:
            often.save(learner)
    assert due == [False, False, True, False, False, True]
    assert not never.due_by_time()
    often.wait()


def test_one_process_of_several_writes(tmp_path: Path, learner: Learner, monkeypatch: pytest.MonkeyPatch) -> None:
    """The others copy nothing either: their memory, and the wait for it, would be for nothing."""
    silent = Checkpoints(tmp_path / "checkpoints", "", writes=False)
    monkeypatch.setattr("srp_exp.training.checkpoints._copy_to_cpu", lambda _: pytest.fail("copied"))
    save_at(silent, learner, 5, is_best=True)
    silent.finish(learner.model.state_dict())
    assert names(silent) == []


# Files that are no checkpoints


def refusal(path: Path) -> str:
    """The message of the refusal, a single line that names the file."""
    with pytest.raises(ValueError) as caught:
        load(path)
    message = str(caught.value)
    assert message.startswith(f"checkpoint {path}: ")
    assert "\n" not in message
    return message


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    for path in (tmp_path / "absent.pt", tmp_path):
        with pytest.raises(FileNotFoundError, match="no such file") as caught:
            load(path)
        assert str(path) in str(caught.value)


@pytest.mark.parametrize("part", [0.5, 0.999])
def test_a_truncated_file_is_refused(checkpoints: Checkpoints, learner: Learner, part: float) -> None:
    checkpoints.save(learner, is_best=True)
    checkpoints.wait()
    content = checkpoints.best.read_bytes()
    checkpoints.best.write_bytes(content[: int(len(content) * part)])
    assert "damaged" in refusal(checkpoints.best)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 not a zip"])
def test_a_file_of_something_else_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "other.pt"
    path.write_bytes(content)
    assert "damaged or not one of srp_exp" in refusal(path)


@pytest.mark.parametrize("content", [{"model": {}}, {"config": ""}, torch.zeros(2)])
def test_a_file_of_torch_without_config_and_model_is_refused(tmp_path: Path, content: object) -> None:
    path = tmp_path / "other.pt"
    torch.save(content, path)
    assert "not one of srp_exp" in refusal(path)
    write(path, content)  # type: ignore[arg-type]
    assert "isn't one of srp_exp" in refusal(path)


class Malicious:
    """Makes a folder when it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return os.mkdir, (str(self.folder),)


@pytest.mark.parametrize("save", [torch.save, write, lambda content, path: path.write_bytes(pickle.dumps(content))])
def test_code_in_a_file_is_refused_and_not_run(tmp_path: Path, save: Callable[..., object]) -> None:
    path, made = tmp_path / "malicious.pt", tmp_path / "made"
    content = {"config": "", "model": {"weight": torch.zeros(1)}, "learner": Malicious(made)}
    save(path, content) if save is write else save(content, path)
    # `write` gives the file a checksum that is right, as whoever sends it can.
    assert ("holds more than tensors" if save is write else "damaged") in refusal(path)
    assert not made.exists()
    if save is torch.save or save is write:
        torch.load(path, weights_only=False)  # the file does what it says where it is trusted
        assert made.exists()


# Damage


@pytest.fixture
def folder_of_two(
    tmp_path: Path, make_learner: MakeLearner, batches: BatchLoader
) -> tuple[Checkpoints, dict[str, dict[str, Any]]]:
    """A run stopped after steps 4 and 5 were saved, the 5th as the best; and the states by file name."""
    checkpoints = Checkpoints(tmp_path / "run" / "checkpoints", "seed: 3\n")
    learner = make_learner(ema_decay=0.9)
    states = {}
    for batch in batches.epoch(0):
        learner.train_step(batch)
        checkpoints.save(learner, is_best=learner.step == 5)
        states[f"step-{learner.step:09d}.pt"] = copy.deepcopy(learner.state_dict())
    checkpoints.wait()
    return checkpoints, states


def truncate(source: random.Random, path: Path, _: list[Path]) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: source.randrange(len(content))])


def flip_bits(source: random.Random, path: Path, _: list[Path]) -> None:
    content = bytearray(path.read_bytes())
    for place in source.sample(range(len(content) * 8), source.choice([1, 1, 2, 50])):
        content[place // 8] ^= 1 << place % 8
    path.write_bytes(content)


def flip_the_end(source: random.Random, path: Path, _: list[Path]) -> None:
    """Bits of the checksum itself, its length, or the end of the archive before it."""
    content = bytearray(path.read_bytes())
    content[-source.randrange(1, 90)] ^= 1 << source.randrange(8)
    path.write_bytes(content)


def zero_a_page(source: random.Random, path: Path, _: list[Path]) -> None:
    content = bytearray(path.read_bytes())
    start = source.randrange(0, len(content), 4096)
    page = bytes(min(4096, len(content) - start))
    content[start : start + len(page)] = page
    path.write_bytes(content)


def append_bytes(source: random.Random, path: Path, _: list[Path]) -> None:
    path.write_bytes(path.read_bytes() + source.randbytes(source.choice([1, 64, 4096])))


def drop_bytes_inside(source: random.Random, path: Path, _: list[Path]) -> None:
    content = path.read_bytes()
    start = source.randrange(len(content) - 100)
    path.write_bytes(content[:start] + content[start + source.randrange(1, 100) :])


def swap(source: random.Random, path: Path, others: list[Path]) -> None:
    path.write_bytes(source.choice([other for other in others if other != path]).read_bytes())


def empty(source: random.Random, path: Path, _: list[Path]) -> None:
    path.write_bytes(b"")


def put_code_into(source: random.Random, path: Path, _: list[Path]) -> None:
    content = torch.load(path, weights_only=True)
    write(path, {**content, source.choice(["learner", "more"]): Malicious(path.with_name("made"))})


DAMAGES = (
    truncate, flip_bits, flip_the_end, zero_a_page, append_bytes, drop_bytes_inside, swap, empty, put_code_into,
)  # fmt: skip


def test_45_damages_of_the_newest_are_passed_over(
    folder_of_two: tuple[Checkpoints, dict[str, dict[str, Any]]],
    tmp_path: Path,
    make_learner: MakeLearner,
    assert_same_state: AssertSame,
    caplog: pytest.LogCaptureFixture,
) -> None:
    checkpoints, states = folder_of_two
    before, newest = (checkpoints.folder / name for name in ("step-000000004.pt", "step-000000005.pt"))
    elsewhere = Checkpoints(tmp_path / "another run" / "checkpoints", "seed: 4\n")
    stranger = make_learner(ema_decay=0.9, seed=8)
    save_at(elsewhere, stranger, 5)
    elsewhere.finish(stranger.model.state_dict())
    others = [before, newest, checkpoints.best, elsewhere.final, elsewhere.folder / newest.name]
    whole = newest.read_bytes()
    learner = make_learner(ema_decay=0.9)
    resume(Checkpoints(checkpoints.folder, ""), learner)
    assert_same_state(learner.state_dict(), states[newest.name])  # undamaged, it is what is taken
    source = random.Random(0)
    done = 0
    while done < 45:
        newest.write_bytes(whole)
        damage = DAMAGES[done % len(DAMAGES)]
        damage(source, newest, others)
        if newest.read_bytes() == whole:  # a page of zeros that was one
            continue
        done += 1
        caplog.clear()
        resume(Checkpoints(checkpoints.folder, ""), learner)
        assert_same_state(learner.state_dict(), states[before.name], damage.__name__)
        (record,) = caplog.records
        assert record.levelname == "WARNING"
        assert str(newest) in record.getMessage() and "the one before" in record.getMessage()
        assert "\n" not in record.getMessage()
        if damage is not swap:  # a file that is whole can be evaluated, wherever it lies
            refusal(newest)
        assert not newest.with_name("made").exists()


@pytest.mark.parametrize("damage", [flip_bits, swap, put_code_into])
def test_a_damaged_best_stops_the_end_of_the_run(
    folder_of_two: tuple[Checkpoints, dict[str, dict[str, Any]]], make_learner: MakeLearner, damage: Any
) -> None:
    checkpoints, _ = folder_of_two
    learner = make_learner(ema_decay=0.9)
    load_best(checkpoints, learner)
    assert learner.step == 5
    damage(random.Random(1), checkpoints.best, sorted(checkpoints.folder.glob("step-*.pt")))
    with pytest.raises(ValueError, match=r"^checkpoint .*best\.pt: [^\n]*$"):
        load_best(checkpoints, learner)


def test_where_none_is_whole_training_begins_afresh_and_its_saves_stay(
    folder_of_two: tuple[Checkpoints, dict[str, dict[str, Any]]],
    make_learner: MakeLearner,
    assert_same_state: AssertSame,
    caplog: pytest.LogCaptureFixture,
) -> None:
    checkpoints, _ = folder_of_two
    for path in checkpoints.folder.glob("step-*.pt"):
        path.write_bytes(path.read_bytes()[:-1])
    learner, expected = make_learner(ema_decay=0.9), make_learner(ema_decay=0.9).state_dict()
    resume(checkpoints, learner)
    assert_same_state(learner.state_dict(), expected)
    assert len(caplog.records) == 2
    save_at(checkpoints, learner, 1)
    assert checkpoints.latest() == checkpoints.folder / "step-000000001.pt"
    assert names(checkpoints) == ["best.pt", "step-000000001.pt"]  # the damaged, later ones go
    resumed = make_learner(ema_decay=0.9)
    resume(checkpoints, resumed)
    assert resumed.step == 1
