"""The side of a region of a map."""

import itertools
import math
from fractions import Fraction

import torch

from srp_exp.srp import region_side
from srp_exp.srp.region import in_units, traced_side


class TestRegionSide:
    def test_equals_exact_arithmetic_on_the_decimal_scale(self) -> None:
        for percent, map_side in itertools.product(range(1, 101), range(1, 65)):
            exact = max(1, math.floor(Fraction(percent, 100) * map_side + Fraction(1, 2)))
            assert region_side(percent / 100, map_side) == exact, (percent, map_side)
            assert traced_side(torch.tensor(in_units(percent / 100)), map_side).item() == exact, (percent, map_side)

    def test_literal_values_with_halves_rounded_up(self) -> None:
        for scale, map_side, side in ((0.5, 7, 4), (0.3, 5, 2), (0.7, 45, 32), (0.01, 8, 1), (1.0, 224, 224)):
            assert region_side(scale, map_side) == side, (scale, map_side)
