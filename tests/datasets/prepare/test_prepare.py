"""The command that prepares: from the official archives to a checked folder and to a copy that says the same."""

import fcntl
import importlib.util
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
import zipfile
from pathlib import Path

import pytest
import torch
from official_copies import encoded, make_cars, make_cars_single, make_cub200, make_dogs, make_imagenet, structs
from scipy.io import savemat

from srp_exp.datasets.augmentation import FileAugmentation
from srp_exp.datasets.files.decode import decode
from srp_exp.datasets.prepare.imagenet_archives import DEVKIT, TRAIN, VAL, val_wnids
from srp_exp.datasets.sets.cars import Cars
from srp_exp.datasets.sets.cub200 import Cub200
from srp_exp.datasets.sets.dogs import Dogs
from srp_exp.datasets.sets.imagenet import ImageNet

SCRIPT = Path(__file__).parents[3] / "scripts" / "prepare_data.py"
AUGMENTATION = FileAugmentation(crop="random", resize=40, crop_size=32, eval_crop_size=32, flip=True)


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("prepare_data", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def run(script, capsys):
    """`run(*arguments)`: exit code and what was printed."""

    def run_main(*arguments):
        code = 0
        try:
            script.main([*arguments, "workers=1"])
        except SystemExit as exit_:
            code = exit_.code if isinstance(exit_.code, int) else 1
            printed = "" if isinstance(exit_.code, int) else str(exit_.code)
            return code, printed + capsys.readouterr().err
        return code, capsys.readouterr().err

    return run_main


def open_set(kind, root, copy_side=None, boxes=True):
    options = {"cache_dir": None, "verify": "warn", "on_corrupt": "stop", "copy_side": copy_side}
    options |= {"crop_to_box": True} if boxes else {}
    return kind(root=str(root), augmentation=AUGMENTATION, **options)


def tar(path, *folders):
    """A tar, compressed by its name, of the contents of folders under the names they have there."""
    with tarfile.open(path, "w:gz" if path.suffix in (".tgz", ".gz") else "w") as archive:
        for folder in folders:
            archive.add(folder, arcname=folder.name)
    return path


def cub200_archives(folder):
    home = make_cub200(folder / "made" / "CUB_200_2011")
    return [tar(folder / "CUB_200_2011.tgz", home)]


def cars_archives(folder):
    home = make_cars(folder / "made", beside=True)
    annotations = shutil.copy(home / "cars_test_annos_withlabels.mat", folder)
    tars = [("cars_train.tgz", "cars_train"), ("cars_test.tgz", "cars_test"), ("car_devkit.tgz", "devkit")]
    return [*(tar(folder / name, home / inside) for name, inside in tars), Path(annotations)]


def cars_single_archives(folder):
    home = make_cars_single(folder / "made")
    return [tar(folder / "car_ims.tgz", home / "car_ims"), Path(shutil.copy(home / "cars_annos.mat", folder))]


def dogs_archives(folder):
    home = make_dogs(folder / "made")
    tar(folder / "lists.tar", *(home / "lists").iterdir())
    return [
        tar(folder / "images.tar", home / "Images"),
        tar(folder / "annotation.tar", home / "Annotation"),
        folder / "lists.tar",
    ]


def devkit(folder, wnids, truth):
    """ILSVRC2012_ID is not in the order of the wnids, and an inner node of the tree follows the classes."""
    ids = {wnid: number for number, wnid in enumerate(reversed(wnids), 1)}
    records = [
        {"ILSVRC2012_ID": ids[wnid], "WNID": wnid, "words": f"a {wnid}", "gloss": "", "num_children": 0,
         "children": 0, "wordnet_height": 0, "num_train_images": 4}
        for wnid in reversed(wnids)
    ]  # fmt: skip
    records.append(records[0] | {"ILSVRC2012_ID": len(wnids) + 1, "WNID": "n00001740", "num_children": 2})
    data = folder / "ILSVRC2012_devkit_t12" / "data"
    data.mkdir(parents=True)
    savemat(data / "meta.mat", {"synsets": structs(records).T})
    (data / "ILSVRC2012_validation_ground_truth.txt").write_text("".join(f"{ids[wnid]}\n" for wnid in truth))
    return data


def imagenet_archives(folder):
    """Three archives of what make_imagenet lays out; val images are numbered from 1, across the classes."""
    home = make_imagenet(folder / "made")
    wnids = sorted(path.name for path in (home / "train").iterdir())
    with tarfile.open(folder / TRAIN, "w") as outer:
        for wnid in wnids:
            buffer = io.BytesIO()
            with tarfile.open(fileobj=buffer, mode="w") as inner:
                for image in sorted((home / "train" / wnid).iterdir()):
                    inner.add(image, arcname=image.name)
            member = tarfile.TarInfo(f"{wnid}.tar")
            member.size = len(buffer.getvalue())
            outer.addfile(member, io.BytesIO(buffer.getvalue()))
    images = sorted((home / "val").rglob("*.JPEG"), key=lambda path: path.name)
    with tarfile.open(folder / VAL, "w") as flat:
        for number, image in enumerate(images, 1):
            renamed = image.rename(image.with_name(f"ILSVRC2012_val_{number:08d}.JPEG"))
            flat.add(renamed, arcname=renamed.name)
    kit = devkit(folder, wnids, [image.parent.name for image in images])
    tar(folder / DEVKIT, kit.parent)
    return [folder / name for name in (TRAIN, VAL, DEVKIT)]


SETS = {
    "cub200": (cub200_archives, Cub200, "CUB_200_2011"),
    "cars": (cars_archives, Cars, "."),
    "cars in one file": (cars_single_archives, Cars, "."),
    "dogs": (dogs_archives, Dogs, "."),
    "imagenet": (imagenet_archives, ImageNet, "."),
}


@pytest.mark.parametrize("name", SETS)
def test_archives_become_a_folder_and_a_copy_that_say_what_the_original_says(tmp_path, run, name):
    make, kind, _ = SETS[name]
    archives = make(tmp_path)
    choice, root = f"dataset={name.split()[0]}", tmp_path / "data" / "set"
    listed = ",".join(str(archive) for archive in archives)
    command = (choice, f"dataset.root={root}", "dataset.verify=warn", f"archive=[{listed}]", "resize=24", "quality=95")
    code, printed = run(*command)
    assert code == 0, printed
    assert "12 training and 6 test images of 3 classes" in printed
    boxes = kind is not ImageNet
    original = open_set(kind, tmp_path / "made" if name != "cub200" else tmp_path / "made/CUB_200_2011", boxes=boxes)
    extracted = open_set(kind, root, boxes=boxes)
    copy = open_set(kind, f"{root}-24", copy_side=24, boxes=boxes)
    for other in (extracted, copy):
        assert other.class_names == original.class_names
        for part, expected in ((other.train, original.train), (other.test, original.test)):
            assert torch.equal(part.labels, expected.labels)
            assert torch.equal(part.index, expected.index)
    for part in ("train", "test"):
        splits = [getattr(dataset, part) for dataset in (original, extracted, copy)]
        for sample in range(len(splits[0])):
            whole, same, small = (split.source.read(int(split.rows[sample])) for split in splits)
            assert same == whole
            large, reduced = decode(whole, "original"), decode(small, "copy")
            assert min(reduced.shape[1:]) == 24
            # The mean colour tells the pictures apart, and hardly changes.
            assert (large.float().mean((1, 2)) - reduced.float().mean((1, 2))).abs().max() < 8
    assert sorted(path.name for path in (tmp_path / "data").iterdir()) == ["set", "set-24"]
    assert sorted(path.name for path in (tmp_path / "data/set-24").glob("[!.]*")) == [
        "test-00000.arrow",
        "train-00000.arrow",
    ]
    code, printed = run(*command)
    assert code == 0 and "data/set: exists, nothing is extracted" in printed
    assert "data/set-24: is finished already" in printed


def test_a_folder_of_archives_and_a_zip_are_taken(tmp_path, run):
    archives = cub200_archives(tmp_path)
    (tmp_path / "other.tar").write_bytes(b"not of this set")
    root = tmp_path / "data" / "cub200"
    code, printed = run("dataset=cub200", f"dataset.root={root}", "dataset.verify=warn", f"archive={tmp_path}")
    assert code == 0, printed
    with tarfile.open(archives[0]) as archive, zipfile.ZipFile(tmp_path / "cub.zip", "w") as zipped:
        for member in archive.getmembers():
            if member.isfile():
                zipped.writestr(member.name, archive.extractfile(member).read())
    other = tmp_path / "data" / "zipped"
    code, printed = run("dataset=cub200", f"dataset.root={other}", "dataset.verify=warn", f"archive={tmp_path}/cub.zip")
    assert code == 0, printed
    ours, theirs = (sorted(str(p.relative_to(home)) for p in home.rglob("*.jpg")) for home in (root, other))
    assert ours == theirs and len(ours) == 18


@pytest.mark.parametrize("name", ["cars", "imagenet"])
def test_archives_may_lie_in_the_folder_of_the_set(tmp_path, run, name):
    """They stay there, and the set is put beside them, where it is found; the same command finds it, too."""
    make, kind, _ = SETS[name]
    archives = make(tmp_path)
    root = tmp_path / "data" / name.split()[0]
    root.mkdir(parents=True)
    moved = [archive.rename(root / archive.name) for archive in archives]
    command = (f"dataset={root.name}", f"data_root={tmp_path / 'data'}", "dataset.verify=warn", f"archive={root}")
    code, printed = run(*command)
    assert code == 0, printed
    assert all(archive.is_file() for archive in moved)
    assert sorted(path.name for path in root.iterdir()) == sorted([root.name, *(path.name for path in moved)])
    assert len(open_set(kind, root, boxes=False).train) == 12
    code, printed = run(*command)
    assert code == 0 and f"{root}: exists, nothing is extracted" in printed


def test_a_folder_of_something_else_is_left_alone(tmp_path, run):
    (archive,) = cub200_archives(tmp_path)
    root = tmp_path / "data" / "cub200"
    root.mkdir(parents=True)
    (root / "thesis.tex").touch()
    code, printed = run("dataset=cub200", f"dataset.root={root}", f"archive={archive}", "dataset.verify=warn")
    assert (
        code == 1 and "cub200: holds something else (" in printed and "no images is in it); choose another" in printed
    )
    assert [path.name for path in root.iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize("name", ["cub200", "imagenet"])
def test_every_bar_of_progress_ends_at_its_end(tmp_path, script, monkeypatch, name):
    bars = []

    class Counted:
        def __init__(self, progress):
            pass

        def say(self, text):
            pass

        def track(self, title, total):
            bars.append([title, total, 0])
            bar = bars[-1]
            return lambda done: bar.__setitem__(2, bar[2] + done)

    monkeypatch.setattr(script, "Bars", Counted)
    archives = ",".join(map(str, SETS[name][0](tmp_path)))
    command = [f"dataset={name.split()[0]}", f"data_root={tmp_path / 'data'}", "dataset.verify=warn", "workers=1"]
    script.main([*command, f"archive=[{archives}]", "resize=24"])
    titles = [title.split()[0] for title, *_ in bars]
    assert titles[-2:] == ["extracting", "writing"] and set(titles[:-2]) <= {"verifying"}
    assert [done for *_, done in bars] == [total for _, total, _ in bars]


@pytest.mark.parametrize(
    ("option", "folder"), [("--config-dir={}", "my conf, of 'cars' (1=2)"), ("--config-dir {}", "my_conf")]
)
def test_a_set_of_ones_own_is_prepared(tmp_path, run, monkeypatch, option, folder):
    """Its file in --config-dir, its class on the path, and a setting of its own, as srp-exp takes them."""
    (tmp_path / "ours.py").write_text(
        "from srp_exp.datasets.sets.folder import Folder\n\n\nclass Ours(Folder):\n    set_name = 'ours'\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / folder / "dataset").mkdir(parents=True)
    (tmp_path / folder / "dataset" / "ours.yaml").write_text(
        "defaults: [/hydra/schema/dataset/files@_here_, _self_]\nname: ours\n_target_: ours.Ours\n"
        "root: ${data_root}/ours\nown: {test_fraction: 0.25}\n"
    )
    for number in range(8):
        place = tmp_path / "data" / "ours" / "ab"[number % 2] / f"{number}.jpg"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(encoded("rgb", number))
    given = option.format(tmp_path / folder).split(" ", 1) if " {" in option else [option.format(tmp_path / folder)]
    code, printed = run(
        *given, "dataset=ours", f"data_root={tmp_path / 'data'}", "resize=24", "dataset.own.test_fraction=0.5"
    )
    assert code == 0, printed
    assert "4 training and 4 test images of 2 classes" in printed
    assert (tmp_path / "data" / "ours-24" / "train-00000.arrow").is_file()
    code, printed = run("--config-dir", str(tmp_path / "nowhere"), "dataset=ours")
    assert code == 1 and f"--config-dir={tmp_path / 'nowhere'}: there is no such folder" in printed


def test_labels_of_the_validation_images_follow_the_ground_truth(tmp_path):
    """With ids in another order than the wnids, and an inner node that no image may have."""
    wnids = ["n00000001", "n00000005", "n00000009"]
    truth = [wnids[number] for number in (2, 0, 1, 1, 2)]
    data = devkit(tmp_path, wnids, truth)
    lines, meta = (data / "ILSVRC2012_validation_ground_truth.txt").read_bytes(), (data / "meta.mat").read_bytes()
    assert val_wnids(lines, meta) == truth
    for line in (b"4\n", b"0\n", b"17\n", b"-1\n", b"n01\n"):
        with pytest.raises(ValueError, match="line 6 of the ground truth, .* is no class of meta.mat"):
            val_wnids(lines + line, meta)


def test_imagenet_of_archives_that_do_not_fit_together_is_refused(tmp_path, run):
    train, val, kit = imagenet_archives(tmp_path)

    def refused(*archives):
        listed = ",".join(map(str, archives))
        data = tmp_path / "data"
        code, printed = run("dataset=imagenet", f"data_root={data}", "dataset.verify=warn", f"archive=[{listed}]")
        assert code == 1 and not (data / "imagenet").exists()
        shutil.rmtree(data, ignore_errors=True)
        return printed

    assert f"{DEVKIT}, {VAL} not among {TRAIN}; give the three official files" in refused(train)
    other = tmp_path / "other"
    other.mkdir()
    with tarfile.open(other / VAL, "w") as archive:
        archive.add(tmp_path / "made/val", arcname="val")
    assert "isn't one of ILSVRC2012_val_00000001.JPEG to number 6" in refused(train, other / VAL, kit)
    with tarfile.open(other / VAL, "w") as archive:
        archive.add(next((tmp_path / "made/val").rglob("*.JPEG")), arcname="ILSVRC2012_val_00000001.JPEG")
    assert "holds 1 images, the ground truth 6; fetch both again" in refused(train, other / VAL, kit)
    assert "isn't the tar of a class" in refused(shutil.copy(val, other / TRAIN), val, kit)


def test_an_official_file_with_another_checksum_is_refused_unless_a_subset_is_accepted(tmp_path, run):
    (archive,) = cub200_archives(tmp_path)
    root = tmp_path / "data" / "set"
    command = ("dataset=cub200", f"dataset.root={root}", f"archive={archive}")
    code, printed = run(*command)
    assert code == 1 and "\n" not in printed.strip().splitlines()[-1]
    assert "CUB_200_2011.tgz: MD5 " in printed and "fetch it again, or accept it with dataset.verify=warn" in printed
    assert not root.exists()
    renamed = archive.rename(tmp_path / "mine.tgz")
    code, printed = run(*command[:2], f"archive={renamed}")
    assert code == 1 and "12 training images instead of 5,994" in printed  # the facts are checked before the rename
    assert not root.exists()
    code, printed = run(*command[:2], f"archive={renamed}", "dataset.verify=warn")
    assert code == 0 and root.is_dir(), printed


def test_an_archive_that_leads_out_writes_nothing(tmp_path, run):
    (archive,) = cub200_archives(tmp_path)
    evil = tmp_path / "evil.tar"
    with tarfile.open(archive) as good, tarfile.open(evil, "w") as archive:
        for member in good.getmembers():
            archive.addfile(member, good.extractfile(member))
        archive.addfile(tarfile.TarInfo("../../../evil"), None)
    data = tmp_path / "a" / "b" / "data"
    code, printed = run("dataset=cub200", f"data_root={data}", "dataset.verify=warn", f"archive={evil}")
    assert code == 1 and "outside the destination" in printed
    assert list((tmp_path / "a").rglob("*")) == [tmp_path / "a/b", data]


def test_what_the_user_can_mend_is_one_line(tmp_path, run):
    (tmp_path / "empty").mkdir()
    for arguments, message in (
        (("dataset=mnist5k",), "dataset=mnist5k: there is nothing to prepare; choose imagenet, cub200, cars or dogs"),
        (("dataset=cub200", "archive=/nowhere.tgz"), "archive=/nowhere.tgz: there is no such file"),
        (("dataset=cub200", f"archive={tmp_path / 'empty'}"), "none of CUB_200_2011.tgz is in that folder"),
        (("dataset=cub200",), "dataset.root="),
        (("dataset=cub200", "size=512"), "size"),
        (("dataset=cub200", "resize=big"), "resize=big"),
        (("dataset=cubs",), "dataset=cubs: there is no such choice"),
    ):
        code, printed = run(*arguments, f"data_root={tmp_path / 'data'}")
        (line,) = [line for line in printed.splitlines() if line.strip()]
        assert code == 1 and line.startswith("prepare_data: ") and message in line


def test_settings_of_a_copy_are_checked(tmp_path, run):
    root = make_cub200(tmp_path / "cub200")
    command = ("dataset=cub200", f"dataset.root={root}", "dataset.verify=warn")
    for wrong, message in (("resize=0", "resize=0: choose"), ("quality=0", "quality=0: choose 1 to 100")):
        code, printed = run(*command, "resize=24", wrong)
        assert code == 1 and message in printed
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken/thesis.tex").touch()
    code, printed = run(*command, "resize=24", f"output={tmp_path / 'taken'}")
    assert code == 1 and "exists and is no prepared copy; choose another folder" in printed
    assert run(*command, "resize=24", f"output={tmp_path / 'copy'}")[0] == 0
    code, printed = run(*command, "resize=32", f"output={tmp_path / 'copy'}")
    assert code == 1 and "holds a copy of cub200 with resize=24 quality=90, of which resize differ now" in printed
    code, printed = run("dataset=folder", f"dataset.root={root / 'images'}", "dataset.test_fraction=0.2", "resize=24")
    assert code == 0, printed
    code, printed = run(
        "dataset=folder", f"dataset.root={root / 'images'}", "dataset.test_fraction=0.5", "resize=24",
    )  # fmt: skip
    assert code == 1 and "of which settings, digests differ now; choose another folder, or delete that one" in printed


def test_a_finished_copy_of_other_pictures_is_refused(tmp_path, run):
    root = make_cub200(tmp_path / "cub200")
    command = ("dataset=cub200", f"dataset.root={root}", "dataset.verify=warn", "resize=24")
    assert run(*command)[0] == 0
    code, printed = run(*command)
    assert code == 0 and "is finished already" in printed
    sorted((root / "images").rglob("*.jpg"))[0].write_bytes(encoded("rgb", 99))
    code, printed = run(*command)
    assert code == 1 and "of which digests differ now; choose another folder, or delete that one" in printed


def zipped(path, classes):
    with zipfile.ZipFile(path, "w") as archive:
        for number, name in enumerate(classes):
            for part in ("train", "test"):
                archive.writestr(f"{part}/{name}/{path.stem}.jpg", encoded("rgb", number))
    return path


def test_two_archives_do_not_become_one_set(tmp_path, run):
    """The first fails after it was extracted: it lacks a class in train."""
    first, second = zipped(tmp_path / "v1.zip", ["cat", "dgo"]), zipped(tmp_path / "v2.zip", ["cat", "dog"])
    with zipfile.ZipFile(first, "a") as archive:
        archive.writestr("test/cow/x.jpg", encoded("rgb", 7))
    command = ("dataset=folder", f"dataset.root={tmp_path / 'pets'}")
    code, printed = run(*command, f"archive={first}")
    assert code == 1 and "test has classes that train lacks (cow)" in printed
    assert run(*command, f"archive={second}")[0] == 0
    found = sorted(str(path.relative_to(tmp_path / "pets")) for path in (tmp_path / "pets").rglob("*.*"))
    assert found == [f"{part}/{name}/v2.jpg" for part in ("test", "train") for name in ("cat", "dog")]


def test_two_processes_do_not_prepare_the_same(tmp_path, run):
    root = make_cub200(tmp_path / "cub200")
    partial = tmp_path / "cub200-24.partial"
    partial.mkdir()
    other = os.open(partial, os.O_RDONLY)
    fcntl.flock(other, fcntl.LOCK_EX)
    code, printed = run("dataset=cub200", f"dataset.root={root}", "dataset.verify=warn", "resize=24")
    os.close(other)
    assert code == 1 and "cub200-24.partial: another process is preparing it; wait for it, or end it" in printed


def test_corrupt_pictures_are_counted_in_the_copy(tmp_path, run):
    root = make_cub200(tmp_path / "cub200")
    broken = sorted((root / "images").rglob("*.jpg"))[4]
    broken.write_bytes(encoded("truncated", 1))
    command = ("dataset=cub200", f"dataset.root={root}", "dataset.verify=warn", "resize=24")
    code, printed = run(*command)
    assert code == 1 and broken.name in printed and "dataset.on_corrupt=skip" in printed
    code, printed = run(*command, "dataset.on_corrupt=skip", f"output={tmp_path / 'copy'}")
    assert code == 0, printed
    copy = open_set(Cub200, tmp_path / "copy", copy_side=24)
    assert (len(copy.train) + len(copy.test), copy.train.skipped + copy.test.skipped) == (17, 1)


def test_training_from_a_copy_is_training_from_the_original(tmp_path, run, command_line):
    """Of pictures that are small already, the copy has the same bytes: every figure is the same, boxes and all."""
    root = make_cub200(tmp_path / "cub200")
    assert run("dataset=cub200", f"dataset.root={root}", "dataset.verify=warn", "resize=64")[0] == 0
    tiny = ("dataset.augmentation.resize=40", "dataset.augmentation.crop_size=32", "backbone.depth=8", "device=cpu")
    tiny += ("recipe.epochs=1", "recipe.batch_size=4", "recipe.warmup_epochs=0", "workers=0", "dataset.verify=warn")
    results = []
    for place in (f"dataset.root={root}", f"dataset.root={root}-64"):
        side = ("dataset.copy_side=64",) if place.endswith("-64") else ()
        output = tmp_path / f"out{len(results)}"
        options = (*tiny, *side, place, "dataset.crop_to_box=true", f"output_dir={output}")
        outcome = command_line("dataset=cub200", *options)
        assert outcome.code == 0, outcome.err
        (folder,) = (output / "runs").iterdir()
        results.append(json.loads((folder / "results.json").read_text())["test"])
    assert results[0] == results[1]


SLOWED = """
import runpy, signal, sys, time
from srp_exp.datasets.prepare import copy as pack
from srp_exp.datasets.prepare.archives import ArchivedFile
write, shrink = ArchivedFile.write, pack.shrink
ArchivedFile.write = lambda *arguments: (time.sleep(0.005), write(*arguments))[1]
pack.shrink = lambda *arguments: (time.sleep(0.005), shrink(*arguments))[1]
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs inherit that it is ignored
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def started(*arguments):
    """The command in a process of its own, slow enough to be hit by a signal."""
    command = [sys.executable, "-c", SLOWED, str(SCRIPT), *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_until(happened, process, seconds=100):
    end = time.monotonic() + seconds
    while not happened():
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < end
        time.sleep(0.002)


@pytest.mark.parametrize("how, code", [(signal.SIGKILL, -signal.SIGKILL), (signal.SIGINT, 130)])
def test_killed_or_interrupted_the_same_command_goes_on(tmp_path, run, how, code):
    """Once while it extracts, once while it copies; the result is that of an uninterrupted command."""
    source = tmp_path / "made" / "CUB_200_2011"
    make_cub200(source, train=60, test=20)
    large = encoded("rgb", 0, (200, 150))
    for path in source.rglob("*.jpg"):
        path.write_bytes(large)
    archive = tar(tmp_path / "cub.tgz", source)
    home, options = tmp_path / "data", ["dataset=cub200", "dataset.verify=warn", f"archive={archive}", "resize=96"]
    command = [*options, f"data_root={home}", "workers=1"]

    process = started(*command)
    wait_until(lambda: any((home / "cub200.partial").rglob("*.jpg")), process)
    process.send_signal(how)
    assert process.wait(60) == code, process.stderr.read()
    process.communicate()
    assert not (home / "cub200").exists()
    done = len(list((home / "cub200.partial").rglob("*.jpg")))
    assert 0 < done < 240

    process = started(*command)
    shard = home / "cub200-96.partial" / "train-00000.arrow"
    wait_until(lambda: shard.exists(), process)
    process.send_signal(how)
    assert process.wait(60) == code
    _, printed = process.communicate()
    if how == signal.SIGINT:
        assert "interrupted; run the same command to resume" in printed
    assert not (home / "cub200-96").exists()

    exit_code, printed = run(*command)
    assert exit_code == 0, printed
    assert run(*options, f"data_root={tmp_path / 'other'}")[0] == 0
    for name in ("train-00000.arrow", "test-00000.arrow"):
        assert (home / "cub200-96" / name).read_bytes() == (tmp_path / "other/cub200-96" / name).read_bytes()
    assert sorted(path.name for path in home.iterdir()) == ["cub200", "cub200-96"]
