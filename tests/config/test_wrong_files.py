"""Files of a user in --config-dir that are wrong: one line names file or setting, and the nearest name."""

from pathlib import Path

import pytest

RECIPE = "name: mine\nepochs: 3\nbatch_size: 8\nlr: 0.1\n"
RESNET = "name: mine\n_target_: srp_exp.backbones.resnet.build\n"
STUDY = """# @package _global_
study:
  name: mine
  question: Is it so?
  claim: It is so
  methods: {a: [srp=gap], b: [srp=fixed]}
hydra:
  mode: MULTIRUN
"""


def of_study(line: str) -> str:
    """STUDY with one more line in the study."""
    return STUDY.replace("hydra:", f"  {line}\nhydra:")


# What it is -> (file, content, what the one line must contain).
WRONG = {
    "an unknown setting": ("recipe/mine", RECIPE.replace("epochs", "epoch"), ["recipe.epoch ", "epochs?"]),
    "a setting left out": ("recipe/mine", RECIPE.replace("epochs: 3", ""), ["recipe.epochs has no value"]),
    "an empty file": ("recipe/mine", "", ["recipe.", "has no value"]),
    "a wrong type": ("recipe/mine", RECIPE.replace("3", "ten"), ["recipe.epochs=ten", "Integer", "recipe/mine.yaml"]),
    "out of range": ("recipe/mine", RECIPE.replace("3", "0"), ["recipe.epochs=0", "[1, inf)"]),
    "a list": ("recipe/mine", "- a\n- b\n", ["recipe/mine.yaml", "list"]),
    "a word": ("recipe/mine", "epochs\n", ["recipe/mine.yaml"]),
    "a tab": ("recipe/mine", "name: mine\n\tepochs: 3\n", ["recipe/mine.yaml, line 2", "spaces"]),
    "no end of a list": ("recipe/mine", "epochs: [3\nlr: 3\n", ["recipe/mine.yaml, line 2", "flow sequence"]),
    "a key twice": ("recipe/mine", RECIPE + "epochs: 4\n", ["recipe/mine.yaml, line 5", "duplicate key"]),
    "no text": ("recipe/mine", "\x00\x01", ["recipe/mine.yaml", "#x0000"]),
    "an interpolation of nothing": (
        "recipe/mine", RECIPE.replace("3", "${recipe.epoch}"), ["recipe.epoch ", "epochs?"],
    ),
    "an unknown resolver": ("recipe/mine", RECIPE.replace("3", "${nope:3}"), ["recipe.epochs", "nope"]),
    "a circle": ("recipe/mine", RECIPE.replace("3", "${recipe.epochs}"), ["recipe.epochs", "ecursive"]),
    "another ending": ("recipe/mine.yml", RECIPE, ["recipe=mine", "cifar"]),
    "no name": ("srp/mine", "defaults: [/hydra/schema/srp/fixed@_here_, _self_]\n", ["srp.name has no value"]),
    "an unknown schema": (
        "backbone/mine", f"defaults: [/hydra/schema/backbone/resnt@_here_, _self_]\n{RESNET}depth: 20\n",
        ["backbone/resnt", "resnet", "backbone/mine.yaml"],
    ),
    "a schema of an unknown group": (
        "backbone/mine", f"defaults: [/hydra/schema/bakbone/resnet@_here_, _self_]\n{RESNET}depth: 20\n",
        ["bakbone/resnet", "no such schema"],
    ),
    "a schema in another place": (
        "backbone/mine", f"defaults: [/hydra/schema/backbone/resnet, _self_]\n{RESNET}depth: 20\n", ["has no value"],
    ),
    "an unknown setting of a schema": (
        "backbone/mine", f"defaults: [/hydra/schema/backbone/resnet@_here_, _self_]\n{RESNET}depht: 20\n",
        ["backbone.depht", "depth?", "backbone/mine.yaml"],
    ),
    "another choice overridden from within": (
        "backbone/mine", f"defaults:\n- override /attention: se\n- _self_\n{RESNET}depth: 20\n",
        ["override /attention@_global_.attention", "backbone/mine.yaml"],
    ),
    "a backbone without a class": ("backbone/mine", "name: mine\ndepth: 20\n", ["backbone", "lacks _target_"]),
    "a value out of range without a schema": (
        "dataset/mine", "name: mine\n_target_: mine.Set\nval_fraction: 2\n", ["dataset.val_fraction=2", "[0, 1)"],
    ),
    "a value of a wrong type without a schema": (
        "attention/mine", "name: mine\n_target_: timm.layers.SqueezeExcite\nreplaces_conv: perhaps\n",
        ["attention.replaces_conv", "perhaps"],
    ),
    "an optimizer without weight decay": (
        "optimizer/mine", "name: mine\n_target_: torch.optim.RMSprop\nlr: 0.1\n", ["optimizer", "lacks weight_decay"],
    ),
    "no choice of an SRP": (
        "srp/mine", "name: mine\n_target_: srp_exp.srp.Fixed\nshare: image\n", ["srp.share", "sample, batch"],
    ),
    "a study in its own package": ("study/mine", STUDY.partition("\n")[2], ["study/mine.yaml", "# @package _global_"]),
    "an experiment in its own package": (
        "experiment/mine", "recipe: {epochs: 3}\n", ["experiment/mine.yaml", "# @package _global_"],
    ),
    "an unknown setting of an experiment": (
        "experiment/mine", "# @package _global_\nrecipe: {epoch: 3}\n", ["recipe.epoch ", "epochs?", "experiment/mine"],
    ),
    "a study that would train one run": ("study/mine", STUDY.partition("hydra")[0], ["study=mine", "MULTIRUN"]),
    "an unknown setting of a study": ("study/mine", STUDY.replace("claim", "clame"), ["study.clame", "claim?"]),
    "a study without a question": (
        "study/mine", STUDY.replace("  question: Is it so?\n", ""), ["study.question", "value"],
    ),
    "a study named as a path": (
        "study/mine", STUDY.replace("name: mine", "name: ../x"), ["study.name=../x", "letters"],
    ),
    "a comparison of an unknown key": (
        "study/mine", of_study("comparisons: [{metod: a, baseline: b}]"), ["metod", "method?"],
    ),
    "a comparison of an unknown method": (
        "study/mine", of_study("comparisons: [{method: ab, baseline: b}]"), ["ab", "a, b"],
    ),
    "a smallest effect below zero": (
        "study/mine", of_study("comparisons: [{method: a, baseline: b, smallest_effect: {value: -0.1, reason: x}}]"),
        ["smallest_effect.value=-0.1", "(0, inf)"],
    ),
    "another expectation": (
        "study/mine", of_study("comparisons: [{method: a, baseline: b, expect: beter}]"),
        ["expect=beter", "better"],
    ),
    "comparisons without a list": (
        "study/mine", of_study("comparisons: {method: a, baseline: b}"), ["study/mine.yaml"],
    ),
    "an unknown metric": ("study/mine", of_study("metric: top2"), ["top2", "top1"]),
    "an unknown measure": (
        "study/mine", of_study("metric: descriptors.efective_rank"),
        ["descriptors.efective_rank", "effective_rank"],
    ),
    "an unknown evaluator": (
        "study/mine", of_study("metric: descriptor.effective_rank"), ["descriptor", "descriptors?"],
    ),
    "a published percentage": (
        "study/mine", of_study("published: [{method: a, value: 95.3, source: x}]"),
        ["95.3", "0.953"],
    ),
    "a method that is no list": ("study/mine", STUDY.replace("[srp=gap]", "srp=gap"), ["study.methods.a", "srp=gap"]),
    "methods that are a list": (
        "study/mine", STUDY.replace("{a: [srp=gap], b: [srp=fixed]}", "[srp=gap]"), ["study/mine.yaml"],
    ),
    "a method of an unknown choice": (
        "study/mine", STUDY.replace("srp=gap", "srp=gpa"), ["method a", "srp=gpa", "gap"],
    ),
    "a method of no choice": ("study/mine", STUDY.replace("srp=gap", "srp=null"), ["method a", "srp=null", "gap"]),
    "a method that is no override": ("study/mine", STUDY.replace("srp=gap", "srp"), ["srp", "name=value"]),
    "a method that sweeps": (
        "study/mine", STUDY.replace("[srp=gap]", "['srp=gap,fixed']"), ["method a", "srp=gap,fixed"],
    ),
    "a method of an unknown setting": ("study/mine", STUDY.replace("srp=gap", "sed=1"), ["method a", "sed ", "seed?"]),
    "an unknown axis": (
        "study/mine", f"{STUDY}  sweeper: {{params: {{sed: '0,1'}}}}\n", ["sed is not a setting", "seed?"],
    ),
    "an axis that is a list": (
        "study/mine", f"{STUDY}  sweeper: {{params: {{seed: [0, 1]}}}}\n", ["hydra.sweeper.params.seed=[0, 1]", "0,1"],
    ),
    "an axis in the wrong place": (
        "study/mine", f"{STUDY}  sweper: {{params: {{seed: '0,1'}}}}\n", ["hydra.sweper", "sweeper"],
    ),
    "an unknown choice in its defaults": (
        "study/mine", STUDY.replace("study:", "defaults: [override /recipe: cifr]\nstudy:", 1),
        ["recipe=cifr", "cifar?"],
    ),
    "an unknown group in its defaults": (
        "study/mine", STUDY.replace("study:", "defaults: [override /recpe: cifar]\nstudy:", 1), ["recpe", "recipe"],
    ),
    "a second choice in its defaults": (
        "study/mine", STUDY.replace("study:", "defaults: [/recipe: cifar]\nstudy:", 1), ["recipe", "override /recipe"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("group", sorted({Path(name).parent.name for name, *_ in WRONG.values()}))
def test_one_line_names_the_place_and_the_nearest_name(command_line, tmp_path, monkeypatch, group) -> None:
    monkeypatch.chdir(tmp_path)
    for what, (name, content, parts) in WRONG.items():
        if Path(name).parent.name != group:
            continue
        file = tmp_path / what / (name if "." in name else f"{name}.yaml")
        file.parent.mkdir(parents=True)
        file.write_text(content)
        outcome = command_line("--config-dir", what, f"{group}=mine", "output_dir=outputs")
        assert (outcome.code, outcome.out) == (1, ""), what
        assert outcome.err.startswith("srp-exp: ")
        assert outcome.err.count("\n") == 1 and len(outcome.err) <= 300, outcome.err
        assert [part for part in parts if part not in outcome.err] == [], outcome.err
        assert not list(tmp_path.glob("outputs/runs/*"))
