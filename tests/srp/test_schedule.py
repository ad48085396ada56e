"""Schedules against values worked out by hand."""

import itertools
from collections.abc import Sequence

import pytest
from each import each

from srp_exp.srp.schedule import Cosine, Depth, Fixed, Linear, Schedule, Stages, ramp


def scales(schedule: Schedule, count: int, stages: Sequence[int] | None = None) -> list[float]:
    """The schedule at every depth of a network of `count` modules, in `stages` (default: one for each)."""
    stages = range(count) if stages is None else stages
    num_stages = max(stages) + 1
    return [schedule(Depth(index, count, stage, num_stages)) for index, stage in zip(range(count), stages, strict=True)]


SQRT_HALF = 0.7071067811865476
LITERAL: list[tuple[Schedule, int, list[float]]] = [
    (Fixed(0.3), 3, [0.3, 0.3, 0.3]),
    (Fixed(), 1, [0.5]),
    (Linear(1.0, 0.5), 5, [1.0, 0.875, 0.75, 0.625, 0.5]),
    (Linear(0.4, 0.8), 3, [0.4, 0.6, 0.8]),
    (Linear(), 2, [1.0, 0.5]),
    (Cosine(1.0, 0.5), 3, [1.0, 0.75, 0.5]),
    (Cosine(1.0, 0.5), 5, [1.0, 0.75 + 0.25 * SQRT_HALF, 0.75, 0.75 - 0.25 * SQRT_HALF, 0.5]),
    (Cosine(1.0, 0.2), 4, [1.0, 0.8, 0.4, 0.2]),
    (Linear(0.9, 0.2), 1, [0.9]),
    (Cosine(0.9, 0.2), 1, [0.9]),
    (Stages([1.0, 0.6, 0.3]), 3, [1.0, 0.6, 0.3]),
]


@each(case=LITERAL)
def test_values_by_hand(case: tuple[Schedule, int, list[float]]) -> None:
    schedule, count, expected = case
    assert scales(schedule, count) == pytest.approx(expected, abs=1e-12)


@each(case=[(0, 1, 0.0), (0, 4, 0.0), (1, 4, 1 / 3), (2, 4, 2 / 3), (3, 4, 1.0), (7, 15, 0.5)])
def test_depth_fraction(case: tuple[int, int, float]) -> None:
    index, count, fraction = case
    assert Depth(index, count, 0, 1).fraction == pytest.approx(fraction, abs=1e-15)


def test_stages_repeat_within_a_stage() -> None:
    assert scales(Stages((0.9, 0.4)), 5, [0, 0, 0, 1, 1]) == [0.9, 0.9, 0.9, 0.4, 0.4]


@each(kind=[Linear, Cosine], count=[2, 3, 54])
def test_goes_from_first_to_last_without_turning(kind: type[Linear], count: int) -> None:
    for first, last in itertools.product([0.01, 0.1, 0.35, 0.7, 1.0], repeat=2):
        values = scales(kind(first, last), count)
        assert values[0] == first
        assert values[-1] == pytest.approx(last, abs=1e-12)
        steps = [b - a for a, b in itertools.pairwise(values)]
        assert all(step * (last - first) > 0 for step in steps) if first != last else set(values) == {first}
        assert all(0 < value <= 1 for value in values)


def test_cosine_leaves_both_ends_slower_than_linear() -> None:
    linear, cosine = scales(Linear(1.0, 0.2), 9), scales(Cosine(1.0, 0.2), 9)
    assert all(c > lin for c, lin in zip(cosine[1:4], linear[1:4], strict=True))
    assert all(c < lin for c, lin in zip(cosine[5:8], linear[5:8], strict=True))


@each(case=[([0.5, 0.4], 3), ([0.5, 0.4], 1), ([], 2)])
def test_stages_of_another_number_than_the_network(case: tuple[list[float], int]) -> None:
    values, num_stages = case
    with pytest.raises(ValueError) as error:
        Stages(values)(Depth(0, num_stages, 0, num_stages))
    assert str(error.value) == (
        f"scales={values} has {len(values)} values, but the attention modules of this network lie in "
        f"{num_stages} stages: give {num_stages} values"
    )


@each(bad=[0.0, -0.5, 1.5])
def test_scale_out_of_range_is_named(bad: float) -> None:
    for name, build in {
        "scale": lambda: Fixed(bad),
        "first": lambda: Linear(first=bad),
        "last": lambda: Cosine(last=bad),
        "scales[1]": lambda: Stages([0.5, bad]),
    }.items():
        with pytest.raises(ValueError) as error:
            build()
        assert str(error.value).startswith(f"{name}={bad} is not in (0, 1]")
        assert "\n" not in str(error.value)


@each(case=[(0.0, 0.5, 0.0), (0.125, 0.5, 0.25), (0.5, 0.5, 1.0), (0.9, 0.5, 1.0), (0.3, 1.0, 0.3), (1, 1, 1)])
def test_ramp(case: tuple[float, float, float]) -> None:
    progress, until, weight = case
    assert ramp(progress, until) == pytest.approx(weight, abs=1e-12)
