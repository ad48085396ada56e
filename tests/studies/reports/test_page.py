"""The page is whole, opens in a browser without an error, and asks the network for nothing."""

import os
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from planned_grids import entry_of

from srp_exp.runs.folder.store import State
from srp_exp.studies.reports.plots import plots
from srp_exp.studies.reports.report import contents
from srp_exp.studies.reports.report import page as page_of
from srp_exp.studies.results import StudyResults

VOID = {"meta", "link", "br", "img", "input", "hr"}
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here: the page isn't opened")


class Reader(HTMLParser):
    """Checks that tags are balanced, and keeps attributes, texts and the cells of the tables."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.text: list[str] = []
        self.tables: list[list[list[str]]] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.attributes += [(tag, name, value or "") for name, value in attributes]
        if tag not in VOID:
            self.open.append(tag)
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("th", "td"):
            self.tables[-1][-1].append("")

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.attributes += [(tag, name, value or "") for name, value in attributes]

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag, f"</{tag}> at {self.getpos()} closes another element"

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.text.append(data)
        if {"th", "td"} & set(self.open):
            self.tables[-1][-1][-1] += data


def page(results: StudyResults) -> str:
    made = contents(results)
    return page_of(made, plots(results, made.measured))


def read(text: str) -> Reader:
    reader = Reader()
    reader.feed(text)
    reader.close()
    assert reader.open == []
    return reader


def test_tables_have_the_numbers(full_study: StudyResults) -> None:
    results, comparisons, runs = read(page(full_study)).tables
    assert results == [
        ["method", "resnet20", "resnet56"],
        ["gap", "97.20 ± 0.10 (n=3) [1]", "98.00 ± 0.10 (n=3)"],
        ["fixed", "98.30 ± 0.30 (n=3)", "98.67 ± 0.15 (n=3)"],
        ["scheduled", "98.60 ± 0.26 (n=3)", "99.05 ± 0.07 (n=2 of 3)"],
    ]
    assert [len(rows) for rows in (comparisons, runs)] == [1 + 6, 1 + 18]
    assert runs[-2][:5] == ["scheduled", "backbone=resnet56", "1", "failed", ""]


def test_the_page_says_what_is_asked_and_what_came_out(full_study: StudyResults) -> None:
    made = contents(full_study)
    text = re.sub(r"\s+", " ", " ".join(read(page(full_study)).text))
    for part in (
        "Does SRP beat GAP?", "SRP improves accuracy", made.verdict.outcome.label.capitalize(), made.verdict.reason,
        full_study.warnings[0], "srp-exp study=demo_study recipe.epochs=3", "0123456789 (17 runs)",
        "2.14.1 (17 runs)", "AMD EPYC (17 runs)", "Published, not ours: gap, backbone resnet20: 95.00 (A & B, Table 1)",
    ):  # fmt: skip
        assert part in text
    order = ["Does SRP beat GAP?", full_study.warnings[0], made.verdict.reason, "Comparisons", "Learning curves"]
    assert [text.index(part) for part in order] == sorted(text.index(part) for part in order)


def test_nothing_comes_from_elsewhere(full_study: StudyResults) -> None:
    text = page(full_study)
    reader = read(text)
    for tag, name, value in reader.attributes:
        assert tag not in ("script", "iframe", "img", "object", "embed")
        if name in ("src", "href", "xlink:href", "data", "action"):
            assert value.startswith(("#", "data:")), f"<{tag} {name}={value}>"
    assert "@import" not in text
    assert set(re.findall(r"url\((.)", text)) <= {"#"}


def test_names_cannot_break_the_page(make_results: Any) -> None:
    evil = "<script>alert(1)</script> & \"'"
    results = make_results(
        {(evil, (("backbone", "</td>"),)): {0: 0.9}},
        warnings=(evil,),
        question=evil,
        claim=evil,
        arguments=(f"a={evil}",),
    )
    reader = read(page(results))
    assert not [tag for tag, *_ in reader.attributes if tag == "script"]
    assert reader.tables[0][1][0] == evil
    assert "".join(reader.text).count(evil) >= 4


def test_a_study_without_a_result_has_a_page(make_results: Any, comparison: Any) -> None:
    results = make_results(
        {("gap", ()): {0: State.new}, ("fixed", ()): {0: State.failed}}, comparisons=[comparison("fixed", "gap")]
    )
    runs = entry_of(results, "fixed").runs
    runs[0].folder.mkdir(parents=True)
    (runs[0].folder / "failure.txt").write_text("loss is <nan>\n")
    reader = read(page(results))
    assert reader.tables[0][1:] == [["gap", "- (0 of 1)"], ["fixed", "- (0 of 1)"]]
    assert "loss is <nan>" in reader.text
    assert "Undecided (preliminary)" in reader.text
    assert not [tag for tag, *_ in reader.attributes if tag == "svg"]


def chromium(profile: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    assert CHROMIUM is not None
    command = [
        CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--enable-logging=stderr",
        "--force-color-profile=srgb", f"--user-data-dir={profile}", *arguments,
    ]  # fmt: skip
    environment = {**os.environ, "DBUS_SESSION_BUS_ADDRESS": "disabled:"}
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=120, env=environment)


PROBE = """<script>
addEventListener("load", () => {
  const boxes = [...document.querySelectorAll("svg")].map(svg => svg.getBoundingClientRect());
  const sizes = boxes.map(box => Math.round(box.width) + "x" + Math.round(box.height)).join(" ");
  document.body.dataset.sizes = sizes;
  document.body.dataset.overflow = document.documentElement.scrollWidth - document.documentElement.clientWidth;
  document.body.dataset.requests = performance.getEntriesByType("resource").length;
});
</script></body>"""


@needs_chromium
@pytest.mark.parametrize("width", [500, 1200])
def test_a_browser_lays_it_out(full_study: StudyResults, tmp_path: Path, width: int) -> None:
    """Measured by a script that only this test adds: the plots have a size, and nothing juts out of the window."""
    file = tmp_path / "probe.html"
    file.write_text(page(full_study).replace("</body>", PROBE))
    done = chromium(tmp_path / "profile", f"--window-size={width},900", "--dump-dom", file.as_uri())
    assert "CONSOLE" not in done.stderr
    measured = dict(re.findall(r'data-(sizes|overflow|requests)="([^"]*)"', done.stdout))
    sizes = [tuple(map(int, size.split("x"))) for size in measured["sizes"].split()]
    assert len(sizes) == 6
    assert all(250 < w < width and 100 < h < 700 for w, h in sizes)
    assert (measured["overflow"], measured["requests"]) == ("0", "0")


@needs_chromium
@pytest.mark.parametrize(("scheme", "light"), [(1, True), (0, False)])
def test_a_screenshot_shows_the_plots_in_light_and_dark(
    full_study: StudyResults, tmp_path: Path, scheme: int, light: bool
) -> None:
    file, picture = tmp_path / "report.html", tmp_path / "report.png"
    file.write_text(page(full_study))
    done = chromium(
        tmp_path / "profile", "--window-size=1200,3000", f"--blink-settings=preferredColorScheme={scheme}",
        f"--screenshot={picture}", file.as_uri(),
    )  # fmt: skip
    assert "CONSOLE" not in done.stderr
    pixels = np.asarray(Image.open(picture).convert("RGB")).astype(int)
    assert pixels.shape == (3000, 1200, 3)
    assert (pixels[5, 5].mean() > 250) == light
    first_series = (0x00, 0x72, 0xB2) if light else (0x56, 0xB4, 0xE9)
    drawn = (np.abs(pixels - first_series).max(axis=2) < 8).sum()
    assert drawn > 300  # the lines and markers of the first series in two plots
