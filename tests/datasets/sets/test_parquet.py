"""Images in parquet files: every row comes back, from any process, and only one row group is kept."""

import pickle
from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from official_copies import KINDS, encoded, make_parquet

from srp_exp.datasets.augmentation import FileAugmentation
from srp_exp.datasets.files.decode import CorruptImageError
from srp_exp.datasets.sets.parquet import ImageNetParquet, ParquetSource

FILES = {"train-00000-of-00002": (0, 7), "train-00001-of-00002": (7, 5)}


def open_parquet(root, **others):
    arguments = {"cache_dir": None, "verify": "warn", "on_corrupt": "stop", "copy_side": None} | others
    return ImageNetParquet(str(root), augmentation=FileAugmentation(), **arguments)


@pytest.mark.parametrize("as_struct", [True, False])
def test_every_row_comes_back_in_any_order(tmp_path, as_struct):
    home = make_parquet(tmp_path, as_struct=as_struct)
    source = open_parquet(home).train.source
    assert len(source) == 12
    order = [11, 0, 6, 7, 5, 1, 10, 2, 3, 9, 4, 8]
    expected = {number: encoded(KINDS[number % len(KINDS)], number) for number in order}
    assert {position: source.read(position) for position in order} == expected
    copy = pickle.loads(pickle.dumps(source))
    assert copy.read(7) == expected[7]
    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(source.read, order * 5)) == [expected[number] for number in order * 5]


def test_the_names_are_files_and_rows(tmp_path):
    source = open_parquet(make_parquet(tmp_path)).train.source
    names = [source.name(position) for position in range(12)]
    data = tmp_path / "data"
    assert names == [f"{data / file}.parquet#{row}" for file, (_, size) in FILES.items() for row in range(size)]


def test_only_the_last_row_group_is_kept(tmp_path):
    source = open_parquet(make_parquet(tmp_path)).train.source
    for position in range(12):
        source.read(position)
    _, first, end, column = source._last
    assert (first, end, len(column)) == (3, 5, 2)
    assert len(pickle.dumps(source)) < 1000


@pytest.mark.parametrize(("names", "expected"), [(True, ("name 0", "name 1", "name 2")), (False, ("0", "1", "2"))])
def test_class_names_come_from_the_hubs_metadata(tmp_path, names, expected):
    found = open_parquet(make_parquet(tmp_path, names=names))
    assert found.class_names == expected
    assert found.train.labels.tolist() == [number % 3 for number in range(12)]
    assert found.test.labels.tolist() == [number % 3 for number in range(12, 18)]


def test_the_places_where_the_hub_puts_files(tmp_path):
    home = make_parquet(tmp_path / "first")
    flat = tmp_path / "flat"
    (home / "data").rename(flat)
    assert len(open_parquet(flat).train) == 12
    folders = tmp_path / "converted" / "default"
    for number, file in enumerate(sorted(flat.glob("train-*"))):
        (folders / "train").mkdir(parents=True, exist_ok=True)
        file.rename(folders / "train" / f"{number:04d}.parquet")
    (folders / "validation").mkdir()
    next(flat.glob("validation-*")).rename(folders / "validation" / "0000.parquet")
    found = open_parquet(tmp_path / "converted")
    assert (len(found.train), len(found.test)) == (12, 6)


def replace_column(file, name, column):
    table = pq.read_table(file)
    table = table.drop_columns([name])
    pq.write_table(table if column is None else table.append_column(name, column), file)


@pytest.mark.parametrize(
    ("column", "values", "message"),
    [
        ("image", None, "has no column image, but label; rename it"),
        ("label", None, "has no column label, but image; rename it"),
        ("label", pa.array(["a"] * 7), "its labels are string"),
        ("label", pa.array([0, 1, None, 0, 1, 2, 0]), "its labels are int64 with 1 missing"),
        ("label", pa.array([0, 1, -1, 0, 1, 2, 0]), r"1 labels lie outside the 3 classes.*parquet: -1\)"),
        ("label", pa.array([0, 1, 3, 0, 1, 2, 0]), r"1 labels lie outside the 3 classes.*parquet: 3\)"),
    ],
)
def test_wrong_columns_are_named(tmp_path, column, values, message):
    home = make_parquet(tmp_path)
    replace_column(home / "data" / "train-00000-of-00002.parquet", column, values)
    if column == "label" and values is not None:  # keep the names, which the first file holds
        file = home / "data" / "train-00000-of-00002.parquet"
        metadata = pq.read_schema(home / "data" / "train-00001-of-00002.parquet").metadata
        pq.write_table(pq.read_table(file).replace_schema_metadata(metadata), file)
    with pytest.raises(ValueError, match=message) as error:
        open_parquet(home)
    assert "train-00000-of-00002.parquet" in str(error.value) and "\n" not in str(error.value)


def test_a_damaged_file_is_named(tmp_path):
    home = make_parquet(tmp_path)
    file = home / "data" / "train-00001-of-00002.parquet"
    file.write_bytes(file.read_bytes()[:-50])
    with pytest.raises(ValueError, match=r"train-00001-of-00002\.parquet: not a readable parquet file"):
        open_parquet(home)


def test_rows_without_bytes_and_damaged_bytes_are_corrupt_images(tmp_path):
    home = make_parquet(tmp_path, as_struct=False)
    file = home / "data" / "train-00000-of-00002.parquet"
    images = pq.read_table(file).column("image").to_pylist()
    images[1], images[4] = None, images[4][:100]
    replace_column(file, "image", pa.array(images, pa.binary()))
    found = open_parquet(home)
    with pytest.raises(CorruptImageError, match=r"train-00000-of-00002\.parquet#1: holds no bytes"):
        found.train.source.read(1)
    skipped = open_parquet(home, on_corrupt="skip").train
    assert skipped.index.tolist() == [0, 2, 3, 5, 6, 7, 8, 9, 10, 11]
    assert skipped.skipped == 2


def test_an_empty_source(tmp_path):
    assert len(ParquetSource(tmp_path, [])) == 0
