"""Runs as tables on the terminal."""

import io

from planned_grids import begin, fail, finish, plan
from rich.console import Console

from srp_exp.commands.listing import count_states, print_grid, print_lines


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
    assert shown[0].split() == ["method", "dataset", "seed", "state", "test", "top-1", "seconds", "run"]
    assert shown[1].split() == ["gap", "synthetic", "0", "finished", "98.77%", "60", runs[0].run.folder.name]
    assert shown[2].split() == ["gap", "synthetic", "1", "interrupted", runs[1].run.folder.name]
    assert shown[3].split() == ["fixed", "synthetic", "0", "failed", runs[2].run.folder.name]
    assert shown[4].split()[:4] == ["fixed", "synthetic", "1", "new"]
    assert shown[-1] == "failed: fixed dataset=synthetic seed=0: no image [at/all] is there"
    assert shown[-2] == "6 runs: 1 finished, 1 interrupted, 1 failed, 3 new"
    assert "recipe.lr=0.05" in " ".join(shown[7:-2])


def test_a_narrow_table_cuts_no_number(tmp_path) -> None:
    wide = {"recipe.weight_decay": "0.0001", "backbone": "mobilenetv3_large_100", "seed": "11"}
    line = {
        **wide,
        "state": "finished",
        "val top-1": 0.98765,
        "seconds": 123456.0,
        "run": "pictures-net-se-gap-0123456789",
    }
    for width, kept in ((120, [*wide]), (80, ["recipe.weight_decay", "seed"]), (60, ["seed"])):
        shown = printed(lambda console: print_lines([line], list(wide), console), width)
        assert [name for name in wide if name in shown[0]] == kept
        assert len(shown[1]) <= width
        assert "98.77%" in shown[1] and "123,456" in shown[1] and "0123456789" in shown[1]
        assert ("pictures-net" in shown[1]) == (width == 120)
        assert all(name in " ".join(shown[2:]) for name in wide if name not in kept)


def test_the_test_part_is_not_shown_beside_a_validation_part(tmp_path) -> None:
    """Nobody chooses a setting by it then."""
    run = finish(plan("seed=0", output_dir=tmp_path).runs[0], 0.5)
    (run / "metrics.jsonl").write_text('{"epoch": 1, "val/top1": 0.25}\n{"epoch": 2, "val/top1": 0.125}\n')
    shown = printed(lambda console: print_grid(plan("seed=0", output_dir=tmp_path), console))
    assert "val top-1" in shown[0] and "test top-1" not in shown[0]
    assert "12.50%" in shown[1] and "50.00%" not in shown[1]


def test_a_run_counts_once(tmp_path) -> None:
    runs = [planned.run for planned in plan("seed=0", output_dir=tmp_path).runs]
    assert count_states([]) == "0 runs: none"
    assert count_states(runs[:1]) == "1 run: 1 new"
    assert count_states([*runs, *runs]) == "3 runs: 3 new"
