"""Typed schema of a study: a question, what is compared, and the claim that the comparison tests.

What the grid runs over besides its methods, seeds too, stands in hydra.sweeper.params, as in any sweep.
"""

from dataclasses import dataclass, field
from enum import Enum

from omegaconf import MISSING


class Expectation(Enum):
    better = "better"  # the method beats the baseline by more than the margin
    not_worse = "not_worse"  # it falls behind the baseline by less than the margin
    equal = "equal"  # the two differ by less than the margin


@dataclass
class ComparisonConfig:
    """A claim about two methods of a study; runs with the same seed form pairs."""

    method: str = MISSING
    baseline: str = MISSING
    expect: Expectation = Expectation.better
    margin: float = field(default=0.0, metadata={"within": "[0, inf)"})  # in the unit of the metric
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
    methods: dict[str, list[str]] = field(default_factory=dict)  # name -> the overrides that make it
    comparisons: list[ComparisonConfig] = field(default_factory=list)
    metric: str = "top1"  # of the test split, or <evaluator>.<measure>
    higher_is_better: bool = True
    rows: list[str] = field(default_factory=lambda: ["method"])  # "method", or axes of hydra.sweeper.params
    columns: list[str] = field(default_factory=list)
    published: list[PublishedConfig] = field(default_factory=list)
