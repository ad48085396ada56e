"""Typed schema of a study: a question, what is compared, and the claim that the comparisons test.

What the grid runs over besides its methods, seeds too, stands in hydra.sweeper.params, as in any sweep. How a claim is
decided: docs/statistics.md.
"""

from dataclasses import dataclass, field
from enum import Enum

from omegaconf import MISSING

from srp_exp.config.fields import within

METHOD = "method"
"""The name that the methods of a study have among the axes of its table."""


class Expectation(Enum):
    better = "better"  # the method is better than the baseline
    not_worse = "not_worse"  # it falls behind the baseline by less than the smallest effect
    equal = "equal"  # the two differ by less than the smallest effect


@dataclass
class SmallestEffectConfig:
    """The smallest difference that would matter: one shown to be nearer to 0 is no relevant difference."""

    value: float = within("(0, inf)")  # in the unit of the metric: 0.002 of top1 is 0.2 percentage points
    reason: str = MISSING


@dataclass
class ComparisonConfig:
    """A statement about two methods; runs with the same seed form pairs. All comparisons of a study must hold."""

    method: str = MISSING
    baseline: str = MISSING
    beyond: list[str] = field(default_factory=list)  # [A, B]: method - baseline is compared with A - B, an interaction
    expect: Expectation = Expectation.better
    either: str | None = None  # of the comparisons with the same name here it is enough that one holds
    smallest_effect: SmallestEffectConfig | None = None  # None: the study's
    metric: str | None = None  # of this comparison alone, such as descriptors.effective_rank; None: the study's
    higher_is_better: bool | None = None  # of that metric; None: as the study's


@dataclass
class PublishedConfig:
    """A number of a publication, shown beside ours."""

    method: str = MISSING
    cell: dict[str, str] = field(default_factory=dict)  # which entry of the table: axis -> value
    value: float = MISSING  # in the unit of results.json: 0.953 for 95.3 %
    source: str = MISSING  # publication and table


@dataclass
class StudyConfig:
    name: str = MISSING
    question: str = MISSING
    claim: str = MISSING
    quick: str | None = None  # in what this is a smaller form of the study that the claim needs; said with the verdict
    methods: dict[str, list[str]] = field(default_factory=dict)  # name -> the overrides that make it
    comparisons: list[ComparisonConfig] = field(default_factory=list)
    each: list[str] = field(default_factory=list)  # axes: the claim must hold for each value, not on the average
    smallest_effect: SmallestEffectConfig | None = None  # of the comparisons that have none of their own
    pilot: bool = False  # run it with seeds that are too few for a verdict
    metric: str = "top1"  # of the test split, or <evaluator>.<measure>
    higher_is_better: bool = True
    rows: list[str] = field(default_factory=lambda: ["method"])  # "method", or axes of hydra.sweeper.params
    columns: list[str] = field(default_factory=list)
    published: list[PublishedConfig] = field(default_factory=list)
