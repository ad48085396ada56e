"""Typed schemas of data sets and their augmentation."""

from dataclasses import dataclass, field, fields
from enum import Enum
from typing import Any

from omegaconf import MISSING

from srp_exp.config.schemas.fields import not_identity, within


@dataclass
class DatasetConfig:
    name: str = MISSING  # stands for the data, wherever they lie; in the name of the run's folder
    _target_: str = MISSING
    val_fraction: float = within("[0, 1)", 0.0)  # part of the training set held out for validation, stratified
    # Training pictures of every class, drawn by subset_seed; null: all. The others go unused, or to the test part.
    train_per_class: int | None = within("[1, inf)", None, counts_unless=("train_per_class", None))
    # true: the training pictures that train_per_class leaves are added to the test part.
    test_on_unused: bool = field(default=False, metadata={"counts_unless": ("train_per_class", None)})
    subset_seed: int = within(
        "[0, inf)", "${seed}", counts_unless=("train_per_class", None)
    )  # seed of that draw; a number: the same pictures in all runs
    # Mean of every channel, in units of the pixel range [0, 1]; null: the set's own. As the pretrained weights want it.
    mean: list[float] | None = field(default="${from_weights:mean}")  # type: ignore[assignment]
    # Standard deviation of every channel, as `mean`.
    std: list[float] | None = field(default="${from_weights:std}")  # type: ignore[assignment]


OF_EVERY_SET = tuple(f.name for f in fields(DatasetConfig) if f.name != "_target_")
"""Settings of every data set, which aren't arguments of its class."""


@dataclass
class AugmentationConfig:
    """What training does to pictures, in this order; evaluation does none of it."""

    _target_: str = "srp_exp.datasets.augmentation.Augmentation"
    crop_padding: int = within("[0, inf)", 0)  # pixels of zeros around, then a random crop back; 0: no crop
    flip: bool = False  # half of the pictures are mirrored left to right
    color_jitter: float = within("[0, 1]", 0.0)  # brightness, contrast and saturation times 1 plus or minus it
    rand_augment: int = within("[0, 30]", 0)  # magnitude of two operations; 0: none
    trivial_augment: bool = False  # one operation of random magnitude
    random_erasing: float = within("[0, 1]", 0.0)  # probability that a rectangle is erased
    cutout: int = within("[0, inf)", 0)  # side in pixels of the square that is erased; 0: none


@dataclass
class InMemoryConfig(DatasetConfig):
    augmentation: AugmentationConfig = field(default_factory=AugmentationConfig)


@dataclass
class CifarConfig(InMemoryConfig):
    root: str = not_identity("${data_root}")  # holds the archive or its folder
    download: bool = not_identity(False)  # true: download the archive if it doesn't exist


@dataclass
class SyntheticConfig(InMemoryConfig):
    data_seed: int = within("[0, inf)", 0)  # seed of the images, apart from the run's seed
    num_classes: int = within("[2, inf)", 10)  # labels 0 to num_classes - 1
    train_size: int = within("[1, inf)", 50_000)  # images to train on
    test_size: int = within("[1, inf)", 10_000)  # images to test on
    image_size: list[int] = within("[8, inf)", [32, 32], length=2)  # height, width in pixels
    channels: int = within("[1, inf)", 3)  # of an image; 3: colours
    parts_per_class: int = within("[1, inf)", 3)  # patterns that make a class
    part_size: int = within("[1, inf)", 8)  # side in pixels


class CropName(Enum):
    random_resized = "random_resized"
    random = "random"
    pad = "pad"


class EvalCropName(Enum):
    center = "center"
    squash = "squash"


class Interpolation(Enum):
    bilinear = "bilinear"
    bicubic = "bicubic"


class Verify(Enum):
    strict = "strict"
    warn = "warn"


class OnCorrupt(Enum):
    stop = "stop"
    skip = "skip"


class Vet(Enum):
    auto = "auto"
    all = "all"
    none = "none"


@dataclass
class FileAugmentationConfig(AugmentationConfig):
    """How pictures of any size become of one, too; what pretrained weights want is taken unless it is given.

    A size is the side of a square, or [height,width].
    """

    _target_: str = "srp_exp.datasets.augmentation.FileAugmentation"
    crop: CropName = CropName.random_resized  # random: a part of the resized; pad: all of it, moved by crop_padding
    # Pixels in training: of both sides, or [height,width].
    crop_size: Any = within("[1, inf)", "${from_weights:crop_size,224}", is_size=True)
    eval_crop_size: Any = within("[1, inf)", "${.crop_size}", is_size=True)  # pixels in evaluation, written so too
    # Pixels that a resized picture covers (squash: has), whose middle is evaluated, and of which `random` takes a part.
    resize: Any = within(
        "[1, inf)", "${eval_resize:${.eval_crop_size},${.crop},${from_weights:crop_pct,0.875}}", is_size=True
    )
    # center: the middle of the resized picture; squash: all of it, its aspect ratio forced.
    eval_crop: EvalCropName = field(default="${from_weights:eval_crop,center}")  # type: ignore[assignment]
    # Between pixels, where a picture is resized.
    interpolation: Interpolation = field(default="${from_weights:interpolation,bilinear}")  # type: ignore[assignment]
    min_area: float = within(
        "(0, 1]", 0.08, counts_if=("crop", "random_resized")
    )  # smallest part of the picture that a random crop takes
    flip: bool = True


@dataclass
class FilesConfig(DatasetConfig):
    """A set of image files, in its official layout or prepared by scripts/prepare_data.py."""

    root: str = not_identity()  # folder of the set, the one above it, or a prepared copy
    cache_dir: str | None = not_identity(
        None
    )  # folder for what was found out about the set; null: the user's cache folder
    vet: Vet = not_identity(Vet.auto)  # look at all pictures before the first step; auto: at a sample of over 4 GB
    on_corrupt: OnCorrupt = OnCorrupt.stop  # skip: images that can't be read are left out of all splits
    # The colour (RGB) seen through transparent pixels; white counts in no hash.
    background: list[int] = within("[0, 255]", [255, 255, 255], length=3, counts_unless=("background", [255, 255, 255]))
    # Of pictures of more than 8 bits: the values that become black and white; null: the lowest and highest of the set.
    value_range: list[float] | None = within(None, None, length=2, counts_unless=("value_range", None))
    copy_side: int | None = within("[1, inf)", None)  # pixels of the shorter side in the prepared copy; null: original
    augmentation: FileAugmentationConfig = field(default_factory=FileAugmentationConfig)
    own: dict[str, Any] = field(default_factory=dict)  # settings of a class of one's own, which its `read` gets


@dataclass
class PublishedConfig(FilesConfig):
    verify: Verify = Verify.strict  # the published numbers of images and classes; warn: a subset will do


@dataclass
class BoxedFilesConfig(PublishedConfig):
    crop_to_box: bool = False  # cut pictures to their bounding boxes first


@dataclass
class FolderConfig(FilesConfig):
    """A set of one's own."""

    name: str = field(default="${folder_name:${.root}}")  # stands for the data, wherever they lie; the folder's name
    # Pictures of one size that take no more are held in memory and keep it; 0 for weights, which want theirs.
    memory_mb: float = within("[0, inf)", "${from_weights:memory_mb,1000.0}")
    test_fraction: float = within("[0, 1)", 0.0)  # part of every class to test on, where the set has no test part
    # Which pictures that part takes; apart from the run's seed.
    split_seed: int = within("[0, inf)", 0, counts_unless=("test_fraction", 0.0))


@dataclass
class TableConfig(FolderConfig):
    image_column: str | None = None  # of images or of names of image files; null: the only one
    label_column: str | None = None  # of labels; null: the only one
    # Holds train, test or validation in each row, where no file is named so; null: the column "split", if there is one.
    split_column: str | None = field(default=None, metadata={"counts_unless": ("split_column", None)})
    test_split: str | None = (
        None  # the split of the table to test on; null: test, or validation where test is absent or has no labels
    )


@dataclass
class HubConfig(TableConfig):
    path: str = MISSING  # name of the set on the Hugging Face hub, as owner/name
    subset: str | None = None  # which of the set's subsets to take, where it has several
    revision: str | None = None  # branch, tag or commit; null: its newest when it is first fetched


@dataclass
class ImageNetParquetConfig(PublishedConfig):
    test_split: str = "validation"  # the split of the table to test on
