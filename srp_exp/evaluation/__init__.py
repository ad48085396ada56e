"""Evaluation of a classifier: accuracy and predictions."""

from srp_exp.evaluation.accuracy import Evaluation, Scores, evaluate, score

__all__ = ["Evaluation", "Scores", "evaluate", "score"]
