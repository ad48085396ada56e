"""dry=true: what a grid would do, while nothing is written."""

import re
from typing import Any

from planned_grids import THREE, TINY, begin, contents, finish, plan

from srp_exp.runs import rehearsal
from srp_exp.runs.build import build_data


def test_a_dry_grid_shows_runs_states_and_time_and_writes_nothing(command_line, monkeypatch, tmp_path) -> None:
    monkeypatch.chdir(tmp_path)
    output_dir = tmp_path / "outputs"
    runs = plan("seed=0,1", "recipe.lr=0.05", output_dir=output_dir).runs
    finish(runs[0])  # in 60 s, as its folder says
    begin(runs[1])
    before = contents(tmp_path)
    arguments = (*THREE, *TINY, "seed=0,1", "recipe.lr=0.05", "dry=true")
    outcome = command_line(*arguments, f"output_dir={output_dir}")
    assert outcome.code == 0, outcome.err
    assert contents(tmp_path) == before
    states = [line.split()[3] for line in outcome.out.splitlines()[1:7]]
    assert states == ["finished", "interrupted", "new", "new", "new", "new"]
    assert "6 runs: 1 finished, 1 interrupted, 4 new" in outcome.out
    assert "\nscheduled: srp=scheduled\n" in outcome.out
    assert "recipe.lr=0.05" in outcome.out
    assert re.search(r"about 1 min on one device", outcome.out)  # gap with seed 1; the others take a few seconds


def test_a_dry_grid_that_is_not_begun_writes_nothing_either(command_line, monkeypatch, tmp_path) -> None:
    monkeypatch.chdir(tmp_path)
    outcome = command_line("-m", *TINY, "seed=0,1", "dry=true")
    assert outcome.code == 0, outcome.err
    assert "2 runs: 2 new" in outcome.out
    assert re.search(r"about \d+ s on one device", outcome.out)
    assert list(tmp_path.iterdir()) == []


def test_a_dry_grid_tells_each_cause_once_with_the_runs_that_it_would_fail(command_line, monkeypatch, tmp_path) -> None:
    monkeypatch.chdir(tmp_path)
    outcome = command_line("-m", *TINY, "dry=true", "backbone.depth=8,9", "srp=gap,fixed", "seed=0,1")
    assert outcome.code == 1
    lines = outcome.out.splitlines()
    (place,) = (number for number, line in enumerate(lines) if " would fail: " in line)
    assert lines[place].startswith("4 runs would fail: ") and "depth" in lines[place]
    assert lines[place + 1].split(", ") == ["  backbone.depth=9 srp=gap", "backbone.depth=9 srp=fixed"]
    assert re.search(r"about \d+ s on one device", outcome.out)
    assert list(tmp_path.iterdir()) == []


def test_a_dry_grid_checks_the_data(command_line, monkeypatch, tmp_path) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = ("dataset=cifar10", "backbone.depth=8", "recipe.warmup_epochs=0", "device=cpu")
    outcome = command_line("-m", *arguments, "srp=gap,fixed", "dry=true", "data_root=nowhere")
    assert outcome.code == 1
    assert len(re.findall("^2 runs would fail: .*nowhere", outcome.out, re.MULTILINE)) == 1
    assert list(tmp_path.iterdir()) == []


def test_runs_that_differ_in_their_seed_are_checked_once_and_their_data_opened_once(command_line, monkeypatch) -> None:
    """Of 28 seeds each draws pictures of its own in study=low_data, and 84 openings took a quarter of an hour."""
    built: list[int] = []

    def build(config: Any, *arguments: Any) -> Any:
        built.append(config.dataset.subset_seed)
        return build_data(config, *arguments)

    monkeypatch.setattr(rehearsal, "build_data", build)
    drawn = ("dataset.train_per_class=2", "dataset.num_classes=4")
    outcome = command_line("-m", *TINY, *drawn, "recipe.batch_size=4", "srp=gap,fixed", "seed=0,1,2", "dry=true")
    assert outcome.code == 0, outcome.err
    assert built == [0]
    checked = re.findall(r"^checking a batch of (.*)$", outcome.out, re.MULTILINE)
    assert checked == ["srp=gap seed=0", "srp=fixed seed=0"]


def test_a_dry_study_tells_the_chance_of_each_verdict_and_the_hours(command_line, monkeypatch, tmp_path) -> None:
    monkeypatch.chdir(tmp_path)
    for planned in plan("seed=range(6)", output_dir=tmp_path / "outputs").runs:
        if planned.seed < 5:
            finish(planned, 0.5 + planned.seed**2 % 7 / (1000 if planned.method == "gap" else 2000))
    arguments = (*THREE, *TINY, "seed=range(6)", "dry=true", "output_dir=outputs")
    outcome = command_line(*arguments)
    assert outcome.code == 0, outcome.err
    assert re.search(r"0\.\d\d e of top1 \(measured\)", " ".join(outcome.out.split()))
    rows = re.findall(r"^│ ([012]) e +│.*\b(\d+)%, 0\.\d h +│$", outcome.out, re.MULTILINE)
    assert rows == [("0", "100"), ("1", "100"), ("2", "100")]
    fresh = command_line(*THREE, *TINY, "seed=range(6)", "dry=true", "output_dir=elsewhere")
    assert "1.25 e of top1 (assumed)" in " ".join(fresh.out.split())
