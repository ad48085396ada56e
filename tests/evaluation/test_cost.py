"""Counts against arithmetic by hand, times against known waits, memory against known tensors, and the command line."""

import json
import statistics
import time
from copy import deepcopy
from pathlib import Path

import pytest
import timm
import torch
from torch import Tensor, nn

from srp_exp.datasets import Batch
from srp_exp.evaluation import cost as cost_module
from srp_exp.evaluation.cost import Contender, compare_costs, cost, peak_memory, ratio, seconds_in_turns
from srp_exp.evaluation.evaluators import Subject
from srp_exp.srp import RegionPool, Regions, apply_srp, srp_modules
from srp_exp.training.autocast import autocast

CPU = torch.device("cpu")
FP32 = autocast(CPU, "fp32")
TINY = (
    "mode=cost", "dataset=synthetic", "dataset.num_classes=4", "dataset.train_size=16", "dataset.test_size=8",
    "dataset.image_size=[16,16]", "recipe.batch_size=8", "recipe.warmup_epochs=0", "backbone.depth=8", "device=cpu",
    "cost.rounds=2",
)  # fmt: skip


class SmallNet(nn.Module):
    """3 -> 8 channels by a 3x3 convolution with stride 2, 8 -> 16 in four groups, a mean, and a classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, stride=2, padding=1, bias=False)
        self.grouped = nn.Conv2d(8, 16, 3, padding=1, groups=4)
        self.classifier = nn.Linear(16, 10)

    def forward(self, images: Tensor) -> Tensor:
        maps = self.grouped(self.first(images))
        pooled: Tensor = maps.mean((2, 3))
        return self.classifier(pooled)  # type: ignore[no-any-return]


def batch_of(samples: int, side: int = 16, classes: int = 4) -> Batch:
    source = torch.Generator().manual_seed(0)
    images = torch.randn(samples, 3, side, side, generator=source)
    return Batch(images, torch.arange(samples) % classes, torch.arange(samples))


# --- Counts ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("samples", [1, 5])
def test_multiply_adds_and_parameters_are_those_counted_by_hand(samples) -> None:
    contender = Contender(SmallNet(), batch_of(samples), FP32)
    first = 8 * 8 * 8 * 3 * 9  # positions x channels x inputs of each
    grouped = 8 * 8 * 16 * 2 * 9
    assert contender.macs == contender.train_macs == first + grouped + 16 * 10
    assert contender.parameters == 8 * 3 * 9 + 16 * 2 * 9 + 16 + 16 * 10 + 10


def test_srp_adds_no_parameter_and_no_multiply_add() -> None:
    plain = timm.create_model("test_byobnet", num_classes=4)
    with_srp = deepcopy(plain)
    apply_srp(with_srp, 0.5, example_input=torch.zeros(2, 3, 32, 32))
    one, other = (Contender(model, batch_of(4, 32), FP32) for model in (plain, with_srp))
    assert (one.parameters, one.macs, one.train_macs) == (other.parameters, other.macs, other.train_macs)


# --- Time -----------------------------------------------------------------------------------------


def test_every_action_runs_once_in_each_round_and_the_order_turns_round() -> None:
    calls: list[str] = []
    seconds = seconds_in_turns({name: lambda name=name: calls.append(name) for name in "abc"}, 4, CPU)
    assert {name: len(values) for name, values in seconds.items()} == {"a": 4, "b": 4, "c": 4}
    rounds = ["".join(calls[i : i + 3]) for i in range(0, len(calls), 3)]
    assert len(rounds) == 7  # three of them to warm up
    assert set(rounds[::2]) == {"abc"}
    assert set(rounds[1::2]) == {"cba"}


def test_a_wait_of_three_times_the_length_is_seen_as_such() -> None:
    seconds = seconds_in_turns({"short": lambda: time.sleep(0.02), "long": lambda: time.sleep(0.06)}, 5, CPU)
    assert statistics.median(seconds["short"]) >= 0.02
    assert ratio(seconds["long"], seconds["short"]).median == pytest.approx(3, rel=0.3)


def test_the_ratio_is_taken_within_a_round() -> None:
    # A disturbance that doubles both in the last rounds changes nothing; the ratio of the medians would be 2.5.
    found = ratio([2.0, 4.0, 6.0, 10.0, 20.0], [1.0, 2.0, 3.0, 4.0, 10.0])
    assert (found.low, found.median, found.high) == (2.0, 2.0, 2.25)


# --- Memory ---------------------------------------------------------------------------------------


def test_the_peak_is_what_lives_at_one_time() -> None:
    def action() -> None:
        one = torch.ones(1000)
        del one
        two = torch.ones(3000)
        three = torch.ones(500)
        del two, three

    assert peak_memory(action, CPU) == pytest.approx(4 * 3500, abs=128)  # bytes; the allocator rounds up to 64


# --- The evaluator --------------------------------------------------------------------------------


@pytest.fixture
def few_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cost_module, "_ROUNDS", 5)


def subject_of(model: nn.Module) -> Subject:
    return Subject(model.eval(), lambda: iter([batch_of(4, 32)]), ("a", "b", "c", "d"), FP32, seed=0)


@pytest.mark.parametrize("scale", [None, 0.5])
def test_the_evaluator_compares_the_subject_with_its_plain_network_and_leaves_it_alone(few_rounds, scale) -> None:
    model = timm.create_model("test_byobnet", num_classes=4)
    if scale is not None:
        apply_srp(model, scale, example_input=torch.zeros(2, 3, 32, 32))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    summary = cost(subject_of(model))["summary"]
    assert summary["parameters"] == sum(parameter.numel() for parameter in model.parameters())
    assert summary["macs"] == Contender(deepcopy(model), batch_of(4, 32), FP32).macs
    for name in ("train_step_ratio", "eval_ratio", "memory_ratio"):
        assert summary[name] > 0  # how near to 1 depends on who else computes here
    assert not model.training
    assert bool(srp_modules(model)) == (scale is not None)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_a_costlier_network_shows(few_rounds, monkeypatch) -> None:
    """What is measured is the subject's own network: slow it down in training, and the ratio says so."""
    model = timm.create_model("test_byobnet", num_classes=4)
    apply_srp(model, 0.5, example_input=torch.zeros(2, 3, 32, 32))
    (pool, *_) = srp_modules(model).values()
    pooled = type(pool).pool

    def slow(self: RegionPool, x: Tensor, numbers: Regions) -> Tensor:
        time.sleep(0.05)
        kept: Tensor = pooled(self, x, numbers)
        return kept

    monkeypatch.setattr(type(pool), "pool", slow)
    summary = cost(subject_of(model))["summary"]
    assert summary["train_step_ratio"] > 3  # four modules wait for 50 ms each, in training only
    assert summary["eval_ratio"] < summary["train_step_ratio"] / 2


def test_other_devices_are_refused() -> None:
    contender = Contender(SmallNet(), batch_of(2), FP32)
    contender.device = torch.device("meta")
    with pytest.raises(ValueError, match="device=meta: the cost is measured on cpu and cuda only"):
        compare_costs({"gap": contender}, 2)


# --- The command line -----------------------------------------------------------------------------


def report(output_dir: Path) -> dict:
    (file,) = (output_dir / "reports" / "cost").iterdir()
    content: dict = json.loads(file.read_text())
    return content


def test_the_table_has_gap_its_control_and_every_choice(command_line, tmp_path) -> None:
    outcome = command_line(*TINY, "srp.last=0.4", f"output_dir={tmp_path}")
    assert outcome.code == 0, outcome.err
    content = report(tmp_path)
    assert list(content["costs"]) == ["gap", "gap again", "fixed", "scheduled"]
    rows = [line.split("│")[1].strip() for line in outcome.out.splitlines() if line.startswith("│")]
    assert rows == list(content["costs"])
    assert content["choices"]["scheduled"]["last"] == 0.4  # as configured
    assert content["choices"]["fixed"]["scale"] == 0.5  # as in its file
    gap = content["costs"]["gap"]
    assert gap["train_ratio"] == {"low": 1.0, "median": 1.0, "high": 1.0}
    for row in content["costs"].values():
        assert (row["parameters"], row["macs"], row["train_macs"]) == (gap["parameters"], gap["macs"], gap["macs"])
    assert list((tmp_path / "runs").iterdir()) == []  # nothing was trained


def test_compiled_networks_are_measured_where_the_run_would_compile(command_line, tmp_path, monkeypatch) -> None:
    compiled: list[nn.Module] = []
    monkeypatch.setattr(nn.Module, "compile", lambda model, **_: compiled.append(model))
    assert command_line(*TINY, "compile=true", f"output_dir={tmp_path}").code == 0
    assert len(compiled) == 4
    assert ", compiled;" in report(tmp_path)["measured"]


def test_with_gap_configured_only_the_list_is_measured(command_line, tmp_path) -> None:
    outcome = command_line(*TINY, "srp=gap", "cost.srp=[cosine]", f"output_dir={tmp_path}")
    assert outcome.code == 0, outcome.err
    assert list(report(tmp_path)["costs"]) == ["gap", "gap again", "cosine"]


def test_a_sweep_measures_every_network(command_line, tmp_path) -> None:
    outcome = command_line("-m", *TINY, "cost.srp=[]", "backbone.width=1,2", f"output_dir={tmp_path}")
    assert outcome.code == 0, outcome.err
    files = list((tmp_path / "reports" / "cost").iterdir())
    assert len({json.loads(file.read_text())["costs"]["gap"]["parameters"] for file in files}) == 2


WRONG = [
    ("cost.srp=[schedule]", "cost.srp=schedule: there is no srp=schedule; did you mean scheduled?"),
    ("cost.rounds=1", "cost.rounds=1 is out of range"),
    ("run=outputs", "mode=eval evaluators=[cost]"),
    ("recipe.batch_size=64", "batch size 64"),
]


def test_wrong_input_is_one_line(command_line, tmp_path) -> None:
    for override, message in WRONG:
        outcome = command_line(*TINY, override, f"output_dir={tmp_path}")
        assert outcome.code == 1
        assert outcome.err.count("\n") == 1, outcome.err
        assert message in outcome.err
        assert not (tmp_path / "reports").exists()


def test_out_of_memory_is_one_line(command_line, tmp_path, monkeypatch) -> None:
    def too_much(_: Contender) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate 2 GiB")

    monkeypatch.setattr(Contender, "train_step", too_much)
    outcome = command_line(*TINY, f"output_dir={tmp_path}")
    assert outcome.code == 1
    assert outcome.err.count("\n") == 1, outcome.err
    assert "recipe.batch_size=8" in outcome.err
