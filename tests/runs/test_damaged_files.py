"""Run folders with a file that is damaged, or that may not be read or written: one line names the file."""

import contextlib
import io
import os
import shutil
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from rich.console import Console

from srp_exp.commands.report import command as report
from srp_exp.commands.report import overview
from srp_exp.errors import UserError

TINY = (
    "dataset=synthetic", "dataset.train_size=64", "dataset.test_size=32", "dataset.image_size=[16,16]",
    "recipe.batch_size=16", "recipe.epochs=1", "recipe.warmup_epochs=0", "backbone.depth=8", "device=cpu",
    "progress=false",
)  # fmt: skip
GRID = ("-m", *TINY, "seed=0,1", "evaluators=[gates]")
NOBODY = 65534


@pytest.fixture(scope="module")
def trained(command_line) -> Iterator[Path]:
    """A folder that everybody may read, with outputs/ of two finished runs, of seeds 0 and 1."""
    with tempfile.TemporaryDirectory() as name, contextlib.chdir(name):
        Path(name).chmod(0o755)
        assert command_line(*GRID).code == 0
        yield Path(name)


@pytest.fixture
def runs(trained) -> Iterator[list[Path]]:
    """The run folders of a copy of `trained`, below the current folder."""
    with tempfile.TemporaryDirectory() as name, contextlib.chdir(name):
        Path(name).chmod(0o755)
        shutil.copytree(trained / "outputs", "outputs")
        for path in Path("outputs").rglob("*"):
            os.chown(path, NOBODY if os.geteuid() == 0 else -1, -1)
        yield sorted(
            Path("outputs", "runs").iterdir(), key=lambda run: "\nseed: 1\n" in (run / "config.yaml").read_text()
        )


@contextlib.contextmanager
def unprivileged() -> Iterator[None]:
    """Not root, who may read and write everything."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


def run_report(*arguments: str) -> str:
    """The one line that `srp-report <arguments>` ends with."""
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(io.StringIO()):
        patch.setattr(sys, "argv", ["srp-report", *arguments])
        with pytest.raises(SystemExit) as ended:
            report.main()
        traceback.clear_frames(ended.value.__traceback__)
    return str(ended.value.code)


def assert_one_line(line: str, *parts: str) -> None:
    assert line.count("\n") == 0
    assert len(line) <= 300
    assert line.startswith(("srp-exp: ", "srp-report: "))
    assert [part for part in parts if part not in line] == [], line


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:40])


def other(text: str) -> Callable[[Path], object]:
    return lambda file: file.write_text(text)


def noise(file: Path) -> None:
    file.write_bytes(b"\xff\xfe\x00\x01")


def folder(file: Path) -> None:
    file.unlink()
    file.mkdir()


DAMAGE = {
    "cut": cut, "empty": other(""), "a list": other("[1]"), "nothing in it": other("{}"), "noise": noise,
    "a folder": folder, "words": other('{"test": {"top1": "high"}, "training_seconds": 1}'),
}  # fmt: skip


@pytest.mark.parametrize("damage", ["cut", "a list", "a folder", "words"])
def test_damaged_results_stop_every_command_that_needs_them(command_line, runs, damage) -> None:
    DAMAGE[damage](runs[0] / "results.json")
    file = str(runs[0] / "results.json")
    for arguments in ((*TINY, "seed=0"), GRID):
        outcome = command_line(*arguments)
        assert (outcome.code, outcome.err.count("\n")) == (1, 1), outcome.err
        assert_one_line(outcome.err.strip(), file)
    assert_one_line(run_report("runs"), file)


@pytest.mark.parametrize("name", ["results.json", "provenance.json"])
def test_a_damaged_run_does_not_hide_the_others(runs, capsys, name) -> None:
    noise(runs[0] / name)
    with pytest.raises(UserError, match=f"{runs[0].name}/{name} is damaged"):
        overview.list_runs([], Console(width=200))
    listed = capsys.readouterr().out
    assert runs[1].name in listed and "1 run: 1 finished" in listed
    assert runs[0].name not in listed


def test_the_results_of_another_run_are_refused(command_line, runs) -> None:
    shutil.copyfile(runs[1] / "results.json", runs[0] / "results.json")
    for arguments in ((*TINY, "seed=0"), GRID):
        outcome = command_line(*arguments)
        assert (outcome.code, outcome.err.count("\n")) == (1, 1), outcome.err
        assert f"{runs[0].name}/results.json is that of {runs[1].name}" in outcome.err
        assert "finished already" not in outcome.out
    assert f"is that of {runs[1].name}" in run_report("runs")


@pytest.mark.parametrize("command", ["mode=eval", "mode=compare", "evaluators=[responses]"])
def test_the_network_of_another_run_is_refused(command_line, runs, command) -> None:
    """Wherever the folder has been moved to, under whatever name; a file named by checkpoint= is what it is."""
    shutil.copyfile(runs[1] / "checkpoints" / "final.pt", runs[0] / "checkpoints" / "final.pt")
    before = (runs[0] / "evaluation" / "test" / "metrics.json").read_bytes()
    more = {"mode=export": ["format=safetensors"], "mode=compare": [f"other={runs[1]}"]}.get(command, [])
    named = [*TINY, "seed=0"] if command.startswith("evaluators") else [f"run={runs[0]}", "device=cpu"]
    outcome = command_line(command, *named, *more)
    assert (outcome.code, outcome.err.count("\n")) == (1, 1), outcome.err
    assert f"final.pt is that of {runs[1].name}" in outcome.err
    assert (runs[0] / "evaluation" / "test" / "metrics.json").read_bytes() == before
    moved = runs[1].rename(runs[1].with_name("my best"))
    assert command_line("mode=eval", f"run='{moved}'", "device=cpu").code == 0


@pytest.mark.parametrize(
    ("name", "damage", "command"),
    [
        ("provenance.json", "nothing in it", "runs"),
        ("provenance.json", "noise", "compare"),
        ("config.yaml", "a list", "runs"),
        ("config.yaml", "a folder", "runs"),
        ("evaluation/test/predictions.parquet", "cut", "compare"),
        ("evaluation/test/gates.json", "nothing in it", "mode=compare"),
        ("evaluation/test/metrics.json", "cut", "mode=compare"),
        ("checkpoints/final.pt", "a folder", "mode=eval"),
        ("checkpoints/final.pt", "noise", "mode=export"),
    ],
)
def test_the_damaged_file_is_named(command_line, runs, name, damage, command) -> None:
    DAMAGE[damage](runs[0] / name)
    if command in ("runs", "compare"):
        arguments = [*(str(run) for run in runs), "evaluators=[gates]"] if command == "compare" else []
        line = run_report(command, *arguments)
    else:
        more = {
            "mode=eval": ("split=train",),
            "mode=export": ("format=safetensors",),
            "mode=compare": (f"other={runs[1]}", "evaluators=[gates]"),
        }
        outcome = command_line(command, f"run={runs[0]}", "device=cpu", *more[command])
        assert (outcome.code, outcome.err.count("\n")) == (1, 1), outcome.err
        line = outcome.err.strip()
    assert_one_line(line, str(runs[0] / name))


@pytest.mark.parametrize(
    ("name", "mode", "arguments"),
    [
        ("results.json", 0, GRID),
        ("lock", 0, ("seed=0", "rerun=true")),
        ("", 0o555, ("seed=0", "rerun=true")),
        ("checkpoints/final.pt", 0, ("mode=eval", "split=train")),
        ("evaluation", 0o555, ("mode=eval", "split=train")),
        ("", 0o555, ("mode=export", "format=safetensors")),
        ("..", 0o444, ("seed=5",)),
        ("..", 0o555, ("-m", "seed=5,6")),
    ],
)
def test_what_may_not_be_read_or_written_is_named(command_line, runs, name, mode, arguments) -> None:
    (runs[0] / name).chmod(mode)
    if arguments[0].startswith("mode="):
        arguments = (*arguments, f"run={runs[0]}", "device=cpu")
    elif arguments is not GRID:
        arguments = (*arguments, *TINY)
    with unprivileged():
        outcome = command_line(*arguments)
    (runs[0] / name).chmod(0o755)  # for the one who clears up
    assert (outcome.code, outcome.err.count("\n")) == (1, 1), outcome.err
    assert_one_line(outcome.err.strip(), "ermission denied", str(runs[0].parent if name == ".." else runs[0]))


@pytest.mark.parametrize(("name", "mode"), [("config.yaml", 0), ("..", 0)])
def test_a_report_names_what_may_not_be_read(runs, name, mode) -> None:
    (runs[0] / name).chmod(mode)
    with unprivileged():
        line = run_report("runs")
    (runs[0] / name).chmod(0o755)
    assert_one_line(line, "ermission denied", "outputs/runs")


@pytest.mark.parametrize(
    ("place", "sweep"),
    [
        ("a file", ("-m", "srp=gap,fixed")),
        ("outputs/runs/a file", ("study=demo",)),
        ("/dev/null", ()),
        ("/proc/none", ("study=demo",)),
    ],
)
def test_a_place_that_takes_no_folder_is_named(command_line, tmp_path, monkeypatch, place, sweep) -> None:
    monkeypatch.chdir(tmp_path)
    if not place.startswith("/"):
        Path(place).parent.mkdir(parents=True, exist_ok=True)
        Path(place).write_text("")
    outcome = command_line(*sweep, *TINY, f"output_dir='{place}'")
    assert (outcome.code, outcome.err.count("\n")) == (1, 1), outcome.err
    assert_one_line(outcome.err.strip(), place)


def test_a_report_that_can_not_be_written_is_named(runs) -> None:
    Path("outputs", "reports").write_text("")
    assert_one_line(run_report("study=demo", *TINY, "seed=0"), "outputs/reports")


def test_a_config_file_that_may_not_be_read_is_named(command_line, runs) -> None:
    file = Path("my", "recipe", "mine.yaml")
    file.parent.mkdir(parents=True)
    file.write_text("name: mine\n")
    file.chmod(0)
    with unprivileged():
        outcome = command_line("--config-dir", "my", "recipe=mine")
    assert (outcome.code, outcome.err.count("\n")) == (1, 1), outcome.err
    assert_one_line(outcome.err.strip(), "ermission denied", str(file))
