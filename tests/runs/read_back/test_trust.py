"""Checkpoints that somebody sent: whatever their configuration asks for, no code of the sender or of a package runs."""

import pickle
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from omegaconf import OmegaConf

from srp_exp.config import CONF_DIR
from srp_exp.config.identity import plain_values
from srp_exp.errors import UserError
from srp_exp.runs.read_back.trust import named_targets, stored_config
from srp_exp.training.checkpoints import write

TINY = (
    "dataset=synthetic", "dataset.train_size=32", "dataset.test_size=16", "dataset.image_size=[16,16]",
    "recipe.batch_size=16", "recipe.epochs=1", "recipe.warmup_epochs=0", "backbone.depth=8", "device=cpu",
)  # fmt: skip
FILE = Path("sent.pt")

# What a stored group becomes -> what the one line names. MARK is a file that the attack would make or read.
ATTACKS: dict[str, tuple[str, dict[str, Any], str]] = {
    "a function of a library that loads a pickle": (
        "dataset",
        {"_target_": "timm.models.load_state_dict", "checkpoint_path": "MARK", "weights_only": False},
        "dataset._target_=timm.models.load_state_dict",
    ),
    "a builtin": ("srp", {"_target_": "builtins.exec", "_args_": ["open('MARK', 'w')"]}, "srp._target_=builtins.exec"),
    "partial by a key": ("backbone", {"_target_": "os.mkdir", "_partial_": True, "path": "MARK"}, "os.mkdir"),
    "positional arguments": (
        "backbone",
        {"_target_": "srp_exp.backbones.timm_models.build", "_args_": ["resnet18", True, "MARK"]},
        "backbone._args_",
    ),
    "a method that Hydra looks up": (
        "srp",
        {"_target_": "hydra.utils.get_method", "path": "os.mkdir"},
        "hydra.utils.get_method",
    ),
    "nested": ("dataset", {"extra": {"deeper": {"_target_": "os.mkdir"}}}, "dataset.extra.deeper._target_=os.mkdir"),
    "in a list": ("dataset", {"extra": [{"_target_": "os.mkdir", "path": "MARK"}]}, "dataset.extra.0._target_"),
    "not to be built now": ("dataset", {"_recursive_": False, "own": {"_target_": "os.mkdir"}}, "dataset.own._target_"),
    "a conversion that is none": ("dataset", {"_convert_": "os.mkdir"}, "dataset._convert_"),
    "a name through a module's imports": (
        "attention",
        {"_target_": "torch.nn.modules.module.torch.load", "f": "MARK"},
        "torch.nn.modules.module.torch.load",
    ),
    "through ours": ("dataset", {"_target_": "srp_exp.files.os.mkdir", "path": "MARK"}, "srp_exp.files.os.mkdir"),
    "a method of a class that may be built": ("attention", {"_target_": "torch.nn.Module.load_state_dict"}, "_target_"),
    "what another group may build": (
        "attention",
        {"_target_": "srp_exp.datasets.sets.cifar.Cifar10", "download": True},
        "attention._target_=srp_exp.datasets.sets.cifar.Cifar10",
    ),
    "a module that isn't imported yet": ("srp", {"_target_": "antigravity.geohash"}, "antigravity.geohash"),
    "an installed module with a main program": ("srp", {"_target_": "pip.__main__.main"}, "pip.__main__.main"),
    "no text": ("srp", {"_target_": ["os.mkdir"]}, "srp._target_"),
    "a resolver": ("dataset", {"name": "${oc.env:HOME}"}, "${oc.env:HOME}"),
    "a name by reference": (  # benign where it is checked, another where the group alone is built
        "srp",
        {"_target_": "${srp.target}", "target": "srp_exp.srp.Fixed", "srp": {"target": "os.mkdir"}},
        "${srp.target}",
    ),
    "a part that builds nothing": ("recipe", {"_target_": "os.mkdir", "path": "MARK"}, "recipe._target_=os.mkdir"),
}


@pytest.fixture(scope="module")
def config(compose) -> dict[str, Any]:
    """A stored configuration, as srp_exp writes it."""
    plain: dict[str, Any] = yaml.safe_load(OmegaConf.to_yaml(OmegaConf.create(plain_values(compose(*TINY)))))
    return plain


def read(text: Any, trust_targets: bool = False) -> dict[str, Any]:
    return dict(stored_config(text, FILE, [CONF_DIR], trust_targets))


def attacked(config: dict[str, Any], name: str, mark: Path) -> str:
    group, values, _ = ATTACKS[name]
    return yaml.safe_dump({**config, group: {**config[group], **values}}, sort_keys=False).replace("MARK", str(mark))


def test_an_attack_is_refused_in_one_line_and_nothing_is_imported(config, tmp_path) -> None:
    for name in ATTACKS:
        before = set(sys.modules)
        with pytest.raises(UserError) as refused:
            read(attacked(config, name, tmp_path / "mark"))
        assert ATTACKS[name][2] in str(refused.value)
        assert str(FILE) in str(refused.value)
        assert "\n" not in str(refused.value)
        assert not [module for module in set(sys.modules) - before if not module.startswith("srp_exp.")]
        assert list(tmp_path.iterdir()) == []


def test_a_hook_that_imports_when_it_is_asked_is_not_asked(config, monkeypatch, tmp_path) -> None:
    """setuptools' hook swaps distutils, with a warning, for whoever looks for pip."""
    hook = pytest.importorskip("_distutils_hack").DistutilsMetaFinder
    asked: list[str] = []
    monkeypatch.setattr(hook, "find_spec", lambda self, name, *_: asked.append(name))
    monkeypatch.setattr(sys, "meta_path", [hook(), *sys.meta_path])
    with pytest.raises(UserError):
        read(attacked(config, "an installed module with a main program", tmp_path / "mark"))
    assert asked == []


TEXTS = {
    "a tag": ("dataset: !!python/object/apply:os.mkdir [MARK]", "tag"),
    "a bomb of aliases": ("a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]\n", "aliases"),
    "a group that is a number": ("dataset: 5\n", "dataset"),
    "no group": ("seed: 0\n", "attention"),
    "two of a name": ("dataset: {}\ndataset: {}\n", "duplicate"),
    "depth": ("[" * 5000, "can't be read"),
    "length": ("#" * 1_000_001, "length"),
    "a mapping": ({"dataset": {}}, "length"),
}


def test_a_text_that_srp_exp_does_not_write_is_refused(tmp_path) -> None:
    for name in TEXTS:
        text, named = TEXTS[name]
        with pytest.raises(UserError, match=named) as refused:
            read(text.replace("MARK", str(tmp_path / "mark")) if isinstance(text, str) else text)
        assert str(refused.value).startswith(f"{FILE}: its configuration ")
        assert list(tmp_path.iterdir()) == []


OTHER_TYPES = [
        ("recipe", "x", "RecipeConfig"), ("seed", [1], "seed"), ("dataset", {"augmentation": None}, "augmentation"),
        ("backbone", {"depth": "deep"}, "backbone.depth=deep"), ("srp", {"first": {}}, "srp.first"),
    ]  # fmt: skip


def test_a_value_of_another_type_is_named(config) -> None:
    for group, changed, named in OTHER_TYPES:
        values = {**config[group], **changed} if isinstance(changed, dict) else changed
        with pytest.raises(UserError) as refused:
            read(yaml.safe_dump({**config, group: values}))
        assert named in str(refused.value) and str(refused.value).startswith(f"{FILE}: its configuration")
        assert "\n" not in str(refused.value)


def test_every_choice_of_conf_may_be_built_again(compose) -> None:
    """Whatever a run is composed of by the shipped files is read back."""
    for group, targets in named_targets([CONF_DIR]).items():
        assert targets or group == "mixing", group
    files = [path for group in named_targets([]) for path in (CONF_DIR / group).glob("*.yaml")]
    assert len(files) > 40
    for path in files:
        given = ["dataset.root=x"] if path.parent.name == "dataset" and "\nroot" not in path.read_text() else []
        if path.stem in ("synthetic", "mnist5k", "cifar10", "cifar100"):
            given = []
        if path.stem == "hub":
            given = ["dataset.path=owner/name"]
        if path.parent.name == "backbone" and path.stem == "timm":
            given = ["backbone.model=resnet18"]
        config = plain_values(compose(f"{path.parent.name}={path.stem}", *given))
        assert read(OmegaConf.to_yaml(OmegaConf.create(config)))["seed"] == 0


KNOWN_KINDS = [
        ("attention", "timm.layers.NonLocalAttn"), ("lr_schedule", "torch.optim.lr_scheduler.ExponentialLR"),
        ("dataset", "srp_exp.datasets.memory.image_set.ImageSet"),
    ]  # fmt: skip


def test_classes_of_known_kinds_may_be_built(config) -> None:
    for group, target in KNOWN_KINDS:
        changed = {**config, group: {**config[group], "_target_": target}}
        assert read(yaml.safe_dump(changed))[group]["_target_"] == target


OWN = """
from pathlib import Path
from torch import nn
from torch.optim import SGD as Imported
class Net(nn.Module):
    class Inner(nn.Module): pass
class Remover:
    def __init__(self, folder): raise AssertionError
def function(): raise AssertionError
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A module of the user's own, and a script that nobody wants to run by reading a checkpoint."""
    (tmp_path / "own_code").mkdir()
    (tmp_path / "own_code" / "nets.py").write_text(OWN)
    (tmp_path / "own_code" / "script.py").write_text("raise SystemExit('it ran')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    for name in [name for name in sys.modules if name.partition(".")[0] == "own_code"]:
        del sys.modules[name]


OWN_CLASSES = [
    ("backbone", "own_code.nets.Net", True),
    ("dataset", "own_code.nets.Net", False),  # a network is no data set
    ("backbone", "own_code.nets.Net.Inner", False),
    ("backbone", "own_code.nets.Remover", False),
    ("backbone", "own_code.nets.function", False),
    ("optimizer", "own_code.nets.Imported", False),
    ("backbone", "own_code.script.Net", False),
    ("backbone", "not_here.Net", False),
]


def test_a_class_in_the_users_own_files_may_be_built_where_its_kind_is_known(config, own) -> None:
    for group, target, allowed in OWN_CLASSES:
        text = yaml.safe_dump({**config, group: {**config[group], "_target_": target}})
        if allowed:
            assert read(text)[group]["_target_"] == target
            return
        with pytest.raises(
            UserError, match=rf"{group}._target_={target}: .*--config-dir.*PYTHONPATH.*trust_targets=true"
        ):
            read(text)
        assert read(text, trust_targets=True)[group]["_target_"] == target


def test_what_a_conf_folder_of_the_users_names_may_be_built(config, own) -> None:
    """A function too, which is of no kind."""
    (own / "conf" / "backbone").mkdir(parents=True)
    (own / "conf" / "backbone" / "mine.yaml").write_text("name: mine\n_target_: own_code.nets.function\n")
    text = yaml.safe_dump({**config, "backbone": {"name": "mine", "_target_": "own_code.nets.function"}})
    assert stored_config(text, FILE, [CONF_DIR, own / "conf"], False).backbone.name == "mine"
    elsewhere = yaml.safe_dump({**config, "srp": {"name": "mine", "_target_": "own_code.nets.function"}})
    with pytest.raises(UserError, match=r"srp\._target_"):
        stored_config(elsewhere, FILE, [CONF_DIR, own / "conf"], False)


# --- On the command line --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(command_line, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    outcome = command_line(*TINY, f"output_dir={folder}")
    assert outcome.code == 0, outcome.err
    (run,) = (folder / "runs").glob("*-*")
    return run


class Executed:
    """Makes a file when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return Path.touch, (self.mark,)


@pytest.mark.parametrize("mode", ["eval", "compare"])
def test_a_pickle_beside_a_checkpoint_is_not_read(command_line, trained, tmp_path, mode) -> None:
    run, mark = tmp_path / trained.name, tmp_path / "mark"
    (run / "checkpoints").mkdir(parents=True)
    (run / "results.json").write_bytes((trained / "results.json").read_bytes())
    (run / "beside.pt").write_bytes(pickle.dumps(Executed(mark)))
    content = torch.load(trained / "checkpoints" / "final.pt", weights_only=True)
    values = {"_target_": "timm.models.load_state_dict", "checkpoint_path": str(run / "beside.pt"), "weights_only": 0}
    content["config"] = yaml.safe_dump({**yaml.safe_load(content["config"]), "dataset": values})
    write(run / "checkpoints" / "final.pt", content)
    before = sorted(tmp_path.rglob("*"))
    other = [f"other={trained}"] if mode == "compare" else []
    outcome = command_line(f"mode={mode}", f"run={run}", *other, f"output_dir={tmp_path}", "device=cpu")
    assert outcome.code == 1
    assert outcome.err.count("\n") == 1, outcome.err
    assert "dataset._target_=timm.models.load_state_dict" in outcome.err
    assert sorted(tmp_path.rglob("*")) == before  # no mark, and nothing written


def test_weights_of_another_network_are_one_line(command_line, trained, tmp_path) -> None:
    content = torch.load(trained / "checkpoints" / "final.pt", weights_only=True)
    changes = [("depth: 8", "depth: 14")], []
    for number, change in enumerate(changes):
        file, changed = tmp_path / f"{number}.pt", dict(content)
        for old, new in change:
            changed["config"] = changed["config"].replace(old, new)
        if not change:
            changed["model"] = [1, 2]
        write(file, changed)
        outcome = command_line("mode=eval", f"checkpoint={file}", "device=cpu")
        assert outcome.code == 1
        assert outcome.err.count("\n") == 1, outcome.err
        assert f"{file}: its weights aren't those of its network" in outcome.err
