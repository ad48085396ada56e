"""Runs as tables on the terminal."""

import io

from planned_grids import begin, fail, finish, plan
from rich.console import Console

from srp_exp.commands.listing import count_states, print_grid, runs_table
from srp_exp.runs.store import all_runs


def printed(show, width: int = 200) -> list[str]:
    text = io.StringIO()
    show(Console(file=text, width=width, markup=False))
    return [line.rstrip() for line in text.getvalue().splitlines()]


def test_a_grid_is_shown_with_what_tells_its_runs_apart_their_states_and_failures(tmp_path) -> None:
    lines = ("seed=0,1", "recipe.lr=0.05")
    runs = plan(*lines, output_dir=tmp_path).runs
    finish(runs[0], 0.98765)
    begin(runs[1])
    fail(runs[2], "no image [at/all] is there")
    shown = printed(lambda console: print_grid(plan(*lines, output_dir=tmp_path), console))
    assert shown[0].split() == ["method", "dataset", "seed", "state", "top-1", "seconds", "run"]
    assert shown[1].split() == ["gap", "synthetic", "0", "finished", "98.77%", "60", runs[0].run.folder.name]
    assert shown[2].split() == ["gap", "synthetic", "1", "interrupted", runs[1].run.folder.name]
    assert shown[3].split() == ["fixed", "synthetic", "0", "failed", runs[2].run.folder.name]
    assert shown[4].split()[:4] == ["fixed", "synthetic", "1", "new"]
    assert shown[-1] == "failed: fixed dataset=synthetic seed=0: no image [at/all] is there"
    assert shown[-2] == "6 runs: 1 finished, 1 interrupted, 1 failed, 3 new"
    assert "recipe.lr=0.05" in " ".join(shown[7:-2])


def test_runs_are_listed_with_commit_outcome_and_failure(tmp_path) -> None:
    runs = plan("seed=5", output_dir=tmp_path).runs
    finish(runs[0], 0.5)
    fail(runs[1], "no [bold]image")
    shown = printed(lambda console: console.print(runs_table(all_runs(tmp_path / "runs"))))
    by_name = {line.split()[0]: line.split()[1:] for line in shown[1:]}
    assert by_name[runs[0].run.folder.name] == ["finished", "5", "0123456789", "50.00%", "60"]
    assert by_name[runs[1].run.folder.name] == ["failed", "5", "0123456789", "no", "[bold]image"]


def test_a_run_counts_once(tmp_path) -> None:
    runs = [planned.run for planned in plan("seed=0", output_dir=tmp_path).runs]
    assert count_states([]) == "0 runs: none"
    assert count_states(runs[:1]) == "1 run: 1 new"
    assert count_states([*runs, *runs]) == "3 runs: 3 new"
