"""One line for every error."""

import re

import pytest
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf.errors import OmegaConfBaseException

from srp_exp.config.failures.explain import explain, nearest
from srp_exp.config.failures.faults import describe_error


def test_nearest() -> None:
    for name, choices, expected in (
        ("sede", ["seed", "split"], "; did you mean seed?"),
        ("resnet2O", ["resnet20", "wrn16_8"], "; did you mean resnet20?"),
        ("resnet2", ["resnet20", "resnet29", "wrn16_8"], "; did you mean resnet29 or resnet20?"),
        ("off", ["gap", "fixed"], "; valid are fixed, gap"),  # none resembles it: all, in order
        ("target", ["_target_", "name"], "; valid are name"),  # what starts with _ is not for the user
        ("x", [], ""),
    ):
        assert nearest(name, choices) == expected


def test_nearest_names_three_at_most() -> None:
    assert nearest("resnet1", [f"resnet{n}" for n in range(10, 20)]).count(" or ") == 2


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


def test_never_more_than_one_line() -> None:
    for error in (ValueError("a\nb"), OSError(2, "No such file", "x\ny"), ValueError("")):
        assert "\n" not in explain(error)


PLACES = {
    "own_needs.Net": r"can't be imported: ModuleNotFoundError: No module named 'not_there' \(at .*:1",
    "own_breaks.Net": r"can't be imported: NameError: name 'undefined_name' .*own_breaks.py:2",
    "own_syntax.Net": r"can't be imported: SyntaxError: .*own_syntax.py:1",
    "own_nets.Nett": r"can't be imported \(own_nets has no Nett\)",
    "own_nowhere.Net": r"can't be imported \(there is no module own_nowhere\).*PYTHONPATH",
    "own_nets": r".*name a class or function in _target_",
    "own_nets.Net": r"RuntimeError: no such layer \(at .*own_nets.py:5\)",
}


def test_what_goes_wrong_in_a_users_module_is_told_with_its_place(tmp_path, monkeypatch) -> None:
    (tmp_path / "own_needs.py").write_text("import not_there\n")
    (tmp_path / "own_breaks.py").write_text("x = 1\nundefined_name\n")
    (tmp_path / "own_syntax.py").write_text("def f(:\n")
    (tmp_path / "own_nets.py").write_text(
        "class Net:\n    def __init__(self):\n        help()\ndef help():\n    raise RuntimeError('no such layer')\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    for target, message in PLACES.items():
        with pytest.raises(InstantiationException) as error:
            instantiate({"_target_": target})
        line = describe_error(error.value)
        assert re.search(f"{target}:? ?{message}", line) and "\n" not in line, line
