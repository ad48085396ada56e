"""A trained network in Python: it answers as its run was evaluated, and its file builds nothing that it may not."""

from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
import yaml
from class_folders import make_cats_and_dogs
from PIL import Image

import srp_exp
from srp_exp.errors import MissingFileError, UserError
from srp_exp.srp import srp_modules
from srp_exp.training.checkpoints import write

TINY = (
    "dataset=folder", "dataset.memory_mb=0", "dataset.augmentation.crop_size=16", "backbone.depth=8", "recipe.epochs=1",
    "recipe.batch_size=4", "recipe.warmup_epochs=0", "device=cpu", "workers=0",
)  # fmt: skip


@pytest.fixture(scope="module")
def run(command_line, tmp_path_factory) -> Path:
    home = tmp_path_factory.mktemp("load")
    make_cats_and_dogs(home / "pics", 20, 20)
    outcome = command_line(*TINY, f"dataset.root={home / 'pics'}", f"output_dir={home / 'out'}")
    assert outcome.code == 0, outcome.err
    (folder,) = (home / "out" / "runs").iterdir()
    return folder


def test_it_answers_as_the_run_was_evaluated(run) -> None:
    state = torch.get_rng_state()
    loaded = srp_exp.load_run(str(run))
    assert torch.equal(torch.get_rng_state(), state)
    assert loaded.class_names == ("cat", "dog")
    assert srp_modules(loaded.network) == {} and not loaded.network.training
    rows = pq.read_table(run / "evaluation" / "test" / "predictions.parquet").to_pylist()
    assert len(rows) == 8
    for row in rows:
        with torch.no_grad():
            pictures = [loaded.transform(row["path"]), loaded.transform(Image.open(row["path"]))]
            assert torch.equal(*pictures)
            assert pictures[0].shape == (3, 16, 16)
            probabilities = loaded.network(pictures[0][None]).softmax(1)[0]
        expected = [row["probability_cat"], row["probability_dog"]]
        assert probabilities.tolist() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("mode", ["P", "CMYK"])
def test_every_picture_of_pillow_becomes_input(run, mode) -> None:
    image = srp_exp.load_run(run).transform(Image.new(mode, (30, 25)))
    assert image.shape == (3, 16, 16)
    assert image.isfinite().all()


def test_a_transparent_picture_shows_the_runs_background(run) -> None:
    transform = srp_exp.load_run(run).transform
    assert torch.equal(
        transform(Image.new("RGBA", (20, 20), (0, 0, 0, 0))), transform(Image.new("RGB", (20, 20), (255, 255, 255)))
    )


def test_a_checkpoint_file_will_do(run, tmp_path) -> None:
    file = tmp_path / "sent.pt"
    file.write_bytes((run / "checkpoints" / "final.pt").read_bytes())
    sent, own = (srp_exp.load_run(place).network.state_dict() for place in (file, run))
    assert all(torch.equal(sent[name], tensor) for name, tensor in own.items())


def changed(run: Path, file: Path, **values) -> Path:
    content = torch.load(run / "checkpoints" / "final.pt", weights_only=True)
    config = yaml.safe_load(content["config"])
    for name, value in values.items():
        config[name] = {**config[name], **value} if isinstance(value, dict) else value
    write(file, {**content, "config": yaml.safe_dump(config)})
    return file


def test_wrong_input_is_said(run, tmp_path) -> None:
    with pytest.raises(MissingFileError, match="no finished run"):
        srp_exp.load_run(tmp_path)
    with pytest.raises(MissingFileError, match=r"nothing\.pt"):
        srp_exp.load_run(tmp_path / "nothing.pt")
    mark = tmp_path / "mark"
    attack = changed(run, tmp_path / "a.pt", backbone={"_target_": "os.mkdir", "path": str(mark)})
    with pytest.raises(UserError, match=r"backbone\._target_=os\.mkdir"):
        srp_exp.load_run(attack)
    assert not mark.exists()
    content = torch.load(run / "checkpoints" / "final.pt", weights_only=True)
    write(tmp_path / "own.pt", {name: value for name, value in content.items() if name != "data"})
    with pytest.raises(UserError, match="a kind of its own"):
        srp_exp.load_run(tmp_path / "own.pt")
    with pytest.raises(UserError, match="device=nowhere"):
        srp_exp.load_run(run, device="nowhere")
    with pytest.raises(FileNotFoundError):
        srp_exp.load_run(run).transform(tmp_path / "nothing.png")
