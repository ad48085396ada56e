"""What a study can't mean is refused in one line, before anything is trained."""

from typing import Any

import pytest
from omegaconf import OmegaConf

from srp_exp.config.check_study import check_study, direction
from srp_exp.config.schemas.study import StudyConfig
from srp_exp.errors import UserError

METHODS = {"gap": ["srp=gap"], "fixed": ["srp=fixed"], "scheduled": ["srp=scheduled"]}
PUBLISHED = {"method": "fixed", "value": 95.3, "source": "s"}
EFFECT = {"value": 0.005, "reason": "why"}


def study(**changes: Any) -> Any:
    compared = changes.pop("comparison", {})
    values: dict[str, Any] = {
        "name": "s", "question": "?", "claim": "c", "methods": METHODS, "smallest_effect": EFFECT,
        "comparisons": [{"method": "fixed", "baseline": "gap", **compared}], **changes,
    }  # fmt: skip
    return OmegaConf.merge(OmegaConf.structured(StudyConfig), values)


REFUSED: list[tuple[dict[str, Any], list[str]]] = [
    ({"smallest_effect": {"value": 0.5, "reason": "0.5 %"}}, ["0.5 of top1, 50 points", "at most 0.05", "0.005"]),
    ({"smallest_effect": {"value": 20, "reason": "r"}}, ["smallest_effect", "20 of top1"]),
    ({"comparison": {"smallest_effect": {"value": 0.2, "reason": "r"}}}, ["0.2 of top1"]),
    ({"metric": "robustness.occluded_top1", "smallest_effect": {"value": 1, "reason": "r"}}, ["100 points"]),
    ({"metric": "loss", "smallest_effect": {"value": 20, "reason": "r"}}, ["20 of loss"]),
    ({"metric": "macro_f1", "smallest_effect": {"value": 0.2, "reason": "r"}}, ["0.2 of macro_f1, 20 points"]),
    ({"metric": "balanced_top1", "published": [PUBLISHED]}, ["fixed: 95.3 is no part of 1"]),
    ({"metric": "loss", "higher_is_better": True}, ["higher_is_better=True", "of loss lower is better"]),
    ({"metric": "top5", "higher_is_better": False}, ["of top5 higher is better"]),
    ({"comparison": {"metric": "parameters", "higher_is_better": True}}, ["of parameters lower is better"]),
    ({"metric": "gates.mean"}, ["gates.mean", "say higher_is_better=true or false"]),
    ({"comparison": {"beyond": ["fixed", "gap"]}}, ["fixed against gap", "the same difference"]),
    ({"comparison": {"beyond": ["fixed"]}}, ["beyond=['fixed']", "two methods"]),
    ({"comparison": {"either": "SRP"}}, ["either=SRP has no other comparison"]),
    ({"comparison": {"role": "control"}}, ["none has role=claim"]),
    ({"looks": [6, 6, 10]}, ["study.looks=[6, 6, 10]", "rising"]),
]


def test_what_can_not_be_meant_is_refused() -> None:
    for changes, parts in REFUSED:
        with pytest.raises(UserError) as refused:
            check_study(study(**changes), METHODS, [])
        said = str(refused.value)
        assert [part for part in parts if part not in said] == [] and "\n" not in said, said


def test_a_method_has_no_seed_of_its_own() -> None:
    for change in ("seed=3", "+seed=3"):
        with pytest.raises(UserError, match="study.methods: gap: .*seed=3"):
            check_study(study(), {**METHODS, "gap": ["srp=gap", change]}, [])


def test_the_direction_of_a_known_metric_needn_t_be_said() -> None:
    known = dict.fromkeys(("top1", "balanced_top1", "macro_f1", "robustness.corrupted_top1"), True)
    known |= dict.fromkeys(("loss", "parameters", "training_seconds", "cost.train_step_ratio"), False)
    for metric, higher in known.items():
        assert direction(metric, None) == direction(metric, None, not higher) == direction(metric, higher) == higher
        check_study(study(metric=metric, smallest_effect=EFFECT), METHODS, [])


def test_another_metric_takes_the_direction_that_is_given() -> None:
    assert direction("gates.mean", False, True) is False
    assert direction("gates.mean", None, True) is True
