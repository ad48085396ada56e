"""Every study of conf/study composes, is planned, and names only what its grid has."""

import re

import pytest

from srp_exp.commands.report.command import plan_study
from srp_exp.config import CONF_DIR
from srp_exp.config.schemas.study import METHOD
from srp_exp.runs.folder.store import State
from srp_exp.studies.pairs import FEWEST_PAIRS, check_decidable, plain_study, statements

STUDIES = sorted(path.stem for path in (CONF_DIR / "study").glob("*.yaml"))


@pytest.fixture(scope="module")
def output_dir(tmp_path_factory):
    """To which planning writes nothing."""
    output_dir = tmp_path_factory.mktemp("outputs")
    yield output_dir
    assert list(output_dir.iterdir()) == []


@pytest.mark.parametrize("name", STUDIES)
def test_a_study_is_planned_and_can_decide_and_its_head_and_the_documents_say_how(name, output_dir) -> None:
    config, grid = plan_study([f"study={name}", f"output_dir={output_dir}"])
    refers_to_what_it_has(name, config, grid)
    assert len(grid.distinct()) == len(grid.runs)  # the methods are different runs
    can_decide_with_two_to_spare_and_says_why(plain_study(config.study), grid)
    assert runs_in_the_head(name) == len(grid.distinct())
    stands_in_the_documents(name, len(grid.distinct()))


def refers_to_what_it_has(name, config, grid) -> None:
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
    compared = [{c.method, c.baseline, *c.beyond} for c in study.comparisons]
    assert set.union(*compared) == methods, "a method that enters no comparison needn't be run"
    metrics = (study.metric, *(c.metric for c in study.comparisons))
    measured = {metric.rpartition(".")[0] for metric in metrics if metric}
    assert measured - {""} <= set(config.evaluators)
    assert grid.fixed == ()


def can_decide_with_two_to_spare_and_says_why(study, grid) -> None:
    assert not study["pilot"]
    check_decidable(study, grid.entries)
    for statement in statements(study, grid.entries):
        assert statement.structural or (statement.smallest > 0 and statement.reason.endswith("our choice"))
        seeds = [min(len(statement.cells[cell]) for cell in group) for group in statement.groups]
        first = sum(min(of, study["looks"][0]) if study["looks"] else of for of in seeds)
        assert statement.structural or first >= FEWEST_PAIRS + 2, "two runs may fail"


def runs_in_the_head(name) -> int:
    lines = (CONF_DIR / "study" / f"{name}.yaml").read_text().splitlines(True)
    head = "".join(line for line in lines if line[0] == "#")
    assert f"srp-exp study={name}" in head
    count = re.search(r"(\w+) (?:runs|short trainings)\b", head)
    assert count is not None
    return {"twelve": 12}.get(count[1].lower()) or int(count[1])


def stands_in_the_documents(name, runs) -> None:
    docs = CONF_DIR.parent / "docs"
    row, cost = re.findall(rf"^\|.*`{name}` \|.*$", (docs / "studies.md").read_text(), re.MULTILINE)
    assert row.endswith(f" {runs} |")
    assert cost.startswith(f"| `{name}` | {runs} |")
    (shown,) = re.findall(rf"^\| `{name}` \|(.*)\|$", (docs / "statistics.md").read_text(), re.MULTILINE)
    wrong, *_ = (float(part.strip(" %")) for part in shown.split("|"))
    assert wrong <= 5
