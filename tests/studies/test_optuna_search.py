"""A search: what it draws from, what it tells Optuna, how it resumes, and which runs it gives up."""

import csv
import json
from pathlib import Path
from typing import Any

import optuna
import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial

from srp_exp.commands.search import distribution
from srp_exp.training.reporting.reporter import Reporter

TINY = (
    "dataset=synthetic", "dataset.train_size=40", "dataset.test_size=20", "dataset.image_size=[16,16]",
    "backbone.depth=8", "recipe=quick", "recipe.batch_size=8", "recipe.epochs=2",
    "recipe.warmup_epochs=0", "device=cpu", "dataset.val_fraction=0.5",
)  # fmt: skip
SEARCH = ("-m", *TINY, "hydra/sweeper=search", "srp.last=interval(0.2,1)")


def trials(output_dir: Path) -> list[FrozenTrial]:
    """What the journal of the one search in `output_dir` says, read as optuna-dashboard reads it."""
    (folder,) = (output_dir / "searches").iterdir()
    backend = optuna.storages.journal.JournalFileBackend(str(folder / "journal.log"))
    storage = optuna.storages.JournalStorage(backend)
    return optuna.load_study(study_name=None, storage=storage).trials


def table(output_dir: Path) -> list[dict[str, str]]:
    (file,) = (output_dir / "searches").glob("*/trials.csv")
    return list(csv.DictReader(file.read_text().splitlines()))


def validations(run: Path) -> list[float]:
    return [json.loads(line)["val/top1"] for line in (run / "metrics.jsonl").read_text().splitlines()]


SWEEPS = [
    ("interval(0.2,1)", FloatDistribution(0.2, 1.0)),
    ("int(interval(1,8))", IntDistribution(1, 8)),
    ("tag(log,interval(0.001,1))", FloatDistribution(0.001, 1.0, log=True)),
    ("range(2,9,3)", IntDistribution(2, 8, step=3)),
    ("range(0.5,0.75,0.1)", FloatDistribution(0.5, 0.7, step=0.1)),
    ("gap,fixed", CategoricalDistribution(["gap", "fixed"])),
    ("choice(8,14)", CategoricalDistribution(["8", "14"])),
]


def test_a_sweep_is_what_optuna_draws_from() -> None:
    for sweep, expected in SWEEPS:
        (override,) = OverridesParser.create().parse_overrides([f"x={sweep}"])
        found = distribution(override)
        assert type(found) is type(expected)
        assert {k: pytest.approx(v) for k, v in vars(expected).items()} == vars(found)


def test_a_search_maximises_the_validation_part_resumes_and_shares_its_runs(
    command_line, tmp_path, monkeypatch
) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    count = ("hydra.sweeper.n_trials=2", "hydra.sweeper.prune_after=null")
    done = command_line(*SEARCH, *count, f"output_dir={whole}")
    assert done.code == 0, done.err
    of_run = {run.name: validations(run) for run in (whole / "runs").iterdir()}
    found = trials(whole)
    assert [trial.value for trial in found] == [of_run[trial.user_attrs["run"]][-1] for trial in found]
    assert [[*trial.intermediate_values.values()] for trial in found] == [of_run[t.user_attrs["run"]] for t in found]
    best = max(found, key=lambda trial: trial.value or 0)
    assert f"best: val top-1 {best.value:.2%} with srp.last={best.params['srp.last']!r}" in done.out
    assert str(whole / "runs" / best.user_attrs["run"]) in done.out.replace("\n", "")
    assert [float(line["val top-1"]) for line in table(whole)] == sorted((t.value for t in found), reverse=True)

    values = f"srp.last={found[0].params['srp.last']},0.5"  # a grid takes the run that the search has trained
    assert "2 runs: 1 finished, 1 new" in command_line("-m", *TINY, values, f"output_dir={whole}", "dry=true").out

    with monkeypatch.context() as patch:
        patch.setattr(Reporter, "epoch", stopping_at(4))  # in the second epoch of the second run
        stopped = command_line(*SEARCH, *count, f"output_dir={cut}")
    assert stopped.code == 130
    assert "interrupted after 1 of 2 trials; run the same command to resume" in stopped.out
    again = command_line(*SEARCH, *count, f"output_dir={cut}")
    assert again.code == 0, again.err
    assert [(t.params, t.values, t.user_attrs) for t in trials(cut)] == [
        (t.params, t.values, t.user_attrs) for t in found
    ]
    assert (
        "epoch 1/" not in again.out
    )  # the run that was cut went on from its checkpoint, and the first wasn't repeated


def stopping_at(number: int) -> Any:
    real, seen = Reporter.epoch, []

    def epoch(self: Reporter, *arguments: Any) -> None:
        real(self, *arguments)
        seen.append(None)
        if len(seen) == number:
            raise KeyboardInterrupt

    return epoch


def test_a_run_behind_the_median_is_given_up_and_can_be_resumed(command_line, tmp_path) -> None:
    """One with a learning rate of nearly 0 learns nothing; this sampler proposes it third."""
    rates = "recipe.lr=1e-6,0.1"
    first = ("hydra.sweeper.sampler._target_=optuna.samplers.RandomSampler", "hydra.sweeper.prune_after=1")
    search = (
        "-m",
        *TINY,
        "recipe.epochs=3",
        "dataset.train_size=80",
        "hydra/sweeper=search",
        rates,
        *first,
        f"output_dir={tmp_path}",
    )
    done = command_line(*search, "hydra.sweeper.n_trials=3")
    assert done.code == 0, done.err
    *others, hopeless = trials(tmp_path)
    assert [(t.params["recipe.lr"], t.state.name) for t in others] == [("0.1", "COMPLETE")] * 2
    assert (hopeless.params["recipe.lr"], hopeless.state.name) == ("1e-06", "PRUNED")
    folder = tmp_path / "runs" / hopeless.user_attrs["run"]
    assert len(hopeless.intermediate_values) < 3
    assert not (folder / "results.json").exists() and not list(folder.glob("failure*"))
    assert "stopped" not in (folder / "run.log").read_text()
    resumed = command_line(
        *TINY, "recipe.epochs=3", "dataset.train_size=80", "recipe.lr=1e-6", f"output_dir={tmp_path}"
    )
    assert resumed.code == 0, resumed.err
    assert "resumed after step" in resumed.out and (folder / "results.json").exists()


def test_a_search_whose_first_run_fails_ends(command_line, tmp_path) -> None:
    done = command_line(*SEARCH, "backbone.depth=9", f"output_dir={tmp_path}")
    assert done.code == 1
    assert done.err.splitlines()[-1].startswith("srp-exp: the first run of the search failed: ")
    assert [line["state"] for line in table(tmp_path)] == ["failed"]


WRONG = [
    (["dataset.val_fraction=0"], "hydra/sweeper=search needs a validation part, "),
    (["mode=cost"], "mode=cost: "),
    (["dry=true"], "dry=true: "),
    (["wait=false"], "wait=false: "),
    (["study=demo"], "study=demo: "),
    (["seed=0,1"], "seed: "),
    (["srp.last=0.5"], "hydra/sweeper=search has nothing to choose"),
]


def test_a_search_that_cannot_be_is_one_line(command_line, tmp_path) -> None:
    for overrides, error in WRONG:
        done = command_line(*SEARCH, *overrides, f"output_dir={tmp_path}")
        assert done.code == 1
        assert done.err.startswith(f"srp-exp: {error}")
        assert len(done.err.splitlines()) == 1
        assert list(tmp_path.iterdir()) == []
