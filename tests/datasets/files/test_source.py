"""Folders and stretches of files: the right bytes and names, cheap to hand over, and no growth by reading."""

import os
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest

from srp_exp.datasets.files.source import FolderSource, ImageSource, StretchSource

CONTENTS = [b"first", b"", b"a longer third", b"4"]
NAMES = ["a/one.jpg", "two.JPEG", "b/c/dr\u00e9i.png", "vier mit Leerzeichen.jpg"]


@pytest.fixture
def folder_source(tmp_path: Path) -> FolderSource:
    for name, content in zip(NAMES, CONTENTS, strict=True):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return FolderSource(tmp_path, NAMES)


@pytest.fixture
def packed_source(tmp_path: Path) -> StretchSource:
    """CONTENTS, the second and third in a shard of their own, with bytes between them that belong to none."""
    shards = [tmp_path / "0", tmp_path / "1"]
    shards[0].write_bytes(b"..first.4")
    shards[1].write_bytes(b"a longer third")
    spans = np.array([(0, 2, 7), (1, 14, 14), (1, 0, 14), (0, 8, 9)])
    return StretchSource(shards, spans, "content")


@pytest.fixture(params=["folder_source", "packed_source"])
def source(request: pytest.FixtureRequest) -> ImageSource:
    chosen: ImageSource = request.getfixturevalue(request.param)
    return chosen


def test_a_source_gives_the_bytes_at_each_position(source) -> None:
    assert len(source) == 4
    for position in (2, 0, 3, 1, 2):
        assert source.read(position) == CONTENTS[position]


def test_a_source_that_has_been_read_is_handed_to_another_process(source) -> None:
    source.read(0)
    copy = pickle.loads(pickle.dumps(source))
    assert [copy.read(position) for position in range(4)] == CONTENTS
    assert [copy.name(position) for position in range(4)] == [source.name(position) for position in range(4)]


def test_names_are_paths(folder_source, packed_source, tmp_path) -> None:
    assert [folder_source.name(position) for position in range(4)] == [str(tmp_path / name) for name in NAMES]
    assert packed_source.name(2) == f"{tmp_path / '1'}#1"


def test_a_file_name_of_any_bytes_is_read(tmp_path) -> None:
    name = os.fsdecode(b"latin-\xe9.jpg")
    (tmp_path / name).write_bytes(b"content")
    assert FolderSource(tmp_path, [name]).read(0) == b"content"


def test_a_file_that_is_gone_is_named(folder_source, tmp_path) -> None:
    (tmp_path / NAMES[1]).unlink()
    with pytest.raises(FileNotFoundError, match="two.JPEG"):
        folder_source.read(1)


def test_a_million_paths_are_one_buffer(tmp_path) -> None:
    names = [f"n{number:08d}/{number:08d}.JPEG" for number in range(20_000)]
    text = sum(len(name) for name in names)
    assert len(pickle.dumps(FolderSource(tmp_path, names))) < text + 1000


def test_the_digest_of_a_folder_follows_its_content_not_its_place(folder_source, tmp_path) -> None:
    shutil.copytree(tmp_path, tmp_path.parent / f"{tmp_path.name}-elsewhere")
    other = FolderSource(tmp_path.parent / f"{tmp_path.name}-elsewhere", NAMES)
    assert other.digest() == folder_source.digest()
    (tmp_path / NAMES[0]).write_bytes(b"fIrst")
    assert other.digest() != folder_source.digest()


def test_the_digest_of_a_large_folder_looks_at_every_size_and_at_some_of_the_files(tmp_path) -> None:
    names = [f"{number}.jpg" for number in range(1000)]
    for name in names:
        (tmp_path / name).write_bytes(name.encode())
    source = FolderSource(tmp_path, names)
    before = source.digest()
    (tmp_path / names[501]).write_bytes(b"longer than before")
    assert source.digest() != before
    (tmp_path / names[501]).write_bytes(names[501].encode())
    assert source.digest() == before
    for name in names:
        (tmp_path / name).write_bytes(bytes(len(name)))  # as large as before
    assert source.digest() != before
    assert len(source.probes()) == 64


def test_a_shard_that_is_cut_short_is_refused(tmp_path) -> None:
    shard = tmp_path / "shard-000.bin"
    shard.write_bytes(b"1234")
    with pytest.raises(ValueError, match="shard-000.bin: has 4 bytes of at least 5; copy or prepare it again"):
        StretchSource([shard], np.array([(0, 0, 2), (0, 2, 5)]), "")


def test_an_empty_source_has_no_images(tmp_path) -> None:
    assert len(FolderSource(tmp_path, [])) == 0
    assert len(StretchSource([], np.empty((0, 3), np.int64), "")) == 0


def test_reading_a_packed_file_does_not_fill_the_memory(tmp_path) -> None:
    """200 MB are read. A map that kept its pages would grow by as much; between releases it may hold 256 reads."""
    image, number = 50_000, 4000
    shard = tmp_path / "shard"
    shard.write_bytes(os.urandom(image) * number)
    spans = np.array([(0, start, start + image) for start in range(0, image * number, image)])
    source = StretchSource([shard], spans, "")
    source.read(0)
    before = resident_bytes()
    largest = 0
    for position in range(number):
        source.read(position)
        if position % 100 == 0:
            largest = max(largest, resident_bytes() - before)
    assert largest < 2 * 256 * image


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
