"""Folders and tables: the right bytes and names, cheap to hand over, and no growth by reading."""

import os
import pickle
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from srp_exp.datasets.files.source import FolderSource, ImageSource
from srp_exp.datasets.files.table_source import TableSource

CONTENTS = [b"first", b"", b"a longer third", b"4"]
NAMES = ["a/one.jpg", "two.JPEG", "b/c/dr\u00e9i.png", "vier mit Leerzeichen.jpg"]


@pytest.fixture
def folder_source(tmp_path: Path) -> FolderSource:
    for name, content in zip(NAMES, CONTENTS, strict=True):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return FolderSource(tmp_path, NAMES)


def write_arrow(file: Path, images: list[bytes | None], as_struct: bool = False, rows_together: int = 2) -> Path:
    """Images in a column of an Arrow stream, a few rows together."""
    kind = pa.struct({"bytes": pa.binary(), "path": pa.string()}) if as_struct else pa.binary()
    values = [{"bytes": image, "path": "x.jpg"} for image in images] if as_struct else images
    table = pa.table({"image": pa.array(values, kind), "label": [0] * len(images)})
    with pa.ipc.new_stream(file, table.schema) as stream:
        stream.write_table(table, rows_together)
    return file


@pytest.fixture
def table_source(tmp_path: Path) -> TableSource:
    """CONTENTS, the second and third in a file of their own, among images that aren't of the source."""
    contents = [[b"other", b"first", b"other", b"4"], [b"other", b"a longer third", b"other", b"other", None]]
    files = [write_arrow(tmp_path / str(number), images, as_struct=True) for number, images in enumerate(contents)]
    return TableSource(
        files, ["a.parquet#0", "b.csv#10"], np.array([(0, 1), (1, 4), (1, 1), (0, 3)]), "image", "content"
    )


@pytest.fixture(params=["folder_source", "table_source"])
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


def test_names_are_paths(folder_source, table_source, tmp_path) -> None:
    assert [folder_source.name(position) for position in range(4)] == [str(tmp_path / name) for name in NAMES]
    assert [table_source.name(position) for position in range(4)] == [
        "a.parquet#1",
        "b.csv#14",
        "b.csv#11",
        "a.parquet#3",
    ]


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


def test_a_damaged_file_is_named_when_it_is_read(tmp_path) -> None:
    """Offsets that lead out of the file, too, where reading would end the process."""
    file = write_arrow(tmp_path / "0.arrow", [b"first", b"second", b"third"], rows_together=3)
    content = file.read_bytes()
    cells = np.array([(0, 2)])
    offsets = np.array([0, 5, 11, 16], np.int32).tobytes()
    assert content.count(offsets) == 1
    wrong = np.array([0, 5, 11, 1 << 30], np.int32).tobytes()
    for damaged in (content[:100], bytes(len(content)), content.replace(offsets, wrong)):
        file.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"0\.arrow: not a readable Arrow file \(.*; fetch or prepare it again"):
            TableSource([file], ["0#0"], cells, "image").read(0)
    file.write_bytes(content)
    with pytest.raises(ValueError, match=r"0\.arrow: not a readable Arrow file"):
        TableSource([file], ["0#0"], cells, "picture").read(0)
    with pytest.raises(ValueError, match=r"0\.arrow: has 3 rows, and none of number 3"):
        TableSource([file], ["0#0"], np.array([(0, 3)]), "image").read(0)


def test_an_empty_source_has_no_images(tmp_path) -> None:
    assert len(FolderSource(tmp_path, [])) == 0
    assert len(TableSource([], [], np.empty((0, 2), np.int64), "image")) == 0


def test_reading_a_table_does_not_fill_the_memory(tmp_path) -> None:
    """200 MB are read. A map that kept its pages would grow by as much; between releases it may hold 256 reads."""
    image, number = 50_000, 4000
    file = write_arrow(tmp_path / "file", [os.urandom(image)] * number, rows_together=100)
    source = TableSource([file], ["file#0"], np.stack([np.zeros(number, int), np.arange(number)], 1), "image")
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
