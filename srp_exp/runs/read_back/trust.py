"""What a configuration that was read back may build: the targets that conf/ names, and classes of known kinds.

A checkpoint may come from anybody. Only what is built from its configuration could run code, and Hydra builds whatever
`_target_` names; so each target is looked up here first, without importing anything that isn't allowed. What a user's
own conf folder names (--config-dir) counts as conf/ does.
"""

import dataclasses
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from srp_exp.config.failures.explain import explain
from srp_exp.config.register import SCHEMAS
from srp_exp.config.schemas.run import Config
from srp_exp.datasets import DataSet
from srp_exp.datasets.augmentation import Augmentation
from srp_exp.errors import UserError
from srp_exp.runs.read_back.own_code import defines_own_class
from srp_exp.training.loggers.logger import Logger

MOST_CHARACTERS = 1_000_000
"""Of a stored configuration; ours have about 3,000."""


@dataclass(frozen=True)
class _Kind:
    """Classes that a group may build besides those that conf/ names: subclasses of `bases`, ours and a user's own.

    packages: whose classes of the kind may be built too: their constructors run no code that an argument names.
    """

    bases: tuple[Any, ...]
    packages: tuple[str, ...] = ()


_MODULES = _Kind((nn.Module,), ("torch.nn", "timm.layers"))
_OPTIMIZERS, _SCHEDULERS = _Kind((Optimizer,), ("torch.optim",)), _Kind((LRScheduler,), ("torch.optim.lr_scheduler",))
_CALLABLES = _Kind((Callable,))
KIND_OF_GROUP: dict[str, _Kind] = {
    "dataset": _Kind((DataSet, Augmentation)),
    "attention": _MODULES,
    "backbone": _MODULES,
    "srp": _CALLABLES,
    "optimizer": _OPTIMIZERS,
    "lr_schedule": _SCHEDULERS,
    "loss": _CALLABLES,
    "mixing": _CALLABLES,
    "logger": _Kind((Logger,)),
}

_HYDRA_KEYS: dict[str, tuple[Any, ...]] = {
    "_partial_": (True, False), "_recursive_": (True, False), "_convert_": ("none", "partial", "object", "all"),
}  # fmt: skip


def stored_config(text: Any, file: Path, conf_folders: Iterable[Path], trust_targets: bool) -> DictConfig:
    """The configuration `text` of `file`, plain values, whose targets may be built: in `conf_folders`, or of a kind.

    Raises UserError, which names the target and its place, for anything else; `trust_targets` allows every target.
    """
    config = _plain(text, file)
    if not trust_targets:
        named = named_targets(conf_folders)
        for group, values in config.items():
            _check(values, str(group), str(group), named, file)
    _check_types(config, file)
    return OmegaConf.create(config)


def named_targets(conf_folders: Iterable[Path]) -> dict[str, set[str]]:
    """By group the targets that its schemas, and the files in its folders, name."""
    named = {}
    for group, schemas in SCHEMAS.items():
        nodes: list[Any] = [OmegaConf.structured(schema) for schema in schemas.values()]
        nodes += [OmegaConf.load(path) for folder in conf_folders for path in (folder / group).rglob("*.yaml")]
        named[group] = {target for node in nodes for target in _targets(OmegaConf.to_container(node))}
    return named


def _plain(text: Any, file: Path) -> dict[str, Any]:
    """Plain values: no reference to others, as ${oc.env:HOME} and YAML's *, which mean something else elsewhere."""
    wrong = ""
    try:
        if not isinstance(text, str) or len(text) > MOST_CHARACTERS:
            wrong = "is no text of a usual length"
        elif any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text, Loader=yaml.SafeLoader)):
            wrong = "has aliases"
        else:
            config = OmegaConf.to_container(OmegaConf.create(text))
            lacking = [group for group in KIND_OF_GROUP if not isinstance(_item(config, group), dict)]
            references = [value for value in _strings(config) if "${" in value]
            if lacking:
                wrong = f"has no {', '.join(lacking)}"
            elif references:
                wrong = f"refers to other values, {references[0]}"
    except (yaml.YAMLError, OmegaConfBaseException, RecursionError, ValueError) as error:
        said = getattr(error, "problem", None) or str(error).strip().partition("\n")[0] or type(error).__name__
        wrong = f"can't be read ({said})"
    if wrong:
        raise UserError(f"{file}: its configuration {wrong}, so srp_exp didn't write it; nothing was built from it")
    assert isinstance(config, dict)
    return {str(key): value for key, value in config.items()}


def _check_types(config: dict[str, Any], file: Path) -> None:
    """Raise UserError where a value is of another type than its setting, as in a damaged file."""
    known = {field.name for field in dataclasses.fields(Config)} - KIND_OF_GROUP.keys()
    try:
        OmegaConf.merge(OmegaConf.structured(Config), {name: config[name] for name in known & config.keys()})
        for group, schemas in SCHEMAS.items():
            names = set(config[group])
            fitting = [s for s in schemas.values() if names == {field.name for field in dataclasses.fields(s)}]
            problems = [problem for schema in fitting if (problem := _misfit(group, schema, config[group]))]
            if fitting and len(problems) == len(fitting):
                raise problems[0]
    except OmegaConfBaseException as error:
        raise UserError(f"{file}: its configuration is damaged, or of another version ({explain(error)})") from error


def _misfit(group: str, schema: type[Any], values: dict[str, Any]) -> OmegaConfBaseException | None:
    try:
        OmegaConf.merge(OmegaConf.create({group: OmegaConf.structured(schema)}), {group: values})
    except OmegaConfBaseException as error:
        return error
    return None


def _item(config: Any, key: str) -> Any:
    return config.get(key) if isinstance(config, dict) else None


def _check(node: Any, place: str, group: str, named: Mapping[str, set[str]], file: Path) -> None:
    """Raise UserError for what Hydra would do with `node` that it may not."""
    for key, value in node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ():
        where = f"{place}.{key}"
        if key == "_target_":
            named_in_conf = isinstance(value, str) and value in named.get(group, ())
            if not (value is None or named_in_conf or _is_of_kind(value, KIND_OF_GROUP.get(group))):
                raise UserError(_refusal(f"{where}={value}", file))
        elif str(key).startswith("_") and str(key).endswith("_") and value not in _HYDRA_KEYS.get(str(key), ()):
            raise UserError(_refusal(f"{where}={value}", file))
        else:
            _check(value, where, group, named, file)


def _refusal(what: str, file: Path) -> str:
    return (
        f"{what}: {file} may not build that. Your own class: give the --config-dir whose file names it, and its folder "
        "in PYTHONPATH. A sender whom you trust: trust_targets=true"
    )


def _is_of_kind(target: Any, kind: _Kind | None) -> bool:
    """Whether `target` is a class of `kind`; imported is only what holds such a class, of ours or of the user's own."""
    module, _, name = target.rpartition(".") if isinstance(target, str) else ("", "", "")
    if kind is None or not module or not all(part.isidentifier() for part in target.split(".")):
        return False
    if any(f"{module}.".startswith(f"{package}.") for package in kind.packages):
        found = getattr(sys.modules.get(module), name, None)
        origins = kind.packages
    elif defines_own_class(module, name):
        found = getattr(import_module(module), name, None)
        origins = (module,)
    else:
        return False
    if not isinstance(found, type) or not issubclass(found, kind.bases):
        return False
    return any(f"{found.__module__}.".startswith(f"{origin}.") for origin in origins)


def _targets(node: Any) -> Iterator[str]:
    if isinstance(node, dict) and isinstance(node.get("_target_"), str):
        yield node["_target_"]
    for value in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        yield from _targets(value)


def _strings(node: Any) -> Iterator[str]:
    if isinstance(node, str):
        yield node
    for value in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        yield from _strings(value)
