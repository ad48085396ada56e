"""Evaluation of a classifier: accuracy and predictions."""

from srp_exp.evaluation.accuracy import Evaluation, evaluate

__all__ = ["Evaluation", "evaluate"]
