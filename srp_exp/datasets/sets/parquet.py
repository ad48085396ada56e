"""Data sets in parquet files, as the Hugging Face hub has them, and ImageNet-1k in that form."""

from typing import ClassVar

from srp_exp.datasets.sets.imagenet import FACTS
from srp_exp.datasets.sets.table import TableSet


class Parquet(TableSet):
    """Parquet files only."""

    endings = (".parquet",)
    remedy = "it needs train-*.parquet, or train/*.parquet"


class ImageNetParquet(Parquet):
    """ImageNet-1k as https://huggingface.co/datasets/ILSVRC/imagenet-1k has it; its test files have no labels."""

    set_name = "imagenet"
    usual_names: ClassVar = ("imagenet", "imagenet1k", "imagenetparquet")
    facts = FACTS
    remedy = "fetch all train-*.parquet and validation-*.parquet of https://huggingface.co/datasets/ILSVRC/imagenet-1k"
