"""A grid that isn't the study's own is marked wherever its verdict stands, and a part of a claim isn't the claim."""

import json
from dataclasses import replace
from typing import Any

import pytest

from srp_exp.commands.report.command import plan_study
from srp_exp.runs.folder.store import State
from srp_exp.studies.reports.report import contents, write_report
from srp_exp.studies.verdict import Outcome

CHANGES = [
        (["study=demo"], (), ()),
        (["study=demo", "seed=0,1,2,3,4,5", "device=cpu", "data_root=/data", "dry=true"], (), ()),
        (["study=demo", "seed=1,4,6"], ("seed=1,4,6",), ()),
        (["study=demo", "recipe.epochs=1"], ("recipe.epochs=1",), ()),
        (["study=demo", "speed=fast"], ("speed=fast",), ()),
        (["study=demo", "study.metric=top5"], ("study.metric=top5",), ()),
        (["study=main_cifar", "dataset=mnist5k"], ("dataset=mnist5k",), ("dataset=cifar10", "dataset=cifar100")),
        (["study=main_cifar", "dataset=cifar10"], ("dataset=cifar10",), ("dataset=cifar100",)),
        (["study=main_cifar", "dataset=cifar100,cifar10", "dataset.download=true"], ("dataset=cifar100,cifar10",), ()),
        (
            ["study=attention_types", "attention=se"], ("attention=se",),
            tuple(f"attention={name}" for name in ("eca", "ceca", "ese", "cbam", "ge", "sk", "splat")),
        ),
    ]  # fmt: skip


def test_what_the_command_line_changes_is_known(tmp_path: Any) -> None:
    for overrides, changed, lacking in CHANGES:
        _, grid = plan_study([*overrides, f"output_dir={tmp_path}"])
        assert (grid.changed, grid.lacking) == (changed, lacking)


@pytest.fixture
def supported(make_results: Any, comparison: Any) -> Any:
    values = {("srp", ()): {s: 0.95 + s / 1e4 for s in range(6)}, ("gap", ()): dict.fromkeys(range(6), 0.93)}
    return make_results(values, comparisons=[comparison("srp", "gap")])


def test_a_change_is_marked_in_verdict_report_and_json(supported: Any, tmp_path: Any) -> None:
    assert contents(supported).outcome == "supported"
    made = contents(replace(supported, changed=("recipe.epochs=1",), left_out=12))
    assert made.outcome == "supported (changed: recipe.epochs=1, 12 finished runs of other seeds left out)"
    write_report(made, tmp_path)
    assert all(made.outcome in (tmp_path / f"report.{kind}").read_text().replace("\\", "") for kind in ("md",))
    assert made.outcome.capitalize() in (tmp_path / "report.html").read_text()
    told = json.loads((tmp_path / "verdict.json").read_text())
    assert (told["verdict"], told["marks"]) == ("supported", made.marks)
    assert {of["marks"] for of in told["statements"]} == {"; ".join(made.marks)}
    header, row = (tmp_path / "comparisons.csv").read_text().splitlines()
    assert {"level", "shown_at", "refuted_at", "role", "p_sign_flips", "marks", "warnings"} <= set(header.split(","))
    assert "changed: recipe.epochs=1" in row


def test_without_a_value_of_each_the_claim_is_never_said(supported: Any) -> None:
    made = contents(replace(supported, lacking=("dataset=cifar100",), changed=("dataset=cifar10",)))
    assert made.verdict.outcome == Outcome.undecided
    assert "dataset=cifar100" in made.reason and "1 of 1 statements shown" in made.reason
    assert made.verdicts[0].outcome == Outcome.supported


def test_a_failed_run_is_named_at_the_verdict_which_it_doesn_t_stop(make_results: Any, comparison: Any) -> None:
    values: Any = {("srp", ()): {s: 0.95 + s / 1e4 for s in range(7)}, ("gap", ()): dict.fromkeys(range(7), 0.93)}
    values["gap", ()][3] = State.failed
    made = contents(make_results(values, comparisons=[comparison("srp", "gap")]))
    assert made.outcome == "supported (preliminary)"
    assert f"Failed: {made.failed[0]}; the same command tries again, or study.exclude leaves it out." in made.reason
    assert made.failed == ["run-1-3"]


def test_a_look_is_named_and_p_isn_t_rounded_over_its_level(make_results: Any, comparison: Any) -> None:
    values = {("srp", ()): {s: 0.95 + s / 1e4 for s in range(6)}, ("gap", ()): dict.fromkeys(range(6), 0.93)}
    made = contents(make_results(values, comparisons=[comparison("srp", "gap")], looks=[6, 10, 14]))
    assert made.outcome == "supported (look 1 of 3)"
    assert ", look 1 of 3." in made.reason
