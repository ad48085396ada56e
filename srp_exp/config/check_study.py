"""What a study names, looked up in its grid and in what a run measures."""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from omegaconf import DictConfig

from srp_exp.config.evaluators import check_measure
from srp_exp.config.failures.explain import nearest
from srp_exp.config.metrics import SHARE_METRICS, is_share
from srp_exp.config.schemas.study import METHOD, ComparisonConfig, Role, StudyConfig
from srp_exp.errors import UserError

METRICS = ("top1", "top5", "balanced_top1", "macro_f1", "loss", "parameters", "training_seconds")
"""Metrics of results.json; those of an evaluator are written <evaluator>.<measure>."""


LARGEST_EFFECTS = {SHARE_METRICS: 0.05, ("cosine", "correlation", "share", "ratio"): 0.5, ("loss",): 1.0}
"""The largest difference that may be called the smallest that matters, by the end of a metric's name."""


def direction(metric: str, given: bool | None, of_study: bool | None = None) -> bool:
    """Whether higher is better in `metric`: as it is known, else as `given`, else as `of_study`.

    Raises UserError where `given` is another direction than is known, and where nobody says one.
    """
    known = True if is_share(metric) else None
    if metric in ("loss", "parameters", "training_seconds") or metric.startswith("cost."):
        known = False
    if known is not None and given not in (None, known):
        raise UserError(f"study: higher_is_better={given}: of {metric} {'higher' if known else 'lower'} is better")
    found = next((one for one in (known, given, of_study) if one is not None), None)
    if found is None:
        raise UserError(f"study: metric {metric}: say higher_is_better=true or false, which its name doesn't tell")
    return found


def check_study(study: StudyConfig, methods: Mapping[str, Sequence[str]], axes: Sequence[str]) -> None:
    """Raise ValueError, in one line, where `study` names a method, axis or metric that its grid doesn't have.

    And where it asks what can't be meant. `methods`: name -> overrides; `axes`: what the grid runs over besides method
    and seed.
    """
    if not re.fullmatch(r"\w[\w .+-]*", study.name):
        raise UserError(f"study.name={study.name}: it names a folder: letters, digits, blanks and . _ + - only")
    for place, names in (("rows", [METHOD, *axes]), ("columns", [METHOD, *axes]), ("each", axes)):
        for name in getattr(study, place):
            _demand(name, names, f"study.{place}", "the grid runs over no such axis")
    for name, changes in methods.items():
        for change in changes:
            if change.lstrip("+").partition("=")[0] == "seed":
                raise UserError(f"study.methods: {name}: {change}: pairs share their seed; leave it out")
    if list(study.looks) != sorted(set(study.looks)):
        raise UserError(f"study.looks={list(study.looks)}: give rising numbers of seeds")
    for comparison in study.comparisons:
        _check_comparison(study, comparison, list(methods))
    if study.comparisons and all(comparison.role != Role.claim for comparison in study.comparisons):
        raise UserError("study.comparisons: none has role=claim; say which of them the claim makes")
    for number in study.published:
        _demand(number.method, methods, "study.published", "the study has no such method")
        if is_share(study.metric) and not 0 <= number.value <= 1:
            raise UserError(f"study.published: {number.method}: {number.value} is no part of 1: 95.3 % is 0.953")
        for name in number.cell:
            _demand(name, axes, "study.published.cell", "the grid runs over no such axis")
    _check_metric(study.metric)
    direction(study.metric, study.higher_is_better)


def other_recipes(configs: Mapping[str, DictConfig]) -> list[str]:
    """A line for each setting of how long, or on how much, methods train in which they differ; configs: by method."""
    found: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for method, config in configs.items():
        values = {f"recipe.{key}": config.recipe[key] for key in config.recipe if key != "name"}
        for name, value in {**values, "dataset.train_per_class": config.dataset.get("train_per_class")}.items():
            found[name][str(value)].append(method)
    return [
        f"methods differ in {name}: " + "; ".join(f"{', '.join(of)} {value}" for value, of in values.items())
        for name, values in found.items()
        if len(values) > 1
    ]


def _check_comparison(study: StudyConfig, comparison: ComparisonConfig, methods: Sequence[str]) -> None:
    named = f"study.comparisons: {comparison.method} against {comparison.baseline}"
    for name in (comparison.method, comparison.baseline, *comparison.beyond):
        _demand(name, methods, "study.comparisons", "the study has no such method")
    if len(comparison.beyond) not in (0, 2):
        raise UserError(f"study.comparisons: beyond={comparison.beyond}: name two methods, [A, B] for A - B")
    if list(comparison.beyond) == [comparison.method, comparison.baseline]:
        raise UserError(f"{named}: beyond={comparison.beyond} is the same difference, so that nothing is left")
    alternatives = [other for other in study.comparisons if other.either == comparison.either]
    if comparison.either and len(alternatives) == 1:
        raise UserError(f"{named}: either={comparison.either} has no other comparison; leave it out, or name one")
    metric = study.metric if comparison.metric is None else comparison.metric
    _check_metric(metric)
    direction(metric, comparison.higher_is_better, study.higher_is_better)
    effect = comparison.smallest_effect or study.smallest_effect
    for ends, largest in LARGEST_EFFECTS.items():
        if effect is not None and metric.endswith(ends) and effect.value > largest:
            points = f", {100 * effect.value:g} points" if is_share(metric) else ""
            raise UserError(
                f"study.smallest_effect.value={effect.value:g}: is {effect.value:g} of {metric}{points}; choose at "
                f"most {largest:g}, as 0.005{' for half a point' if points else ''}"
            )


def _check_metric(metric: str) -> None:
    if "." in metric:
        check_measure(metric, "study: metric")
    else:
        _demand(metric, METRICS, "study", "no such metric, and that of an evaluator is <evaluator>.<measure>")


def _demand(name: str, valid: Iterable[str], place: str, problem: str) -> None:
    names = list(valid)
    if name not in names:
        raise UserError(f"{place}: {name}: {problem}{nearest(name, names)}")
