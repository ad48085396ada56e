"""Weights from a file: all of them, but for a classifier of another size; whatever else differs is named."""

import pickle

import pytest
import safetensors.torch
import timm
import torch
from timm.layers import EcaModule, SEModule, SplitAttn

from srp_exp.backbones import timm_models

RESNET, TEN = "resnet18", {"num_classes": 10, "in_channels": 3}


@pytest.fixture(scope="module")
def source():
    """timm's network for 1,000 classes, with random weights."""
    torch.manual_seed(7)
    return timm.create_model(RESNET).state_dict()


def save(state, path, how):
    match how:
        case "safetensors":
            safetensors.torch.save_file(state, path)
        case "state_dict":
            torch.save(state, path)
        case "data parallel":
            torch.save({"epoch": 3, "state_dict": {f"module.{key}": value for key, value in state.items()}}, path)
        case "compiled":
            torch.save({f"_orig_mod.{key}": value for key, value in state.items()}, path)
        case "checkpoint of ours":
            torch.save({"model": state, "config": "dataset: {}"}, path)
        case "moving average":
            worthless = {key: torch.zeros_like(value) for key, value in state.items()}
            torch.save({"state_dict": worthless, "state_dict_ema": state}, path)
    return path


def build(path, model=RESNET, **others):
    return timm_models.build(model, weights=str(path), **(TEN | others))


@pytest.mark.parametrize(
    "how", ["safetensors", "state_dict", "data parallel", "compiled", "checkpoint of ours", "moving average"]
)
def test_every_kind_of_file_gives_all_weights_but_the_classifier(source, tmp_path, how):
    file = save(source, tmp_path / ("w.safetensors" if how == "safetensors" else "w.pth"), how)
    torch.manual_seed(0)
    loaded = build(file).state_dict()
    torch.manual_seed(0)
    fresh = timm_models.build(RESNET, **TEN).state_dict()
    assert loaded["fc.weight"].shape == (10, 512)
    for key, value in loaded.items():
        assert torch.equal(value, fresh[key] if key.startswith("fc.") else source[key]), key


def test_a_classifier_of_the_same_size_is_loaded(source, tmp_path):
    network = build(save(source, tmp_path / "w.pth", "state_dict"), num_classes=1000)
    assert all(torch.equal(value, source[key]) for key, value in network.state_dict().items())


@pytest.mark.parametrize("model", ["efficientnet_b0", "regnety_008", "deit_tiny_distilled_patch16_224"])
def test_the_classifier_is_found_whatever_it_is_called(tmp_path, model):
    """classifier, head.fc, and two of them."""
    state = timm.create_model(model).state_dict()
    loaded = build(save(state, tmp_path / "w.pth", "state_dict"), model=model).state_dict()
    different = {
        key for key in state if loaded[key].shape != state[key].shape or not torch.equal(loaded[key], state[key])
    }
    heads = timm.get_pretrained_cfg_value(model, "classifier")
    names = [heads] if isinstance(heads, str) else heads
    assert different and {key.rpartition(".")[0] for key in different} == set(names)


def test_attention_that_was_put_in_may_be_absent(source, tmp_path):
    network = build(save(source, tmp_path / "w.pth", "state_dict"), attention=SEModule).state_dict()
    assert torch.equal(network["layer2.0.conv1.weight"], source["layer2.0.conv1.weight"])
    assert any(".se." in key for key in network)


def test_attention_in_the_file_is_loaded(tmp_path):
    torch.manual_seed(3)
    state = timm.create_model("seresnet18").state_dict()
    network = build(save(state, tmp_path / "w.pth", "state_dict"), attention=SEModule).state_dict()
    key = "layer4.1.se.fc1.weight"
    assert torch.equal(network[key], state[key])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"layer1.0.conv1.weight": None}, "missing 1 (layer1.0.conv1.weight)"),
        ({"extra.weight": torch.zeros(1)}, "unknown to the network 1 (extra.weight)"),
        (
            {"layer1.0.conv1.weight": torch.zeros(64, 64, 1, 1)},
            "of another shape 1 (layer1.0.conv1.weight (64, 64, 1, 1) instead of (64, 64, 3, 3))",
        ),
        ({"fc.weight": None, "fc.bias": None}, "missing 2 (fc.weight, fc.bias)"),
        (
            {"bn1.running_var": None, "other": torch.zeros(1)},
            "missing 1 (bn1.running_var); unknown to the network 1 (other)",
        ),
    ],
)
def test_whatever_else_differs_is_named(source, tmp_path, change, message):
    state = {key: value for key, value in (source | change).items() if value is not None}
    with pytest.raises(ValueError) as error:
        build(save(state, tmp_path / "w.pth", "state_dict"))
    assert message in str(error.value) and str(tmp_path / "w.pth") in str(error.value)
    assert "\n" not in str(error.value)


def test_another_network_is_named_by_a_few_keys(source, tmp_path):
    with pytest.raises(ValueError, match=r"missing \d+ \(.*, \.\.\.\); ") as error:
        build(save(source, tmp_path / "w.pth", "state_dict"), model="resnet50")
    assert len(str(error.value)) < 1500


@pytest.mark.parametrize("attention", [{"attention": EcaModule}, {"conv": SplitAttn}])
def test_attention_of_another_kind_in_the_file_is_refused(tmp_path, attention):
    state = timm.create_model("seresnet18").state_dict()
    with pytest.raises(ValueError, match=r"unknown to the network \d+ \(layer1"):
        build(save(state, tmp_path / "w.pth", "state_dict"), **attention)


class Attack:
    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return (open, (str(self.mark), "w"))


@pytest.mark.parametrize("content", ["missing", "empty", "noise", "text", "pickle", "list", "numbers", "cut"])
def test_a_file_without_weights_is_refused_in_one_line(source, tmp_path, content):
    file, mark = tmp_path / "w.pth", tmp_path / "mark"
    match content:
        case "empty":
            file.touch()
        case "noise":
            file.write_bytes(bytes(range(256)) * 9)
        case "text":
            file.write_text("<html>404</html>")
        case "pickle":
            file.write_bytes(pickle.dumps({"weight": Attack(mark)}))
        case "list":
            torch.save([torch.zeros(1)], file)
        case "numbers":
            torch.save({"lr": 0.1}, file)
        case "cut":
            save(source, file, "state_dict")
            file.write_bytes(file.read_bytes()[:100_000])
    with pytest.raises((ValueError, FileNotFoundError)) as error:
        build(file)
    assert str(error.value).startswith(f"backbone.weights={file}: ") and "\n" not in str(error.value)
    assert not mark.exists()


def test_damaged_safetensors_are_refused_in_one_line(source, tmp_path):
    file = save(source, tmp_path / "w.safetensors", "safetensors")
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(ValueError, match=r"w\.safetensors: ") as error:
        build(file)
    assert "\n" not in str(error.value)


def test_a_file_goes_before_timms_weights(source, tmp_path, monkeypatch):
    monkeypatch.setattr("timm.models._builder.load_pretrained", None)  # would be called, without a network
    network = build(save(source, tmp_path / "w.pth", "state_dict"), pretrained=True)
    assert torch.equal(network.state_dict()["conv1.weight"], source["conv1.weight"])


def test_without_a_network_a_file_is_asked_for(monkeypatch):
    def unreachable(*_, **__):
        raise FileNotFoundError("cannot find the requested files\nin the local cache")

    monkeypatch.setattr("timm.models._builder.load_pretrained", unreachable)
    with pytest.raises(
        ConnectionError, match=r"resnet18: timm's weights can't be fetched .*backbone\.weights=FILE"
    ) as error:
        timm_models.build(RESNET, pretrained=True, **TEN)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("prefix", ["net.", "model.", "_orig_mod.", "module._orig_mod.model."])
def test_what_every_key_begins_with_is_taken_off(source, tmp_path, caplog, prefix):
    torch.save({"state_dict": {f"{prefix}{key}": value for key, value in source.items()}}, tmp_path / "w.pth")
    network = build(tmp_path / "w.pth", num_classes=1000).state_dict()
    assert all(torch.equal(value, source[key]) for key, value in network.items())


def test_a_prefix_of_some_keys_only_is_named(source, tmp_path):
    state = {f"net.{key}": value for key, value in source.items()} | {"loss.weight": torch.zeros(1)}
    torch.save(state, tmp_path / "w.pth")
    with pytest.raises(ValueError, match=r"missing \d+ .*unknown to the network \d+ \(net\.conv1\.weight"):
        build(tmp_path / "w.pth")
