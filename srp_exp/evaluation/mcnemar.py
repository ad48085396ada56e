"""McNemar's exact test: whether two networks are equally often right on the same samples."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats

from srp_exp.errors import UserError


@dataclass(frozen=True)
class McNemar:
    """Samples that only a has right, samples that only b has right, and the exact p-value that both are as likely."""

    only_a: int
    only_b: int
    p: float


def mcnemar(correct_a: npt.ArrayLike, correct_b: npt.ArrayLike) -> McNemar:
    """Compare two classifiers on the same samples: (N,) booleans, whether each has the sample right.

    Of the samples that one alone has right, each had it with probability 1/2, were the two as good: the two-sided
    binomial test. p = 1 where they never differ. It speaks about these two trained networks, not about other seeds.
    Source: McNemar, Psychometrika 1947, in its exact form. Raises ValueError for arrays of unequal or other shapes.
    """
    a, b = np.asarray(correct_a, dtype=bool), np.asarray(correct_b, dtype=bool)
    if a.shape != b.shape or a.ndim != 1:
        raise UserError(f"answers of shapes {a.shape} and {b.shape} can't be compared; both must be (N,)")
    only_a, only_b = int((a & ~b).sum()), int((b & ~a).sum())
    p = stats.binomtest(only_a, only_a + only_b).pvalue if only_a + only_b else 1.0
    return McNemar(only_a, only_b, float(p))
