"""An index is made once, made again when what it was read from changes, and never stands in the way."""

import os
import time

import numpy as np
import pytest

from srp_exp.datasets.sets.index_cache import index_file, remembered, stamps


class Maker:
    """Counts how often it is asked."""

    def __init__(self):
        self.calls = 0

    def __call__(self):
        self.calls += 1
        return {"labels": np.arange(3) + self.calls, "text": np.array(["a", "ü"])}


def test_it_is_made_once_for_a_key(tmp_path):
    make, file = Maker(), tmp_path / "cache" / "index.npz"
    first, again = remembered(file, "key", make), remembered(file, "key", make)
    assert make.calls == 1
    assert first.keys() == again.keys() == {"labels", "text"}
    assert all(np.array_equal(first[name], again[name]) and first[name].dtype == again[name].dtype for name in first)
    assert remembered(file, "other key", make)["labels"].tolist() == [2, 3, 4]
    assert [path.name for path in file.parent.iterdir()] == ["index.npz"]


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 and no more", b"something else"])
def test_a_damaged_index_is_made_again(tmp_path, content):
    make, file = Maker(), tmp_path / "index.npz"
    file.write_bytes(content)
    assert remembered(file, "key", make)["labels"].tolist() == [1, 2, 3]
    assert remembered(file, "key", make)["labels"].tolist() == [1, 2, 3]


def test_a_cut_index_is_made_again(tmp_path):
    make, file = Maker(), tmp_path / "index.npz"
    remembered(file, "key", make)
    file.write_bytes(file.read_bytes()[:-200])
    assert remembered(file, "key", make)["labels"].tolist() == [2, 3, 4]


def test_an_index_that_cant_be_kept_is_said_and_used(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr("srp_exp.datasets.sets.index_cache.LOG.propagate", True)
    (tmp_path / "file").touch()
    file = tmp_path / "file" / "index.npz"  # below a file
    assert remembered(file, "key", Maker())["labels"].tolist() == [1, 2, 3]
    assert str(file) in caplog.text and "dataset.cache_dir" in caplog.text


def test_the_key_follows_time_size_and_place(tmp_path):
    file, folder = tmp_path / "list.txt", tmp_path / "images"
    file.write_text("a")
    folder.mkdir()
    keys = [stamps([file, folder])]
    assert stamps([file, folder]) == keys[0]
    before = file.stat().st_mtime_ns
    file.write_text("ab")
    os.utime(file, ns=(before, before))
    keys.append(stamps([file, folder]))
    os.utime(file, ns=(before, before + 1))
    keys.append(stamps([file, folder]))
    time.sleep(0.02)  # longer than the file system's clock takes to tick
    (folder / "new.jpg").touch()
    keys.append(stamps([file, folder]))
    file.unlink()
    keys.append(stamps([file, folder]))
    assert len(set(keys)) == len(keys)


def test_where_the_index_is_kept(tmp_path, monkeypatch):
    home = tmp_path / "set"
    home.mkdir()
    assert index_file(home, "cub200") == home / ".srp_exp" / "cub200.npz"
    chosen = index_file(home, "cub200", str(tmp_path / "cache"))
    assert chosen.parent == tmp_path / "cache"
    assert chosen != index_file(tmp_path, "cub200", str(tmp_path / "cache"))  # another place, another file
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # tests may run as root, who may write anywhere
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user"))
    assert index_file(home, "cub200").parent == tmp_path / "user" / "srp_exp"
