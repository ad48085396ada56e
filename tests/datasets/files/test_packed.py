"""A prepared copy has the labels and the order of the original, small pictures, and survives a kill at any moment."""

import io
import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from srp_exp.datasets.files.decode import CorruptImageError, decode
from srp_exp.datasets.files.file_split import FileSplit
from srp_exp.datasets.files.packed import SAMPLE, is_packed, open_packed
from srp_exp.datasets.files.source import FolderSource
from srp_exp.datasets.prepare.pack import PackSettings, pack, shrink
from srp_exp.datasets.prepare.packed_writer import PackedWriter


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
    return PackSettings(**{"name": "birds", "class_names": ("ant", "bee", "cat"), "resize": 32, **changes})


def files(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("workers", [1, 3])
def test_a_copy_has_the_labels_order_and_boxes_of_the_original(tmp_path, splits, workers):
    progress = []
    pack(splits, tmp_path / "copy", settings(workers=workers), progress.append)
    assert sum(progress) == 10
    assert sorted(files(tmp_path / "copy")) == ["packed.json", "samples.bin", "shard-000.bin"]
    copy = open_packed(tmp_path / "copy", "birds")
    assert (copy.name, copy.class_names, copy.resize) == ("birds", ("ant", "bee", "cat"), 32)
    for part, original in ((copy.train, splits["train"]), (copy.test, splits["test"])):
        assert torch.equal(part.labels, original.labels)
        assert torch.equal(part.index, original.index)
        assert part.skipped == 2
        for sample in range(len(original)):
            large = decode(original.source.read(int(original.rows[sample])), "large")
            small = decode(part.source.read(int(part.rows[sample])), "small")
            factor = min(1, 32 / min(large.shape[1:]))
            expected = [int(side * factor) for side in large.shape[1:]]  # Resize cuts off the longer side's fraction
            assert list(small.shape[1:]) == expected
            scale = torch.tensor([small.shape[2] / large.shape[2], small.shape[1] / large.shape[1]] * 2)
            torch.testing.assert_close(part.boxes[sample], original.boxes[sample] * scale)


def test_any_number_of_workers_and_any_shard_size_hold_the_same_images(tmp_path, splits, monkeypatch):
    pack(splits, tmp_path / "one", settings(workers=1))
    pack(splits, tmp_path / "three", settings(workers=3))
    assert files(tmp_path / "one") == files(tmp_path / "three")
    monkeypatch.setattr("srp_exp.datasets.prepare.packed_writer.PackedWriter.__init__.__defaults__", (2500,))
    pack(splits, tmp_path / "shards", settings())
    shards = sorted((tmp_path / "shards").glob("shard-*.bin"))
    assert len(shards) > 2 and all(shard.stat().st_size <= 2500 for shard in shards)
    one, many = (open_packed(tmp_path / name, "birds").train for name in ("one", "shards"))
    assert [one.source.read(row) for row in range(10)] == [many.source.read(row) for row in range(10)]
    assert b"".join(shard.read_bytes() for shard in shards) == (tmp_path / "one/shard-000.bin").read_bytes()


def test_a_picture_is_reduced_as_by_an_exact_filter(tmp_path):
    """Against Pillow's resize, an implementation of its own; what JPEG loses on smooth clouds is little."""
    large = picture(0, 300, 200)
    small, factors = shrink(encoded(large, "PNG"), "large", 50, quality=95)
    assert small.startswith(b"\xff\xd8\xff")
    assert factors == (0.25, 0.25)
    expected = np.asarray(large.resize((75, 50), Image.Resampling.BILINEAR), dtype=float)
    found = np.asarray(Image.open(io.BytesIO(small)), dtype=float)
    assert np.abs(found - expected).mean() < 2
    coarse, _ = shrink(encoded(large, "PNG"), "large", 50, quality=20)
    assert len(coarse) < len(small)
    assert np.abs(np.asarray(Image.open(io.BytesIO(coarse)), dtype=float) - expected).mean() > 2


@pytest.mark.parametrize("mode, kind", [("L", "JPEG"), ("CMYK", "JPEG"), ("P", "PNG"), ("RGBA", "PNG")])
def test_odd_pictures_become_rgb_and_small_ones_keep_their_bytes(mode, kind):
    content = encoded(picture(0, 120, 90, mode), kind)
    small, _ = shrink(content, "odd", 30, quality=90)
    image = Image.open(io.BytesIO(small))
    assert (image.mode, image.format, image.size) == ("RGB", "JPEG", (40, 30))
    assert shrink(content, "odd", 90, quality=90) == (content, (1, 1))


def test_a_picture_is_stored_as_its_pixels_are():
    """EXIF orientation 6 would have it shown turned by a quarter to the right."""
    image = picture(0, 120, 90)
    exif = Image.Exif()
    exif[0x0112] = 6
    small, factors = shrink(encoded(image, exif=exif, quality=95), "turned", 30, quality=95)
    found = Image.open(io.BytesIO(small))
    assert (found.size, factors) == ((40, 30), (40 / 120, 30 / 90))
    assert not found.getexif()
    expected = image.resize((40, 30), Image.Resampling.BILINEAR)
    assert np.abs(np.asarray(found, dtype=float) - np.asarray(expected, dtype=float)).mean() < 4


def copied_until(splits, folder, count):
    """A copy that was interrupted after `count` samples."""
    seen = []

    def interrupt(done):
        seen.append(done)
        if sum(seen) == count:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pack(splits, folder, settings(), interrupt)


@pytest.mark.parametrize("count", [1, 6, 7, 8, 10])
def test_an_interrupted_copy_goes_on_to_the_same_bytes(tmp_path, splits, count):
    pack(splits, tmp_path / "whole", settings())
    copied_until(splits, tmp_path / "copy", count)
    assert not (tmp_path / "copy").exists()
    assert (tmp_path / "copy.partial/samples.bin").stat().st_size == count * SAMPLE.itemsize
    progress = []
    pack(splits, tmp_path / "copy", settings(), progress.append)
    assert progress[0] == count and sum(progress) == 10
    assert files(tmp_path / "copy") == files(tmp_path / "whole")
    assert not (tmp_path / "copy.partial").exists()


@pytest.mark.parametrize("lost", [0, 1, SAMPLE.itemsize, 2 * SAMPLE.itemsize + 5, 6 * SAMPLE.itemsize])
@pytest.mark.parametrize("surplus", [b"", b"half an image"])
def test_whatever_a_kill_leaves_behind_the_listed_images_is_cut_off(tmp_path, splits, lost, surplus):
    """Images are written before they are listed: a kill leaves more of them than the list has, and half a line."""
    pack(splits, tmp_path / "whole", settings())
    copied_until(splits, tmp_path / "copy", 6)
    partial = tmp_path / "copy.partial"
    with (partial / "samples.bin").open("r+b") as file:
        file.truncate(6 * SAMPLE.itemsize - lost)
    with (partial / "shard-000.bin").open("ab") as file:
        file.write(surplus)
    (partial / "shard-001.bin").write_bytes(b"begun, but not listed")
    pack(splits, tmp_path / "copy", settings())
    assert files(tmp_path / "copy") == files(tmp_path / "whole")


def test_a_copy_of_other_settings_or_data_does_not_go_on(tmp_path, splits):
    copied_until(splits, tmp_path / "copy", 4)
    for changes, named in (({"resize": 16}, "resize"), ({"quality": 50}, "quality"), ({"name": "cars"}, "name")):
        with pytest.raises(ValueError, match=rf"copy.partial: was begun with another {named}; give the same"):
            pack(splits, tmp_path / "copy", settings(**changes))
    fewer = splits | {"test": splits["test"].take(torch.arange(2))}
    with pytest.raises(ValueError, match="was begun with another splits, content; give the same"):
        pack(fewer, tmp_path / "copy", settings())
    pack(splits, tmp_path / "copy", settings())


def test_a_partial_copy_that_lost_images_is_refused(tmp_path, splits):
    copied_until(splits, tmp_path / "copy", 4)
    (tmp_path / "copy.partial/shard-000.bin").write_bytes(b"")
    with pytest.raises(ValueError, match=r"copy.partial: shard-000.bin is cut off; delete that folder"):
        pack(splits, tmp_path / "copy", settings())


def test_a_folder_of_something_else_is_not_written_to(tmp_path, splits):
    (tmp_path / "copy.partial").mkdir()
    (tmp_path / "copy.partial/thesis.tex").touch()
    with pytest.raises(ValueError, match="copy.partial: holds something else than an unfinished copy"):
        pack(splits, tmp_path / "copy", settings())
    assert files(tmp_path / "copy.partial") == {"thesis.tex": b""}


def test_a_corrupt_picture_stops_the_copy_which_goes_on_when_it_is_mended(tmp_path, splits):
    path = tmp_path / "original/5.jpg"
    content = path.read_bytes()
    path.write_bytes(content[:100])
    with pytest.raises(CorruptImageError, match=r"original/5.jpg: .*dataset.on_corrupt=skip"):
        pack(splits, tmp_path / "copy", settings())
    assert (tmp_path / "copy.partial/samples.bin").stat().st_size == 4 * SAMPLE.itemsize
    path.write_bytes(content)
    pack(splits, tmp_path / "copy", settings())
    assert len(open_packed(tmp_path / "copy", "birds").train) == 7


def test_a_set_without_boxes_has_a_copy_without(tmp_path, splits):
    plain = {name: FileSplit(split.source, split.rows, split.labels, split.index) for name, split in splits.items()}
    pack(plain, tmp_path / "copy", settings())
    copy = open_packed(tmp_path / "copy", "birds")
    assert copy.train.boxes is None and copy.test.boxes is None


def test_a_copy_that_does_not_fit_is_refused_in_one_line(tmp_path, splits):
    folder = tmp_path / "copy"
    pack(splits, folder, settings())
    assert is_packed(folder) and not is_packed(tmp_path)
    with pytest.raises(ValueError, match=r"dataset.root=.*copy: holds a copy of birds, not of cars; choose another"):
        open_packed(folder, "cars")
    for name, message in (("samples.bin", "should have 10 samples"), ("shard-000.bin", "has .* bytes of at least")):
        damaged = tmp_path / f"damaged {name}"
        shutil.copytree(folder, damaged)
        (damaged / name).write_bytes((folder / name).read_bytes()[:-1])
        with pytest.raises(ValueError, match=rf"{name}: {message}.*; copy or prepare it again"):
            open_packed(damaged, "birds")
    facts = json.loads((folder / "packed.json").read_text())
    (folder / "packed.json").write_text(json.dumps(facts | {"format": 99}))
    with pytest.raises(ValueError, match="has format 99, known is 1; prepare the copy again"):
        open_packed(folder, "birds")
    (folder / "packed.json").write_text("{")
    with pytest.raises(ValueError, match="packed.json: damaged .*; prepare the copy again"):
        open_packed(folder, "birds")


@pytest.mark.parametrize("changes", [{"resize": 0}, {"quality": 0}, {"quality": 101}])
def test_settings_out_of_range_are_refused(changes):
    ((key, value),) = changes.items()
    with pytest.raises(ValueError, match=f"{key}={value}: choose"):
        settings(**changes)


def test_an_interrupt_during_a_commit_lists_no_sample_twice(tmp_path, monkeypatch):
    writer = PackedWriter(tmp_path / "copy", {"name": "birds"})
    writer.append(b"one", 1, 1, None)
    writer.append(b"two", 2, 2, None)
    flush, calls = __import__("os").fsync, []

    def interrupted(descriptor):
        flush(descriptor)
        calls.append(descriptor)
        if len(calls) == 2:  # the list is written, but commit hasn't come back
            raise KeyboardInterrupt

    monkeypatch.setattr("os.fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        writer.commit()
    writer.close()
    assert np.fromfile(tmp_path / "copy.partial/samples.bin", SAMPLE)["label"].tolist() == [1, 2]
