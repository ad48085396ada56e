"""Lines go to the console and to run.log; a traceback goes to run.log alone."""

import re
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from srp_exp.training.reporting import logs
from srp_exp.training.reporting.logs import LOG, log_to


@pytest.fixture
def console(monkeypatch: pytest.MonkeyPatch) -> StringIO:
    stream = StringIO()
    arguments = {"soft_wrap": True, "highlight": False, "markup": False}
    monkeypatch.setattr(logs, "CONSOLE", Console(file=stream, width=40, **arguments))
    return stream


def test_a_line_goes_to_both_places(console: StringIO, tmp_path: Path) -> None:
    with log_to(tmp_path):
        LOG.info("epoch %d/%d  loss %.3f", 2, 10, 0.5)
        LOG.debug("not shown")
    assert console.getvalue() == "epoch 2/10  loss 0.500\n"
    line = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} INFO epoch 2/10  loss 0\.500\n"
    assert re.fullmatch(line, (tmp_path / "run.log").read_text())


@pytest.mark.parametrize("text", ["[red]not markup[/red] [/] 100% größer ≥", "x" * 200])
def test_text_arrives_as_it_is(console: StringIO, tmp_path: Path, text: str) -> None:
    with log_to(tmp_path):
        LOG.info(text)
        LOG.info("%s", text)
    assert console.getvalue() == f"{text}\n" * 2
    assert [line.partition(" INFO ")[2] for line in (tmp_path / "run.log").read_text("utf-8").splitlines()] == [
        text
    ] * 2


def test_a_resumed_run_appends(console: StringIO, tmp_path: Path) -> None:
    for text in ("first", "second"):
        with log_to(tmp_path):
            LOG.info(text)
    lines = (tmp_path / "run.log").read_text().splitlines()
    assert [line.split()[-1] for line in lines] == ["first", "second"]
    assert console.getvalue() == "first\nsecond\n"


@pytest.mark.parametrize("kind", [ValueError, KeyboardInterrupt])
def test_an_exception_leaves_its_traceback_in_the_file_only(
    console: StringIO, tmp_path: Path, kind: type[BaseException]
) -> None:
    def fails() -> None:
        raise kind("the reason")

    with pytest.raises(kind, match="the reason"), log_to(tmp_path):
        LOG.info("before")
        fails()
    text = (tmp_path / "run.log").read_text()
    assert "ERROR stopped" in text
    assert f"{kind.__name__}: the reason" in text
    assert "in fails" in text
    assert console.getvalue() == "before\n"


def test_an_exit_leaves_no_traceback(console: StringIO, tmp_path: Path) -> None:
    with pytest.raises(SystemExit), log_to(tmp_path):
        LOG.info("saved")
        raise SystemExit(75)
    assert (tmp_path / "run.log").read_text().endswith("INFO saved\n")


def test_nothing_is_logged_to_a_run_that_has_ended(console: StringIO, tmp_path: Path) -> None:
    for name in ("first run", "second run"):
        (tmp_path / name).mkdir()
        with log_to(tmp_path / name):
            LOG.info(name)
    with pytest.raises(RuntimeError), log_to(tmp_path / "second run"):
        raise RuntimeError
    assert LOG.handlers == []
    assert "second run" not in (tmp_path / "first run" / "run.log").read_text()
    assert "first run" not in (tmp_path / "second run" / "run.log").read_text()
