"""The grid of a study: which runs, in which folders, in which states."""

import itertools
from collections.abc import Sequence

import pytest
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.types import RunMode
from omegaconf import DictConfig
from planned_grids import THREE, TINY, begin, fail, finish, plan

from srp_exp.config import CONF_DIR
from srp_exp.config.identity import run_folder
from srp_exp.config.register import register
from srp_exp.runs.folder.store import State
from srp_exp.studies.grid import Grid
from srp_exp.studies.grid import plan as plan_grid


def states(grid: Grid) -> list[State]:
    return [planned.run.state for planned in grid.runs]


def test_a_grid_has_every_method_in_every_cell_for_every_seed(tmp_path) -> None:
    grid = plan("attention=se,eca", "recipe.lr=0.1,0.2", "seed=3,1", output_dir=tmp_path)
    expected = set(itertools.product(("gap", "fixed", "scheduled"), ("se", "eca"), ("0.1", "0.2"), (3, 1)))
    found = [(p.method, dict(p.cell)["attention"], dict(p.cell)["recipe.lr"], p.seed) for p in grid.runs]
    assert set(found) == expected
    assert len(found) == len(expected) == len(grid.distinct())
    assert {dict(p.cell)["dataset"] for p in grid.runs} == {"synthetic"}
    assert grid.runs[0].label == "gap dataset=synthetic attention=se recipe.lr=0.1 seed=3"


def test_each_run_is_planned_for_the_folder_in_which_hydra_would_run_it(compose, tmp_path) -> None:
    grid = plan("seed=0,2", "mixing=none,mixup", output_dir=tmp_path)
    assert len(grid.runs) == 12
    for planned in grid.runs:
        composed = compose(*(o for o in planned.overrides if o != "study=three"), f"output_dir={tmp_path}")
        assert planned.run.folder == run_folder(composed)
        assert (composed.seed, composed.srp.name) == (planned.seed, planned.method)


def test_a_configuration_is_composed_once_for_all_its_seeds() -> None:
    register()
    overrides = [*THREE, *TINY, "seed=range(30)", "mixing=none,mixup"]
    composed: list[Sequence[str]] = []
    with initialize_config_dir(str(CONF_DIR), version_base=None):
        loader = GlobalHydra.instance().config_loader()
        config = loader.load_configuration("config", overrides, run_mode=RunMode.MULTIRUN)
        parse = OverridesParser.create(config_loader=loader).parse_overrides

        def compose(of_run: list[str]) -> DictConfig:
            composed.append(of_run)
            return loader.load_sweep_config(config, of_run)

        grid = plan_grid(config, config.hydra.sweeper.params, parse(list(config.hydra.overrides.task)), parse, compose)
    assert len(grid.runs) == 180
    assert len(grid.distinct()) == 180
    assert len(composed) == 6


def test_a_seed_given_twice_is_one_run(tmp_path) -> None:
    assert [planned.seed for planned in plan("seed=1,1,0", output_dir=tmp_path).runs] == [1, 0] * 3


def test_two_methods_that_name_the_same_run_share_its_folder(tmp_path) -> None:
    grid = plan("seed=0,1", "+study.methods.half=['srp=fixed','srp.scale=0.5']", output_dir=tmp_path)
    folders = {method: [p.run.folder for p in grid.runs if p.method == method] for method in ("fixed", "half", "gap")}
    assert folders["fixed"] == folders["half"]
    assert set(folders["fixed"]).isdisjoint(folders["gap"])
    assert (len(grid.runs), len(grid.distinct())) == (8, 6)


def test_without_a_seed_axis_the_seed_of_the_command_line_counts(tmp_path) -> None:
    assert {planned.seed for planned in plan("seed=7", output_dir=tmp_path).runs} == {7}


def test_what_the_command_line_fixes_is_told_apart_from_settings_and_sweeps(tmp_path) -> None:
    lines = ("seed=0,1", "mixing=none,mixup", "recipe.lr=0.3", "checkpoint.every_steps=3", "progress=false")
    assert plan(*lines, output_dir=tmp_path).fixed == (*(o for o in TINY if o != "device=cpu"), "recipe.lr=0.3")


def test_states_are_those_of_the_folders_and_are_looked_up_again(tmp_path) -> None:
    grid = plan("seed=0,1", output_dir=tmp_path)
    assert set(states(grid)) == {State.new}
    finish(grid.runs[0])
    begin(grid.runs[1])
    fail(grid.runs[2], "no")
    expected = [State.finished, State.interrupted, State.failed, State.new, State.new, State.new]
    assert states(grid.looked_up()) == expected
    assert states(plan("seed=0,1", output_dir=tmp_path)) == expected
    assert [planned.is_left for planned in grid.looked_up().runs] == [False, True, True, True, True, True]
    assert set(states(grid)) == {State.new}


def test_a_finished_run_is_left_to_do_where_an_evaluator_has_not_measured_it(tmp_path) -> None:
    lines = ("seed=0", "evaluators=[gates]")
    folders = [finish(planned) for planned in plan(*lines, output_dir=tmp_path).runs]
    (folders[1] / "evaluation" / "test").mkdir(parents=True)
    (folders[1] / "evaluation" / "test" / "gates.json").write_text("{}")
    assert [planned.is_left for planned in plan(*lines, output_dir=tmp_path).runs] == [True, False, True]


WRONG = {
    "srp=gap": ["srp=gap", "study=three", "compares srp", "study.methods.gap"],
    "srp=gap,fixed": ["srp=gap,fixed", "compares srp"],
    "seed=a,b": ["seed=a", "whole number"],
    "seed=range(0)": ["seed=range(0)", "no run"],
    "seed=0,-1": ["seed=-1", "whole number"],
    "attention=gc": ["srp=fixed", "attention=gc"],
    "recipe.batch_size=0,16": ["recipe.batch_size=0", "[1, inf)"],
    "study.rows=[metod]": ["study.rows", "metod", "did you mean method?"],
    "study.columns=[seed]": ["study.columns", "seed", "valid are dataset, method"],
    "study.comparisons=[{method:schedule,baseline:gap}]": ["comparisons", "schedule", "scheduled?"],
    "study.comparisons=[{method:gap,baseline:none}]": ["comparisons", "none", "fixed, gap, scheduled"],
    "study.published=[{method:fixd,value:1,source:x}]": ["published", "fixd", "fixed?"],
    "study.published=[{method:gap,cell:{datset:x},value:1,source:x}]": ["published.cell", "datset", "dataset?"],
    "study.metric=top2": ["top2", "top1"],
    "study.metric=gate.spread": ["gate.spread", "gates?"],
    "study.comparisons=[{method:fixed,baseline:gap,metric:topp1}]": ["topp1", "top1"],
}


def test_a_grid_that_can_not_be_is_refused_in_one_line(tmp_path) -> None:
    for override in WRONG:
        with pytest.raises(ValueError) as caught:
            plan(override, output_dir=tmp_path)
        message = str(caught.value)
        assert "\n" not in message
        assert [part for part in WRONG[override] if part not in message] == [], message
        assert list(tmp_path.iterdir()) == []


def test_the_metric_of_an_own_evaluator_is_taken(tmp_path) -> None:
    assert plan("study.metric=my_package.spread.mean", "study.higher_is_better=true", output_dir=tmp_path).runs
