"""A folder of class folders: what is found in it, in the order of torchvision's ImageFolder, and how it is divided."""

import errno
import os
import shutil
import tarfile
import unicodedata
from pathlib import Path

import pytest
import torch
import torchvision
from official_copies import encoded, put

from srp_exp.datasets.augmentation import FileAugmentation
from srp_exp.datasets.files.decode import decode
from srp_exp.datasets.prepare.copy import CopySettings, write_copy
from srp_exp.datasets.sets.folder import Folder
from srp_exp.errors import MissingFileError, UserError
from srp_exp.runs.folder.digests import digests_of

SHARED = Path(__file__).parents[4] / "shared" / "data" / "imagenette_128.tar"


ENDINGS = {"jpg": "JPEG", "JPEG": "JPEG", "jpe": "JPEG", "jfif": "JPEG", "png": "PNG", "gif": "GIF", "bmp": "BMP"}
ENDINGS |= {"webp": "WEBP", "tif": "TIFF", "TIFF": "TIFF", "ppm": "PPM", "pnm": "PPM"}


def open_folder(root, **others):
    arguments = {
        "cache_dir": None,
        "on_corrupt": "stop",
        "copy_side": None,
        "augmentation": FileAugmentation(),
    } | others
    return Folder(str(root), **arguments)


def fill(folder, classes, images):
    for label, name in enumerate(classes):
        for number in range(images):
            put(folder / name / f"{number}.jpg", 7 * label + number)


def samples(part):
    return [(part.source.name(row), label) for row, label in enumerate(part.labels.tolist())]


@pytest.mark.parametrize("parts", [("train", "val"), ("Training", "Testing")])
def test_it_is_torchvisions_image_folder(tmp_path, parts):
    fill(tmp_path / parts[0], ["b", "a", "C"], 4)
    fill(tmp_path / parts[0] / "a" / "deeper", ["x", "y"], 2)
    fill(tmp_path / parts[1], ["b", "a"], 2)
    found = open_folder(tmp_path)
    assert found.class_names == ("C", "a", "b")
    reference = torchvision.datasets.ImageFolder(str(tmp_path / parts[0]))
    assert samples(found.train) == reference.samples
    assert [Path(path).parts[-3:] for path, _ in samples(found.test)] == [
        (parts[1], name, f"{number}.jpg") for name in ("a", "b") for number in range(2)
    ]
    assert found.test.labels.tolist() == [1, 1, 2, 2]  # of the classes of train


def test_any_format_that_is_decoded_is_taken(tmp_path):
    from PIL import Image

    picture = Image.new("RGB", (12, 10), (200, 100, 50))
    for ending, kind in ENDINGS.items():
        for part in ("train", "test"):
            for name in ("a", "b"):
                (tmp_path / part / name).mkdir(parents=True, exist_ok=True)
                picture.save(tmp_path / part / name / f"a.{ending}", format=kind)
    found = open_folder(tmp_path)
    assert len(found.train) == 2 * len(ENDINGS)
    for row in range(len(found.train)):
        pixels = decode(found.train.source.read(row), "")
        assert pixels.shape == (3, 10, 12) and (pixels[:, 5, 5] - torch.tensor([200, 100, 50])).abs().max() < 4


def test_what_is_skipped_is_named(tmp_path, caplog):
    fill(tmp_path / "train", ["a", "b"], 2)
    fill(tmp_path / "test", ["a"], 1)
    fill(tmp_path / "more", ["a"], 1)
    (tmp_path / "train" / "a" / "notes.txt").touch()
    (tmp_path / "train" / "a" / ".hidden.jpg").touch()
    put(tmp_path / "test" / "stray.jpg", 0)
    for _ in range(2):  # the second time from what was remembered
        caplog.clear()
        found = open_folder(tmp_path)
        assert "1 files aren't pictures and are skipped (train/a/notes.txt)" in caplog.text
        assert "test: 1 pictures are in no class and are skipped (stray.jpg)" in caplog.text
        assert "more is not read: all of the set is in train and test" in caplog.text
    assert (len(found.train), len(found.test)) == (4, 1)


def test_a_test_folder_without_classes_as_competitions_have_it_is_skipped(tmp_path, caplog):
    fill(tmp_path / "train", ["a", "b"], 2)
    fill(tmp_path / "val", ["a", "b"], 1)
    put(tmp_path / "test" / "0001.jpg", 0)
    found = open_folder(tmp_path)
    assert found.val is None
    assert [Path(path).parts[-3] for path, _ in samples(found.test)] == ["val", "val"]
    assert "test is not read: all of the set is in train and val" in caplog.text
    fill(tmp_path / "test", ["a", "b"], 1)  # which counts at once
    found = open_folder(tmp_path)
    assert [[Path(path).parts[-3] for path, _ in samples(part)] for part in (found.test, found.val)] == [
        ["test", "test"],
        ["val", "val"],
    ]
    assert {f"validation {what}" for what in ("pictures", "labels")} <= digests_of(found).keys()


def test_a_test_folder_without_classes_is_no_test_part(tmp_path, caplog):
    fill(tmp_path / "train", ["a", "b"], 4)
    put(tmp_path / "test" / "0001.jpg", 0)
    with pytest.raises(UserError, match=r"test: has no class folders.*dataset\.test_fraction=0\.2"):
        open_folder(tmp_path)
    assert len(open_folder(tmp_path, test_fraction=0.5).test) == 4
    assert "test is not read" in caplog.text


def test_pictures_beside_a_table_are_no_class(tmp_path):
    """One folder would train on one class, to 100 %."""
    tables = {"images": "labels.csv", "train": "train.tsv", "photos/images": "metadata.jsonl"}
    for number, (folder, table) in enumerate(tables.items()):
        root = tmp_path / str(number)
        fill(root / folder, ["."], 8)
        (root / table).write_text("file,label\n")
        with pytest.raises(UserError, match=rf"a table {table}: use dataset=csv"):
            open_folder(root, test_fraction=0.5)


def test_pictures_beside_their_masks_are_no_class(tmp_path):
    for other in ("masks", "labels"):
        fill(tmp_path / other, ["images", other], 4)
        with pytest.raises(UserError, match="has a folder images among its classes"):
            open_folder(tmp_path / other, test_fraction=0.5)


def test_one_class_is_refused(tmp_path):
    fill(tmp_path / "train", ["a"], 2)
    fill(tmp_path / "test", ["a"], 2)
    with pytest.raises(UserError, match="has one class, 'a', and training needs at least two"):
        open_folder(tmp_path)


def test_a_class_called_as_a_split_is_asked_about(tmp_path):
    for name in ("train", "test", "valid"):
        root = tmp_path / f"of {name}"
        fill(root, [name, "invalid"], 4)
        with pytest.raises(UserError, match=rf"{name}.* class.*rename it.*{name}_"):
            open_folder(root, test_fraction=0.5)
        (root / name).rename(root / f"{name}_")
        assert open_folder(root, test_fraction=0.5).num_classes == 2


def test_names_of_folders_are_those_of_classes(tmp_path, caplog):
    fill(tmp_path / "train", ["Käfer", "katze", "Katze"], 2)
    fill(tmp_path / "test", [unicodedata.normalize("NFD", "Käfer")], 2)
    with pytest.raises(UserError, match=r"'Ka\\u0308fer' is 'K\\xe4fer' in train, in another Unicode form"):
        open_folder(tmp_path)
    shutil.rmtree(tmp_path / "test")
    assert open_folder(tmp_path, test_fraction=0.5).num_classes == 3
    assert "'Katze' and 'katze' differ in case or spaces only" in caplog.text
    fill(tmp_path / "train", [os.fsdecode(b"caf\xe9")], 2)
    with pytest.raises(UserError, match=r"'caf\\udce9', isn't UTF-8"):
        open_folder(tmp_path, test_fraction=0.5)


def test_classes_that_lie_one_folder_deeper_are_no_class(tmp_path):
    fill(tmp_path / "train" / "images", ["a", "b"], 2)
    fill(tmp_path / "test" / "images", ["a", "b"], 1)
    with pytest.raises(ValueError, match=r"train/images: is the only class and has folders only"):
        open_folder(tmp_path)


def test_what_systems_leave_is_no_class(tmp_path):
    for place in ("birds", "__MACOSX/birds"):
        fill(tmp_path / place / "train", ["a", "b"], 2)
        fill(tmp_path / place / "test", ["a", "b"], 1)
    fill(tmp_path / "birds" / "train" / "a" / "@eaDir", ["x"], 1)
    found = open_folder(tmp_path)
    assert found.class_names == ("a", "b") and (len(found.train), len(found.test)) == (4, 2)


def test_a_folder_that_is_not_read_is_named_without_a_test_part_too(tmp_path, caplog):
    fill(tmp_path / "train", ["a", "b"], 10)
    fill(tmp_path / "eval", ["a", "b"], 2)
    open_folder(tmp_path, test_fraction=0.2)
    assert "eval is not read: all of the set is in train" in caplog.text


def test_one_folder_is_divided_by_class_and_seed(tmp_path):
    fill(tmp_path, ["a", "b"], 10)
    put(tmp_path / "b" / "more.jpg", 0)
    with pytest.raises(ValueError, match=r"has no test part; add one, or take a part .*dataset\.test_fraction"):
        open_folder(tmp_path)
    first, same, other = (open_folder(tmp_path, test_fraction=0.3, split_seed=seed) for seed in (0, 0, 1))
    assert first.test.labels.bincount().tolist() == [3, 3]
    assert first.train.labels.bincount().tolist() == [7, 8]
    assert first.test.index.tolist() == same.test.index.tolist() != other.test.index.tolist()
    paths = [path for part in (first.train, first.test) for path, _ in samples(part)]
    assert sorted(paths) == sorted(str(path) for path in tmp_path.rglob("*.jpg"))
    with pytest.raises(ValueError, match=r"dataset\.test_fraction=0\.01: takes 0 of the 10"):
        open_folder(tmp_path, test_fraction=0.01)


def test_a_copy_is_refused_for_another_division_than_it_has(tmp_path):
    fill(tmp_path / "set", ["a", "b"], 10)
    original = open_folder(tmp_path / "set", test_fraction=0.3, split_seed=1)
    (tmp_path / "copy").mkdir()
    settings = CopySettings("folder", original.class_names, 20, original={"settings": original.settings})
    write_copy({"train": original.train, "test": original.test}, tmp_path / "copy", settings)
    copy = open_folder(tmp_path / "copy", copy_side=20, test_fraction=0.3, split_seed=1)
    assert copy.test.index.tolist() == original.test.index.tolist()
    for changes in ({}, {"test_fraction": 0.3, "split_seed": 2}, {"test_fraction": 0.2, "split_seed": 1}):
        with pytest.raises(ValueError, match=r"copy was made with (split_seed=1|test_fraction=0\.3), and .* is"):
            open_folder(tmp_path / "copy", copy_side=20, **changes)


def test_a_train_folder_alone_is_divided_too(tmp_path):
    fill(tmp_path / "train", ["a", "b"], 4)
    assert len(open_folder(tmp_path, test_fraction=0.5).test) == 4
    fill(tmp_path / "test", ["a", "b"], 1)
    with pytest.raises(ValueError, match="has a test part already; set it to 0"):
        open_folder(tmp_path, test_fraction=0.5)


def test_the_folder_that_an_archive_brings_is_passed_through(tmp_path):
    fill(tmp_path / "birds-1.0" / "birds" / "train", ["a", "b"], 2)
    fill(tmp_path / "birds-1.0" / "birds" / "test", ["a", "b"], 1)
    assert len(open_folder(tmp_path).train) == 4


def test_what_is_no_set_is_refused_in_one_line(tmp_path):
    (tmp_path / "empty").mkdir()
    for root in (tmp_path / "empty", tmp_path / "nothing"):
        with pytest.raises(FileNotFoundError, match=rf"{root}: .*it needs train/<class>/") as error:
            open_folder(root)
        assert "\n" not in str(error.value)


def test_classes_of_the_test_part_alone_have_no_label(tmp_path):
    fill(tmp_path / "train", ["a", "c"], 2)
    fill(tmp_path / "test", ["a", "b"], 2)
    with pytest.raises(ValueError, match=r"test has classes that train lacks \(b\)"):
        open_folder(tmp_path)
    (tmp_path / "train").rename(tmp_path / "a")
    with pytest.raises(ValueError, match="has a folder test, but none named train or training"):
        open_folder(tmp_path)


def test_small_pictures_of_one_size_are_held_in_memory_and_others_not(tmp_path):
    for part, first in (("train", 0), ("test", 8)):
        for number in range(first, first + 8):
            path = tmp_path / part / "ab"[number % 2] / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(encoded("palette png", number, (12, 10)))
    found = open_folder(tmp_path, memory_mb=1)
    assert found.image_size == (10, 12) and found.train.images.shape == (8, 3, 10, 12)
    from_files = open_folder(tmp_path, memory_mb=0)
    for row in range(8):
        assert torch.equal(found.train.images[row], decode(from_files.train.source.read(row), ""))
    put(tmp_path / "test" / "a" / "larger.jpg", 0)
    assert open_folder(tmp_path, memory_mb=1).image_size == (224, 224)


SIZES = {
    "crop_size": 112, "eval_crop_size": 192, "resize": 240, "crop": "random", "eval_crop": "squash",
    "interpolation": "bicubic", "min_area": 0.3,
}  # fmt: skip


def one_size(folder):
    for part in ("train", "test"):
        for name in "ab":
            path = folder / part / name / f"{part}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(encoded("palette png", ord(name), (16, 24)))


def test_pictures_of_one_size_are_resized_and_cropped_where_that_was_chosen(tmp_path):
    one_size(tmp_path)
    for setting, value in SIZES.items():
        chosen = FileAugmentation(**{setting: value})
        found = open_folder(tmp_path, memory_mb=1, augmentation=chosen)
        assert found.image_size == (chosen.crop_size, chosen.crop_size) and not hasattr(found.train, "images"), setting


def test_pictures_in_memory_keep_their_size_and_the_log_says_so(tmp_path, caplog):
    one_size(tmp_path)
    for settings in ({"flip": False}, {"crop": "pad", "resize": 224, "crop_padding": 3}, {"cutout": 4}):
        caplog.clear()
        with caplog.at_level("INFO", "srp_exp"):
            found = open_folder(tmp_path, memory_mb=1, augmentation=FileAugmentation(**settings))
        padding = settings.get("crop_padding", 2)
        assert found.image_size == (24, 16) and found.augmentation.crop_padding == padding
        assert f"24 x 16 pixels, and moved by up to {padding} in training;" in caplog.text


def test_statistics_are_those_of_the_training_pictures(tmp_path):
    """Of one size every pixel counts alike, and they are the plain mean and deviation."""
    fill(tmp_path / "train", ["a", "b"], 3)
    fill(tmp_path / "test", ["a"], 1)
    found = open_folder(tmp_path)
    pixels = torch.stack([decode(found.train.source.read(row), "").flatten(1) for row in range(6)]).double() / 255
    assert found.mean == pytest.approx(pixels.mean((0, 2)).tolist())
    assert found.std == pytest.approx(pixels.std((0, 2), correction=0).tolist())


@pytest.mark.skipif(not SHARED.exists(), reason="needs ../shared/data/imagenette_128.tar")
def test_real_photographs(tmp_path):
    with tarfile.open(SHARED) as archive:
        archive.extractall(tmp_path, filter="data")
    found = open_folder(tmp_path, memory_mb=1000)
    assert (len(found.train), len(found.test), found.num_classes) == (2000, 1000, 10)
    assert found.class_names[:2] == ("n01440764", "n02102040")
    assert found.image_size == (128, 128)
    assert found.train.labels.bincount().min() > 100


def test_a_link_that_leads_back_is_refused_and_another_followed(tmp_path):
    one_size(tmp_path)
    (tmp_path / "elsewhere").mkdir()
    put(tmp_path / "elsewhere" / "more.jpg", 3)
    (tmp_path / "train" / "a" / "more").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    assert len(open_folder(tmp_path).train) == 3
    for place, target in (("train/a/here", "train/a"), ("train/b/up", "train"), ("test/a/out", ".")):
        link = tmp_path / place
        link.symlink_to(tmp_path / target, target_is_directory=True)
        with pytest.raises(ValueError, match=rf"{place}: a link to a folder in which it lies; remove it"):
            open_folder(tmp_path)
        link.unlink()


@pytest.mark.parametrize(
    "make", [lambda path: path.symlink_to("nowhere"), lambda path: path.symlink_to(path), os.mkfifo]
)
def test_a_link_to_nothing_or_itself_and_a_pipe_are_absent_files(tmp_path, make):
    one_size(tmp_path)
    make(tmp_path / "train" / "a" / "gone.png")
    with pytest.raises(
        MissingFileError, match=r"1 listed files are absent \(train/a/gone.png\); restore or remove them"
    ):
        open_folder(tmp_path)


def test_a_hidden_file_is_no_table(tmp_path):
    """As prepare_data notes which archives it has checked, in a folder that has no classes."""
    (tmp_path / ".checked.json").write_text("{}")
    with pytest.raises(UserError, match="has no class folders, and training needs at least two"):
        open_folder(tmp_path)


def test_an_empty_root_is_not_the_current_folder(tmp_path, monkeypatch):
    one_size(tmp_path)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="dataset.root=: is empty"):
        open_folder("")


def test_a_folder_that_may_not_be_read_is_no_class_without_pictures(tmp_path, monkeypatch):
    """As it would be for whoever isn't root, whom no permission binds."""
    fill(tmp_path, ("a", "b", "c"), images=2)
    scandir = os.scandir

    def refusing(place):
        if Path(place) == tmp_path / "c":
            raise PermissionError(errno.EACCES, "Permission denied", str(place))
        return scandir(place)

    monkeypatch.setattr(os, "scandir", refusing)
    with pytest.raises(UserError, match=rf"{tmp_path / 'c'}: can't be read \(Permission denied\)"):
        open_folder(tmp_path, test_fraction=0.5)


def test_classes_without_pictures_are_named(tmp_path, caplog):
    """torchvision refuses them; here the network keeps an output for each, which is said."""
    one_size(tmp_path)
    (tmp_path / "train" / "c").mkdir()
    next((tmp_path / "test" / "b").iterdir()).unlink()
    assert open_folder(tmp_path).class_names == ("a", "b", "c")
    assert "train has no picture of 1 classes (c)" in caplog.text
    assert "test has no picture of 2 classes (b, c)" in caplog.text
