"""Data sets in tables: every row comes back, from any process, however the files hold it and name it."""

import json
import pickle
from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from official_copies import KINDS, encoded, make_parquet

from srp_exp.datasets.augmentation import FileAugmentation
from srp_exp.datasets.sets.parquet import ImageNetParquet, Parquet
from srp_exp.runs.folder.digests import digests_of

FILES = {"train-00000-of-00002": (0, 7), "train-00001-of-00002": (7, 5)}
PICTURES = [encoded(KINDS[number % len(KINDS)], number) for number in range(18)]


def open_parquet(root, kind=ImageNetParquet, **others):
    arguments = {"cache_dir": None, "verify": "warn", "on_corrupt": "stop", "copy_side": None} | others
    return kind(str(root), augmentation=FileAugmentation(), **arguments)


def rewrite(home, **options):
    for file in home.rglob("*.parquet"):
        pq.write_table(pq.read_table(file), file, **options)
    return home


WAYS = {
    "compressed": {"compression": "snappy"},
    "zstd, one group": {"compression": "zstd", "use_dictionary": False},
    "plain": {"compression": "none", "use_dictionary": False},
    "plain, small pages": {"compression": "none", "use_dictionary": False, "data_page_size": 500, "row_group_size": 5},
    "dictionary": {"compression": "none", "use_dictionary": True},
    "dictionary that overflows": {"compression": "none", "dictionary_pagesize_limit": 2000},
    "new pages": {"compression": "none", "data_page_version": "2.0", "use_dictionary": False},
    "delta": {"compression": "none", "use_dictionary": False, "column_encoding": {"image.bytes": "DELTA_BYTE_ARRAY"}},
}


@pytest.mark.parametrize("way", WAYS)
def test_every_row_comes_back_however_it_was_written(tmp_path, way):
    """The same image twice, too, which a dictionary holds once."""
    home = make_parquet(tmp_path)
    file = home / "data" / "train-00001-of-00002.parquet"
    table = pq.read_table(file)
    pq.write_table(pa.concat_tables([table, table.slice(1, 2)]), file)
    options = dict(WAYS[way])
    if "column_encoding" in options:
        options["column_encoding"] = options["column_encoding"] | {"image.path": "PLAIN", "label": "PLAIN"}
    found = open_parquet(rewrite(home, **options)).train
    assert [found.source.read(row) for row in range(14)] == [*PICTURES[:12], *PICTURES[8:10]]


@pytest.mark.parametrize("as_struct", [True, False])
def test_every_row_comes_back_in_any_order(tmp_path, as_struct):
    source = open_parquet(make_parquet(tmp_path, as_struct=as_struct)).train.source
    assert len(source) == 12
    order = [11, 0, 6, 7, 5, 1, 10, 2, 3, 9, 4, 8]
    assert [source.read(position) for position in order] == [PICTURES[number] for number in order]
    assert pickle.loads(pickle.dumps(source)).read(7) == PICTURES[7]
    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(source.read, order * 5)) == [PICTURES[number] for number in order * 5]


def test_the_names_are_files_and_rows(tmp_path):
    source = open_parquet(rewrite(make_parquet(tmp_path), compression="none")).train.source
    names = [source.name(position) for position in range(12)]
    data = tmp_path / "data"
    assert names == [f"{data / file}.parquet#{row}" for file, (_, size) in FILES.items() for row in range(size)]


def damage(file, how):
    content = bytearray(file.read_bytes())
    where = len(content) // 2
    match how:
        case "deleted":
            file.unlink()
            return
        case "changed":  # in the images: Arrow itself would not notice
            content[where : where + 200] = bytes(value ^ 0xFF for value in content[where : where + 200])
        case "zeroed":
            content = bytearray(len(content))
        case "cut":
            del content[where:]
    file.write_bytes(content)


def test_what_is_kept_of_a_table_is_made_again_when_it_was_damaged(tmp_path):
    home, cache = make_parquet(tmp_path / "set"), tmp_path / "cache"
    before = digests_of(open_parquet(home, cache_dir=str(cache)))
    for how in ("deleted", "changed", "zeroed", "cut"):
        kept = list(cache.rglob("*.arrow"))
        assert len(kept) == 3
        for file in kept:
            damage(file, how)
        found = open_parquet(home, cache_dir=str(cache))
        assert [found.train.source.read(row) for row in range(12)] == PICTURES[:12], how
        assert digests_of(found) == before


def test_a_kill_while_a_table_is_kept_leaves_nothing_that_is_taken_for_whole(tmp_path, monkeypatch):
    """Its note is written last, and `datasets` renames a folder when it is whole."""
    home, cache = make_parquet(tmp_path / "set"), tmp_path / "cache"
    monkeypatch.setattr("srp_exp.datasets.sets.tables.read_tables.keep", None)
    with pytest.raises(ValueError):
        open_parquet(home, cache_dir=str(cache))
    (kept,) = cache.rglob("*.arrow")  # of the first file
    half = kept.parent.with_name(f"{kept.parent.name}.incomplete")
    kept.parent.rename(half)  # as `datasets` calls it until it is whole
    damage(half / kept.name, "cut")
    monkeypatch.undo()
    found = open_parquet(home, cache_dir=str(cache))
    assert [found.train.source.read(row) for row in range(12)] == PICTURES[:12]


def test_how_the_images_are_stored_is_no_part_of_the_data(tmp_path):
    digests = [digests_of(open_parquet(make_parquet(tmp_path / "snappy")))]
    digests.append(digests_of(open_parquet(rewrite(make_parquet(tmp_path / "plain"), compression="none"))))
    assert digests[0] == digests[1]


HUB = {  # names of columns and files as sets on the hub have them: (image, label, files of train and test)
    "cifar10": ("img", "label", "plain_text/train-00000-of-00001.parquet", "plain_text/test-00000-of-00001.parquet"),
    "converted": ("image", "labels", "default/train/0000.parquet", "default/test/0000.parquet"),
    "beans": ("image", "labels", "data/train-00000-of-00001.parquet", "data/validation-00000-of-00001.parquet"),
    "capitals": ("image", "label", "Train-0.parquet", "TEST/0.parquet"),
    "two files": ("picture", "class", "train.parquet", "test.parquet"),
}


def write(file, images, labels, image="image", label="label", features=None, more=()):
    file.parent.mkdir(parents=True, exist_ok=True)
    kind = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    columns = {
        image: pa.array([{"bytes": content, "path": "x.jpg"} for content in images], kind),
        label: pa.array(labels),
        **dict(more),
    }
    metadata = {b"huggingface": json.dumps({"info": {"features": features}})} if features else None
    pq.write_table(pa.table(columns).replace_schema_metadata(metadata), file)


@pytest.mark.parametrize(("name", "described"), [(name, at % 2 == 0) for at, name in enumerate(HUB)])
def test_columns_and_files_of_any_name(tmp_path, name, described):
    image, label, train, test = HUB[name]
    features = {image: {"_type": "Image"}, label: {"_type": "ClassLabel", "names": ["ant", "bee", "cat"]}}
    for file, first, size in ((train, 0, 12), (test, 12, 6)):
        labels = [number % 3 for number in range(first, first + size)]
        write(tmp_path / file, PICTURES[first : first + size], labels, image, label, features if described else None)
    found = open_parquet(tmp_path, Parquet)
    assert found.class_names == (("ant", "bee", "cat") if described else ("0", "1", "2"))
    assert [found.train.source.read(row) for row in range(12)] == PICTURES[:12]
    assert found.test.labels.tolist() == [0, 1, 2] * 2


def test_of_two_label_columns_one_is_chosen(tmp_path):
    """As CIFAR-100 has them."""
    fine, coarse = [0, 1, 2, 3], [0, 0, 1, 1]
    features = {"img": {"_type": "Image"}}
    features |= {name: {"_type": "ClassLabel", "names": list("abcd")} for name in ("fine_label", "coarse_label")}
    for part in ("train", "test"):
        more = {"coarse_label": pa.array(coarse)}
        write(tmp_path / f"{part}.parquet", PICTURES[:4], fine, "img", "fine_label", features, more)
    with pytest.raises(ValueError, match=r"2 columns may hold labels; set .*label_column to one of fine_label, coarse"):
        open_parquet(tmp_path, Parquet)
    assert open_parquet(tmp_path, Parquet, label_column="coarse_label").train.labels.tolist() == coarse
    with pytest.raises(ValueError, match="dataset.label_column=colour: .* has no such column, but img"):
        open_parquet(tmp_path, Parquet, label_column="colour")


def test_texts_are_labels_too(tmp_path):
    write(tmp_path / "train.parquet", PICTURES[:4], ["bee", "ant", "cat", "bee"])
    write(tmp_path / "test.parquet", PICTURES[4:6], ["cat", "ant"])
    found = open_parquet(tmp_path, Parquet)
    assert found.class_names == ("ant", "bee", "cat")
    assert (found.train.labels.tolist(), found.test.labels.tolist()) == ([1, 0, 2, 1], [2, 0])
    write(tmp_path / "test.parquet", PICTURES[4:6], ["cat", "dog"])
    with pytest.raises(ValueError, match=r"test has classes that train lacks \(dog\)"):
        open_parquet(tmp_path, Parquet)


INTEGERS = [pa.int8(), pa.uint8(), pa.int16(), pa.uint16(), pa.int32(), pa.uint32(), pa.uint64()]
TEXTS = [pa.large_string(), pa.dictionary(pa.int8(), pa.string()), pa.dictionary(pa.int32(), pa.large_string())]


def test_labels_come_in_every_type_that_pandas_and_polars_write(tmp_path):
    for number, kind in enumerate([*INTEGERS, *TEXTS]):
        values = [2, 0, 1, 2] if kind in INTEGERS else ["cat", "ant", "bee", "cat"]
        for part in ("train", "test"):
            write(tmp_path / str(number) / f"{part}.parquet", PICTURES[:4], pa.array(values).cast(kind))
        found = open_parquet(tmp_path / str(number), Parquet)
        assert found.train.labels.tolist() == found.test.labels.tolist() == [2, 0, 1, 2], kind


def test_a_file_that_means_other_classes_is_refused(tmp_path):
    """The same numbers: the pictures of class 1 of one file would be taught as those of class 1 of the other."""
    for file in ("train-1", "test"):
        for name in ("train-0", "train-1", "test"):
            names = ["ant", "cat", "bee"] if name == file else ["ant", "bee", "cat"]
            features = {"image": {"_type": "Image"}, "label": {"_type": "ClassLabel", "names": names}}
            write(tmp_path / file / f"{name}.parquet", PICTURES[:3], [0, 1, 2], features=features)
        with pytest.raises(ValueError, match=rf"{file}\.parquet: class 1 is cat, and bee in the first file"):
            open_parquet(tmp_path / file, Parquet)


def test_texts_of_a_test_file_get_the_numbers_of_the_names(tmp_path):
    """In whichever order the training files have these."""
    features = {"image": {"_type": "Image"}, "label": {"_type": "ClassLabel", "names": ["dog", "ant", "cat"]}}
    write(tmp_path / "train.parquet", PICTURES[:3], [0, 1, 2], features=features)
    write(tmp_path / "test.parquet", PICTURES[3:6], ["ant", "cat", "dog"])
    assert open_parquet(tmp_path, Parquet).test.labels.tolist() == [1, 2, 0]


def test_numbers_in_one_file_and_texts_in_another_are_refused(tmp_path):
    write(tmp_path / "train-0.parquet", PICTURES[:2], [0, 1])
    write(tmp_path / "train-1.parquet", PICTURES[:2], ["0", "1"])
    write(tmp_path / "test.parquet", PICTURES[:2], [0, 1])
    with pytest.raises(ValueError, match="integers in some files and texts in others"):
        open_parquet(tmp_path, Parquet)


def test_texts_in_train_and_numbers_in_test_are_refused(tmp_path):
    """Whichever names the numbers have: those of texts are in sorted order."""
    features = {"image": {"_type": "Image"}, "label": {"_type": "ClassLabel", "names": ["dog", "cat"]}}
    write(tmp_path / "train.parquet", PICTURES[:2], ["cat", "dog"])
    write(tmp_path / "test.parquet", PICTURES[:2], [0, 1], features=features)
    with pytest.raises(ValueError, match="labels are texts in train and integers in test; make them the same"):
        open_parquet(tmp_path, Parquet)


def test_files_that_are_absent_or_double_are_refused(tmp_path):
    listed = ["00000-of-00002"], ["00000-of-00001-abc", "00000-of-00001-def"], ["00000-of-00001", "x"]
    for number, parts in enumerate(listed):
        for name in [*(f"train-{part}" for part in parts), "test"]:
            write(tmp_path / str(number) / f"{name}.parquet", PICTURES[:2], [0, 1])
        with pytest.raises(ValueError, match=rf"train-{parts[0]}.* aren't all the files of one split, each once"):
            open_parquet(tmp_path / str(number), Parquet)


def test_of_two_compressed_image_columns_the_chosen_is_read(tmp_path):
    for part in ("train", "test"):
        write(tmp_path / f"{part}.parquet", PICTURES[:2], [0, 1], "rgb", more={"ir": pa.array(PICTURES[2:4])})
    for column, expected in (("rgb", PICTURES[:2]), ("ir", PICTURES[2:4])):
        source = open_parquet(tmp_path, Parquet, image_column=column).train.source
        assert [source.read(row) for row in range(2)] == expected


def test_a_relative_cache_folder_will_do(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    source = open_parquet(make_parquet(tmp_path / "set"), cache_dir="cache").train.source
    assert source.read(3) == PICTURES[3]


def test_another_kind_of_image_column_in_a_later_file_is_named(tmp_path):
    write(tmp_path / "train-0.parquet", PICTURES[:2], [0, 1])
    for values in ([1, 2], ["a.png", "b.png"]):
        pq.write_table(pa.table({"image": values, "label": [0, 1]}), tmp_path / "train-1.parquet")
        with pytest.raises(ValueError, match=r"train-1\.parquet: column image is .*, no images"):
            open_parquet(tmp_path, Parquet)


def test_odd_metadata_and_labels_are_one_line_or_read(tmp_path):
    for part in ("train", "test"):  # the image column was renamed
        write(tmp_path / f"{part}.parquet", PICTURES[:2], [0, 1], features={"img": {"_type": "Image"}})
    assert len(open_parquet(tmp_path, Parquet).train) == 2
    file = tmp_path / "train.parquet"
    pq.write_table(pq.read_table(file).replace_schema_metadata({b"huggingface": b'{"info": '}), file)
    with pytest.raises(ValueError, match=r"train\.parquet: not a readable table"):
        open_parquet(tmp_path, Parquet)
    write(file, PICTURES[:2], pa.array([0, 2**63 + 1], pa.uint64()))
    with pytest.raises(ValueError, match=r"train\.parquet: its labels are no integers of 64 bits"):
        open_parquet(tmp_path, Parquet)


def test_a_test_split_without_labels_is_left_for_validation(tmp_path):
    for part, labels in (("train", [0, 1]), ("test", [-1, -1]), ("validation", [1, 0])):
        write(tmp_path / "data" / f"{part}-00000-of-00001.parquet", PICTURES[:2], labels)
    assert open_parquet(tmp_path, Parquet).test.labels.tolist() == [1, 0]


def test_a_set_without_a_test_split_is_divided(tmp_path):
    write(tmp_path / "everything.parquet", PICTURES[:12], [0, 1, 2] * 4)
    with pytest.raises(ValueError, match="has no test part; add one, or take a part"):
        open_parquet(tmp_path, Parquet)
    found = open_parquet(tmp_path, Parquet, test_fraction=0.25)
    assert (found.train.labels.bincount().tolist(), found.test.labels.bincount().tolist()) == ([3, 3, 3], [1, 1, 1])
    both = sorted([*found.train.index.tolist(), *found.test.index.tolist()])
    assert both == list(range(12))
    for part in (found.train, found.test):
        assert [part.source.read(row) for row in range(len(part))] == [PICTURES[at] for at in part.index.tolist()]


def test_two_sets_in_one_folder_are_told_apart_by_the_user(tmp_path):
    for name in ("large", "small"):
        write(tmp_path / name / "train.parquet", PICTURES[:2], [0, 1])
    with pytest.raises(ValueError, match=r"has several data sets \(large, small\); set dataset.root to one"):
        open_parquet(tmp_path, Parquet)


def test_pictures_of_one_size_are_held_in_memory(tmp_path):
    same = [encoded("rgb", number, (20, 16)) for number in range(6)]
    write(tmp_path / "train.parquet", same, [0, 1] * 3)
    write(tmp_path / "test.parquet", same[:2], [0, 1])
    found = open_parquet(tmp_path, Parquet, memory_mb=1)
    assert (found.image_size, found.train.images.shape) == ((16, 20), (6, 3, 16, 20))
    assert found.mean == pytest.approx((found.train.images / 255).mean((0, 2, 3)).tolist(), abs=1e-6)
    assert found.std == pytest.approx((found.train.images / 255).std((0, 2, 3), correction=0).tolist(), abs=1e-6)
    assert not hasattr(open_parquet(tmp_path, Parquet, memory_mb=0.005).train, "images")  # 7,680 bytes
    write(tmp_path / "test.parquet", [same[0], encoded("rgb", 9, (16, 20))], [0, 1])
    assert not hasattr(open_parquet(tmp_path, Parquet, memory_mb=1).train, "images")


def test_class_names_come_from_the_hubs_metadata(tmp_path):
    for names, expected in ((True, ("name 0", "name 1", "name 2")), (False, ("0", "1", "2"))):
        found = open_parquet(make_parquet(tmp_path / str(names), names=names))
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


WRONG_COLUMNS = [
    ("image", None, "no column holds images, or names of image files, only label"),
    ("label", None, "no column holds labels as integers or texts, only image"),
    ("label", [0.5] * 7, "no column holds labels as integers or texts, only image .*, label .double"),
    ("label", [0, 1, None, 0, 1, 2, 0], "its labels are int64 with 1 missing"),
    ("label", [0, 1, -1, 0, 1, 2, 0], r"1 labels are outside the 3 classes.*#2: -1\)"),
    ("label", [0, 1, 3, 0, 1, 2, 0], r"1 labels are outside the 3 classes.*#2: 3\)"),
]


def test_wrong_columns_are_named(tmp_path):
    for number, (column, values, message) in enumerate(WRONG_COLUMNS):
        home = make_parquet(tmp_path / str(number))
        file, other = (home / "data" / f"train-{part}-of-00002.parquet" for part in ("00000", "00001"))
        replace_column(file, column, None if values is None else pa.array(values))
        if column == "label" and values is not None:  # keep the names, which the first file holds
            pq.write_table(pq.read_table(file).replace_schema_metadata(pq.read_schema(other).metadata), file)
        with pytest.raises(ValueError, match=message) as error:
            open_parquet(home)
        assert file.name in str(error.value) and "\n" not in str(error.value)


def test_a_damaged_file_is_named(tmp_path):
    home = make_parquet(tmp_path)
    file = home / "data" / "train-00001-of-00002.parquet"
    file.write_bytes(file.read_bytes()[:-50])
    with pytest.raises(ValueError, match=r"train-00001-of-00002\.parquet: not a readable table"):
        open_parquet(home)


def test_rows_without_bytes_and_damaged_bytes_are_corrupt_images(tmp_path):
    home = make_parquet(tmp_path, as_struct=False)
    file = home / "data" / "train-00000-of-00002.parquet"
    images = pq.read_table(file).column("image").to_pylist()
    images[1], images[4] = None, images[4][:100]
    replace_column(file, "image", pa.array(images, pa.binary()))
    assert open_parquet(home, vet="none").train.source.read(1) == b""
    skipped = open_parquet(home, on_corrupt="skip").train
    assert skipped.index.tolist() == [0, 2, 3, 5, 6, 7, 8, 9, 10, 11]
    assert skipped.skipped == 2
