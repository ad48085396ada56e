"""Data sets, held in memory as uint8 or read from files when needed, and the loaders that cut them into batches.

Each set has a file here and a YAML file in conf/dataset/ that names its class. To add one, write both: a subclass of
`ImageSet`, or of file_set.py's `FileSet`, whose `__init__` passes on the splits and facts, and a YAML file with its
arguments.
"""

# The modules that read image files aren't imported here: torchvision takes seconds, and small sets don't need it.
from srp_exp.datasets.batches import Batch, Sharding, TrainingBatches
from srp_exp.datasets.data_set import BatchLoader, DataSet, EvalLoader, with_statistics
from srp_exp.datasets.memory.image_set import ImageSet
from srp_exp.datasets.split import Split, hold_out

__all__ = [
    "Batch",
    "BatchLoader",
    "DataSet",
    "EvalLoader",
    "ImageSet",
    "Sharding",
    "Split",
    "TrainingBatches",
    "hold_out",
    "with_statistics",
]
