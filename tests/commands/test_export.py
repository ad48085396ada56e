"""Exports of small trained runs: what plain timm, onnxruntime and torch compute from the files, and what is refused."""

import dataclasses
import importlib.util
import itertools
import json
import math
import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import timm
import torch
from class_folders import make_cats_and_dogs
from huggingface_hub import ModelCard
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

import srp_exp
from srp_exp import load_run
from srp_exp.datasets.augmentation import Augmentation
from srp_exp.datasets.sets.synthetic import Synthetic
from srp_exp.errors import UserError
from srp_exp.export import checked, graphs, hub, weights

ROOT = Path(__file__).parents[2]

TINY = (
    "dataset=synthetic", "dataset.num_classes=4", "dataset.train_size=32", "dataset.test_size=12",
    "dataset.image_size=[32,32]", "recipe.batch_size=16", "recipe.epochs=1", "recipe.warmup_epochs=0", "device=cpu",
)  # fmt: skip
FILES = {
    "timm": "timm.pt", "safetensors": "model.safetensors", "onnx": "model.onnx", "torch_export": "model.pt2",
    "hub": "hub",
}  # fmt: skip


def train(command_line: Any, output_dir: Path, *overrides: str) -> Path:
    outcome = command_line(*TINY, *overrides, f"output_dir={output_dir}")
    assert outcome.code == 0, outcome.err
    (folder,) = (output_dir / "runs").glob("*-*")
    return folder


@pytest.fixture(scope="module")
def run(command_line, tmp_path_factory) -> Path:
    """A finished run of timm's smallest network with squeeze-and-excitation, with SRP."""
    return train(command_line, tmp_path_factory.mktemp("run"), "backbone=timm", "backbone.model=test_byobnet")


@pytest.fixture(scope="module")
def run_of_ours(command_line, tmp_path_factory) -> Path:
    """A finished run of a network that timm doesn't have."""
    return train(command_line, tmp_path_factory.mktemp("ours"), "backbone.depth=8")


@pytest.fixture(scope="module")
def images() -> Tensor:
    """The test images (12, 3, 32, 32) of the runs, normalised by hand."""
    pixels = Synthetic(0, 4, 32, 12, (32, 32), 3, 3, 8, Augmentation()).test.images
    return (pixels.double() / 255).sub(0.5).div(0.12).float()


@pytest.fixture(scope="module")
def logits(run, images) -> Tensor:
    """What the run's final weights answer in timm's own network, which never had SRP."""
    model = timm.create_model("test_byobnet", num_classes=4)
    model.load_state_dict(torch.load(run / "checkpoints" / "final.pt", weights_only=True)["model"])
    with torch.no_grad():
        answer: Tensor = model.eval()(images)
    return answer


def export(command_line: Any, run: Path, form: str) -> Path:
    outcome = command_line("mode=export", f"run={run}", f"format={form}")
    assert outcome.code == 0, outcome.err
    file = run / "export" / FILES[form]
    assert f"exported  {file}" in outcome.out
    return file


def description(file: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(file.with_name(f"{file.name}.json").read_text())
    return content


def assert_refused(outcome: Any, *parts: str) -> None:
    assert outcome.code == 1
    assert outcome.err.count("\n") == 1, outcome.err
    for part in parts:
        assert part in outcome.err


# --- The four formats -----------------------------------------------------------------------------


def test_timm_loads_its_form_in_a_process_that_knows_nothing_of_us(command_line, run, images, logits, tmp_path) -> None:
    file = export(command_line, run, "timm")
    torch.save(images, tmp_path / "images.pt")
    script = f"""
import json, sys, timm, torch
from pathlib import Path
torch.set_num_threads(1)
{documented("facts = json.loads(", file.parent)}
assert not [name for name in sys.modules if name.startswith("srp_exp")]
with torch.no_grad():
    torch.save(model(torch.load("images.pt")), "logits.pt")
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert torch.equal(torch.load(tmp_path / "logits.pt"), logits)


def test_safetensors_holds_the_weights_and_what_they_are(command_line, run) -> None:
    file = export(command_line, run, "safetensors")
    final = torch.load(run / "checkpoints" / "final.pt", weights_only=True)["model"]
    found = load_file(file)
    assert found.keys() == final.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in final.items())
    with safe_open(file, "pt") as opened:
        metadata = opened.metadata()
    assert metadata["checkpoint"] == f"{run.name}/final.pt"
    assert json.loads(metadata["class_names"]) == [f"class {label}" for label in range(4)]


def test_onnx_computes_the_same_for_any_batch(command_line, run, images, logits) -> None:
    file = export(command_line, run, "onnx")
    session = onnxruntime.InferenceSession(file)
    for batch in (1, 5, 12):
        (found,) = session.run(None, {"images": images[:batch].numpy()})
        np.testing.assert_allclose(found, logits[:batch].numpy(), atol=1e-5)
    assert [path.name for path in file.parent.iterdir() if "data" in path.name] == []  # the weights are inside
    assert description(file)["checked"]["largest_difference"] <= 1e-4
    assert description(file)["opset"] >= 18


def test_torch_export_computes_the_same_bits_for_any_batch_and_draws_no_region(
    command_line, run, images, logits
) -> None:
    program = torch.export.load(export(command_line, run, "torch_export"))
    module = program.module()
    state = torch.get_rng_state()
    with torch.no_grad():
        assert torch.equal(module(images), logits)
        assert module(images[:1]).shape == (1, 4)
        torch.testing.assert_close(module(images[:1]), logits[:1])
    assert torch.equal(torch.get_rng_state(), state)
    assert [node.name for node in program.graph.nodes if "rand" in str(node.target)] == []


def test_the_description_says_how_images_become_input(command_line, run) -> None:
    content = description(export(command_line, run, "safetensors"))
    assert content["images"] == {"channels": 3, "height": 32, "width": 32, "mean": [0.5] * 3, "std": [0.12] * 3}
    assert content["backbone"] == "test_byobnet"
    assert content["checked"] == {"batch_sizes": [8, 1], "largest_difference": 0.0}


@pytest.mark.parametrize("form", ["onnx", "torch_export"])
def test_a_network_of_ours_is_exported(command_line, run_of_ours, form) -> None:
    assert export(command_line, run_of_ours, form).is_file()


def test_a_checkpoint_file_is_exported_beside_itself(command_line, run, tmp_path) -> None:
    file = tmp_path / "sent.pt"
    file.write_bytes((run / "checkpoints" / "final.pt").read_bytes())
    outcome = command_line("mode=export", f"checkpoint={file}", "format=safetensors")
    assert outcome.code == 0, outcome.err
    assert (tmp_path / "export-sent" / "model.safetensors").is_file()


# --- timm's form with another attention -----------------------------------------------------------


def test_timm_loads_an_attention_that_it_builds_the_same(command_line, tmp_path) -> None:
    run = train(command_line, tmp_path, "backbone=timm", "backbone.model=test_resnet", "attention=eca")
    file = export(command_line, run, "timm")
    facts = description(file)
    assert facts["kwargs"] == {"num_classes": 4, "in_chans": 3, "block_args": {"attn_layer": "eca"}}
    model = timm.create_model(facts["architecture"], **facts["kwargs"])
    model.load_state_dict(torch.load(file, weights_only=True))


def test_an_attention_that_timm_builds_otherwise_is_refused(command_line, tmp_path) -> None:
    run = train(
        command_line, tmp_path, "backbone=timm", "backbone.model=test_resnet", "attention=se", "attention.rd_ratio=0.5"
    )
    outcome = command_line("mode=export", f"run={run}", "format=timm")
    assert_refused(outcome, "format=timm", "test_resnet has other parameters", "attention=se", "safetensors")
    assert not (run / "export").exists()


# --- The hub's folder, and the lines of docs/export.md -------------------------------------------


@pytest.fixture(scope="module")
def run_on_files(command_line, tmp_path_factory) -> tuple[Path, Path]:
    """A finished run of pictures of several sizes, and one of its test pictures."""
    home = tmp_path_factory.mktemp("files")
    make_cats_and_dogs(home / "pics", 31, 40)
    small = ("dataset.memory_mb=0", "dataset.augmentation.crop_size=16", "backbone.depth=8", "workers=0", "device=cpu")
    small += ("recipe.batch_size=4", "recipe.epochs=1", "recipe.warmup_epochs=0")
    outcome = command_line("dataset=folder", f"dataset.root={home / 'pics'}", *small, f"output_dir={home / 'out'}")
    assert outcome.code == 0, outcome.err
    (folder,) = (home / "out" / "runs").iterdir()
    return folder, home / "pics" / "test" / "dog" / "3.png"


def documented(begin: str, folder: Path, picture: Path | None = None) -> str:
    """The lines of docs/export.md that begin so, with the places of a test in them."""
    blocks = re.findall(r"(?:^    .*\n|^\n(?=    ))+", (ROOT / "docs" / "export.md").read_text(), re.MULTILINE)
    (lines,) = (textwrap.dedent(block).strip("\n") for block in blocks if block.strip().startswith(begin))
    for name in ("timm.pt", "model.onnx"):
        lines = re.sub(rf'"({re.escape(name)}[.json]*)"', rf'"{folder}/\1"', lines)
    return lines.replace("outputs/runs/RUN", str(folder)).replace("picture.png", str(picture))


def test_onnx_runtime_answers_by_the_lines_of_the_document(command_line, run_on_files, run_of_ours, tmp_path) -> None:
    run, picture = run_on_files
    expected = load_run(run)
    with torch.no_grad():
        wanted = expected.network(expected.transform(picture)[None])
    found: dict[str, Any] = {}
    exec(documented("import json", export(command_line, run, "onnx").parent, picture), found)
    np.testing.assert_allclose(found["logits"], wanted.numpy(), atol=1e-4)
    assert len(documented("import json", run).split("\n")) <= 20

    held = tmp_path / "held.png"  # of a network whose pictures keep their size
    pixels = Synthetic(0, 4, 32, 12, (32, 32), 3, 3, 8, Augmentation()).test.images[0]
    Image.fromarray(pixels.permute(1, 2, 0).numpy()).save(held)
    own = load_run(run_of_ours)
    exec(documented("import json", export(command_line, run_of_ours, "onnx").parent, held), found)
    with torch.no_grad():
        np.testing.assert_allclose(found["logits"], own.network(own.transform(held)[None]).numpy(), atol=1e-4)


def test_python_loads_a_run_by_the_lines_of_the_document(run_on_files, capsys) -> None:
    run, picture = run_on_files
    exec(documented("run = srp_exp.load_run", run, picture), {"srp_exp": srp_exp})
    assert capsys.readouterr().out.strip() in ("cat", "dog")


def card_of(folder: Path) -> ModelCard:
    card = ModelCard.load(folder / "README.md")
    assert sorted(path.name for path in folder.iterdir()) == ["README.md", "config.json", "model.safetensors"]
    return card


def test_timm_builds_its_networks_from_the_hubs_folder(command_line, run, images, logits) -> None:
    folder = export(command_line, run, "hub")
    export(command_line, run, "hub")  # replaces the folder
    model = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    with torch.no_grad():
        assert torch.equal(model(images), logits)
    told = timm.data.resolve_model_data_config(model)
    assert told["input_size"] == (3, 32, 32) and told["crop_pct"] == 1.0
    assert told["mean"] == pytest.approx([0.5] * 3) and told["std"] == pytest.approx([0.12] * 3)
    assert model.pretrained_cfg["label_names"] == [f"class {label}" for label in range(4)]
    card = card_of(folder)
    assert card.data.library_name == "timm"
    results = json.loads((run / "results.json").read_text())["test"]
    by_name = {result.metric_name: (result.metric_type, result.metric_value) for result in card.data.eval_results}
    assert by_name["top1"] == ("accuracy", pytest.approx(results["top1"]))
    assert by_name["macro_f1"] == ("f1", pytest.approx(results["macro_f1"], abs=1e-6))
    assert f"| top1 | {results['top1']:.4f} |" in card.content


def test_a_network_of_ours_is_loaded_from_the_hubs_folder(command_line, run_on_files) -> None:
    run, picture = run_on_files
    folder = export(command_line, run, "hub")
    assert card_of(folder).data.library_name == "srp_exp"
    own, sent = load_run(run), load_run(folder)
    assert sent.class_names == own.class_names
    image = own.transform(picture)
    assert torch.equal(sent.transform(picture), image)
    with torch.no_grad():
        assert torch.equal(sent.network(image[None]), own.network(image[None]))
    assert str(run.parents[2]) not in (folder / "config.json").read_text()  # no folder of this machine


def test_a_folder_of_the_hub_builds_only_what_it_may(command_line, run_on_files, tmp_path) -> None:
    run, _ = run_on_files
    folder = shutil.copytree(export(command_line, run, "hub"), tmp_path / "sent")
    content = json.loads((folder / "config.json").read_text())
    attack = content["srp_exp"]["config"].replace("srp_exp.backbones.resnet.build", "os.mkdir")
    changed = {**content, "srp_exp": {**content["srp_exp"], "config": attack}}
    (folder / "config.json").write_text(json.dumps(changed))
    with pytest.raises(UserError, match=r"backbone\._target_=os\.mkdir"):
        load_run(folder)
    (folder / "config.json").write_text(json.dumps({"architecture": "resnet18"}))
    with pytest.raises(UserError, match=r"config\.json is damaged"):
        load_run(folder)
    (folder / "config.json").write_text(json.dumps(content))
    (folder / "model.safetensors").write_bytes(b"x" * 99)
    with pytest.raises(UserError, match=r"model\.safetensors: can't be read"):
        load_run(folder)


def test_timm_resizes_as_the_run_did() -> None:
    for crop, more in itertools.product((16, 224, 225, 299), range(80)):
        resize = crop + more
        images = {"channels": 3, "height": crop, "width": crop, "mean": [0.5], "std": [0.5], "resize": resize}
        assert math.floor(crop / hub._timm_data(images)["crop_pct"]) == resize


# --- Refused --------------------------------------------------------------------------------------


def damaged_state(network: Any) -> dict[str, Tensor]:
    state = {name: tensor.clone() for name, tensor in network.model.state_dict().items()}
    state["head.fc.bias"][0] += 1e-3
    return state


@pytest.mark.parametrize("form", ["timm"])
def test_weights_that_differ_are_refused(command_line, run, tmp_path, monkeypatch, form) -> None:
    monkeypatch.setattr(weights, "state_of", damaged_state)
    outcome = command_line("mode=export", f"checkpoint={copy_of(run, tmp_path)}", f"format={form}")
    assert_refused(outcome, f"format={form}: refused", "batch of 8", "0.001, and 0 is allowed")
    assert [path.name for path in tmp_path.iterdir()] == ["copy.pt"]


@pytest.mark.parametrize(("form", "write"), [("onnx", "write_onnx")])
def test_a_graph_that_differs_is_refused(command_line, run_of_ours, tmp_path, monkeypatch, form, write) -> None:
    original = getattr(graphs, write)

    def damaged(network: Any, file: Path) -> dict[str, Any]:
        with torch.no_grad():
            next(network.model.parameters()).mul_(1.01)
        facts: dict[str, Any] = original(network, file)
        return facts

    replace_writer(monkeypatch, form, damaged)
    outcome = command_line("mode=export", f"checkpoint={copy_of(run_of_ours, tmp_path)}", f"format={form}")
    assert_refused(outcome, f"format={form}: refused", "differ from the run's")
    assert [path.name for path in tmp_path.iterdir()] == ["copy.pt"]


@pytest.mark.parametrize("form", ["safetensors", "hub", "torch_export"])
def test_a_file_cut_short_is_refused(command_line, run, tmp_path, monkeypatch, form) -> None:
    original = checked.FORMATS[form].write

    def cut(network: Any, file: Path) -> dict[str, Any]:
        facts = original(network, file)
        written = file / "model.safetensors" if file.is_dir() else file
        written.write_bytes(written.read_bytes()[: written.stat().st_size // 2])
        return facts

    replace_writer(monkeypatch, form, cut)
    outcome = command_line("mode=export", f"checkpoint={copy_of(run, tmp_path)}", f"format={form}")
    assert_refused(outcome, f"format={form}: refused, the file written can't be used")
    assert [path.name for path in tmp_path.iterdir()] == ["copy.pt"]


def test_a_refused_export_leaves_an_earlier_one_alone(command_line, run, monkeypatch) -> None:
    file = export(command_line, run, "safetensors")
    before = file.read_bytes()
    monkeypatch.setattr(weights, "state_of", damaged_state)
    assert_refused(command_line("mode=export", f"run={run}", "format=safetensors"), "refused")
    assert file.read_bytes() == before
    assert [path.name for path in file.parent.iterdir() if path.name.startswith(".")] == []


def test_a_network_that_cannot_be_traced_is_one_line(command_line, run, monkeypatch, tmp_path) -> None:
    def fails(*_: Any, **__: Any) -> None:
        raise RuntimeError("could not guard on data-dependent expression\nand more lines")

    monkeypatch.setattr(torch.export, "export", fails)
    outcome = command_line("mode=export", f"checkpoint={copy_of(run, tmp_path)}", "format=torch_export")
    assert_refused(outcome, "format=torch_export: this network can't be written so", "data-dependent")


def test_timm_has_no_network_of_ours(command_line, run_of_ours) -> None:
    outcome = command_line("mode=export", f"run={run_of_ours}", "format=timm")
    assert_refused(outcome, "format=timm", "take one of safetensors, onnx, hub, torch_export")


def test_a_missing_package_is_one_line(command_line, run_of_ours, monkeypatch) -> None:
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(checked, "find_spec", lambda name: None if name == "onnxruntime" else find_spec(name))
    outcome = command_line("mode=export", f"run={run_of_ours}", "format=onnx")
    assert_refused(outcome, "format=onnx needs onnxruntime: pip install 'srp-exp[export]'")


def test_an_export_of_nothing(command_line, monkeypatch, tmp_path) -> None:
    monkeypatch.chdir(tmp_path)
    assert_refused(command_line("mode=export", "run=missing"), "run=missing")
    assert_refused(command_line("mode=export", "run=missing", "format=caffe"), "format")
    assert list(tmp_path.iterdir()) == []
    assert_refused(command_line("mode=export"), "mode=export needs one of run=FOLDER")


def test_an_export_is_the_work_of_one_process(command_line, run, monkeypatch) -> None:
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_RANK", "0")
    assert_refused(command_line("mode=export", f"run={run}"), "mode=export", "without torchrun")


def copy_of(run: Path, folder: Path) -> Path:
    """A copy of the run's final checkpoint, in a folder that shows what is left behind."""
    file = folder / "copy.pt"
    file.write_bytes((run / "checkpoints" / "final.pt").read_bytes())
    return file


def replace_writer(monkeypatch: pytest.MonkeyPatch, form: str, write: Any) -> None:
    monkeypatch.setitem(checked.FORMATS, form, dataclasses.replace(checked.FORMATS[form], write=write))
