"""What a study names must be there: methods, axes and metrics, before hours of training and not after."""

from collections.abc import Iterable, Sequence

from srp_exp.config.evaluators import EVALUATORS
from srp_exp.config.explain import nearest
from srp_exp.config.study import StudyConfig
from srp_exp.studies.results import METHOD

METRICS = ("top1", "top5", "loss", "parameters", "training_seconds")
"""Metrics of results.json; those of an evaluator are written <evaluator>.<measure>."""


def check_study(study: StudyConfig, methods: Sequence[str], axes: Sequence[str]) -> None:
    """Raise ValueError, in one line, where `study` names a method, axis or metric that its grid doesn't have.

    `methods` are its methods; `axes` is what the grid runs over besides method and seed.
    """
    for place in ("rows", "columns"):
        for name in getattr(study, place):
            _demand(name, [METHOD, *axes], f"study.{place}", "the grid runs over no such axis")
    for comparison in study.comparisons:
        for name in (comparison.method, comparison.baseline):
            _demand(name, methods, "study.comparisons", "the study has no such method")
    for number in study.published:
        _demand(number.method, methods, "study.published", "the study has no such method")
        for name in number.cell:
            _demand(name, axes, "study.published.cell", "the grid runs over no such axis")
    for metric in (study.metric, *(c.metric for c in study.comparisons if c.metric is not None)):
        _check_metric(metric)


def _check_metric(metric: str) -> None:
    evaluator, dot, _ = metric.rpartition(".")
    if not dot:
        _demand(metric, METRICS, "study", "no such metric, and that of an evaluator is <evaluator>.<measure>")
    elif "." not in evaluator:  # with a dot it is a user's own
        _demand(evaluator, EVALUATORS, f"metric {metric}", "no such evaluator")


def _demand(name: str, valid: Iterable[str], place: str, problem: str) -> None:
    names = list(valid)
    if name not in names:
        raise ValueError(f"{place}: {name}: {problem}{nearest(name, names)}")
