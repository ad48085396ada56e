"""Every study of conf/study composes, is planned, and names only what its grid has."""

import functools
import re

import pytest

from srp_exp.commands.report.command import plan_study
from srp_exp.config import CONF_DIR
from srp_exp.config.schemas.study import METHOD
from srp_exp.runs.folder.store import State
from srp_exp.studies.pairs import FEWEST_PAIRS, check_decidable, plain_study, statements

STUDIES = sorted(path.stem for path in (CONF_DIR / "study").glob("*.yaml"))


@pytest.fixture(scope="module")
def plan_of(tmp_path_factory):
    """`plan_of(name)`: configuration and grid of a study where no run is there; planned once."""
    output_dir = tmp_path_factory.mktemp("outputs")
    yield functools.cache(lambda name: plan_study([f"study={name}", f"output_dir={output_dir}"]))
    assert list(output_dir.iterdir()) == []


def test_there_are_studies() -> None:
    assert "demo" in STUDIES


@pytest.mark.parametrize("name", STUDIES)
def test_a_study_is_planned_and_refers_to_what_it_has(name, plan_of) -> None:
    config, grid = plan_of(name)
    study = config.study
    assert study.name == name
    assert study.question.strip().endswith("?")
    assert study.claim.strip()
    assert {planned.run.state for planned in grid.runs} == {State.new}
    axes = {axis for planned in grid.runs for axis, _ in planned.cell}
    methods = {planned.method for planned in grid.runs}
    assert methods == set(study.methods)
    assert {*study.rows, *study.columns} <= {METHOD, *axes}
    assert set(study.each) <= axes
    assert set(study.rows).isdisjoint(study.columns)
    assert study.comparisons
    compared = [{c.method, c.baseline, *c.beyond} for c in study.comparisons]
    assert set.union(*compared) == methods, "a method that enters no comparison needn't be run"
    measured = {
        metric.rpartition(".")[0] for metric in (study.metric, *(c.metric for c in study.comparisons)) if metric
    }
    assert measured - {""} <= set(config.evaluators)
    assert grid.fixed == ()


@pytest.mark.parametrize("name", STUDIES)
def test_a_study_can_decide_with_two_to_spare_and_says_what_matters_and_why(name, plan_of) -> None:
    config, grid = plan_of(name)
    study = plain_study(config.study)
    assert not study["pilot"]
    check_decidable(study, grid.entries)
    for statement in statements(study, grid.entries):
        assert statement.structural or (statement.smallest > 0 and statement.reason.endswith("our choice"))
        seeds = [min(len(statement.cells[cell]) for cell in group) for group in statement.groups]
        first = sum(min(of, study["looks"][0]) if study["looks"] else of for of in seeds)
        assert statement.structural or first >= FEWEST_PAIRS + 2, "two runs may fail"


@pytest.mark.parametrize("name", STUDIES)
def test_the_methods_of_a_study_are_different_runs(name, plan_of) -> None:
    _, grid = plan_of(name)
    assert len(grid.distinct()) == len(grid.runs)


@pytest.mark.parametrize("name", STUDIES)
def test_the_head_of_a_study_says_how_it_is_run_and_how_many_runs_it_has(name, plan_of) -> None:
    head = "".join(
        line for line in (CONF_DIR / "study" / f"{name}.yaml").read_text().splitlines(True) if line[0] == "#"
    )
    assert f"srp-exp study={name}" in head
    count = re.search(r"(\w+) (?:runs|short trainings)\b", head)
    assert count is not None
    _, grid = plan_of(name)
    words = {"twelve": 12}
    said = words.get(count[1].lower()) or int(count[1])
    assert said == len(grid.distinct())


@pytest.mark.parametrize("name", STUDIES)
def test_the_documents_have_every_study(name, plan_of) -> None:
    docs = CONF_DIR.parent / "docs"
    _, grid = plan_of(name)
    row, cost = re.findall(rf"^\|.*`{name}` \|.*$", (docs / "studies.md").read_text(), re.MULTILINE)
    assert row.endswith(f" {len(grid.distinct())} |")
    assert cost.startswith(f"| `{name}` | {len(grid.distinct())} |")
    (shown,) = re.findall(rf"^\| `{name}` \|(.*)\|$", (docs / "statistics.md").read_text(), re.MULTILINE)
    wrong, *_ = (float(part.strip(" %")) for part in shown.split("|"))
    assert wrong <= 5
