"""One line for every error."""

import re

import pytest
from hydra.errors import HydraException, InstantiationException
from hydra.utils import instantiate
from omegaconf.errors import OmegaConfBaseException

from srp_exp.config.failures.explain import explain, nearest
from srp_exp.config.failures.faults import describe_error


@pytest.mark.parametrize(
    ("name", "choices", "expected"),
    [
        ("sede", ["seed", "split"], "; did you mean seed?"),
        ("resnet2O", ["resnet20", "wrn16_8"], "; did you mean resnet20?"),
        ("resnet2", ["resnet20", "resnet29", "wrn16_8"], "; did you mean resnet29 or resnet20?"),
        ("off", ["gap", "fixed"], "; valid are fixed, gap"),  # none resembles it: all, in order
        ("target", ["_target_", "name"], "; valid are name"),  # what starts with _ is not for the user
        ("x", [], ""),
    ],
)
def test_nearest(name, choices, expected) -> None:
    assert nearest(name, choices) == expected


def test_nearest_names_three_at_most() -> None:
    assert nearest("resnet1", [f"resnet{n}" for n in range(10, 20)]).count(" or ") == 2


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["sede=1"], "sede is not a setting; did you mean seed?"),
        (["lr=1"], "lr is not a setting; did you mean optimizer.lr or recipe.lr?"),
        (["weight_decay=1"], "weight_decay is not a setting; did you mean optimizer.weight_decay or recipe.weight_"),
        (["seed=one"], "seed=one: Value 'one' of type 'str' could not be converted to Integer"),
        (["mixing=mixpu"], "mixing=mixpu: there is no such choice; did you mean mixup?"),
        (["seed=["], "seed=[: can't be read as an override, "),
    ],
    ids=str,
)
def test_errors_of_composition(compose, overrides, expected) -> None:
    with pytest.raises((HydraException, OmegaConfBaseException)) as error:
        compose(*overrides)
    assert explain(error.value).startswith(expected)


def test_a_missing_value_names_its_key_and_how_to_give_it(compose) -> None:
    config = compose("backbone=timm")
    with pytest.raises(OmegaConfBaseException) as error:
        _ = config.backbone.model
    assert explain(error.value) == "backbone.model has no value: give one, as backbone.model=..."


def fail(message: str, kind: str) -> None:
    raise {"value": ValueError, "type": TypeError}[kind](message)


def test_a_value_error_inside_a_class_is_told_in_its_own_words() -> None:
    with pytest.raises(InstantiationException) as error:
        instantiate({"_target_": fail, "message": "depth=21: choose 6n+2", "kind": "value"})
    assert explain(error.value) == "depth=21: choose 6n+2"


def test_another_error_inside_a_class_names_the_class_in_one_line() -> None:
    with pytest.raises(InstantiationException) as error:
        instantiate({"_target_": fail, "message": "two\nlines", "kind": "type"})
    line = explain(error.value)
    assert "\n" not in line
    assert "fail" in line
    assert "TypeError" in line


@pytest.mark.parametrize("error", [ValueError("a\nb"), OSError(2, "No such file", "x\ny"), ValueError("")])
def test_never_more_than_one_line(error) -> None:
    assert "\n" not in explain(error)


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (
            "own_needs.Net",
            r"own_needs.Net can't be imported: ModuleNotFoundError: No module named 'not_there' \(at .*:1",
        ),
        ("own_breaks.Net", r"own_breaks.Net can't be imported: NameError: name 'undefined_name' .*own_breaks.py:2"),
        ("own_syntax.Net", r"own_syntax.Net can't be imported: SyntaxError: .*own_syntax.py:1"),
        ("own_nets.Nett", r"own_nets.Nett can't be imported \(own_nets has no Nett\)"),
        ("own_nowhere.Net", r"own_nowhere.Net can't be imported \(there is no module own_nowhere\).*PYTHONPATH"),
        ("own_nets", r"own_nets.*name a class or function in _target_"),
        ("own_nets.Net", r"own_nets.Net: RuntimeError: no such layer \(at .*own_nets.py:5\)"),
    ],
)
def test_what_goes_wrong_in_a_users_module_is_told_with_its_place(tmp_path, monkeypatch, target, message) -> None:
    (tmp_path / "own_needs.py").write_text("import not_there\n")
    (tmp_path / "own_breaks.py").write_text("x = 1\nundefined_name\n")
    (tmp_path / "own_syntax.py").write_text("def f(:\n")
    (tmp_path / "own_nets.py").write_text(
        "class Net:\n    def __init__(self):\n        help()\ndef help():\n    raise RuntimeError('no such layer')\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(InstantiationException) as error:
        instantiate({"_target_": target})
    assert re.search(message, describe_error(error.value)), describe_error(error.value)
    assert "\n" not in describe_error(error.value)
