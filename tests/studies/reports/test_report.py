"""A report is written in every format, whole, and says the same everywhere."""

import io
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from srp_exp.commands.listing import print_report
from srp_exp.runs.folder.origins import training_time
from srp_exp.runs.folder.store import State
from srp_exp.studies.reports import report
from srp_exp.studies.reports.report import contents, report_latex, write_report
from srp_exp.studies.reports.table_formats import latex
from srp_exp.studies.reports.tables import Table, TableCell
from srp_exp.studies.results import StudyResults

FILES = ["report.html", "report.md", "tables.tex", "entries.csv", "comparisons.csv", "verdict.json", "runs.csv"]
PLOTS = ["differences-0", "scale-0", "scale-1", "parameters-0", "epochs-0", "epochs-1"]

AWKWARD = Table(
    "Awkward", "A_b & 5 % of {c}, ~d^2 $ #1.", (("method", "x_1 [%]"),), 1,
    ((TableCell("[gates]"), TableCell("[+0.1, -2]", "(n=3)", True)), (TableCell("\\"), TableCell(""))), ("<1 ± 2 %",),
)  # fmt: skip
"""What TeX reads as something else: a row that begins with a bracket is an option of the line's end before."""


def test_all_formats_are_written(full_study: StudyResults, tmp_path: Path) -> None:
    folder = tmp_path / "reports" / "demo"
    paths = write_report(contents(full_study), folder)
    assert paths == [folder / name for name in [*FILES, *(f"{p}.{kind}" for p in PLOTS for kind in ("pdf", "png"))]]
    assert sorted(folder.iterdir()) == sorted(paths)


def test_a_warning_is_in_every_format(full_study: StudyResults, tmp_path: Path) -> None:
    shown = {
        path.name: path.read_text()
        for path in write_report(contents(full_study), tmp_path / "reports")
        if path.suffix not in (".pdf", ".png")
    }
    assert "runs of different commit in one table: a_1 (3 runs), b &amp; &lt;c&gt; (2 runs)" in shown["report.html"]
    assert "> **Warning:** runs of different commit in one table: a_1 (3 runs)" in shown["report.md"][:200]
    tables = shown["tables.tex"].split(r"\end{table}")
    assert "% Warning: runs of different commit" in tables[0]
    assert r"Warning: runs of different commit in one table: a\_1 (3 runs), b \& $<$c$>$ (2 runs)" in tables[0]
    assert all(full_study.warnings[0] in line for line in shown["entries.csv"].splitlines()[1:])
    assert all(full_study.warnings[0] in line for line in shown["runs.csv"].splitlines()[1:])


def test_without_warnings_none_is_mentioned(make_results: Any, tmp_path: Path) -> None:
    results = make_results({("gap", ()): {0: 0.9}})
    for path in write_report(contents(results), tmp_path / "reports")[: len(FILES)]:
        assert "warning:" not in path.read_text().lower()


def test_the_verdict_is_in_text_and_page(full_study: StudyResults, tmp_path: Path) -> None:
    made = contents(full_study)
    page, text, *_ = [p.read_text() for p in write_report(contents(full_study), tmp_path / "reports")[:2]]
    assert f"**Verdict:** {made.verdict.outcome.label} (preliminary): {made.verdict.reason}" in text.replace("\\", "")
    assert f'class="verdict {made.verdict.outcome.name}"' in page


def test_text_and_page_say_where_the_results_come_from(full_study: StudyResults, tmp_path: Path) -> None:
    page, text, *_ = [p.read_text() for p in write_report(contents(full_study), tmp_path / "reports")[:2]]
    made = contents(full_study)
    assert set(made.provenance) >= {"data", "commit", "torch", "python", "device", "processes", "threads"}
    assert made.provenance["training"] == f"{17 * 12.5 / 3600:.2f} core-hours"
    for name, value in made.provenance.items():
        assert f"- {name}: {value}\n" in text.replace("\\", "")
        assert f"<dt>{name}</dt><dd>{value}</dd>" in page


def test_the_text_shows_the_plot_on_which_the_verdict_rests(full_study: StudyResults, tmp_path: Path) -> None:
    write_report(contents(full_study), tmp_path)
    text = (tmp_path / "report.md").read_text()
    (picture,) = re.findall(r"^!\[Paired differences, .*\]\((.*)\)$", text, re.MULTILINE)
    assert (tmp_path / picture).is_file()


def test_hours_are_of_gpus_or_of_cores(full_study: StudyResults) -> None:
    runs = [run for *_, run in contents(full_study).runs if run.state == State.finished][:3]
    for run, (cudnn, processes, threads) in zip(runs, [(None, 2, 8), (90100, 4, 8), (90100, 1, 2)], strict=True):
        run.results["training_seconds"] = 900.0
        run.provenance.update(cudnn=cudnn, processes=processes, threads=threads)
    assert training_time(runs) == {"training": "4.00 core-hours, 1.25 GPU-hours"}
    assert training_time([]) == {}
    start = {**runs[0].provenance}
    runs[0].starts[:] = [start, start]  # results.json has the seconds of the last
    assert training_time(runs) == {"training": "at least 4.00 core-hours, 1.25 GPU-hours"}


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no pdflatex here: the tables aren't compiled")
def test_latex_compiles_and_fits_the_page(full_study: StudyResults, tmp_path: Path) -> None:
    tables = report_latex(contents(full_study)) + latex(AWKWARD, "tab:awkward")
    document = rf"\documentclass{{article}}\usepackage{{booktabs,graphicx}}\begin{{document}}{tables}\end{{document}}"
    (tmp_path / "tables.tex").write_text(document)
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "tables.tex"]
    compiled = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert compiled.returncode == 0, compiled.stdout[-1000:]
    assert (tmp_path / "tables.pdf").read_bytes().startswith(b"%PDF")
    assert "Overfull" not in compiled.stdout


def test_latex_has_a_table_of_each_kind(full_study: StudyResults, tmp_path: Path) -> None:
    text = (write_report(contents(full_study), tmp_path / "reports")[2]).read_text()
    for label in ("tab:demo_study-results", "tab:demo_study-comparisons"):
        assert text.count(rf"\label{{{label}}}") == 1
    assert text.count(r"\begin{table}") == text.count(r"\end{table}") == 2
    assert r"98.60 $\pm$ 0.26" in text


def test_the_terminal_shows_question_tables_and_verdict(full_study: StudyResults) -> None:
    file = io.StringIO()
    print_report(contents(full_study), Console(file=file, width=160))
    text = file.getvalue()
    for part in (
        "Does SRP beat GAP?", "warning: runs of different commit", "98.60 ± 0.26 (n=3)", "[+0.97, +1.83]",
        "claim: SRP improves accuracy", contents(full_study).reason[:60],
    ):  # fmt: skip
        assert part in text


def test_a_report_that_cannot_be_made_leaves_the_old_one(
    make_results: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results, folder = make_results({("gap", ()): {0: 0.9}}), tmp_path / "reports"
    before = {path: path.read_bytes() for path in write_report(contents(results), folder)}

    def fails(_: StudyResults) -> str:
        raise ValueError("no")

    monkeypatch.setattr(report, "run_values", fails)
    with pytest.raises(ValueError, match="no"):
        write_report(contents(make_results({("fixed", ()): {5: 0.8}})), folder)
    assert {path: path.read_bytes() for path in folder.iterdir()} == before


def test_a_report_says_the_same_each_time(full_study: StudyResults, tmp_path: Path) -> None:
    first, second = (write_report(contents(full_study), tmp_path / name) for name in ("a", "b"))
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]


def test_a_grid_without_methods_and_comparisons(make_results: Any, tmp_path: Path) -> None:
    """Its one method has no name, and there is nothing to judge."""
    results = make_results({("", (("srp", srp),)): {0: 0.9, 1: State.new} for srp in ("gap", "fixed")}, methods={})
    page, text, *_ = [p.read_text() for p in write_report(contents(results), tmp_path / "reports")[:2]]
    assert "The study compares nothing, so its claim is not tested." in text
    assert "The study compares nothing, so its claim is not tested." in page
    assert "Comparisons" not in text
