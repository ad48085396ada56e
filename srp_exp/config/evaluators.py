"""Names of evaluators, and the files that they write; without torch, since a finished run is skipped without it."""

from collections.abc import Iterable
from pathlib import Path

from srp_exp.config.explain import nearest
from srp_exp.errors import UserError

EVALUATORS = {
    "descriptors": "srp_exp.evaluation.descriptors.descriptors",
    "responses": "srp_exp.evaluation.responses.responses",
    "gates": "srp_exp.evaluation.gates.gates",
    "cost": "srp_exp.evaluation.cost.cost",
}
"""Where each lies. A name with a dot is a user's own function: its package, module and name."""

OF_ATTENTION = ("descriptors", "responses", "gates")
"""Those that measure channel attention with average pooling."""


def check_evaluators(names: Iterable[str]) -> None:
    """Raise ValueError for a name that is none; whether a user's function is there is seen when it is loaded."""
    for name in names:
        if name not in EVALUATORS and "." not in name:
            raise UserError(f"evaluators: there is no {name}{nearest(name, EVALUATORS)} (your own: package.function)")


def measured_file(folder: Path, name: str) -> Path:
    """The file of evaluator `name` in the folder of an evaluation, such as <run>/evaluation/test."""
    return folder / f"{name}.json"


def not_measured(folder: Path, names: Iterable[str]) -> list[str]:
    """Those of `names` whose file `folder` lacks."""
    return [name for name in dict.fromkeys(names) if not measured_file(folder, name).is_file()]
