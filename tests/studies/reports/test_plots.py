"""The pictures: what is drawn, that they are the same every time, and that they fit into a page."""

import re
import subprocess
import sys
from typing import Any
from xml.etree import ElementTree

from srp_exp.runs.folder.store import State
from srp_exp.studies.reports.plots import Plot
from srp_exp.studies.reports.plots import plots as all_plots
from srp_exp.studies.reports.report import contents
from srp_exp.studies.results import StudyResults

SVG = "{http://www.w3.org/2000/svg}"


def plots(results: StudyResults) -> list[Plot]:
    return all_plots(results, contents(results).measured)


def elements(plot: Plot) -> list[ElementTree.Element]:
    return [ElementTree.fromstring(panel.svg) for panel in plot.panels]


def words(svg: ElementTree.Element) -> set[str]:
    return {"".join(text.itertext()) for text in svg.iter(f"{SVG}text")}


def test_the_plots_of_a_study(full_study: StudyResults) -> None:
    _, scale, parameters, epochs = plots(full_study)
    assert [panel.title for panel in scale.panels] == ["backbone=resnet20", "backbone=resnet56"]
    assert [panel.title for panel in parameters.panels] == [""]
    assert len(epochs.panels) == 2
    assert {"mean region scale over depth", "top-1 (%)", "gap (scale 1)", "fixed", "scheduled"} <= words(
        elements(scale)[0]
    )
    assert {"parameters (million)", "top-1 (%)", "gap", "resnet20", "resnet56"} <= words(elements(parameters)[0])
    assert {"epoch", "top-1 (%)", "gap", "fixed", "scheduled"} <= words(elements(epochs)[0])


def test_a_text_alternative_has_the_numbers(full_study: StudyResults) -> None:
    for plot in plots(full_study):
        for svg in elements(plot):
            assert svg.get("role") == "img"
    label = elements(plots(full_study)[1])[0].get("aria-label")
    assert label == (
        "Test top-1 (%) over region scale, backbone=resnet20: "
        "gap 97.20 at 1; fixed 98.30 at 0.5; scheduled 98.60 at 0.75"
    )


def test_points_stand_where_their_values_are(full_study: StudyResults) -> None:
    """The markers of the baseline over parameters lie on the scale that the ticks of the axis give."""
    svg = elements(plots(full_study)[2])[0]
    marks = [float(use.get("y", "nan")) for use in svg.iter(f"{SVG}use") if "--series-0" in use.get("style", "")]
    ticks = []
    for group in svg.iter(f"{SVG}g"):
        if re.search(r"-ytick_\d+$", group.get("id", "")):
            (use,), (text,) = group.findall(f".//{SVG}use"), group.findall(f".//{SVG}text")
            ticks.append((float(text.text or "nan"), float(use.get("y", "nan"))))
    (low, low_y), (high, high_y) = ticks[0], ticks[-1]
    values = [low + (y - low_y) / (high_y - low_y) * (high - low) for y in marks]
    # t(0.975, 2) * 0.1 / sqrt(3) = 0.2484 to either side of the means 97.2 and 98.0; the last one is the legend's.
    expected = [97.2, 98.0, *(mean + side * 0.2484 for mean in (97.2, 98.0) for side in (-1, 1))]
    for value in expected:
        assert min(abs(value - found) for found in values) < 1e-3


def test_the_same_results_give_the_same_bytes(full_study: StudyResults) -> None:
    first, second = (
        [file for plot in plots(full_study) for panel in plot.panels for file in (panel.svg, panel.files())]
        for _ in "ab"
    )
    assert first == second


def test_ids_are_unique_and_every_reference_is_met(full_study: StudyResults) -> None:
    text = "".join(svg for plot in plots(full_study) for svg in (panel.svg for panel in plot.panels))
    ids = re.findall(r'\bid="([^"]+)"', text)
    assert len(ids) == len(set(ids))
    referenced = set(re.findall(r'href="#([^"]+)"', text)) | set(re.findall(r"url\(#([^)]+)\)", text))
    assert referenced
    assert referenced <= set(ids)


def test_text_takes_the_colour_of_the_page_and_series_that_of_its_variables(full_study: StudyResults) -> None:
    text = "".join(svg for plot in plots(full_study) for svg in (panel.svg for panel in plot.panels))
    assert "currentColor" in text
    assert {f"--series-{number}" for number in range(3)} == set(re.findall(r"--series-\d", text))
    assert "#010203" not in text


def test_names_are_escaped(make_results: Any) -> None:
    results = make_results({('<b> & "c"', ()): {0: 0.9}})
    (curves,) = plots(results)
    (svg,) = elements(curves)
    assert '<b> & "c"' in words(svg)
    assert '<b> & "c" 90.00 at 3' in str(svg.get("aria-label"))


def test_an_underscore_or_dollar_is_no_formula(make_results: Any) -> None:
    results = make_results({("_a $x$", ()): {0: 0.9}, ("_b", ()): {0: 0.8}})
    (svg,) = elements(plots(results)[0])
    assert {"_a $x$", "_b"} <= words(svg)


def test_nothing_finished_has_no_plot(make_results: Any) -> None:
    assert plots(make_results({("gap", ()): {0: State.new}})) == []


def test_matplotlib_comes_with_the_first_picture() -> None:
    code = "import sys, srp_exp.studies.reports.report; assert not {'matplotlib', 'jinja2'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
