"""What a study names, looked up in its grid and in what a run measures."""

import re
from collections.abc import Iterable, Sequence

from srp_exp.config.evaluators import check_measure
from srp_exp.config.explain import nearest
from srp_exp.config.study import METHOD, StudyConfig
from srp_exp.errors import UserError

METRICS = ("top1", "top5", "loss", "parameters", "training_seconds")
"""Metrics of results.json; those of an evaluator are written <evaluator>.<measure>."""


def check_study(study: StudyConfig, methods: Sequence[str], axes: Sequence[str]) -> None:
    """Raise ValueError, in one line, where `study` names a method, axis or metric that its grid doesn't have.

    `methods` are its methods; `axes` is what the grid runs over besides method and seed.
    """
    if not re.fullmatch(r"\w[\w .+-]*", study.name):
        raise UserError(f"study.name={study.name}: it names a folder: letters, digits, blanks and . _ + - only")
    for place, names in (("rows", [METHOD, *axes]), ("columns", [METHOD, *axes]), ("each", axes)):
        for name in getattr(study, place):
            _demand(name, names, f"study.{place}", "the grid runs over no such axis")
    for comparison in study.comparisons:
        for name in (comparison.method, comparison.baseline, *comparison.beyond):
            _demand(name, methods, "study.comparisons", "the study has no such method")
        if len(comparison.beyond) not in (0, 2):
            raise UserError(f"study.comparisons: beyond={comparison.beyond}: name two methods, [A, B] for A - B")
    for number in study.published:
        _demand(number.method, methods, "study.published", "the study has no such method")
        if study.metric in ("top1", "top5") and not 0 <= number.value <= 1:
            raise UserError(f"study.published: {number.method}: {number.value} is no part of 1: 95.3 % is 0.953")
        for name in number.cell:
            _demand(name, axes, "study.published.cell", "the grid runs over no such axis")
    for metric in (study.metric, *(c.metric for c in study.comparisons if c.metric is not None)):
        _check_metric(metric)


def _check_metric(metric: str) -> None:
    if "." in metric:
        check_measure(metric, "study: metric")
    else:
        _demand(metric, METRICS, "study", "no such metric, and that of an evaluator is <evaluator>.<measure>")


def _demand(name: str, valid: Iterable[str], place: str, problem: str) -> None:
    names = list(valid)
    if name not in names:
        raise UserError(f"{place}: {name}: {problem}{nearest(name, names)}")
