"""A prepared copy has the labels and the order of the original, and small pictures."""

import io

import datasets
import numpy as np
import pytest
import torch
from PIL import Image

from srp_exp.datasets.files.decode import Reading, decode
from srp_exp.datasets.files.file_split import FileSplit
from srp_exp.datasets.files.source import FolderSource
from srp_exp.datasets.on_disk.prepared import check_copy, copy_facts, read_copy
from srp_exp.datasets.prepare.copy import CopySettings, shrink, write_copy
from srp_exp.errors import CorruptImageError


def picture(seed, width=96, height=64, mode="RGB"):
    """Smooth clouds: what is drawn on a 6x6 grid, enlarged."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC).convert(mode)


def encoded(image, kind="JPEG", **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.fixture
def splits(tmp_path):
    """Seven training and three test pictures in mixed sizes, with boxes; rows and index differ from 0, 1, ..."""
    folder = tmp_path / "original"
    folder.mkdir()
    sizes = [(96, 64), (64, 96), (80, 80), (30, 20), (200, 50), (96, 64), (41, 33), (96, 64), (70, 64), (64, 64)]
    for number, (width, height) in enumerate(sizes):
        (folder / f"{number}.jpg").write_bytes(encoded(picture(number, width, height), quality=95))
    source = FolderSource(folder, [f"{number}.jpg" for number in range(10)])
    boxes = torch.tensor([[0.0, 2, width, height - 4] for width, height in sizes])
    rows = torch.tensor([3, 1, 4, 0, 5, 9, 2, 6, 8, 7])
    labels = torch.tensor([2, 0, 1, 1, 0, 2, 2, 1, 0, 2])
    whole = FileSplit(source, rows, labels, rows + 100, boxes[rows], skipped=2)
    return {"train": whole.take(torch.arange(7)), "test": whole.take(torch.arange(7, 10))}


def settings(**changes):
    return CopySettings(**{"name": "birds", "class_names": ("ant", "bee", "cat"), "resize": 32, **changes})


def files(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def copy_to(folder, splits, progress=lambda done: None, **changes):
    folder.mkdir()
    write_copy(splits, folder, settings(**changes), progress)
    return folder


def opened(folder):
    """The catalogue of a copy."""
    return read_copy(folder, copy_facts(folder))


def test_a_copy_has_the_labels_order_and_boxes_of_the_original(tmp_path, splits):
    progress = []
    folder = copy_to(tmp_path / "copy", splits, progress.append, workers=3)
    assert sum(progress) == 10
    assert sorted(files(folder)) == ["test-00000.arrow", "train-00000.arrow"]
    copy = opened(folder)
    assert copy.class_names == ("ant", "bee", "cat")
    for name, part in copy.parts.items():
        original, source = splits[name], part.source(folder)
        assert part.labels.tolist() == original.labels.tolist()
        assert part.index.tolist() == original.index.tolist()
        assert part.skipped == 2
        for sample in range(len(original)):
            large = decode(original.source.read(int(original.rows[sample])), "large")
            small = decode(source.read(sample), "small")
            factor = min(1, 32 / min(large.shape[1:]))
            expected = [int(side * factor) for side in large.shape[1:]]  # Resize cuts off the longer side's fraction
            assert list(small.shape[1:]) == expected
            scale = torch.tensor([small.shape[2] / large.shape[2], small.shape[1] / large.shape[1]] * 2)
            torch.testing.assert_close(torch.from_numpy(part.boxes[sample]), original.boxes[sample] * scale)


def test_any_number_of_workers_and_pictures_together_hold_the_same_images(tmp_path, splits, monkeypatch):
    one = copy_to(tmp_path / "one", splits, workers=1)
    assert files(one) == files(copy_to(tmp_path / "three", splits, workers=3))
    monkeypatch.setattr("srp_exp.datasets.prepare.copy._TOGETHER", 2)
    many = copy_to(tmp_path / "many", splits, workers=2)
    assert files(many) != files(one)
    for name, part in opened(many).parts.items():
        source, other = part.source(many), opened(one).parts[name].source(one)
        assert [source.read(row) for row in range(len(source))] == [other.read(row) for row in range(len(other))]
        assert source.digest() == other.digest()


def test_datasets_reads_the_copy(tmp_path, splits):
    folder = copy_to(tmp_path / "copy", splits)
    table = datasets.Dataset.from_file(str(folder / "test-00000.arrow"))
    assert table.features["label"].names == ["ant", "bee", "cat"]
    assert table["label"][:] == splits["test"].labels.tolist()
    assert all(row["image"].format == "JPEG" for row in table)


def test_colours_keep_their_resolution():
    small, _ = shrink(encoded(picture(0, 300, 200), "PNG"), "large", Reading(), 50, quality=90)
    assert [layer[1:3] for layer in Image.open(io.BytesIO(small)).layer] == [(1, 1)] * 3


def test_a_picture_is_reduced_as_by_an_exact_filter(tmp_path):
    """Against Pillow's resize, an implementation of its own; what JPEG loses on smooth clouds is little."""
    large = picture(0, 300, 200)
    small, factors = shrink(encoded(large, "PNG"), "large", Reading(), 50, quality=95)
    assert small.startswith(b"\xff\xd8\xff")
    assert factors == (0.25, 0.25)
    expected = np.asarray(large.resize((75, 50), Image.Resampling.BILINEAR), dtype=float)
    found = np.asarray(Image.open(io.BytesIO(small)), dtype=float)
    assert np.abs(found - expected).mean() < 2
    coarse, _ = shrink(encoded(large, "PNG"), "large", Reading(), 50, quality=20)
    assert len(coarse) < len(small)
    assert np.abs(np.asarray(Image.open(io.BytesIO(coarse)), dtype=float) - expected).mean() > 2


def test_odd_pictures_become_rgb_and_small_ones_keep_their_bytes():
    for mode, kind in (("L", "JPEG"), ("CMYK", "JPEG"), ("P", "PNG"), ("RGBA", "PNG")):
        content = encoded(picture(0, 120, 90, mode), kind)
        small, _ = shrink(content, "odd", Reading(), 30, quality=90)
        image = Image.open(io.BytesIO(small))
        assert (image.mode, image.format, image.size) == ("RGB", "JPEG", (40, 30))
        assert shrink(content, "odd", Reading(), 90, quality=90) == (content, (1, 1))


def test_a_picture_is_stored_as_its_pixels_are():
    """EXIF orientation 6 would have it shown turned by a quarter to the right."""
    image = picture(0, 120, 90)
    exif = Image.Exif()
    exif[0x0112] = 6
    small, factors = shrink(encoded(image, exif=exif, quality=95), "turned", Reading(), 30, quality=95)
    found = Image.open(io.BytesIO(small))
    assert (found.size, factors) == ((40, 30), (40 / 120, 30 / 90))
    assert not found.getexif()
    expected = image.resize((40, 30), Image.Resampling.BILINEAR)
    assert np.abs(np.asarray(found, dtype=float) - np.asarray(expected, dtype=float)).mean() < 4


def test_a_corrupt_picture_stops_the_copy(tmp_path, splits):
    path = tmp_path / "original/5.jpg"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(CorruptImageError, match=r"original/5.jpg: .*dataset.on_corrupt=skip"):
        copy_to(tmp_path / "copy", splits)


def test_a_split_without_pictures_has_a_file(tmp_path, splits):
    empty = splits["test"].take(torch.arange(0))
    assert len(opened(copy_to(tmp_path / "copy", splits | {"test": empty})).test) == 0


def test_a_set_without_boxes_has_a_copy_without(tmp_path, splits):
    plain = {name: FileSplit(split.source, split.rows, split.labels, split.index) for name, split in splits.items()}
    copy = opened(copy_to(tmp_path / "copy", plain))
    assert copy.train.boxes is None and copy.test.boxes is None


def test_a_copy_that_does_not_fit_is_refused_in_one_line(tmp_path, splits):
    folder = copy_to(tmp_path / "copy", splits)
    facts = copy_facts(folder)
    check_copy(folder, facts, "birds", 32, {})
    assert copy_facts(tmp_path) is None
    with pytest.raises(ValueError, match=r"dataset.root=.*copy: holds a copy of birds, not of cars; choose another"):
        check_copy(folder, facts, "cars", 32, {})
    with pytest.raises(ValueError, match="shorter side of 32, which gives other results"):
        check_copy(folder, facts, "birds", None, {})
    with pytest.raises(ValueError, match="copy_side=32: .* is no prepared copy"):
        check_copy(folder, None, "birds", 32, {})
    (folder / "test-00000.arrow").unlink()
    with pytest.raises(ValueError, match="test-00000.arrow: not a readable Arrow file"):
        opened(folder)


def test_a_copy_that_is_cut_short_is_named(tmp_path, splits):
    folder = copy_to(tmp_path / "copy", splits)
    for part in ("train", "test"):
        file = folder / f"{part}-00000.arrow"
        whole = file.read_bytes()
        for kept in (0, 3, 100, -300):
            file.write_bytes(whole[:kept])
            with pytest.raises(ValueError, match=rf"{part}-00000\.arrow: not a readable|has \d of \d {part} pictures"):
                opened(folder)
        file.write_bytes(whole)


def test_settings_out_of_range_are_refused():
    for key, value in (("resize", 0), ("quality", 0), ("quality", 101)):
        with pytest.raises(ValueError, match=f"{key}={value}: choose"):
            settings(**{key: value})
