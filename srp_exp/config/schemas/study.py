"""Typed schema of a study: a question, what is compared, and the claim that the comparisons test.

What the grid runs over besides its methods, seeds too, stands in hydra.sweeper.params, as in any sweep. How a claim is
decided: docs/statistics.md.
"""

from dataclasses import dataclass, field
from enum import Enum

from omegaconf import MISSING

from srp_exp.config.schemas.fields import within

METHOD = "method"
"""The name that the methods of a study have among the axes of its table."""


class Expectation(Enum):
    better = "better"  # the method is better than the baseline
    not_worse = "not_worse"  # it falls behind the baseline by less than the smallest effect
    equal = "equal"  # the two differ by less than the smallest effect


class Role(Enum):
    claim = "claim"  # what the claim says
    precondition = "precondition"  # without it the claim can't be tested here: the larger network is better
    control = "control"  # without it the claim's own comparison would mean something else


@dataclass
class SmallestEffectConfig:
    """The smallest difference that would matter: one shown to be nearer to 0 is no relevant difference."""

    value: float = within("(0, inf)")  # in the unit of the metric: 0.002 of top1 is 0.2 points; at most 0.05 of it
    reason: str = MISSING  # why a smaller one would not matter


@dataclass
class ComparisonConfig:
    """A statement about two methods; runs with the same seed form pairs. All comparisons of a study must hold.

    Where a precondition or a control isn't shown the claim is "not testable here", whatever its own comparisons say.
    """

    method: str = MISSING  # name of one of the methods
    baseline: str = MISSING  # name of the method that it is compared with
    beyond: list[str] = field(default_factory=list)  # [A, B]: method - baseline is compared with A - B, an interaction
    expect: Expectation = Expectation.better  # not_worse: behind by less than the smallest effect; equal: within it
    role: Role = Role.claim  # precondition, control: without it the claim can't be tested here
    either: str | None = None  # of the comparisons with the same name here it is enough that one holds
    smallest_effect: SmallestEffectConfig | None = None  # null: the study's
    metric: str | None = None  # of this comparison alone, such as descriptors.effective_rank; null: the study's
    higher_is_better: bool | None = None  # of that metric; null: as it is known, or as the study's


@dataclass
class PublishedNumberConfig:
    """A number of a publication, shown beside ours."""

    method: str = MISSING  # name of one of the methods
    cell: dict[str, str] = field(default_factory=dict)  # which entry of the table: axis -> value
    value: float = MISSING  # in the unit of results.json: 0.953 for 95.3 %
    source: str = MISSING  # publication and table


@dataclass
class ExcludedConfig:
    """A run that the report leaves out, and says so: a machine that broke, never a value that displeases."""

    run: str = MISSING  # the name of its folder
    reason: str = MISSING  # printed in the report


@dataclass
class StudyConfig:
    name: str = MISSING  # of the folder of its report
    question: str = MISSING  # in words, at the top of the report
    claim: str = MISSING  # of the publication, which the comparisons test
    quick: str | None = None  # in what this is a smaller form of the study that the claim needs; said with the verdict
    methods: dict[str, list[str]] = field(default_factory=dict)  # name -> the overrides that make it
    comparisons: list[ComparisonConfig] = field(default_factory=list)  # the statements that decide the claim
    each: list[str] = field(default_factory=list)  # axes: the claim must hold for each value, not on the average
    smallest_effect: SmallestEffectConfig | None = None  # of the comparisons that have none of their own
    # Numbers of seeds after which to look, the last being all: a sweep trains up to the next, and stops when decided.
    looks: list[int] = within("[2, inf)", [])  # []: one look, at all seeds
    spread: float = within("(0, inf)", 1.25)  # sd of a paired difference over the smallest effect, as assumed for power
    exclude: list[ExcludedConfig] = field(default_factory=list)  # runs that the report leaves out
    pilot: bool = False  # run it with seeds that are too few for a verdict
    metric: str = "top1"  # of the test split, or <evaluator>.<measure>
    higher_is_better: bool | None = None  # null: as it is known of the metric (config/check_study.py)
    rows: list[str] = field(default_factory=lambda: ["method"])  # "method", or axes of hydra.sweeper.params
    columns: list[str] = field(default_factory=list)  # as rows
    published: list[PublishedNumberConfig] = field(default_factory=list)  # numbers of a publication, shown beside ours
