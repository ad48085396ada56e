"""Stochastic Region Pooling: regions, schedules, and their injection into any network."""

from srp_exp.srp.find import find_attention
from srp_exp.srp.inject import SrpRecord, apply_srp, remove_srp, srp_modules
from srp_exp.srp.region import StochasticRegionPool2d, region_side
from srp_exp.srp.schedule import Cosine, Depth, Fixed, Linear, Schedule, Stages, ramp
from srp_exp.srp.where import Where

__all__ = [
    "Cosine",
    "Depth",
    "Fixed",
    "Linear",
    "Schedule",
    "SrpRecord",
    "Stages",
    "StochasticRegionPool2d",
    "Where",
    "apply_srp",
    "find_attention",
    "ramp",
    "region_side",
    "remove_srp",
    "srp_modules",
]
