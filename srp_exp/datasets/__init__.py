"""Data sets held in memory as uint8, and the loaders that cut them into batches.

Each set has a file here and a YAML file in conf/dataset/ that names its class. To add one, write both: a
subclass of `ImageSet` whose `__init__` passes on the splits and facts, and a YAML file with its arguments.
"""

from srp_exp.datasets.image_set import ImageSet
from srp_exp.datasets.loader import Batch, BatchLoader, EvalLoader
from srp_exp.datasets.split import Split, hold_out

__all__ = ["Batch", "BatchLoader", "EvalLoader", "ImageSet", "Split", "hold_out"]
