"""A run is neither skipped, resumed nor evaluated over other data than it was trained on."""

import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from srp_exp.runs.folder.layout import RESULTS

TINY = (
    "dataset=folder", "dataset.name=own", "backbone=resnet20", "backbone.depth=8", "recipe.epochs=1", "device=cpu",
    "recipe.batch_size=4", "recipe.warmup_epochs=0", "srp=gap", "workers=0", "progress=false",
)  # fmt: skip


def make_folder(root: Path, seed: int) -> Path:
    random = np.random.default_rng(seed)
    for part, images in (("train", 4), ("test", 2)):
        for name in ("a", "b"):
            (root / part / name).mkdir(parents=True)
            for number in range(images):
                buffer = io.BytesIO()
                Image.fromarray(random.integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(buffer, "BMP")
                (root / part / name / f"{number}.bmp").write_bytes(buffer.getvalue())
    return root


@pytest.fixture(scope="module")
def finished(command_line, tmp_path_factory) -> tuple[Path, Path]:
    """The output folder of a finished run, and its data."""
    place = tmp_path_factory.mktemp("finished")
    data, output = make_folder(place / "own", 0), place / "out"
    outcome = command_line(*TINY, f"dataset.root={data}", f"output_dir={output}")
    assert outcome.code == 0, outcome.err
    return output, data


def test_what_was_read_is_on_record(finished) -> None:
    (run,) = (finished[0] / "runs").iterdir()
    parts = {f"{split} {part}" for split in ("training", "test") for part in ("pictures", "labels")}
    assert json.loads((run / "data.json").read_text()).keys() == {"class names", *parts}


def test_what_was_noted_about_the_data_is_on_the_console_and_in_the_log(command_line, tmp_path) -> None:
    data = make_folder(tmp_path / "own", 0)
    (data / "train" / "a" / "notes.txt").touch()
    outcome = command_line(*TINY, f"dataset.root={data}", f"output_dir={tmp_path / 'out'}")
    (run,) = (tmp_path / "out" / "runs").iterdir()
    for said in (outcome.out, (run / "run.log").read_text()):
        for note in ("1 files aren't pictures and are skipped (train/a/notes.txt)", "held in memory at their size"):
            assert said.count(note) == 1


def test_a_finished_run_is_skipped_over_its_data_wherever_they_lie(command_line, finished, tmp_path) -> None:
    output, data = finished
    for root in (data, shutil.copytree(data, tmp_path / "moved")):
        outcome = command_line(*TINY, f"dataset.root={root}", f"output_dir={output}")
        assert outcome.code == 0 and "finished already" in outcome.out


def test_a_finished_run_is_not_skipped_over_other_data(command_line, finished, tmp_path) -> None:
    output, _ = finished
    other = make_folder(tmp_path / "own2", 1)
    command = (*TINY, f"dataset.root={other}", f"output_dir={output}")
    for _ in range(2):  # the second time from what was remembered
        outcome = command_line(*command)
        assert outcome.code == 1 and "finished already" not in outcome.out
        (line,) = outcome.err.splitlines()
        assert "was trained on other data (training pictures, test pictures differ)" in line
        assert "dataset.name=..." in line and "rerun=true" in line


def test_pictures_rewritten_in_place_are_noticed(command_line, finished, tmp_path) -> None:
    output, data = finished
    moved = shutil.copytree(data, tmp_path / "moved")
    command = (*TINY, f"dataset.root={moved}", f"output_dir={output}")
    assert command_line(*command).code == 0
    file = moved / "test" / "a" / "0.bmp"
    file.write_bytes(file.read_bytes()[:-1] + bytes([file.read_bytes()[-1] ^ 1]))
    outcome = command_line(*command)
    assert outcome.code == 1 and "(test pictures differ)" in outcome.err


def test_an_unfinished_run_does_not_go_on_over_other_data(command_line, finished, tmp_path) -> None:
    output = shutil.copytree(finished[0], tmp_path / "out")
    (run,) = (output / "runs").iterdir()
    (run / RESULTS).unlink()
    other = make_folder(tmp_path / "own2", 1)
    command = (*TINY, f"dataset.root={other}", f"output_dir={output}")
    outcome = command_line(*command)
    assert outcome.code == 1 and "was trained on other data" in outcome.err
    assert not (run / RESULTS).exists()
    assert command_line(*command, "rerun=true").code == 0
    assert "finished already" in command_line(*command).out


def test_evaluation_refuses_other_data_too(command_line, finished, tmp_path) -> None:
    data = shutil.copytree(finished[1], tmp_path / "own")
    output = tmp_path / "out"
    assert command_line(*TINY, f"dataset.root={data}", f"output_dir={output}").code == 0
    (run,) = (output / "runs").iterdir()
    assert command_line("mode=eval", f"run={run}", "device=cpu", "workers=0").code == 0
    shutil.rmtree(data)
    make_folder(data, 1)
    outcome = command_line("mode=eval", f"run={run}", "device=cpu", "workers=0")
    assert outcome.code == 1 and "was trained on other data" in outcome.err


def test_data_that_are_gone_are_said_and_the_result_stays(command_line, finished, tmp_path) -> None:
    output, _ = finished
    outcome = command_line(*TINY, f"dataset.root={tmp_path / 'gone'}", f"output_dir={output}")
    assert outcome.code == 0 and "finished already" in outcome.out
    assert "not compared with the data of the run, which can't be read: dataset.root=" in outcome.err


@pytest.mark.parametrize(("part", "in_place"), [("train", False), ("test", True)])
def test_a_picture_that_cannot_be_read_any_more_costs_no_step(
    command_line, tmp_path, monkeypatch, part, in_place
) -> None:
    """As one of a large set, of which not all are looked at first; replaced, it is no other data."""
    monkeypatch.setattr("srp_exp.datasets.files.source._PROBES", 1)
    monkeypatch.setattr("srp_exp.datasets.files.measure._MEASURED", 1)
    data = make_folder(tmp_path / "own", 0)
    files = (*TINY, f"dataset.root={data}", "dataset.memory_mb=0", "dataset.vet=none", "recipe.epochs=2")
    arguments = (*files, "dataset.augmentation.crop_size=16", "dataset.augmentation.resize=16", "deterministic=true")
    assert command_line(*arguments, f"output_dir={tmp_path / 'whole'}").code == 0
    bad = data / part / "b" / "1.bmp"
    whole = bad.read_bytes()
    bad.write_bytes(whole[:300])
    outcome = command_line(*arguments, f"output_dir={tmp_path / 'cut'}")
    assert outcome.code == 1
    assert outcome.err.startswith(f"srp-exp: {bad}: not a readable image") and outcome.err.count("\n") == 1
    (run,) = (tmp_path / "cut" / "runs").iterdir()
    log = (run / "run.log").read_text()
    if part == "test":
        assert "saved at step 2: the same command resumes there when the picture is replaced" in log
    if not in_place:
        bad.unlink()
    bad.write_bytes(whole)
    assert command_line(*arguments, f"output_dir={tmp_path / 'cut'}").code == 0
    results = [json.loads((tmp_path / name / "runs" / run.name / RESULTS).read_text()) for name in ("whole", "cut")]
    assert [result.pop("training_seconds") is not None for result in results] == [True, True]
    assert results[0] == results[1]
    if part == "test":
        assert "resumed after step 2" in (run / "run.log").read_text()


def test_another_picture_than_the_one_that_could_not_be_read_is_other_data(tmp_path) -> None:
    from srp_exp.datasets.files.source import FolderSource
    from srp_exp.errors import UserError
    from srp_exp.runs.folder.digests import record_data, record_unread, refuse_other_data

    data = make_folder(tmp_path / "own", 0)
    paths = sorted(path.relative_to(data).as_posix() for path in data.rglob("*.bmp"))

    def digests(without: str | None = None) -> dict[str, str]:
        return {"training pictures": FolderSource(data, paths).digest(without)}

    record_data(tmp_path, digests())
    record_unread(tmp_path, "train/a/1.bmp", digests("train/a/1.bmp"))
    (data / "train" / "a" / "1.bmp").write_bytes(b"another")
    refuse_other_data(tmp_path, digests(), digests)
    with pytest.raises(UserError, match="other data"):
        refuse_other_data(tmp_path, digests())
    (data / "train" / "a" / "2.bmp").write_bytes(b"another")
    with pytest.raises(UserError, match="other data"):
        refuse_other_data(tmp_path, digests(), digests)
