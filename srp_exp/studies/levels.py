"""At which levels a statement counts as shown or as refuted, at every look."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from srp_exp.config.schemas.study import Role
from srp_exp.studies.pairs import Statement

ALPHA = 0.05
"""A claim is wrongly supported or contradicted in this part of studies at most, over all its looks."""

_POINTS = 801
"""Of the grid over which the boundary is integrated: the levels have five digits."""


@dataclass(frozen=True)
class Levels:
    """Levels of p at which a statement counts as shown, or as refuted."""

    support: float
    refute: float


def levels(found: Sequence[Statement], looks: Sequence[int]) -> list[list[Levels]]:
    """Of each look the levels of each statement.

    All must hold (intersection-union), so each is shown at ALPHA; but one refutes the claim, so that each is refuted at
    ALPHA / their number; the preconditions and controls, whose lack says another thing, likewise among themselves. Of m
    of which one is enough each is shown at ALPHA / m (Bonferroni).
    """
    places = [(s.role == Role.claim, s.where, s.either or str(number)) for number, s in enumerate(found)]
    chance = [place for place, statement in zip(places, found, strict=True) if not statement.structural]
    refute = {
        role: boundary(tuple(looks), ALPHA / max(1, len({p for p in chance if p[0] == role}))) for role in (True, False)
    }
    support = [boundary(tuple(looks), ALPHA / max(1, chance.count(place))) for place in places]
    return [
        [Levels(of[look], refute[place[0]][look]) for of, place in zip(support, places, strict=True)]
        for look in range(len(looks))
    ]


@cache
def boundary(looks: tuple[int, ...], alpha: float) -> tuple[float, ...]:
    """The two-sided level of each look at rising numbers of values, so that all together err in `alpha` of cases.

    What is spent up to a part t of the values is alpha ln(1 + (e - 1) t), near Pocock's equal levels. The sum of the
    values, as a normal one with known variance, is followed from look to look while it stays within the bounds; the
    levels are then used for t-tests (Pocock, Biometrika 1977; docs/statistics.md has the simulation).
    Source: Lan and DeMets, Biometrika 1983; Armitage, McPherson and Rowe, JRSS A 1969, for the integral.
    """
    from scipy.optimize import brentq
    from scipy.special import ndtr, ndtri

    times = np.array(looks) / looks[-1]
    spent = alpha * np.log1p((math.e - 1) * times)
    bound = -ndtri(spent[0] / 2) * math.sqrt(times[0])
    found = [float(spent[0])]
    x = np.linspace(-bound, bound, _POINTS)
    density = np.exp(-(x**2) / (2 * times[0])) / math.sqrt(2 * math.pi * times[0])
    weights = np.array([1, *[4, 2] * (_POINTS // 2 - 1), 4, 1]) / 3  # Simpson's rule
    for step, spend, time in zip(np.diff(times), np.diff(spent), times[1:], strict=True):
        sd, mass = math.sqrt(step), weights * (x[1] - x[0]) * density

        def beyond(bound: float, sd: float = sd, mass: Any = mass, x: Any = x, spend: float = spend) -> float:
            return float(mass @ (ndtr((-bound - x) / sd) + ndtr((x - bound) / sd)) - spend)

        bound = brentq(beyond, 0.0, 10.0, xtol=1e-12)
        found.append(float(2 * ndtr(-bound / math.sqrt(time))))
        wider = np.linspace(-bound, bound, _POINTS)
        density = np.exp(-((wider[:, None] - x) ** 2) / (2 * step)) @ mass / (sd * math.sqrt(2 * math.pi))
        x = wider
    return tuple(found)
