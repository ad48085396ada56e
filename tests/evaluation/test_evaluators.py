"""What evaluators read from a network: the right map and gate of any attention, and the files that they write."""

import copy
import json
from typing import Any

import pytest
import timm.layers
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from timm.layers.cbam import CbamModule
from torch import Tensor, nn
from torch.nn import functional as F

from srp_exp.config.evaluators import EVALUATORS as TABLE
from srp_exp.config.evaluators import MEASURES, check_evaluators, not_measured
from srp_exp.errors import UserError
from srp_exp.evaluation.attention_calls import AttentionCall, measure_attention
from srp_exp.evaluation.descriptors import descriptors
from srp_exp.evaluation.evaluators import Subject, load_evaluator, measure
from srp_exp.evaluation.gates import gates
from srp_exp.evaluation.responses import responses
from srp_exp.srp import apply_srp

EVALUATORS = (descriptors, responses, gates)


class InPlace(nn.Module):
    """Works on its input in place, before and after the pooling."""

    def forward(self, x: Tensor) -> Tensor:
        x = x.relu_()
        gate = x.mean((2, 3), keepdim=True).sigmoid()
        return x.mul_(gate)


class Expanded(nn.Module):
    """Counts positions and scales the gate before it multiplies the map: products that are no gates."""

    def forward(self, x: Tensor) -> Tensor:
        height = x.shape[2]
        gate = (x.flatten(2).sum(2) / (height * x.shape[3]) * 0.5).sigmoid()
        return x * gate[:, :, None, None].expand_as(x)


class TwoPoolings(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        x = x * x.mean((2, 3), keepdim=True).sigmoid()
        return x * x.mean((2, 3), keepdim=True).tanh()


class WithDropout(nn.Module):
    """Its gate is another one in training."""

    def forward(self, x: Tensor) -> Tensor:
        return x * F.dropout(x.mean((2, 3), keepdim=True), 0.5, self.training)


class GatedByItsMean(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * x.mean((2, 3), keepdim=True)


class Recorder:
    """A measure that keeps what it is given."""

    def __init__(self) -> None:
        self.calls: list[AttentionCall] = []
        self.labels: list[Tensor] = []

    def add(self, call: AttentionCall, labels: Tensor) -> None:
        self.calls.append(call)
        self.labels.append(labels)

    def values(self) -> dict[str, float]:
        return {"batches": float(len(self.calls))}


def recorded(subject: Subject) -> list[Recorder]:
    recorders: list[Recorder] = []

    def new() -> Recorder:
        recorders.append(Recorder())
        return recorders[-1]

    measure_attention(subject, new)
    return recorders


def stem_maps(subject: Subject) -> list[Tensor]:
    return [subject.model.stem(batch.images).detach() for batch in subject.batches()]


GATE_TIMES_MAP = [  # modules whose output is the map times the gate
    timm.layers.SqueezeExcite(8),
    timm.layers.EcaModule(8),
    timm.layers.GatherExcite(8, extent=0, extra_params=False, use_mlp=False),
    Expanded(),
]


@pytest.mark.parametrize("attention", GATE_TIMES_MAP, ids=lambda module: type(module).__name__)
def test_map_times_gate_is_the_output(subject, attention) -> None:
    a = subject(attention.eval())
    (recorder,) = recorded(a)
    assert len(recorder.calls) == 3
    for call, labels, batch, x in zip(recorder.calls, recorder.labels, a.batches(), stem_maps(a), strict=True):
        assert torch.equal(labels, batch.labels)
        assert torch.equal(call.feature_map, x)
        assert call.gate.shape == (len(x), 8)
        torch.testing.assert_close(x * call.gate[:, :, None, None], attention(x))
        spatial_mean = call.gate_with(lambda m: m.mean((-2, -1), keepdim=True))
        torch.testing.assert_close(spatial_mean, call.gate)
        of_zero = call.gate_with(lambda m: torch.zeros_like(m[..., :1, :1]))
        assert not torch.allclose(of_zero, call.gate)


def test_in_place_work_changes_neither_the_map_nor_the_network(subject) -> None:
    a = subject(InPlace())
    images = next(iter(a.batches())).images
    expected = a.model(images)
    (recorder,) = recorded(a)
    for call, x in zip(recorder.calls, stem_maps(a), strict=True):
        assert torch.equal(call.feature_map, x.relu())
        torch.testing.assert_close(call.gate, x.relu().mean((2, 3)).sigmoid())
        assert call.gate_with(lambda m: m.amax((-2, -1), keepdim=True)).gt(call.gate).all()
    assert torch.equal(a.model(images), expected)


def test_selective_kernels_gate_each_channel_of_each_branch(subject) -> None:
    (recorder,) = recorded(subject(timm.layers.SelectiveKernel(8, 8, rd_divisor=4).eval()))
    for call in recorder.calls:  # the gates of the two branches of a channel add up to 1
        assert call.gate.shape == (len(call.feature_map), 16)
        torch.testing.assert_close(call.gate.view(-1, 2, 8).sum(1), torch.ones(len(call.gate), 8))


def test_cbam_is_measured_at_its_channel_part(subject) -> None:
    a = subject(CbamModule(8, rd_ratio=0.5).eval())
    (recorder,) = recorded(a)
    for call, x in zip(recorder.calls, stem_maps(a), strict=True):
        torch.testing.assert_close(x * call.gate[:, :, None, None], a.model.attention.channel(x))


def test_two_poolings_of_a_module_are_two(subject) -> None:
    a = subject(TwoPoolings())
    first, second = recorded(a)
    for one, other, x in zip(first.calls, second.calls, stem_maps(a), strict=True):
        torch.testing.assert_close(one.gate, x.mean((2, 3)).sigmoid())
        torch.testing.assert_close(other.feature_map, x * one.gate[:, :, None, None])
        torch.testing.assert_close(other.gate, other.feature_map.mean((2, 3)).tanh())
    assert list(gates(a)["modules"]) == ["attention", "attention#2"]


@pytest.mark.parametrize("evaluator", EVALUATORS)
def test_a_network_with_srp_is_measured_as_without(subject, evaluator) -> None:
    plain = subject(timm.layers.SqueezeExcite(8))
    with_srp = copy.deepcopy(plain.model)
    apply_srp(with_srp, 0.5, example_input=torch.zeros(2, 3, 8, 6))
    other = Subject(with_srp.eval(), plain.batches, plain.class_names, plain.autocast, plain.seed)
    expected = evaluator(plain)
    assert evaluator(other) == expected
    assert list(expected["modules"]) == ["attention"]
    assert expected["modules"]["attention"] == expected["summary"]


@pytest.mark.parametrize("evaluator", EVALUATORS)
def test_the_network_stays_as_it_was(subject, evaluator) -> None:
    a = subject(nn.Sequential(timm.layers.SqueezeExcite(8), nn.BatchNorm2d(8)))
    before = copy.deepcopy(a.model.state_dict())
    keys = [set(module.__dict__) for module in a.model.modules()]
    evaluator(a)
    assert [set(module.__dict__) for module in a.model.modules()] == keys
    assert all(torch.equal(value, before[name]) for name, value in a.model.state_dict().items())
    assert all(parameter.grad is None for parameter in a.model.parameters())


def test_the_summary_is_the_mean_over_the_modules(subject) -> None:
    measured = gates(subject(nn.Sequential(timm.layers.SqueezeExcite(8), timm.layers.EcaModule(8))))
    assert list(measured["modules"]) == ["attention.0", "attention.1"]
    for name, value in measured["summary"].items():
        assert value == pytest.approx(sum(module[name] for module in measured["modules"].values()) / 2)


def test_autocast_is_used(subject) -> None:
    a = subject(timm.layers.SqueezeExcite(8))
    half = Subject(a.model, a.batches, a.class_names, torch.autocast("cpu", torch.bfloat16), a.seed)
    (recorder,) = recorded(half)
    assert recorder.calls[0].feature_map.dtype == torch.bfloat16
    for evaluator in EVALUATORS:
        for name, value in evaluator(half)["summary"].items():
            assert value == pytest.approx(evaluator(a)["summary"][name], rel=0.1, abs=1e-3)


def test_a_network_without_attention_is_refused(subject) -> None:
    with pytest.raises(ValueError, match="Network has no channel attention"):
        descriptors(subject(nn.Identity()))


def test_attention_that_differs_in_training_is_measured_as_it_is_evaluated(subject) -> None:
    a = subject(WithDropout())
    plain = subject(GatedByItsMean())
    plain.model.load_state_dict(a.model.state_dict())
    assert gates(a) == gates(plain)


class Logits(nn.Module):
    """An attention whose parent makes the gate."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean((2, 3), keepdim=True)


class SigmoidOfChild(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.child = Logits()

    def forward(self, x: Tensor) -> Tensor:
        return x * self.child(x).sigmoid()


class Divides(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x / (1 + (-x.mean((2, 3), keepdim=True)).exp())


def test_the_gate_is_what_multiplies_the_map_wherever_it_is_computed(subject) -> None:
    a, b = subject(SigmoidOfChild()), subject(Divides())
    b.model.load_state_dict(a.model.state_dict())
    (measured,), (divided,) = gates(a)["modules"].values(), gates(b)["modules"].values()
    maps = torch.cat([a.model.stem(batch.images).detach() for batch in a.batches()])
    expected = maps.mean((2, 3)).sigmoid().mean().item()
    assert measured["mean"] == pytest.approx(expected, rel=1e-5)
    assert divided["mean"] == pytest.approx(expected, rel=1e-5)


# --- Names and files ------------------------------------------------------------------------------


def undefined(subject: Subject) -> dict[str, Any]:
    """A user's evaluator."""
    return {"summary": {"classes": float(len(subject.class_names)), "nothing": float("nan")}, "list": [float("inf")]}


def test_every_name_of_the_table_is_a_function() -> None:
    assert load_evaluator("gates") is gates
    for name in TABLE:
        assert callable(load_evaluator(name))


@pytest.mark.parametrize("name", TABLE)
def test_the_table_names_what_an_evaluator_measures(subject, monkeypatch, name) -> None:
    monkeypatch.setattr("srp_exp.evaluation.cost._ROUNDS", 2)
    assert set(MEASURES[name]) == set(load_evaluator(name)(subject(timm.layers.SqueezeExcite(8)))["summary"])


@pytest.mark.parametrize("name", ["no_such_package.evaluator", "srp_exp.evaluation.gates.no_such_function"])
def test_a_function_that_is_not_there_is_one_line(name) -> None:
    with pytest.raises(ValueError, match=f"evaluators: {name} can't be imported .*PYTHONPATH"):
        load_evaluator(name)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("os.getcwd", "evaluators: os.getcwd is no function of one argument"),
        ("own_broken.measure", r"own_broken.measure can't be imported: NameError: .* \(at .*own_broken.py:2\)"),
        ("own_needs.measure", r"own_needs.measure can't be imported: ModuleNotFoundError: .*not_there.*own_needs.py:1"),
    ],
)
def test_what_cannot_be_called_or_imported_is_named_with_its_cause(tmp_path, monkeypatch, name, message) -> None:
    (tmp_path / "own_broken.py").write_text("x = 1\nundefined_name\n")
    (tmp_path / "own_needs.py").write_text("import not_there\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(UserError, match=message):
        load_evaluator(name)


@pytest.mark.parametrize("returned", [None, {"summary": {"a": "b"}}])
def test_what_is_no_summary_is_refused(subject, tmp_path, monkeypatch, returned) -> None:
    monkeypatch.setattr("srp_exp.evaluation.gates.gates", lambda subject: returned)
    with pytest.raises(UserError, match="evaluators: gates returned .*summary"):
        measure(subject(timm.layers.SqueezeExcite(8)), ["gates"], tmp_path)
    assert not (tmp_path / "gates.json").exists()


def test_an_unknown_name_is_refused_with_the_nearest() -> None:
    check_evaluators(["gates", "torch.mine"])
    with pytest.raises(ValueError, match="evaluators: there is no descriptor; did you mean descriptors?"):
        check_evaluators(["descriptor"])


def test_files_and_scalars(subject, tmp_path) -> None:
    a = subject(timm.layers.SqueezeExcite(8))
    own = f"{__name__}.undefined"
    assert not_measured(tmp_path, ["gates", own, "gates"]) == ["gates", own]
    measure(a, ["gates", own, "gates"], tmp_path)
    assert not_measured(tmp_path, ["gates", own]) == []
    assert json.loads((tmp_path / "gates.json").read_text()) == gates(a)
    assert json.loads((tmp_path / f"{own}.json").read_text()) == {
        "summary": {"classes": 3, "nothing": None}, "list": [None],
    }  # fmt: skip
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    expected = {f"measure/gates/{name}" for name in gates(a)["summary"]} | {f"measure/{own}/classes"}
    assert set(events.Tags()["scalars"]) == expected
    (point,) = events.Scalars("measure/gates/mean")
    assert point.value == pytest.approx(gates(a)["summary"]["mean"])


def test_measuring_again_gives_the_same_bytes(subject, tmp_path) -> None:
    contents = []
    for folder in (tmp_path / "one", tmp_path / "two"):
        measure(subject(timm.layers.SqueezeExcite(8)), ["descriptors", "responses", "gates"], folder)
        contents.append([file.read_bytes() for file in sorted(folder.glob("*.json"))])
    assert contents[0] == contents[1]
    assert len(contents[0]) == 3
