"""An index is made once, made again when what it was read from changes, and never stands in the way."""

import os
import subprocess
import sys
import time

import numpy as np

from srp_exp.remembered import index_file, keep, known, remembered


class Maker:
    """Counts how often it is asked."""

    def __init__(self, *places):
        self.calls, self.places = 0, [str(place) for place in places]

    def __call__(self):
        self.calls += 1
        text = np.array(["a", "ü"])
        return {"labels": np.arange(3) + self.calls, "text": text, "read_from": np.array(self.places, np.str_)}


def test_it_is_made_once_for_its_settings(tmp_path):
    make, file = Maker(), tmp_path / "cache" / "index.zip"
    first, again = remembered(file, "settings", make), remembered(file, "settings", make)
    assert make.calls == 1
    assert first.keys() == again.keys() == {"labels", "text", "read_from"}
    assert all(np.array_equal(first[name], again[name]) and first[name].dtype == again[name].dtype for name in first)
    assert remembered(file, "other settings", make)["labels"].tolist() == [2, 3, 4]
    assert [path.name for path in file.parent.iterdir()] == ["index.zip"]


def test_a_damaged_index_is_made_again(tmp_path):
    file = tmp_path / "index.zip"
    remembered(file, "settings", Maker())
    for content in (b"", b"PK\x03\x04 and no more", b"something else", file.read_bytes()[:-200]):
        make = Maker()
        file.write_bytes(content)
        assert remembered(file, "settings", make)["labels"].tolist() == [1, 2, 3]
        assert remembered(file, "settings", make)["labels"].tolist() == [1, 2, 3]


def test_an_index_that_cant_be_kept_is_said_and_used(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr("srp_exp.remembered._LOG.propagate", True)
    (tmp_path / "file").touch()
    file = tmp_path / "file" / "index.zip"  # below a file
    assert remembered(file, "settings", Maker())["labels"].tolist() == [1, 2, 3]
    assert str(file) in caplog.text and "dataset.cache_dir" in caplog.text


def test_it_is_made_again_when_what_it_was_read_from_changes(tmp_path):
    file, folder, list_ = tmp_path / "index.zip", tmp_path / "images", tmp_path / "list.txt"
    list_.write_text("a")
    folder.mkdir()
    make = Maker(list_, folder, tmp_path / "absent")

    def calls():
        remembered(file, "settings", make)
        return make.calls

    assert calls() == calls() == 1
    before = list_.stat().st_mtime_ns
    list_.write_text("ab")
    os.utime(list_, ns=(before, before))
    assert calls() == calls() == 2  # the size
    os.utime(list_, ns=(before, before + 1))
    assert calls() == calls() == 3  # the time
    time.sleep(0.02)  # longer than the file system's clock takes to tick
    (folder / "new.jpg").touch()
    assert calls() == calls() == 4
    list_.unlink()
    assert calls() == calls() == 5
    (tmp_path / "absent").touch()
    assert calls() == calls() == 6


def test_it_is_never_kept_beside_the_data(tmp_path, monkeypatch):
    chosen = index_file(tmp_path / "set", "cub200", str(tmp_path / "cache"))
    assert chosen.parent == tmp_path / "cache"
    assert chosen != index_file(tmp_path, "cub200", str(tmp_path / "cache"))  # another place, another file
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user"))
    assert index_file(tmp_path / "set", "cub200").parent == tmp_path / "user" / "srp_exp"


def test_what_has_no_arrays_is_read_without_numpy(tmp_path):
    """A finished run is skipped in half a second, of which numpy's import would be a fifth."""
    place, file = tmp_path / "data", tmp_path / "cache" / "digests.zip"
    place.touch()
    keep(file, "settings", [str(place)], {"digests": {"training pictures": "abc", "Bilder für Tests": "d"}})
    code = f"""
import sys
from pathlib import Path
from srp_exp.remembered import known
print(ascii(known(Path({str(file)!r}), "settings")), "numpy" in sys.modules)
"""
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed.endswith("'abc', 'Bilder f\\xfcr Tests': 'd'}} False\n")
    assert known(file, "other settings") is None
    place.write_text("changed")
    assert known(file, "settings") is None
