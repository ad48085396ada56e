"""Tables of every kind, as their usual programs write them: the same set, and what is wrong with one is one line."""

import csv
import logging
from pathlib import Path

import datasets
import pandas as pd
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq
import pytest
import torch
from official_copies import encoded

from srp_exp.datasets.augmentation import FileAugmentation
from srp_exp.datasets.files.table_source import TableSource
from srp_exp.datasets.known import facts_of
from srp_exp.datasets.sets.hub import Hub
from srp_exp.datasets.sets.table import Csv, TableSet
from srp_exp.errors import UserError
from srp_exp.files import cache_folder
from srp_exp.runs.folder.digests import digests_of

FILES = [f"images/{number}.jpg" for number in range(8)]
LABELS = ["NA", "007", "NA", "crow", "007", "crow", "NA", "007"]
SPLITS = ["train", "Train", "training", "train", "test", "TEST", "testing", "test"]


@pytest.fixture
def home(tmp_path):
    """A folder of images, for whose names the tests write tables."""
    (tmp_path / "images").mkdir()
    for number, file in enumerate(FILES):
        (tmp_path / file).write_bytes(encoded("rgb", number))
    return tmp_path


def open_table(root, kind=TableSet, **others):
    arguments = {"cache_dir": None, "on_corrupt": "stop", "copy_side": None} | others
    return kind(str(root), augmentation=FileAugmentation(), **arguments)


def write_csv(file, rows, separator=",", encoding="utf-8"):
    with file.open("w", newline="", encoding=encoding) as opened:
        csv.writer(opened, delimiter=separator).writerows(rows)
    return file


def columns(rows=slice(None), **more):
    table = {"file": FILES[rows], "species": LABELS[rows], "split": SPLITS[rows], **more}
    return {name: values for name, values in table.items() if values is not None}


def rows_of(table):
    return [list(table), *zip(*table.values(), strict=True)]


KINDS = {
    "csv": lambda home, table: write_csv(home / "a.csv", rows_of(table)),
    "csv of Excel": lambda home, table: write_csv(home / "a.csv", rows_of(table), ";", "utf-8-sig"),
    "csv of pandas": lambda home, table: pd.DataFrame(table).to_csv(home / "a.csv", index=False),
    "tsv": lambda home, table: write_csv(home / "a.TSV", rows_of(table), "\t"),
    "json": lambda home, table: pd.DataFrame(table).to_json(home / "a.json", orient="records"),
    "jsonl": lambda home, table: pd.DataFrame(table).to_json(home / "a.jsonl", orient="records", lines=True),
    "parquet": lambda home, table: pq.write_table(pa.table(table), home / "a.parquet"),
    "parquet of pandas": lambda home, table: pd.DataFrame(table).astype("category").to_parquet(home / "a.parquet"),
    "feather": lambda home, table: pa.feather.write_feather(pa.table(table), home / "a.arrow", compression="lz4"),
    "saved by datasets": lambda home, table: datasets.Dataset.from_dict(table).save_to_disk(str(home)),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_table_of_file_names_is_the_same_set_in_every_kind(home, kind):
    KINDS[kind](home, columns())
    found = open_table(home)
    assert found.class_names == ("007", "NA", "crow")
    assert (found.train.labels.tolist(), found.test.labels.tolist()) == ([1, 0, 1, 2], [0, 2, 1, 0])
    for part, numbers in ((found.train, range(4)), (found.test, range(4, 8))):
        assert [part.source.name(row) for row in range(4)] == [str(home / FILES[number]) for number in numbers]
        assert part.index.tolist() == list(numbers)
    write_csv(home / "reference.csv", rows_of(columns()))
    assert digests_of(open_table(home / "reference.csv")) == digests_of(found)


def test_files_are_named_after_their_splits_and_names_begin_at_the_table(home):
    """train/ and test/ with a table each; integer labels; an absolute path."""
    table = columns(species=[0, 1, 1, 2, 2, 1, 0, 0], split=None)
    for part, rows in (("train", slice(0, 4)), ("test", slice(4, 8))):
        (home / part).mkdir()
        cut = {name: values[rows] for name, values in table.items()}
        cut["file"] = [f"../{cut['file'][0]}", *(str(home / name) for name in cut["file"][1:])]
        write_csv(home / part / "labels.csv", rows_of(cut))
    found = open_table(home, Csv)
    assert (found.class_names, found.train.labels.tolist()) == (("0", "1", "2"), [0, 1, 1, 2])
    assert [found.test.source.read(row) for row in range(4)] == [encoded("rgb", number) for number in range(4, 8)]


def test_images_in_a_table_are_divided_by_its_split_column(home):
    """Each row is named by its place in the table, and each part has a digest of its own images."""

    def write(third):
        images = [*(encoded("rgb", number) for number in range(7)), third]
        pq.write_table(pa.table(columns(file=images)), home / "all.parquet", row_group_size=3)
        return open_table(home)

    found = write(encoded("rgb", 7))
    assert [found.test.source.name(row) for row in range(4)] == [f"{home}/all.parquet#{row}" for row in range(4, 8)]
    assert [found.test.source.read(row) for row in range(4)] == [encoded("rgb", number) for number in range(4, 8)]
    other = write(encoded("rgb", 99))
    assert {part for part, value in digests_of(found).items() if digests_of(other)[part] != value} == {"test pictures"}


def test_a_test_table_without_labels_is_left_out_and_said(home, caplog, monkeypatch):
    """As competitions have it."""
    monkeypatch.setattr("srp_exp.datasets.on_disk.picture_set._LOG.propagate", True)
    write_csv(home / "train.csv", rows_of(columns(split=None)))
    write_csv(home / "test.csv", [["file"], *([name] for name in FILES)])
    with pytest.raises(UserError, match=r"has no test part; add one, or .*test_fraction"):
        open_table(home)
    assert len(open_table(home, test_fraction=0.4).test) == 3
    assert f"{home / 'test.csv'}: has no labels" in caplog.text


def test_a_file_in_both_parts_is_said_and_a_relative_table_is_read(home, caplog, monkeypatch):
    monkeypatch.setattr("srp_exp.datasets.on_disk.picture_set._LOG.propagate", True)
    monkeypatch.chdir(home)
    table = columns(file=["images/0.jpg", "images/1.jpg", *FILES[2:6], "./images/0.jpg", "images/../images/1.jpg"])
    write_csv(home / "labels.csv", rows_of(table | {"species": list("xyxyxyxy")}))
    for root in ("labels.csv", "."):
        caplog.clear()
        assert open_table(root).train.source.read(1) == encoded("rgb", 1)
        assert "2 files are in train and in the test part" in caplog.text


@pytest.mark.parametrize(
    ("kind", "labels"), [("csv", "xyzw"), ("csv", "0123"), ("parquet", "0123"), ("parquet", [1, 0, 1, 0])], ids=str
)
def test_what_needs_no_training_picture_opens_no_table_of_train(home, kind, labels):
    """Nor an image of the training rows of a table with all splits: their classes are known."""
    parts = ("train", "validation", "test")
    for part, rows in zip(parts, (slice(0, 4), slice(2, 4), slice(4, 6)), strict=True):
        images = FILES[rows] if kind == "csv" else [(home / file).read_bytes() for file in FILES[rows]]
        KINDS[kind](home, {"file": images, "species": list(labels)[: len(images)]})
        (home / f"a.{kind}").rename(home / f"{part}.{kind}")
    whole = open_table(home)
    (home / f"train.{kind}").write_bytes(b"no table")
    found = open_table(home, known=facts_of(whole))
    assert (len(found.train), found.class_names, found.mean) == (0, whole.class_names, whole.mean)
    of_train = {part for part in digests_of(whole) if "training" in part}
    assert digests_of(found) == {part: value for part, value in digests_of(whole).items() if part not in of_train}


def test_training_rows_of_a_table_with_all_splits_are_not_read(home, monkeypatch):
    images = [encoded("rgb", number) for number in range(8)]
    pq.write_table(pa.table(columns(file=images)), home / "all.parquet")
    whole = open_table(home)
    for file in Path(cache_folder()).rglob("*.zip"):
        file.unlink()
    rows = []
    read = TableSource.read
    monkeypatch.setattr(TableSource, "read", lambda self, at, most=-1: (rows.append(self.name(at)), read(self, at))[1])
    found = open_table(home, known=facts_of(whole))
    assert torch.equal(found.test.labels, whole.test.labels)
    assert {int(name.rpartition("#")[2]) for name in rows} == {4, 5, 6, 7}


def test_an_image_column_has_no_labels(home):
    pq.write_table(pa.table({"image": [b"x"] * 2, "label": [0, 1]}), home / "a.parquet")
    with pytest.raises(UserError, match=r"^dataset\.label_column=image: .* has the images there"):
        open_table(home, label_column="image")


def test_kinds_and_splits_that_contradict_are_refused(home):
    write_csv(home / "train.csv", rows_of(columns(split=None)))
    pq.write_table(pa.table(columns(split=None)), home / "train.parquet")
    with pytest.raises(UserError, match=r"tables of train as \.csv and as \.parquet"):
        open_table(home)
    (home / "train.parquet").unlink()
    (home / "train.csv").rename(home / "test.csv")
    write_csv(home / "labels.csv", rows_of(columns(split=None)))
    with pytest.raises(UserError, match=r"has tables of test, and none of train.*dataset\.root"):
        open_table(home)
    with pytest.raises(UserError, match=r"images/0\.jpg: not a table by its name"):
        open_table(home / FILES[0])


WRONG = {  # a CSV's rows, and what is said
    "no header": ([["a.jpg", "x"]], "has no rows"),
    "empty": ([[""]], "its first line has to give each column a name"),
    "a column twice": ([["file", "file"], ["a.jpg", "x"]], "its first line has to give each column a name"),
    "several labels": ([["file", "a", "b"], [FILES[0], "x", "y"]], "label_column to one of a, b"),
    "only a header": ([["file", "species"]], "has no rows"),
    "a label too few": ([["file", "species"], [FILES[0], "x"], [FILES[1]]], r"1 missing \(#1\)"),
    "a cell too many": ([["file", "species"], [FILES[0], "x", "y"], [FILES[1], "x", "y"]], "line 2 has 3 cells"),
    "a comma in a name": ([["file", "species"], [FILES[0], "x"], [FILES[1], "x", "y"]], "line 3 has 3 cells"),
    "decimals": ([["file", "species"], [FILES[0], "0.5"], [FILES[1], "1"]], "no integers of 64 bits .*0.5"),
    "huge numbers": ([["file", "species"], [FILES[0], "0"], [FILES[1], "1000000000000"]], "column species has 2 diff"),
    "other split": ([["file", "species", "split"], [FILES[0], "x", "holdout"]], "column split has 'holdout'"),
    "no train": ([["file", "species", "split"], [FILES[0], "x", "test"]], "column split has no row of train"),
    "absent files": ([["file", "species"], *([name, "x"] for name in [*FILES, "no.jpg"])], "listed files are absent"),
    "another base": ([["file", "species"], *([name[7:], "x"] for name in FILES)], "file names '0.jpg', but"),
    "of Windows": ([["file", "species"], *([name.replace("/", chr(92)), "x"] for name in FILES)], "have / between"),
    "two labels": ([["file", "species"], *([name, "x"] for name in FILES), [FILES[2], "y"]], "has the labels x and y"),
    "lists": ([["file", "species"], *([name, "['x', 'y']"] for name in FILES)], r"labels are lists.*one text"),
    "a NUL byte": ([["file", "species"], [FILES[0], "x"], [FILES[1], "x\0"]], "line 3 has a NUL byte.*as UTF-8"),
    "no file name": ([["file", "species"], [FILES[0], "x"], ["", "y"]], r"labels\.csv#1: has no file name"),
}  # fmt: skip


def test_what_is_wrong_with_a_table_is_one_line(home):
    for rows, message in WRONG.values():
        write_csv(home / "labels.csv", rows)
        with pytest.raises(UserError, match=message) as error:
            open_table(home, Csv, test_fraction=0.5)
        assert "\n" not in str(error.value) and str(home) in str(error.value)


def test_a_table_without_rows_says_so(home):
    for kind in ("parquet", "feather", "csv"):
        KINDS[kind](home, {"file": pa.array([], pa.string()), "species": pa.array([], pa.string())})
        with pytest.raises(UserError, match=r"a\.\w+: has no rows"):
            open_table(home)
        for file in home.glob("a.*"):
            file.unlink()


DAMAGED = {
    "latin.csv": "file,species\nimages/0.jpg,Häher\n".encode("latin-1"),
    "utf16_le.csv": "file,species\nimages/0.jpg,x\n".encode("utf-16-le"),
    "open_quote.csv": b'file,species\n"images/0.jpg,x\n',
    "lists.jsonl": b'{"file": "images/0.jpg", "species": ["x"]}',
    "utf16.csv": "file,species\nimages/0.jpg,x\n".encode("utf-16"),
    "cut.json": b'[{"file": "images/0.jpg", "species": ',
    "mixed.json": b'[{"file": "images/0.jpg", "species": 1}, {"file": "images/1.jpg", "species": "x"}]',
    "nested.json": b'{"data": [{"file": "images/0.jpg", "species": "x"}]}',
    "text.parquet": b"file,species\n",
    "text.arrow": b"file,species\n",
    "empty.jsonl": b"",
    "empty.arrow": b"",
    "binary.csv": bytes(range(256)),
}


def test_a_damaged_table_is_named_in_one_line(home):
    for name, content in DAMAGED.items():
        (home / name).write_bytes(content)
        with pytest.raises(UserError, match=name) as error:
            open_table(home, test_fraction=0.5)
        assert "\n" not in str(error.value) and ";" in str(error.value)
        (home / name).unlink()


def hub(monkeypatch, **splits):
    """Let `datasets` find a set of these splits, (features, columns), under the name owner/birds."""
    features = datasets.Features({"img": datasets.Image(), "species": datasets.ClassLabel(names=["crow", "jay"])})

    def load(path, subset, revision, cache_dir):
        if path != "owner/birds":
            raise datasets.exceptions.DatasetNotFoundError(f"Dataset '{path}' doesn't exist on the Hub\nor so")
        made = {}
        for name, labels in splits.items():
            rows = [{"img": {"bytes": encoded("rgb", n), "path": None}, "species": y} for n, y in enumerate(labels)]
            folder = f"{cache_dir}/made/{name}"
            datasets.Dataset.from_list(rows, features).save_to_disk(folder)
            made[name] = datasets.load_from_disk(folder)
        return datasets.DatasetDict(made)

    monkeypatch.setattr(datasets, "load_dataset", load)


def open_hub(home, path="owner/birds", **others):
    return open_table(home / "data" / path, Hub, cache_dir=str(home / "cache"), path=path, **others)


def test_a_set_of_the_hub_is_fetched_once(home, monkeypatch):
    hub(monkeypatch, train=[0, 1, 1], test=[1, 0], extra=[0])
    found = open_hub(home)
    assert (found.class_names, found.test.labels.tolist()) == (("crow", "jay"), [1, 0])
    assert found.train.source.read(2) == encoded("rgb", 2)
    assert found.test.source.name(1) == "owner/birds test#1"
    monkeypatch.setattr(datasets, "load_dataset", None)
    assert digests_of(open_hub(home)) == digests_of(found)


def test_what_the_hub_does_not_have_is_one_line(home, monkeypatch):
    hub(monkeypatch, validation=[0, 1], extra=[0])
    with pytest.raises(UserError, match=r"^dataset\.path=owner/none dataset\.revision=v1: .*hf auth login") as error:
        open_hub(home, "owner/none", revision="v1")
    assert "\n" not in str(error.value)
    with pytest.raises(UserError, match=r"^dataset\.path=owner/birds: has the splits .*none for training"):
        open_hub(home)
    monkeypatch.chdir(home)
    for path in ("images", "images/0.jpg", "csv", "", "owner/", "a/b/c", "https://x/y"):
        with pytest.raises(UserError, match=r"^dataset\.path=.*: give .*owner/name; .*dataset=table"):
            open_hub(home, path)


def test_without_the_hub_the_line_says_what_to_do(home, monkeypatch, caplog, capfd):
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match=r"^dataset\.path=owner/gone: the Hugging Face hub can't be reached") as error:
        open_hub(home, "owner/gone")
    assert "\n" not in str(error.value) and "dataset.cache_dir" in str(error.value)
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []
    assert capfd.readouterr() == ("", "")
