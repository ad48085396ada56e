"""Small copies of the published sets in their official formats, with pictures of every kind that is met in the wild."""

import io
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image
from scipy.io import savemat

KINDS = ("rgb", "grey", "cmyk", "palette png", "alpha png", "rotated", "png named jpeg", "rgb")


def encoded(kind: str, seed: int, size: tuple[int, int] = (48, 40)) -> bytes:
    """A picture of smooth colours, `size` being width and height, as a file of the kind."""
    coarse = np.random.default_rng(seed).integers(0, 256, (3, 4, 3), dtype=np.uint8)
    picture = Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)
    buffer = io.BytesIO()
    match kind:
        case "grey" | "cmyk":
            picture.convert({"grey": "L", "cmyk": "CMYK"}[kind]).save(buffer, "JPEG")
        case "palette png":
            picture.quantize(16).save(buffer, "PNG")
        case "alpha png":
            picture.convert("RGBA").save(buffer, "PNG")
        case "png named jpeg":
            picture.save(buffer, "PNG")
        case "rotated":
            exif = Image.Exif()
            exif[0x0112] = 6
            picture.save(buffer, "JPEG", exif=exif)
        case "truncated":
            whole = io.BytesIO()
            picture.save(whole, "JPEG", quality=95)
            buffer.write(whole.getvalue()[: len(whole.getvalue()) // 2])
        case "rgb":
            picture.save(buffer, "JPEG")
    return buffer.getvalue()


def put(path: Path, number: int, empty: bool = False) -> None:
    """A picture, of another kind for every number."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"" if empty else encoded(KINDS[number % len(KINDS)], number))


def make_imagenet(home: Path, classes: int = 3, per_class: int = 4) -> Path:
    wnids = [f"n{1440764 + 7 * label:08d}" for label in range(classes)]
    for number, wnid in enumerate(reversed(wnids)):  # not in the order of the labels
        for image in range(per_class):
            put(home / "train" / wnid / f"{wnid}_{10026 + image * 9}.JPEG", number * 5 + image)
        for image in range(2):
            put(home / "val" / wnid / f"ILSVRC2012_val_{number + image * classes:08d}.JPEG", number + image)
    return home


def make_cub200(home: Path, classes: int = 3, train: int = 4, test: int = 2, empty: bool = False) -> Path:
    """`train` and `test` images of every class; a class is a run of ids, its test images among its training images."""
    lists: dict[str, list[str]] = {
        name: [] for name in ("images", "image_class_labels", "train_test_split", "bounding_boxes", "classes")
    }
    image = 0
    for label in range(1, classes + 1):
        name = f"{label:03d}.Some_Bird"
        lists["classes"].append(f"{label} {name}")
        for number in range(train + test):
            image += 1
            file = f"{name}/Some_Bird_{number:04d}_{image}.jpg"
            put(home / "images" / file, image, empty)
            lists["images"].append(f"{image} {file}")
            lists["image_class_labels"].append(f"{image} {label}")
            lists["train_test_split"].append(f"{image} {int(number % (train + test) >= test)}")
            lists["bounding_boxes"].append(f"{image} {image % 5}.0 2.0 30.0 25.0")
    for name, lines in lists.items():
        (home / f"{name}.txt").write_text("\n".join(lines) + "\n")
    return home


def structs(records: Sequence[dict[str, int | str]]) -> np.ndarray:
    """A 1 x N array of structs, every field an array of its own, as MATLAB writes it."""
    array = np.zeros((1, len(records)), dtype=[(name, object) for name in records[0]])
    for column, record in enumerate(records):
        for name, value in record.items():
            array[0, column][name] = value if isinstance(value, str) else np.array([[value]], np.uint16)
    return array


def cells(texts: Sequence[str], shape: tuple[int, int]) -> np.ndarray:
    array = np.empty(len(texts), dtype=object)
    array[:] = list(texts)
    return array.reshape(shape)


def car(number: int, **others: int | str) -> dict[str, int | str]:
    return {"bbox_x1": 1 + number % 3, "bbox_y1": 4, "bbox_x2": 40, "bbox_y2": 35, **others}


def make_cars(home: Path, beside: bool = False, classes: int = 3, train: int = 12, test: int = 6) -> Path:
    """Layout 1. The test labels lie in devkit/, or `beside` it."""
    devkit = home / "devkit"
    devkit.mkdir(parents=True)
    names = cells([f"Make Model {label} 2012" for label in range(1, classes + 1)], (1, classes))
    savemat(devkit / "cars_meta.mat", {"class_names": names})
    for part, size in (("train", train), ("test", test)):
        records = []
        for number in range(size):
            records.append(car(number, **{"class": number * 2 % classes + 1}, fname=f"{number + 1:05d}.jpg"))
            put(home / f"cars_{part}" / f"{number + 1:05d}.jpg", number)
        name = "cars_train_annos.mat" if part == "train" else "cars_test_annos_withlabels.mat"
        savemat((home if beside and part == "test" else devkit) / name, {"annotations": structs(records)})
    return home


def make_cars_single(home: Path, classes: int = 3, size: int = 18) -> Path:
    """Layout 2: every third image is a test image."""
    records = []
    for number in range(size):
        path = f"car_ims/{number + 1:06d}.jpg"
        put(home / path, number)
        records.append({"relative_im_path": path, **car(number), "class": number // 3 % classes + 1})
        records[-1]["test"] = int(number % 3 == 2)
    names = cells([f"Make Model {label} 2012" for label in range(1, classes + 1)], (1, classes))
    savemat(home / "cars_annos.mat", {"annotations": structs(records), "class_names": names})
    return home


def make_dogs(
    home: Path, lists: str = "lists", classes: int = 3, train: int = 4, test: int = 2, empty: bool = False
) -> Path:
    """Every image has an annotation, every third one with two dogs."""
    files: dict[str, list[str]] = {"train": [], "test": []}
    labels: dict[str, list[int]] = {"train": [], "test": []}
    number = 0
    for label in range(1, classes + 1):
        breed = f"n{2085620 + label:08d}-Breed_{label}"
        for place in range(train + test):
            number += 1
            part = "test" if place < test else "train"
            file = f"{breed}/n{2085620 + label:08d}_{number}.jpg"
            put(home / "Images" / file, number, empty)
            files[part].append(file)
            labels[part].append(label)
            annotation = home / "Annotation" / file.removesuffix(".jpg")
            if not empty:
                annotation.parent.mkdir(parents=True, exist_ok=True)
                annotation.write_text(dog_xml(number))
    folder = home / lists
    folder.mkdir(exist_ok=True)
    for part in files:
        names = files[part]
        savemat(
            folder / f"{part}_list.mat",
            {
                "file_list": cells(names, (len(names), 1)),
                "annotation_list": cells([name.removesuffix(".jpg") for name in names], (len(names), 1)),
                "labels": np.array(labels[part], np.uint8)[:, None],
            },
        )
    return home


def dog_xml(number: int) -> str:
    boxes = [(5, 6, 30, 35)] + ([(2, 10, 39, 30)] if number % 3 == 0 else [])
    objects = "".join(
        f"<object><name>dog</name><bndbox><xmin>{x}</xmin><ymin>{y}</ymin><xmax>{right}</xmax><ymax>{bottom}</ymax>"
        "</bndbox></object>"
        for x, y, right, bottom in boxes
    )
    return f"<annotation><folder>x</folder><size><width>48</width></size>{objects}</annotation>"


def make_parquet(home: Path, classes: int = 3, names: bool = True, as_struct: bool = True) -> Path:
    """Two training files and one for validation, in row groups of three, as the hub lays them out."""
    (home / "data").mkdir(parents=True)
    features = {"label": {"names": [f"name {label}" for label in range(classes)], "_type": "ClassLabel"}}
    metadata = {b"huggingface": json.dumps({"info": {"features": features}}).encode()} if names else {}
    for file, size, start in (
        ("train-00000-of-00002", 7, 0),
        ("train-00001-of-00002", 5, 7),
        ("validation-00000-of-00001", 6, 12),
    ):
        images = [encoded(KINDS[number % len(KINDS)], number) for number in range(start, start + size)]
        column = [{"bytes": image, "path": None} for image in images] if as_struct else images
        kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())]) if as_struct else pa.binary()
        labels = [number % classes for number in range(start, start + size)]
        table = pa.table({"image": pa.array(column, kind), "label": pa.array(labels, pa.int64())})
        pq.write_table(table.replace_schema_metadata(metadata), home / "data" / f"{file}.parquet", row_group_size=3)
    return home
