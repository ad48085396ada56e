"""Build the objects of a run from its configuration, resolved to plain values.

Only commands/ and runs/ ever see a configuration.
"""

from srp_exp.runs.build.data import MOST_WORKERS, Data, build_data, build_dataset
from srp_exp.runs.build.learner import build_learner
from srp_exp.runs.build.model import build_model
from srp_exp.runs.build.objects import RunObjects, build_first, build_objects

__all__ = [
    "MOST_WORKERS", "Data", "RunObjects", "build_data", "build_dataset", "build_first", "build_learner", "build_model",
    "build_objects",
]  # fmt: skip
