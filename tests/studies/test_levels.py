"""The levels of the looks: published boundaries, and a simulation of the sum that they bound."""

import math

import numpy as np
import pytest
from scipy import stats

from srp_exp.studies.levels import boundary


@pytest.mark.parametrize(
    ("alpha", "bounds"),
    [
        # Five equal looks: the critical values that gsDesign, SAS SEQDESIGN and Lan and DeMets' own program print.
        (0.05, [2.4380, 2.4268, 2.4101, 2.3966, 2.3859]),
    ],
)
def test_the_boundary_is_lan_and_demets(alpha: float, bounds: list[float]) -> None:
    found = [-stats.norm.ppf(level / 2) for level in boundary((1, 2, 3, 4, 5), alpha)]
    assert found == pytest.approx(bounds, abs=2e-4)


@pytest.mark.parametrize("alpha", [0.05, 0.05 / 3])
def test_all_looks_together_spend_alpha(alpha: float) -> None:
    looks, rounds = (6, 10, 14, 20, 28), 200_000
    sums = np.random.default_rng(0).standard_normal((rounds, looks[-1])).cumsum(-1)
    p = 2 * stats.norm.sf(np.abs([sums[:, n - 1] / math.sqrt(n) for n in looks]))
    crossed = (p <= np.array(boundary(looks, alpha))[:, None]).any(0).mean()
    assert crossed == pytest.approx(alpha, abs=4 * math.sqrt(alpha / rounds))


def test_one_look_has_it_all() -> None:
    assert boundary((7,), 0.05) == (pytest.approx(0.05),)
