"""What pictures hold beside RGB of 8 bits, or can't be read, is known and said before the first step."""

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from official_copies import encoded
from PIL import Image

from srp_exp.datasets.augmentation import FileAugmentation
from srp_exp.datasets.files import measure, vet
from srp_exp.datasets.known import facts_of
from srp_exp.datasets.sets.folder import Folder
from srp_exp.errors import UserError
from srp_exp.runs.folder.digests import digests_of


def open_folder(root: Path, **others) -> Folder:
    arguments = {"cache_dir": None, "on_corrupt": "stop", "copy_side": None, "memory_mb": 1000} | others
    return Folder(str(root), augmentation=FileAugmentation(), **arguments)


def save(root: Path, picture, name: str = "0.png", parts=("train", "test"), classes="ab") -> None:
    content = picture
    if not isinstance(picture, bytes):
        file = io.BytesIO()
        Image.fromarray(picture).save(file, {"png": "PNG", "tif": "TIFF"}[name.rpartition(".")[2]])
        content = file.getvalue()
    for place in (root / part / label for part in parts for label in classes):
        place.mkdir(parents=True, exist_ok=True)
        (place / name).write_bytes(content)


def black_on_transparent() -> np.ndarray:
    picture = np.zeros((12, 12, 4), np.uint8)
    picture[3:9, 3:9, 3] = 255
    return picture


def test_shapes_on_transparent_are_seen(tmp_path, caplog):
    save(tmp_path, black_on_transparent())
    for _ in range(2):  # the second time from what was remembered
        caplog.clear()
        found = open_folder(tmp_path)
        assert "4 of 4 pictures are transparent in places, where dataset.background=[255, 255, 255] is" in caplog.text
    assert found.train.images[0].unique().tolist() == [0, 255]
    assert found.train.images[0, 0, 3:9, 3:9].unique().tolist() == [0]
    grey = open_folder(tmp_path, background=(128, 128, 128))
    assert grey.train.images[0].unique().tolist() == [0, 128]


def test_an_alpha_channel_of_opaque_pictures_is_not_spoken_of(tmp_path, caplog):
    save(tmp_path, np.dstack([np.zeros((12, 12, 3), np.uint8), np.full((12, 12), 255, np.uint8)]))
    open_folder(tmp_path)
    assert "transparent" not in caplog.text


@pytest.mark.parametrize(("kind", "name"), [(np.uint16, "0.png"), (np.uint16, "0.tif"), (np.float32, "0.tif")])
def test_the_range_of_values_is_that_of_the_set(tmp_path, caplog, kind, name):
    values = np.arange(144).reshape(12, 12).astype(kind)
    save(tmp_path, values, name, ["train"])
    save(tmp_path, values + 143, name, ["test"])  # to 286
    save(tmp_path, encoded("rgb", 0, (12, 12)), "1.jpg")  # has levels already
    found = open_folder(tmp_path)
    assert "4 of 8 pictures have more than 8 bits, with values from 0 to 286; these" in caplog.text
    levels = torch.from_numpy(np.floor(np.arange(144).reshape(12, 12) / 286 * 255 + 0.5)).byte()
    assert torch.equal(found.train.images[0], levels.expand(3, 12, 12))
    given = open_folder(tmp_path, value_range=(0, 286))
    assert "dataset.value_range=[0, 286] become" in caplog.text
    assert torch.equal(given.train.images, found.train.images)
    assert torch.equal(given.test.images, found.test.images)


def test_the_range_belongs_to_the_data_that_a_run_has_read(tmp_path):
    save(tmp_path, np.full((12, 12), 3, np.uint16))
    save(tmp_path, np.full((12, 12), 9, np.uint16), "1.png")
    digests = [digests_of(open_folder(tmp_path, memory_mb=0, value_range=given)) for given in (None, (3, 9), (0, 9))]
    assert digests[0] == digests[1]
    assert {name for name in digests[0] if digests[0][name] != digests[2][name]} == {
        "training value range",
        "test value range",
    }


def test_a_range_that_nothing_has_is_said(tmp_path, caplog):
    save(tmp_path, encoded("rgb", 0), "0.jpg")
    open_folder(tmp_path, value_range=(0, 4095))
    assert "dataset.value_range=[0, 4095]: changes nothing" in caplog.text


def test_one_value_is_no_range(tmp_path):
    save(tmp_path, np.full((12, 12), 7, np.uint16))
    with pytest.raises(UserError, match="all pixels of more than 8 bits have the value 7; set dataset.value_range"):
        open_folder(tmp_path)


@pytest.mark.parametrize("part", ["train", "test"])
def test_a_set_of_which_nothing_can_be_read_is_refused(tmp_path, part):
    for name in ("train", "test"):
        save(tmp_path, encoded("truncated" if name == part else "rgb", 0), "0.jpg", [name])
    with pytest.raises(UserError, match=rf"no picture of {part} can be read, the first because: .*0\.jpg: not a"):
        open_folder(tmp_path, on_corrupt="skip")


def test_one_class_of_which_pictures_can_be_read_is_refused(tmp_path):
    save(tmp_path, encoded("rgb", 0), "0.jpg")
    (tmp_path / "train" / "a" / "0.jpg").write_bytes(b"")
    with pytest.raises(UserError, match="all pictures are of one class, 'b'"):
        open_folder(tmp_path, on_corrupt="skip")


@pytest.mark.parametrize("on_corrupt", ["stop", "skip"])
def test_a_file_that_is_mended_in_its_place_is_seen(tmp_path, on_corrupt):
    root = tmp_path / "set"
    for number in range(3):
        save(root, encoded("rgb", number), f"{number}.jpg")
    bad = root / "train" / "b" / "1.jpg"
    whole = bad.read_bytes()
    bad.write_bytes(whole[:300])
    if on_corrupt == "skip":
        assert len(open_folder(root, on_corrupt="skip").train) == 5
    else:
        with pytest.raises(UserError, match=rf"{bad}: not a readable image .*; nothing is lost"):
            open_folder(root)
    bad.write_bytes(whole)
    found = open_folder(root, on_corrupt=on_corrupt, memory_mb=0)
    assert len(found.train) == 6
    assert digests_of(found) == digests_of(
        open_folder(root, on_corrupt=on_corrupt, memory_mb=0, cache_dir=str(tmp_path / "new"))
    )


def test_of_a_large_set_a_sample_and_headers_are_looked_at(tmp_path, monkeypatch):
    """What a header shows is found in any picture; pixels that end too early in the sample, or where all are wanted."""
    monkeypatch.chdir(tmp_path)
    root = tmp_path / "set"
    for number in range(40):
        save(root, encoded("rgb", number, (100, 100)), f"{number:02}.jpg")
    monkeypatch.setattr(vet, "LARGE", 1000)
    monkeypatch.setattr(vet, "_SAMPLE", 3)  # the first, one in the middle, the last
    monkeypatch.setattr(vet, "_HEADER", 700)
    monkeypatch.setattr(measure, "_MEASURED", 3)
    whole = (root / "train" / "a" / "05.jpg").read_bytes()
    assert len(whole) > 1400
    at = whole.index(b"\xff\xc0") + 5
    for content, found_by in (
        (whole[:1400], ("all",)),
        (b"<html>404</html>", ("all", "auto")),
        (b"", ("all", "auto")),
        (whole[:at] + b"\xff\xf0\xff\xf0" + whole[at + 4 :], ("all", "auto")),  # 65,520 x 65,520 pixels
    ):
        (root / "train" / "a" / "05.jpg").write_bytes(content)
        for how in ("all", "auto"):
            if how in found_by:
                with pytest.raises(UserError, match="a/05.jpg: not a readable image"):
                    open_folder(root, vet=how, memory_mb=0)
            else:
                assert len(open_folder(root, vet=how, memory_mb=0).train) == 80
        assert len(open_folder(root, on_corrupt="skip", memory_mb=0).train) == 79
    (root / "train" / "a" / "05.jpg").write_bytes(whole)
    (root / "train" / "a" / "00.jpg").write_bytes(whole[:1400])  # in the sample
    with pytest.raises(UserError, match="a/00.jpg"):
        open_folder(root, memory_mb=0)


def test_the_range_of_a_large_set_is_that_of_all_its_pictures(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(vet, "LARGE", 0)
    monkeypatch.setattr(vet, "_SAMPLE", 3)
    for number in range(10):
        save(tmp_path, np.arange(144).reshape(12, 12).astype(np.uint16) + 10 * number * (number < 9), f"{number}.png")
    open_folder(tmp_path)
    assert "values from 0 to 223" in caplog.text


@pytest.mark.parametrize("memory_mb", [0, 1000])
def test_what_is_known_of_training_pictures_reads_the_test_part(tmp_path, memory_mb):
    """Their mean and range of values are those of the training, whatever lies there now."""
    for number, part in enumerate(("train", "test")):
        save(tmp_path, np.arange(144, dtype=np.uint16).reshape(12, 12) + 300 * number, parts=(part,))
    whole = open_folder(tmp_path, memory_mb=memory_mb)
    save(tmp_path, b"", parts=("train",))
    found = open_folder(tmp_path, memory_mb=memory_mb, known=facts_of(whole))
    assert (len(found.train), found.mean, found.std, found.reading.value_range) == (0, whole.mean, whole.std, (0, 443))
    assert (found.image_size, found.augmentation) == (whole.image_size, whole.augmentation)
    of_test = {part: value for part, value in digests_of(whole).items() if "training" not in part}
    assert digests_of(found) == of_test
    if memory_mb:
        assert torch.equal(found.test.images, whole.test.images)
    else:
        assert torch.equal(found.test.picture(1), whole.test.picture(1))
    save(tmp_path, np.ones((12, 12), np.uint16), parts=("test",), classes="a")
    changed = digests_of(open_folder(tmp_path, memory_mb=memory_mb, known=facts_of(whole)))
    assert {part for part in of_test if changed[part] != of_test[part]} == {"test pictures"}
