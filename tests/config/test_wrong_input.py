"""A wrong command line: one line that names the value, the place and the nearest valid choice; nothing else happens."""

import subprocess
import sys
from pathlib import Path

import pytest

# Command line -> what the one line must contain.
WRONG = {
    "a key that doesn't exist": {
        "sede=1": ["sede", "did you mean seed?"],
        "+sede=1": ["sede", "did you mean seed?"],
        "++sede=1": ["sede", "did you mean seed?"],
        "~sede": ["sede", "did you mean seed?"],
        "recipe.epoch=3": ["recipe.epoch ", "epochs?"],
        "+recipe.epoch=3": ["recipe.epoch ", "epochs?"],
        "~recipe.epoch": ["recipe.epoch", "epochs?"],
        "+foo.bar=1": ["foo", "valid are", "attention", "srp-exp --help"],
        "lr=0.1": ["lr ", "optimizer.lr or recipe.lr"],
        "batch_size=64": ["batch_size ", "recipe.batch_size"],
        "weight_decay=1": ["weight_decay ", "optimizer.weight_decay or recipe.weight_decay"],
        "backbone.depht=20": ["backbone.depht", "depth?"],
        "srp.scale=0.5": ["srp.scale", "first, last"],  # of srp=fixed; scheduled has first and last
        "srp=fixed srp.last=0.5": ["srp.last", "scale"],
        "srp=fixed +srp.last=0.5": ["srp.last", "scale"],
        "srp=gap srp.share=batch": ["srp.share"],
        "optimizer=adamw optimizer.momentum=0.9": ["optimizer.momentum", "betas"],
        "optimizer.momentum=0": ["optimizer.momentum=0", "optimizer.nesterov=false"],
        "dataset.num_classes=3": ["dataset.num_classes", "val_fraction"],  # of synthetic only
    },
    "a key that can't be deleted": {
        "~seed": ["seed", "deleted"],
        "~recipe.epochs": ["recipe.epochs", "deleted"],
    },
    "a choice or a group that doesn't exist": {
        "backbone=resnet2O": ["backbone=resnet2O", "resnet20"],
        "dataset=cifar1O": ["dataset=cifar1O", "cifar10 or cifar100"],
        "srp=off": ["srp=off", "cosine, fixed, gap"],
        "attention=SE": ["attention=SE", "did you mean se?"],
        "optimizer=adam": ["optimizer=adam", "adamw?"],
        "experiment=demp": ["experiment=demp", "demo?"],
        "experiment=demo mixing=mixpu": ["mixing=mixpu", "mixup?"],
        "bakbone=resnet20": ["bakbone", "did you mean backbone?"],
    },
    "a wrong type": {
        "recipe.epochs=ten": ["recipe.epochs=ten", "Integer"],
        "recipe.epochs=1.5": ["recipe.epochs=1.5", "Integer"],
        "recipe.epochs=": ["recipe.epochs=", "Integer"],
        "srp.last=[0.5]": ["srp.last=[0.5]", "Float"],
        "srp=stages srp.scales=0.5": ["srp.scales=0.5", "list"],
        "seed=null": ["seed=null", "Optional"],
        "rerun=maybe": ["rerun=maybe", "bool"],
        "srp.last=${nope}": ["srp.last", "nope"],
    },
    "a wrong choice of an enumeration": {
        "precision=fp8": ["precision=fp8", "fp32, bf16, fp16"],
        "mode=trane": ["mode=trane", "train, eval"],
        "split=valid": ["split=valid", "train, val, test"],
        "srp.share=images": ["srp.share=images", "sample, batch"],
        "recipe.selection=bst": ["recipe.selection=bst", "last, best"],
        "recipe.class_weights=inverse": ["recipe.class_weights=inverse", "equal, balanced"],
    },
    "where Hydra is to put a run": {
        "hydra.run.dir=X": ["hydra.run.dir=X", "output_dir"],
        "hydra.job.chdir=true": ["hydra.job.chdir=true"],
    },
    "out of range, as test_validate.py has more": {
        "seed=-1": ["seed=-1", "[0, inf)"],
        "dataset=synthetic dataset.image_size=[32]": ["dataset.image_size=[32]", "2 numbers"],
    },
    "what one choice demands of another, as test_validate.py has more": {
        "attention=none": ["srp=scheduled", "attention=none", "ceca", "srp=gap"],
        "backbone=timm": ["backbone.model", "no value"],
        "run=somewhere": ["run", "mode=eval"],
        "checkpoint=file.pt": ["checkpoint", "mode=eval"],
    },
    "nothing that could be read": {
        "recipe.lr=[": ["recipe.lr=[", "override"],
        "seed": ["seed", "override"],
        "seed=1,2": ["seed=1,2", "sweep", "-m"],
        "seed=range(3)": ["seed=range(3)", "sweep", "-m"],
        "srp.last=0,5": ["srp.last=0,5", "sweep"],
        "foo": ["foo", "name=value"],
        "seed:3": ["seed:3", "name=value"],
        "=3": ["=3", "name=value"],
        "srp.last='0.5": ["srp.last='0.5", "quotes"],
        "srp.last=interval()": ["srp.last=interval()", "start"],
        "seed=choice()": ["seed=choice()", "empty"],
        "--cofg job": ["--cofg", "did you mean --cfg?"],
        "seed=1 -m srp=gap,fixed": ["srp=gap,fixed", "-m", "before"],
        "-x": ["-x is no option", "--multirun"],
        "--cfg jb": ["--cfg", "jb", "job"],
        "--config-dir nowhere": ["--config-dir=", "nowhere", "no such folder"],
        "--config-name confg": ["--config-name=confg", "no such file"],
    },
    "a choice that is none": {
        "+seed=3": ["+seed", "leave out the +"],
        "+srp=gap": ["srp is chosen twice", "+"],
        "++srp=gap": ["++srp=gap", "leave out the ++"],
        "dataset=null": ["dataset=null", "cifar10"],
        "optimizer=3": ["optimizer=3", "adamw, sgd"],
        "srp=": ["srp=", "gap"],
        "dataset=[mnist5k,cifar10]": ["dataset=[mnist5k,cifar10]", "-m dataset=mnist5k,cifar10"],
        "recipe=[quick]": ["recipe=[quick]", "one recipe"],
        "~srp": ["~srp", "deleted", "gap"],
        "~dataset=mnist5k": ["~dataset=mnist5k", "deleted"],
        "srp@x=gap": ["srp@x", "did you mean srp?"],
        "dataset/x=1": ["dataset/x", "did you mean dataset?"],
        "hydra/launcher=slrum": ["hydra/launcher=slrum", "slurm?"],
        "hydra/launcher=slurm": ["hydra/launcher=slurm", "-m"],  # would train here, at once
        "hydra/sweeper=search": ["hydra/sweeper=search", "-m"],
        "hydra.mode=MULTIRN": ["hydra.mode=MULTIRN", "MULTIRUN"],
        "hydra.launcher.foo=3": ["hydra.launcher.foo"],
    },
    "a setting of a setting, and lists": {
        "seed.x=2": ["seed.x=2", "single value"],
        "recipe.epochs.x=3": ["recipe.epochs.x=3", "single value"],
        "run.foo=1": ["run.foo=1", "single value"],
        "dataset.augmentation.flip.x=1": ["dataset.augmentation.flip.x=1", "single value"],
        "recipe.name=[1]": ["recipe.name=[1]", "string"],
        "optimizer.lr={a:1}": ["optimizer.lr={a:1}", "Float"],
        "optimizer=adamw optimizer.betas=[0.9]": ["optimizer.betas=[0.9]", "2 numbers"],
        "optimizer=adamw optimizer.betas=[0.9,0.99,0.999]": ["optimizer.betas=[0.9, 0.99, 0.999]", "2 numbers"],
        "optimizer.betas=[0.9]": ["optimizer.betas", "momentum"],
        "evaluators=gates": ["evaluators=gates", "evaluators=[gates]"],
        "evaluators.0=gates": ["evaluators.0=gates", "whole list"],
        "evaluators=null": ["evaluators=null", "Optional"],
    },
    "names of evaluators, of a study, and what nothing would read": {
        "evaluators=[gate]": ["gate", "gates?"],
        "evaluators=[nopackage.f] dry=true": ["nopackage.f", "no package nopackage", "gates"],
        "evaluators=[descriptor.f]": ["descriptor.f", "descriptors?"],
        "study.name=x": ["study.name=x", "no study is chosen", "demo"],
        "study=dmeo": ["study=dmeo", "did you mean demo?"],
        "study=demo hydra.mode=RUN": ["study=demo", "MULTIRUN"],
        "optimizer=adamw recipe.lr=0.1": ["recipe.lr=0.1", "set optimizer.lr"],
        "optimizer.lr=0.2 recipe.lr=0.1": ["recipe.lr=0.1", "set optimizer.lr"],
        "lr_schedule=one_cycle recipe.warmup_epochs=2": ["recipe.warmup_epochs=2", "leave it out"],
        "srp.last=${recipe.nope}": ["srp.last", "no recipe.nope"],
        "srp.last=${nope:3}": ["srp.last", "nope"],
        "srp.last=${srp.last}": ["srp.last", "ecursive"],
    },
}


@pytest.fixture
def no_training(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """In an empty folder, where importing what needs torch fails with an error that no user ever sees."""
    monkeypatch.chdir(tmp_path)
    for module in [name for name in sys.modules if name.startswith("srp_exp.commands.")]:
        monkeypatch.delitem(sys.modules, module)  # to be imported again
    for module in ("srp_exp.runs.complete", "srp_exp.runs.read_back.read", "srp_exp.runs.build"):
        monkeypatch.setitem(sys.modules, module, None)


@pytest.mark.usefixtures("no_training")
@pytest.mark.parametrize("kind", WRONG)
def test_one_line_names_value_place_and_choice(command_line, tmp_path, kind) -> None:
    for line, parts in WRONG[kind].items():
        outcome = command_line(*line.split(" "), "output_dir=outputs")
        assert (outcome.code, outcome.out) == (1, ""), line
        assert outcome.err.startswith("srp-exp: ") and outcome.err.endswith("\n"), outcome.err
        assert outcome.err.count("\n") == 1 and len(outcome.err) <= 300, outcome.err
        assert [part for part in parts if part not in outcome.err] == [], outcome.err
        assert "Error executing" not in outcome.err
        assert not list(tmp_path.glob("outputs/runs/*"))
        assert {path.name for path in tmp_path.iterdir()} <= {"outputs"}


@pytest.mark.usefixtures("no_training")
def test_the_training_guard_of_these_tests_works(command_line) -> None:
    """The other tests would pass for nothing if the import of what needs torch were not forbidden here."""
    with pytest.raises(ImportError):
        command_line("mode=eval", "run=a", "checkpoint=b")


def test_neither_a_wrong_line_nor_printing_the_config_imports_torch(tmp_path) -> None:
    script = """
import sys
from srp_exp.__main__ import main
for arguments in (["seed=-1"], ["sede=1"], ["backbone=resnet2O"], ["attention=gc"], ["--cfg", "job"]):
    sys.argv = ["srp-exp", *arguments]
    try:
        main()
    except SystemExit as error:
        print("failed:", error.code)
    for module in ("torch", "timm", "torchvision", "numpy"):
        assert module not in sys.modules, (module, arguments)
print("all done")
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.count("failed:") == 4
    assert "backbone:\n" in done.stdout
    assert done.stdout.endswith("all done\n")
    assert done.stderr == ""
    assert not list(tmp_path.glob("outputs/runs/*"))


def test_the_full_traceback_comes_on_request(command_line, monkeypatch, tmp_path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SRP_EXP_FULL_ERROR", "1")
    with pytest.raises(ValueError, match=r"srp\.last=1\.5"):
        command_line("srp.last=1.5")
