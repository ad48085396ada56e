"""The command line: training, skipping, resuming, sweeping and evaluating, on tiny generated images."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import zipfile
from importlib import metadata
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch

from srp_exp.errors import UserError
from srp_exp.training.checkpoints import Checkpoints
from srp_exp.training.learner import Learner
from srp_exp.training.reporting.reporter import Reporter

ROOT = Path(__file__).resolve().parents[1]
TINY = (
    "dataset=synthetic", "dataset.train_size=64", "dataset.test_size=32", "dataset.image_size=[16,16]",
    "recipe.batch_size=16", "recipe.epochs=2", "recipe.warmup_epochs=0", "backbone.depth=8",
    "log_every_steps=1", "device=cpu",
)  # fmt: skip
EVERYTHING = (  # all that carries state or randomness from step to step
    "recipe.epochs=3", "mixing=mixup", "srp=ramped", "recipe.ema_decay=0.9", "recipe.accumulate_steps=2",
    "recipe.clip_norm=1", "dataset.augmentation.crop_padding=2", "dataset.augmentation.flip=true",
    "dataset.val_fraction=0.25",
    "recipe.selection=best",
)  # fmt: skip


def the_run(output_dir: Path) -> Path:
    """The only run folder below an output folder."""
    (folder,) = (path for path in (output_dir / "runs").iterdir() if path.is_dir())
    return folder


def read_json(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text())
    return content


def results(folder: Path) -> dict[str, Any]:
    """results.json without what depends on the clock."""
    content = read_json(folder / "results.json")
    assert content.pop("training_seconds") >= 0
    return content


def metrics(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def final_model(folder: Path) -> dict[str, torch.Tensor]:
    model: dict[str, torch.Tensor] = torch.load(folder / "checkpoints" / "final.pt", weights_only=True)["model"]
    return model


def assert_same_bits(one: Path, other: Path) -> None:
    assert (one / "metrics.jsonl").read_text() == (other / "metrics.jsonl").read_text()
    assert results(one) == results(other)
    models = final_model(one), final_model(other)
    assert models[0].keys() == models[1].keys()
    assert [name for name, tensor in models[0].items() if not torch.equal(tensor, models[1][name])] == []


def snapshot(folder: Path) -> dict[str, tuple[int, int]]:
    """Time and size of every file."""
    return {
        str(path.relative_to(folder)): (path.stat().st_mtime_ns, path.stat().st_size)
        for path in folder.rglob("*")
        if path.is_file()
    }


VARIABLES = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


def python(*arguments: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    variables = VARIABLES | environment
    return subprocess.run([sys.executable, *arguments], cwd=folder, env=variables, capture_output=True, text=True)


@pytest.fixture(scope="module")
def trained(command_line, tmp_path_factory) -> Path:
    """The folder of a finished run, for tests that only read it."""
    output_dir = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("A_SECRET", "hunter2-hunter2")
        outcome = command_line(*TINY, f"output_dir={output_dir}")
    assert outcome.code == 0, outcome.err
    folder = the_run(output_dir)
    assert f"run folder  {folder}" in outcome.out
    assert f"tensorboard --logdir {folder}" in outcome.out
    return folder


@pytest.fixture(scope="module")
def with_validation(command_line, tmp_path_factory) -> Path:
    """The folder of a finished run with a validation part, in which every kind of state took part."""
    output_dir = tmp_path_factory.mktemp("validation")
    assert command_line(*TINY, *EVERYTHING, f"output_dir={output_dir}").code == 0
    return the_run(output_dir)


# --- Printing the configuration -------------------------------------------------------------------


WITHOUT_TORCH = """
import sys
from srp_exp.__main__ import main
main()
assert "torch" not in sys.modules
import os
assert os.environ["OMP_WAIT_POLICY"] == "PASSIVE"  # set before torch is imported, which reads it then
"""
"""What takes seconds to import: without it composing and skipping take about one."""


def test_printing_the_config_imports_no_torch_and_leaves_nothing(tmp_path) -> None:
    done = python("-c", WITHOUT_TORCH, "--cfg", "job", "attention=eca", "seed=7", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "seed: 7\n" in done.stdout
    assert "_target_: timm.layers.EcaModule\n" in done.stdout
    assert list(tmp_path.iterdir()) == []


# --- Outputs --------------------------------------------------------------------------------------


def test_a_run_leaves_all_that_the_design_names(trained) -> None:
    names = {str(path.relative_to(trained)) for path in trained.rglob("*") if path.is_file()}
    expected = {
        "config.yaml", "provenance.json", "metrics.jsonl", "results.json", "run.log", "checkpoints/final.pt",
        "evaluation/test/metrics.json", "evaluation/test/predictions.parquet", "sample_batch.png",
        *(f"evaluation/test/{name}.png" for name in ("confusion", "accuracy_by_class", "errors")),
    }  # fmt: skip
    assert expected <= names
    assert [name for name in names if "events.out.tfevents" in name]
    assert [name for name in names if name.endswith(".tmp")] == []


def test_the_config_of_a_run_is_resolved(trained) -> None:
    text = (trained / "config.yaml").read_text()
    assert "${" not in text
    assert "depth: 8\n" in text
    assert "image_size:\n  - 16\n  - 16\n" in text


def test_the_metrics_hold_one_line_per_epoch(trained) -> None:
    lines = metrics(trained)
    assert [(line["epoch"], line["step"]) for line in lines] == [(1, 4), (2, 8)]
    for line in lines:
        assert {"lr", "train/loss", "train/top1", "test/loss", "test/top1", "test/top5"} <= line.keys()
    assert results(trained)["test"]["top1"] == lines[-1]["test/top1"]


def test_the_results_count_what_was_trained(trained) -> None:
    content = results(trained)
    assert content["run"] == trained.name
    assert content["samples"] == {"train": 64, "test": 32}
    assert content["attention_modules"] == 3
    buffers = ("running_mean", "running_var", "num_batches_tracked")
    sizes = [tensor.numel() for name, tensor in final_model(trained).items() if not name.endswith(buffers)]
    assert content["parameters"] == sum(sizes)


def test_provenance_names_code_packages_and_command_but_no_environment(trained) -> None:
    content = read_json(trained / "provenance.json")
    assert {"commit", "diff", "command", "packages", "python", "device", "host"} <= content.keys()
    assert content["packages"]["torch"] == metadata.version("torch")
    assert content["command"][:2] == ["srp-exp", "dataset=synthetic"]
    assert not {"env", "environ", "environment"} & content.keys()
    secret = b"hunter2-hunter2"
    assert [path for path in trained.rglob("*") if path.is_file() and secret in path.read_bytes()] == []


def test_the_predictions_hold_every_test_image_once(trained) -> None:
    table = pq.read_table(trained / "evaluation" / "test" / "predictions.parquet").to_pydict()
    assert len(set(table["index"])) == len(table["index"]) == 32
    assert {"index", "label", "prediction", "probability_class 0", "probability_class 9"} <= table.keys()
    right = sum(label == guess for label, guess in zip(table["label"], table["prediction"], strict=True))
    assert right / 32 == results(trained)["test"]["top1"]


def test_tensorboard_shows_scalars_scales_regions_config_and_hparams(trained) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(trained), size_guidance={"scalars": 0, "images": 0, "tensors": 0})
    events.Reload()
    tags = events.Tags()
    assert {
        "train/loss", "train/top1", "lr", "test/top1", "test/top5", "test/loss", "final/top1",
        "speed/images_per_second", "speed/data_wait", "gradient_norm",
    } <= set(tags["scalars"])  # fmt: skip
    assert [event.step for event in events.Scalars("train/loss")] == list(range(1, 9))
    assert [event.step for event in events.Scalars("test/top1")] == [4, 8]
    assert all(event.value > 0 for event in events.Scalars("speed/images_per_second"))
    scales = {tag: events.Scalars(tag)[-1].value for tag in tags["scalars"] if tag.startswith("srp_scale/")}
    assert list(scales.values()) == [1.0, 0.75, 0.5]  # in the order of depth
    assert tags["images"] == ["sample_batch", "test/confusion", "test/accuracy_by_class", "test/errors"]
    (text,) = events.Tensors("config/text_summary")
    assert b"srp_exp.backbones.resnet.build" in text.tensor_proto.string_val[0]
    hparams = events.PluginTagToContent("hparams")
    assert b"srp.last" in hparams["_hparams_/session_start_info"]


def test_the_log_tells_every_epoch(trained) -> None:
    text = (trained / "run.log").read_text()
    assert "epoch 1/2" in text
    assert "epoch 2/2" in text
    assert "Traceback" not in text


def test_the_log_tells_once_that_the_warm_up_is_shortened(command_line, tmp_path) -> None:
    with_warm_up = [override for override in TINY if "warmup" not in override]
    command = (*with_warm_up, "recipe=quick", "recipe.ema_decay=0.99", "recipe.epochs=1")
    for schedule, times in (("cosine", 1), ("one_cycle", 0)):  # which has no warm-up
        outcome = command_line(*command, f"lr_schedule={schedule}", f"output_dir={tmp_path / schedule}")
        assert outcome.code == 0, outcome.err
        text = (the_run(tmp_path / schedule) / "run.log").read_text()
        shortened = "recipe.warmup_epochs=1.0 is shortened to 0.5, half of recipe.epochs=1; another: lr_s"
        assert text.count(shortened) == text.count("shortened") == times
        assert text.count("WARNING recipe.ema_decay=0.99 over 4 steps") == 1


# --- The same command again -----------------------------------------------------------------------


def test_the_same_command_trains_once(trained) -> None:
    before = snapshot(trained)
    output_dir = trained.parent.parent
    done = python("-m", "srp_exp", *TINY, f"output_dir={output_dir}", folder=output_dir)
    assert done.returncode == 0, done.stderr
    top1 = results(trained)["test"]["top1"]
    assert f"top1 {top1:.2%}" in done.stdout
    assert "finished already" in done.stdout
    assert snapshot(trained) == before
    assert the_run(output_dir) == trained


def test_a_single_run_and_a_sweep_share_the_folder(command_line, trained) -> None:
    before = snapshot(trained)
    outcome = command_line("-m", *TINY, "seed=0", f"output_dir={trained.parent.parent}")
    assert outcome.code == 0
    assert "1 run: 1 finished" in outcome.out
    assert snapshot(trained) == before


def test_rerun_starts_afresh(command_line, tmp_path) -> None:
    command = (*TINY, "recipe.epochs=1", f"output_dir={tmp_path}")
    assert command_line(*command).code == 0
    folder = the_run(tmp_path)
    first, before = results(folder), snapshot(folder)
    (folder / "left_over").mkdir()
    (folder / "left_over" / "file").touch()
    outcome = command_line(*command, "rerun=true")
    assert outcome.code == 0
    assert "finished already" not in outcome.out
    assert not (folder / "left_over").exists()
    assert results(folder) == first
    after = snapshot(folder)
    assert after["results.json"][0] > before["results.json"][0]
    assert len(list(folder.glob("events.out.tfevents.*"))) == len([n for n in before if n.startswith("events")])


def test_a_requeued_job_does_not_start_afresh_again(command_line, tmp_path, monkeypatch) -> None:
    command = (*TINY, "rerun=true", f"output_dir={tmp_path}")
    with monkeypatch.context() as patch:
        patch.setattr(Reporter, "epoch", interrupt(Reporter.epoch, 2, KeyboardInterrupt()))
        assert "run the same command without rerun=true to resume" in command_line(*command).err
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    assert command_line(*command).code == 0
    assert "resumed after step" in (the_run(tmp_path) / "run.log").read_text()


# --- Interrupted runs -----------------------------------------------------------------------------


def interrupt(method: Any, call: int, error: BaseException) -> Any:
    """`method`, whose n-th call does its work and then raises `error`."""
    calls = 0

    def interrupted(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        result = method(*args, **kwargs)
        if calls == call:
            raise error
        return result

    return interrupted


@pytest.mark.parametrize(
    ("owner", "method", "call", "error"),
    [
        (Reporter, "step", 1, KeyboardInterrupt()),  # in the first epoch, before any checkpoint
        (Reporter, "step", 3, UserError("a failure in the second epoch")),
        (Checkpoints, "save", 2, OSError(28, "No space left on device", "step-000000008.pt")),
        (Checkpoints, "finish", 1, KeyboardInterrupt()),  # after the last epoch, before the results
    ],
    ids=["step 1", "step 3", "save 2", "finish"],
)
def test_an_interrupted_run_resumes_to_the_same_bits(
    command_line, with_validation, tmp_path, monkeypatch, owner, method, call, error
) -> None:
    command = (*TINY, *EVERYTHING, f"output_dir={tmp_path}")
    with monkeypatch.context() as patch:
        patch.setattr(owner, method, interrupt(getattr(owner, method), call, error))
        stopped = isinstance(error, KeyboardInterrupt)
        outcome = command_line(*command)
        assert outcome.code == (130 if stopped else 1)
        assert outcome.err.count("\n") == 1
        said = "interrupted; run the same command to resume" if stopped else str(error)
        assert outcome.err.removeprefix("srp-exp: ").removeprefix("OSError: ").startswith(said)
        assert isinstance(error, OSError) == ("(at srp_exp/training/" in outcome.err)
    folder = the_run(tmp_path)
    assert not (folder / "results.json").exists()
    assert "Traceback" in (folder / "run.log").read_text()
    outcome = command_line(*command)
    assert outcome.code == 0, outcome.err
    assert [line["epoch"] for line in metrics(folder)] == [1, 2, 3]
    assert_same_bits(folder, with_validation)


@pytest.mark.parametrize("loss", ["folder", "folder, and begun again", "lock"])
def test_a_run_that_was_taken_away_stops_in_one_line(command_line, tmp_path, monkeypatch, loss) -> None:
    """Its folder is deleted, or its lock, after which another process begins there."""
    report = Reporter.step

    def step(self: Reporter, learner: Learner, seen: Any) -> None:
        report(self, learner, seen)
        if learner.step != 6:
            return
        folder = the_run(tmp_path)
        shutil.rmtree(folder) if loss.startswith("folder") else (folder / "lock").unlink()
        if loss != "folder":
            folder.mkdir(exist_ok=True)
            (folder / "lock").write_text("process 5 on another host")

    monkeypatch.setattr(Reporter, "step", step)
    outcome = command_line(*TINY, f"output_dir={tmp_path}")
    assert (outcome.code, outcome.err.count("\n")) == (1, 1), outcome.err
    assert ("deleted" if loss == "folder" else "process 5 on another host") in outcome.err
    if loss == "folder":
        assert list((tmp_path / "runs").iterdir()) == []
    else:
        folder = the_run(tmp_path)
        assert (folder / "lock").read_text() == "process 5 on another host"
        assert not (folder / "results.json").exists()
        assert len(list(folder.glob("checkpoints/*"))) == (loss == "lock")  # of the first epoch


def test_a_killed_run_resumes_to_the_same_bits(command_line, with_validation, tmp_path) -> None:
    """SIGKILL in the second epoch: no handler and no finally block runs. Nobody reads its console."""
    script = f"""
import os, signal, sys, torch
torch.set_num_threads(1)
from srp_exp.__main__ import main
from srp_exp.training.learner import Learner
from srp_exp.training.reporting.reporter import Reporter
report = Reporter.step
def step(self, learner, seen):
    report(self, learner, seen)
    if learner.step == 3:
        os.kill(os.getpid(), signal.SIGKILL)
Reporter.step = step
sys.argv = ["srp-exp", *{[*TINY, *EVERYTHING, f"output_dir={tmp_path}"]!r}]
main()
"""
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, env=VARIABLES, stdout=writer, stderr=writer)
    os.close(writer)
    assert done.returncode == -signal.SIGKILL
    folder = the_run(tmp_path)
    assert "the console is gone" in (folder / "run.log").read_text()
    assert [line["epoch"] for line in metrics(folder)] == [1]
    outcome = command_line(*TINY, *EVERYTHING, f"output_dir={tmp_path}")
    assert outcome.code == 0, outcome.err
    assert_same_bits(folder, with_validation)


def test_a_fault_keeps_its_traceback_and_says_where(command_line, tmp_path, monkeypatch) -> None:
    """Before the training begins, and within it; on the console, and in a file of the run's folder."""
    for place, file in (
        ("srp_exp.runs.build.objects.build_model", "failure.txt"),
        ("srp_exp.training.loop.is_best", "run.log"),
    ):
        output_dir = tmp_path / file
        with monkeypatch.context() as patch:
            patch.setattr(place, unpack_too_many)
            with pytest.raises(ValueError, match="too many values to unpack"):
                command_line(*TINY, f"output_dir={output_dir}")
        folder = the_run(output_dir)
        first, *rest = (folder / "failure.txt").read_text().splitlines()
        assert re.fullmatch(r"ValueError: too many values to unpack .*\(at srp_exp/[\w/]+\.py:\d+\)", first)
        assert "Traceback (most recent call last):" in rest
        assert "in unpack_too_many" in (folder / file).read_text()
    assert command_line(*TINY, f"output_dir={output_dir}").code == 0
    assert not (folder / "failure.txt").exists()


def unpack_too_many(*arguments):
    one, other = (1, 2, 3)
    return one, other


def test_a_failed_build_is_one_line_and_leaves_no_run_folder(command_line, tmp_path) -> None:
    for override, named in (("backbone.depth=9", "9"), ("optimizer._target_=torch.optim.Adamax", "optimizer=sgd")):
        outcome = command_line(*TINY, override, f"output_dir={tmp_path}")
        assert outcome.code == 1
        assert outcome.err.count("\n") == 1 and named in outcome.err, outcome.err
        assert not list(tmp_path.glob("runs/*"))


def test_a_diverging_run_names_step_rate_and_checkpoint(command_line, tmp_path) -> None:
    outcome = command_line(*TINY, "optimizer.lr=1e38", "optimizer.nesterov=false", f"output_dir={tmp_path}")
    assert outcome.code == 1
    assert outcome.err.count("\n") == 1, outcome.err
    for part in ("not finite", "step", "learning rate 9.62e+37", "last good checkpoint"):
        assert part in outcome.err
    assert not (the_run(tmp_path) / "results.json").exists()


def test_out_of_memory_is_one_line_with_the_batch_size_and_what_to_change(command_line, tmp_path, monkeypatch) -> None:
    def too_much(*_: Any, **__: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate 2 GiB")

    monkeypatch.setattr(Learner, "train_step", too_much)
    outcome = command_line(*TINY, f"output_dir={tmp_path}")
    assert outcome.code == 1
    assert outcome.err.count("\n") == 1, outcome.err
    for part in ("out of memory on cpu", "recipe.batch_size=16", "recipe.accumulate_steps", "precision=bf16",
                 "activation_checkpointing=true"):  # fmt: skip
        assert part in outcome.err
    assert not (the_run(tmp_path) / "results.json").exists()


@pytest.mark.parametrize("wanted", [True, False])
def test_deterministic_turns_on_deterministic_kernels(command_line, tmp_path, monkeypatch, wanted) -> None:
    seen = []
    step = Learner.train_step

    def recording(learner: Learner, *arguments: Any, **named: Any) -> None:
        seen.append(torch.are_deterministic_algorithms_enabled())
        step(learner, *arguments, **named)

    monkeypatch.setattr(Learner, "train_step", recording)
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", "")  # put back afterwards
    before = torch.are_deterministic_algorithms_enabled()
    try:
        deterministic = f"deterministic={str(wanted).lower()}"
        outcome = command_line(*TINY, "recipe.epochs=1", deterministic, f"output_dir={tmp_path}")
        assert outcome.code == 0, outcome.err
        assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == (":4096:8" if wanted else "")
    finally:
        torch.use_deterministic_algorithms(before)
    assert seen == [wanted] * 4


def test_activation_checkpointing_is_no_other_run_and_gives_the_same_bits(command_line, trained, tmp_path) -> None:
    assert command_line(*TINY, "activation_checkpointing=true", f"output_dir={tmp_path}").code == 0
    assert the_run(tmp_path).name == trained.name
    assert_same_bits(the_run(tmp_path), trained)


def test_synchronised_batch_norm_needs_cuda_devices(command_line, tmp_path) -> None:
    outcome = command_line(*TINY, "sync_batch_norm=true", f"output_dir={tmp_path}")
    assert outcome.code == 1
    assert outcome.err.count("\n") == 1, outcome.err
    assert "sync_batch_norm=true" in outcome.err


# --- Sweeps ---------------------------------------------------------------------------------------


def test_a_sweep_trains_every_run_and_a_seed_decides_its_bits(command_line, trained, tmp_path) -> None:
    outcome = command_line("-m", *TINY, "seed=0,1", f"output_dir={tmp_path}")
    assert outcome.code == 0, outcome.err
    folders = {path.name: path for path in (tmp_path / "runs").iterdir() if path.is_dir()}
    assert_same_bits(folders.pop(trained.name), trained)
    (other,) = folders.values()
    assert metrics(other) != metrics(trained)
    models = final_model(trained), final_model(other)
    assert any(not torch.equal(tensor, models[1][name]) for name, tensor in models[0].items())


def test_a_failing_run_does_not_stop_the_others(command_line, tmp_path) -> None:
    # 128 images are more than there are. The failing run comes first.
    outcome = command_line("-m", *TINY, "recipe.epochs=1", "recipe.batch_size=128,16", f"output_dir={tmp_path}")
    assert outcome.code == 1
    assert "srp-exp: batch size 128: the training part has 64 samples" in outcome.err
    assert "Traceback" not in outcome.err
    (failed,) = (path.parent for path in tmp_path.glob("runs/*/failure.txt"))
    (finished,) = (path.parent for path in tmp_path.glob("runs/*/results.json"))
    assert failed != finished
    assert "batch_size: 16\n" in (finished / "config.yaml").read_text()


# --- Evaluation -----------------------------------------------------------------------------------


def test_a_sweep_of_evaluations_leaves_their_results_only(command_line, trained, monkeypatch, tmp_path) -> None:
    monkeypatch.chdir(tmp_path)
    outcome = command_line("-m", "mode=eval", f"run={trained}", "split=train,test", "device=cpu")
    assert outcome.code == 0, outcome.err
    assert [split in outcome.out for split in ("train  top1", "test  top1")] == [True, True]
    assert list(tmp_path.iterdir()) == []
    assert command_line("-m", "mode=eval", "run=nowhere", "split=train,test").code == 1


def test_evaluation_reproduces_the_results(command_line, trained) -> None:
    before = snapshot(trained)
    outcome = command_line("mode=eval", f"run={trained}", "device=cpu")
    assert outcome.code == 0, outcome.err
    folder = trained / "evaluation" / "test"
    found = read_json(folder / "metrics.json")
    expected = results(trained)["test"]
    assert {name: found[name] for name in expected} == expected
    assert found["samples"] == 32
    assert f"top1 {expected['top1']:.2%}" in outcome.out
    assert str(folder) in outcome.out
    untouched = {name: value for name, value in before.items() if "evaluation" not in name}
    assert untouched.items() <= snapshot(trained).items()


def test_evaluation_on_every_split(command_line, with_validation) -> None:
    # A quarter of each class, of 6 or 7 images, is 2 images.
    for split, samples in (("train", 44), ("val", 20), ("test", 32)):
        outcome = command_line("mode=eval", f"run={with_validation}", f"split={split}")
        assert outcome.code == 0, outcome.err
        found = read_json(with_validation / "evaluation" / split / "metrics.json")
        assert found["samples"] == samples
        if split == "val":  # the best epoch, as the moving average of the weights has it
            assert found["top1"] == max(line["val/top1"] for line in metrics(with_validation))


def test_a_split_that_the_run_does_not_have(command_line, trained) -> None:
    outcome = command_line("mode=eval", f"run={trained}", "split=val")
    assert outcome.code == 1
    assert outcome.err.startswith("srp-exp: split=val")
    assert "dataset.val_fraction=0" in outcome.err


def test_evaluation_refuses_to_change_what_the_run_is(command_line, trained) -> None:
    before = snapshot(trained)
    for override in ("seed=3", "srp=gap", "srp.last=0.4", "recipe.lr=1", "backbone=wrn16_8"):
        outcome = command_line("mode=eval", f"run={trained}", override, "split=train")
        assert outcome.code == 1
        assert outcome.err.count("\n") == 1
        assert outcome.err.startswith(f"srp-exp: {override}: ")
    assert snapshot(trained) == before


def test_evaluation_of_a_run_that_is_not_there(command_line, monkeypatch, tmp_path) -> None:
    monkeypatch.chdir(tmp_path)
    targets = ("run=missing", "run=a/b/c", "checkpoint=missing/x.pt", "checkpoint=x.pt")
    for target in targets:
        outcome = command_line("mode=eval", target)
        assert outcome.code == 1
        assert outcome.err.count("\n") == 1 and target.partition("=")[2] in outcome.err, outcome.err
        assert list(tmp_path.iterdir()) == []  # and no folder of that name is left behind
    outcome = command_line("mode=eval")
    assert outcome.code == 1 and "run=FOLDER" in outcome.err


def test_evaluation_leaves_the_users_own_folder_alone(command_line, tmp_path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    assert command_line("mode=eval", f"run={empty}").code == 1
    assert empty.is_dir()


def test_evaluation_of_a_damaged_checkpoint(command_line, trained, tmp_path) -> None:
    content = (trained / "checkpoints" / "final.pt").read_bytes()
    file = tmp_path / "damaged.pt"
    for damaged in (content[: len(content) // 2], b"no checkpoint", b"", None):
        torch.save({"weights": torch.zeros(2)}, file) if damaged is None else file.write_bytes(damaged)
        outcome = command_line("mode=eval", f"checkpoint={file}")
        assert outcome.code == 1
        assert outcome.err.count("\n") == 1, outcome.err
        assert outcome.err.startswith(f"srp-exp: checkpoint {file}: ")
        assert list(tmp_path.iterdir()) == [file]


def test_evaluation_in_another_place_finds_the_data(command_line, trained, tmp_path, monkeypatch) -> None:
    """The checkpoint alone is enough, wherever it lies."""
    file = tmp_path / "elsewhere.pt"
    file.write_bytes((trained / "checkpoints" / "final.pt").read_bytes())
    monkeypatch.chdir(tmp_path)
    outcome = command_line("mode=eval", f"checkpoint={file.name}")
    assert outcome.code == 0, outcome.err
    found = read_json(tmp_path / "evaluation-elsewhere" / "test" / "metrics.json")
    assert found["top1"] == results(trained)["test"]["top1"]


# --- Installation ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    done = subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(folder), str(ROOT)],
        capture_output=True, text=True,
    )  # fmt: skip
    if done.returncode:
        if "hatchling" in done.stderr and "No matching distribution" in done.stderr:
            pytest.skip("the build backend hatchling can't be had: no network and not installed")
        pytest.fail(done.stderr)
    (file,) = folder.glob("*.whl")
    return file


def test_a_wheel_carries_every_config_file(wheel) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    expected = {
        f"srp_exp/conf/{path.relative_to(ROOT / 'conf').as_posix()}" for path in (ROOT / "conf").rglob("*.yaml")
    }
    assert "srp_exp/conf/config.yaml" in expected
    assert expected <= names
    assert not [name for name in names if name.startswith(("tests/", "conf/", "outputs/"))]


def test_an_installed_wheel_works_from_any_folder(wheel, tmp_path) -> None:
    site, anywhere = tmp_path / "site", tmp_path / "anywhere"
    anywhere.mkdir()
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    script = (
        "import sys, srp_exp; print(srp_exp.__file__); sys.argv = ['srp-exp', '--cfg', 'job', 'backbone=wrn16_8'];"
        "from srp_exp.__main__ import main; main()"
    )
    done = python("-c", script, folder=anywhere, PYTHONPATH=str(site))
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(str(site))
    assert "name: wrn16_8\n" in done.stdout


@pytest.mark.long
def test_evaluation_gives_the_bits_of_a_compiled_training(command_line, tmp_path) -> None:
    assert command_line(*TINY, "compile=true", f"output_dir={tmp_path}").code == 0
    folder = the_run(tmp_path)
    files = [folder / "evaluation" / "test" / name for name in ("metrics.json", "predictions.parquet")]
    trained = [file.read_bytes() for file in files]
    for file in files:
        file.unlink()
    assert command_line("mode=eval", f"run={folder}", "device=cpu").code == 0
    assert [file.read_bytes() for file in files] == trained
