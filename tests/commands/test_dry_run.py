"""dry=true: what a grid would do, while nothing is written."""

import re

from planned_grids import THREE, TINY, begin, contents, finish, plan


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


def test_a_dry_grid_tells_what_would_fail_and_goes_on_with_the_others(command_line, monkeypatch, tmp_path) -> None:
    monkeypatch.chdir(tmp_path)
    outcome = command_line("-m", *TINY, "dry=true", "backbone.depth=8,9", "srp=gap,fixed")
    assert outcome.code == 1
    failures = [line for line in outcome.out.splitlines() if line.startswith("would fail: ")]
    assert len(failures) == 2
    assert all("backbone.depth=9" in line and "depth" in line.partition("seed=0: ")[2] for line in failures)
    assert re.search(r"about \d+ s on one device", outcome.out)
    assert list(tmp_path.iterdir()) == []


def test_a_dry_grid_checks_the_data(command_line, monkeypatch, tmp_path) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = ("dataset=cifar10", "backbone.depth=8", "recipe.warmup_epochs=0", "device=cpu")
    outcome = command_line("-m", *arguments, "seed=0,1", "dry=true", "data_root=nowhere")
    assert outcome.code == 1
    assert len(re.findall("^would fail: .*nowhere", outcome.out, re.MULTILINE)) == 1  # seeds differ in nothing else
    assert list(tmp_path.iterdir()) == []


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
