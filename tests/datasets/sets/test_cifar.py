"""CIFAR's reader on small files in the official format, byte for byte as Python 2 pickled them."""

import functools
import hashlib
import http.server
import io
import os
import pickle
import struct
import tarfile
import threading
from types import SimpleNamespace
from typing import ClassVar

import numpy as np
import pytest
import torch
import torchvision

from srp_exp.datasets.augmentation import Augmentation
from srp_exp.datasets.sets.cifar import Cifar10, Cifar100

_ROWS = 6  # images per batch file


class Python2Pickler(pickle._Pickler):
    """Writes strings, bytes and booleans with the opcodes of Python 2, which knew neither str nor numpy 2."""

    dispatch: ClassVar = dict(pickle._Pickler.dispatch)

    def save_bytes(self, content):
        self.write(pickle.BINSTRING + struct.pack("<i", len(content)) + content)
        self.memoize(content)

    def save_text(self, text):
        self.save_bytes(text.encode("latin1"))

    def save_flag(self, flag):
        self.write(pickle.BININT1 + bytes([flag]))

    def save_global(self, function, name=None):
        module = {"_reconstruct": b"numpy.core.multiarray"}.get(function.__name__, b"numpy")
        self.write(pickle.GLOBAL + module + b"\n" + function.__name__.encode() + b"\n")
        self.memoize(function)

    dispatch.update({bytes: save_bytes, str: save_text, bool: save_flag})
    dispatch.update({type: save_global, type(np.empty(0).__reduce__()[0]): save_global})


def python2_pickle(content):
    stream = io.BytesIO()
    Python2Pickler(stream, protocol=2).dump(content)
    return stream.getvalue()


def pixels_of(name):
    """Random pixels (rows, 3072), other ones for every file name."""
    return np.random.default_rng(list(name.encode())).integers(0, 256, (_ROWS, 3072), dtype=np.uint8)


def official_files(official, num_classes, label_key):
    """Small files with all the names of the official archive."""
    names = [name for name, _ in official.train_list + official.test_list]
    files = {
        name: {"data": pixels_of(name), label_key: [(3 * number + row) % num_classes for row in range(_ROWS)]}
        for number, name in enumerate(names)
    }
    if num_classes == 100:
        for content in files.values():
            content["coarse_labels"] = [0] * _ROWS
    files[official.meta["filename"]] = {official.meta["key"]: [f"name{label}" for label in range(num_classes)]}
    return {name: python2_pickle(content) for name, content in files.items()}


def write_archive(path, folder, files):
    with tarfile.open(path, "w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(f"{folder}/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))


def md5(content):
    return hashlib.md5(content).hexdigest()


TEN, HUNDRED = (Cifar10, "CIFAR10", 10, "labels"), (Cifar100, "CIFAR100", 100, "fine_labels")


@pytest.fixture
def cifar(request, monkeypatch, tmp_path):
    """Small files whose MD5 sums torchvision's list now holds, and functions that put them under tmp_path."""
    target, name, num_classes, label_key = getattr(request, "param", TEN)
    official = getattr(torchvision.datasets, name)
    files = official_files(official, num_classes, label_key)
    for list_name in ("train_list", "test_list"):
        small = [[name, md5(files[name])] for name, _ in getattr(official, list_name)]
        monkeypatch.setattr(official, list_name, small)
    monkeypatch.setattr(official, "meta", {**official.meta, "md5": md5(files[official.meta["filename"]])})

    def extract():
        folder = tmp_path / official.base_folder
        folder.mkdir()
        for name, content in files.items():
            (folder / name).write_bytes(content)
        return folder

    return SimpleNamespace(
        official=official,
        files=files,
        extract=extract,
        pack=functools.partial(write_archive, tmp_path / official.filename, official.base_folder, files),
        open=functools.partial(target, str(tmp_path), augmentation=Augmentation(crop_padding=4, flip=True)),
        num_classes=num_classes,
    )


def assert_is_read(cifar, dataset):
    assert dataset.class_names == tuple(f"name{label}" for label in range(cifar.num_classes))
    assert (dataset.channels, dataset.image_size) == (3, (32, 32))
    train_names = [name for name, _ in cifar.official.train_list]
    for split, names in ((dataset.train, train_names), (dataset.test, [cifar.official.test_list[0][0]])):
        pixels = np.concatenate([pixels_of(name) for name in names]).reshape(-1, 3, 32, 32)
        assert torch.equal(split.images, torch.from_numpy(pixels))
        assert torch.equal(split.index, torch.arange(len(pixels)))
    rows = range(_ROWS)
    expected = [(3 * number + row) % cifar.num_classes for number in range(len(train_names)) for row in rows]
    assert dataset.train.labels.tolist() == expected


BOTH = pytest.mark.parametrize("cifar", [TEN, HUNDRED], indirect=True, ids=["10", "100"])


@BOTH
def test_the_extracted_folder_is_read(cifar):
    cifar.extract()
    assert_is_read(cifar, cifar.open(download=False))


@BOTH
def test_the_archive_is_read_without_extracting_it(cifar, tmp_path):
    cifar.pack()
    assert_is_read(cifar, cifar.open(download=False))
    assert [path.name for path in tmp_path.iterdir()] == [cifar.official.filename]


def test_nothing_there_names_the_archive_the_place_and_the_remedies(cifar, tmp_path):
    with pytest.raises(FileNotFoundError) as failure:
        cifar.open(download=False)
    message = str(failure.value)
    assert message.startswith(cifar.official.filename)
    assert all(part in message for part in (str(tmp_path), cifar.official.url, "dataset.download=true"))
    assert "\n" not in message


def test_a_missing_and_a_damaged_file_are_named(cifar):
    folder = cifar.extract()
    path = folder / cifar.official.test_list[0][0]
    path.write_bytes(path.read_bytes()[:-1] + b"!")
    with pytest.raises(ValueError, match=rf"^{path.name} in {folder}: its MD5 isn't [0-9a-f]{{32}}; "):
        cifar.open(download=False)
    path.unlink()
    with pytest.raises(FileNotFoundError, match=rf"^{path.name}: not in {folder}; .*dataset.download=true"):
        cifar.open(download=False)


def test_a_damaged_archive_is_named(cifar, tmp_path):
    cifar.pack()
    path = tmp_path / cifar.official.filename
    whole = path.read_bytes()
    for damaged in (whole[: len(whole) // 2], b"no archive", whole[:3000] + bytes(1000) + whole[4000:]):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=rf"({path}: damaged|{path}: its MD5) .*; fetch it again"):
            cifar.open(download=False)


@pytest.fixture
def server(tmp_path):
    """A web server on this machine: its folder, its address and the way to stop it."""
    folder = tmp_path / "served"
    folder.mkdir()
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=folder)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        threading.Thread(target=running.serve_forever).start()
        yield SimpleNamespace(folder=folder, address=f"http://127.0.0.1:{running.server_port}")
        running.shutdown()


def test_download_fetches_what_is_missing_or_damaged(cifar, server, tmp_path, monkeypatch):
    archive = server.folder / "archive"
    write_archive(archive, cifar.official.base_folder, cifar.files)
    monkeypatch.setattr(cifar.official, "url", f"{server.address}/archive")
    monkeypatch.setattr(cifar.official, "tgz_md5", md5(archive.read_bytes()))
    assert_is_read(cifar, cifar.open(download=True))
    (tmp_path / cifar.official.base_folder / cifar.official.train_list[0][0]).write_bytes(b"damaged")
    assert_is_read(cifar, cifar.open(download=True))
    archive.unlink()
    (tmp_path / cifar.official.filename).unlink()
    assert_is_read(cifar, cifar.open(download=True))  # the folder is whole: nothing is fetched


def test_a_failing_download_says_what_else_to_do(cifar, server, monkeypatch):
    monkeypatch.setattr(cifar.official, "url", f"{server.address}/nowhere")
    message = rf"^{cifar.official.filename}: .*/nowhere.* failed \(.*404.*\); .*download=false"
    with pytest.raises(ConnectionError, match=message):
        cifar.open(download=True)


class Attack:
    """Pickled, it makes a folder when it is loaded."""

    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)


def test_a_pickle_that_would_run_something_is_refused(cifar, tmp_path):
    folder = cifar.extract()
    name = cifar.official.train_list[0][0]
    (folder / name).write_bytes(pickle.dumps(Attack(tmp_path / "made"), protocol=2))
    with pytest.raises(ValueError, match=rf"^{name} in {folder}: its MD5 isn't"):
        cifar.open(download=False)
    assert not (tmp_path / "made").exists()


def test_the_official_list_is_the_published_one():
    """The MD5 sums of the archives, from https://www.cs.toronto.edu/~kriz/cifar.html."""
    assert torchvision.datasets.CIFAR10.tgz_md5 == "c58f30108f718f92721af3b95e74349a"
    assert torchvision.datasets.CIFAR100.tgz_md5 == "eb9058c3a382ffc7106e4002c42a8d85"
