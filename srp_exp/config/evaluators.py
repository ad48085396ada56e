"""Names of evaluators, and the files that they write; without torch, since a finished run is skipped without it."""

from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path

from srp_exp.config.failures.explain import nearest
from srp_exp.errors import UserError

EVALUATORS = {
    "descriptors": "srp_exp.evaluation.descriptors.descriptors",
    "responses": "srp_exp.evaluation.responses.responses",
    "gates": "srp_exp.evaluation.gates.gates",
    "robustness": "srp_exp.evaluation.robustness.robustness",
    "cost": "srp_exp.evaluation.cost.cost",
}
"""Where each lies. A name with a dot is a user's own function: its package, module and name."""

OF_ATTENTION = ("descriptors", "responses", "gates")
"""Those that measure channel attention with average pooling."""


MEASURES = {
    "descriptors": (
        "channel_cosine", "channel_correlation", "class_cosine", "effective_rank", "effective_rank_centred",
    ),
    "responses": ("half_maximum_share", "participation_ratio", "silent_share"),
    "gates": ("mean", "variance_over_images", "variance_over_channels", "region_gap"),
    "robustness": (
        "clean_top1", "occluded_top1", "noise_top1", "blur_top1", "contrast_top1", "corrupted_top1",
    ),
    "cost": ("parameters", "macs", "train_step_ratio", "eval_ratio", "memory_ratio"),
}  # fmt: skip
"""What each measures, as its summary names it."""


def check_evaluators(names: Iterable[str]) -> None:
    """Raise ValueError for a name that is none, or whose package isn't installed; it is not imported here."""
    for name in names:
        if name in EVALUATORS:
            continue
        package, dot, _ = name.partition(".")
        if not dot:
            raise UserError(f"evaluators: there is no {name}{nearest(name, EVALUATORS)} (your own: package.function)")
        if not package.isidentifier() or find_spec(package) is None:
            raise UserError(f"evaluators: {name}: there is no package {package}{nearest(package, EVALUATORS)}")


def check_measure(metric: str, place: str) -> None:
    """Raise ValueError, naming the `place`, where no evaluator has the measure <evaluator>.<measure>."""
    evaluator, _, measure = metric.rpartition(".")
    if "." in evaluator:  # a user's own
        return
    if evaluator not in EVALUATORS:
        raise UserError(f"{place}={metric}: there is no evaluator {evaluator}{nearest(evaluator, EVALUATORS)}")
    if measure not in MEASURES[evaluator]:
        raise UserError(f"{place}={metric}: {evaluator} has no {measure}{nearest(measure, MEASURES[evaluator])}")


def measured_file(folder: Path, name: str) -> Path:
    """The file of evaluator `name` in the folder of an evaluation, such as <run>/evaluation/test."""
    return folder / f"{name}.json"


def not_measured(folder: Path, names: Iterable[str]) -> list[str]:
    """Those of `names` whose file `folder` lacks."""
    return [name for name in dict.fromkeys(names) if not measured_file(folder, name).is_file()]
