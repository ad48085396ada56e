"""Stochastic Region Pooling: regions, schedules, and their injection into any network."""

from srp_exp.srp.choose import Where
from srp_exp.srp.control import fix_regions, read_regions, set_progress, srp_modules
from srp_exp.srp.finding.find import find_attention
from srp_exp.srp.finding.findings import Findings, LeftOut, Pooling
from srp_exp.srp.inject import SrpRecord, SrpRecords, apply_srp, remove_srp
from srp_exp.srp.pool import RegionPool, Regions
from srp_exp.srp.region import region_side
from srp_exp.srp.schedule import Cosine, Depth, Fixed, Linear, Schedule, Stages, ramp

__all__ = [
    "Cosine",
    "Depth",
    "Findings",
    "Fixed",
    "LeftOut",
    "Linear",
    "Pooling",
    "RegionPool",
    "Regions",
    "Schedule",
    "SrpRecord",
    "SrpRecords",
    "Stages",
    "Where",
    "apply_srp",
    "find_attention",
    "fix_regions",
    "ramp",
    "read_regions",
    "region_side",
    "remove_srp",
    "set_progress",
    "srp_modules",
]
