"""Other pictures of the classes that a network knows, to test it on: ImageNet-V2, -C, -A and -R, one's own."""

import hashlib
import logging
import re
from pathlib import Path

import torch

from srp_exp.datasets.data_set import DataSet
from srp_exp.datasets.files.decode import Reading
from srp_exp.datasets.files.file_split import FileSplit
from srp_exp.datasets.files.source import FolderSource
from srp_exp.datasets.sets.folder import class_folders, files_below, is_picture
from srp_exp.datasets.split import Split
from srp_exp.errors import MissingFileError, UserError, first_few

_LOG = logging.getLogger("srp_exp")
_WNID = re.compile(r"n\d{8}")  # of ImageNet's classes, whose sorted order is that of the labels everywhere


def other_test(root: Path, dataset: DataSet, some_classes: bool = False) -> Split | FileSplit:
    """The pictures root/<class>/, at any depth, as a split that `dataset` takes in the place of its test split.

    `index` counts the pictures in the order of their paths within their classes. Raises as `folders_of_classes`, and
    UserError for a file that isn't named as a picture, and where a set held in memory meets pictures of another size.
    """
    paths, labels = [], []
    for label, folder in folders_of_classes(root, dataset.class_names, some_classes).items():
        for path in files_below(folder):
            if not is_picture(path):
                raise UserError(f"test_root={root}: {path} is not named as a picture, or no file; take it out")
            paths.append(path.relative_to(root).as_posix())
            labels.append(label)
    if not paths:
        raise UserError(f"test_root={root}: there is no picture in its folders")
    rows = torch.arange(len(paths))
    reading = getattr(dataset, "reading", Reading())
    split = FileSplit(FolderSource(root, paths), rows, torch.tensor(labels), rows, reading=reading)
    if isinstance(dataset.test, Split):
        return _in_memory(split, dataset)
    if dataset.test.boxes is not None:
        _LOG.warning("test_root=%s: its pictures are taken whole, and the run's were cut to their boxes", root)
    return split


def name_of(root: Path) -> str:
    """What the results on `root` are called: <the folder above>-<the folder>-<digest of paths and sizes of files>."""
    paths = sorted(path for path in root.rglob("*") if path.is_file())
    files = [(path.relative_to(root).as_posix(), path.stat().st_size) for path in paths]
    digest = hashlib.sha256(repr(files).encode()).hexdigest()[:8]
    return re.sub(r"[^\w.-]", "_", "-".join([*root.resolve().parts[-2:], digest]))


def folders_of_classes(root: Path, class_names: tuple[str, ...], some_classes: bool) -> dict[int, Path]:
    """By label the folder of each class, or of `some_classes`, two at least, as ImageNet-A and -R have 200 of 1,000.

    Folders are matched with the classes by name, in which _ stands for /; ImageNet's may be called 0 to 999 too, as
    ImageNet-V2 has them. An empty folder is a class without pictures. Raises MissingFileError where there is no such
    folder, and UserError where the classes aren't the same, or aren't among those of the run.
    """
    if not root.is_dir():
        raise MissingFileError(f"test_root={root}: there is no such folder")
    found = set(class_folders(root))
    numbers = [str(label) for label in range(len(class_names))]
    is_numbered = found <= set(numbers) and all(_WNID.fullmatch(name) for name in class_names)
    wanted = numbers if is_numbered else [name.replace("/", "_") for name in class_names]
    lacking, unknown = sorted(set(wanted) - found), sorted(found - set(wanted))
    if some_classes and len(found) >= 2 and not unknown:
        return {label: root / name for label, name in enumerate(wanted) if name in found}
    if some_classes:
        why = f"{first_few(unknown)} isn't one of them" if unknown else f"it has {len(found)} of them"
        raise UserError(
            f"test_root={root} some_classes=true: needs folders of two or more of the {len(class_names)} classes of "
            f"the run, and no others: {why}"
        )
    if lacking or unknown:
        what = [f"lacks {first_few(lacking)}"] if lacking else []
        what += [f"has {first_few(unknown)} besides"] if unknown else []
        raise UserError(
            f"test_root={root}: its folders aren't the {len(class_names)} classes of the run: it {' and '.join(what)}; "
            f"name them as the classes, with an empty folder for one without pictures"
            + ("" if unknown or len(found) < 2 else ", or set some_classes=true to choose among those that it has")
        )
    return {label: root / name for label, name in enumerate(wanted)}


def _in_memory(split: FileSplit, dataset: DataSet) -> Split:
    images = []
    for row in range(len(split)):
        name, image = split.name(row), split.picture(row)
        if image.shape[1:] != dataset.image_size:
            height, width = dataset.image_size
            raise UserError(
                f"test_root: {name} has {image.shape[1]} x {image.shape[2]} pixels, and the pictures of the run have "
                f"{height} x {width}; resize them"
            )
        if dataset.channels == 1 and not torch.equal(image, image[:1].expand_as(image)):
            raise UserError(f"test_root: {name} has colours, and the pictures of the run are grey; convert it")
        images.append(image[: dataset.channels])
    return Split(torch.stack(images), split.labels, split.index, source=split.source, rows=split.rows)
