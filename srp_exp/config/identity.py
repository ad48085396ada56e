"""The identity of a run: a hash of everything in its configuration that can change its result."""

import hashlib
import json
import re
from collections.abc import Iterator
from enum import Enum
from functools import cache
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue

from srp_exp.config.choices import completed
from srp_exp.config.schemas.fields import settings


def output_folder(config: DictConfig) -> Path:
    """What `output_dir` names; `~` is the home folder."""
    return Path(config.output_dir).expanduser()


def run_folder(config: DictConfig) -> Path:
    """Folder of a run: <output_dir>/runs/<run id>; in evaluation the folder that `run` or `checkpoint` names.

    Where the same training lies there already under other names of its choices (srp=ramped, or its values written
    out), it is that folder. The data set's name has to agree: it stands for the data, whose place doesn't count.
    """
    if config.run is not None:
        return Path(config.run)
    if isinstance(config.checkpoint, str):
        return Path(config.checkpoint).parent
    folder = output_folder(config) / "runs" / run_id(config)
    if folder.exists():
        return folder
    return min((f for f in folder.parent.glob(same_training(folder)) if f.is_dir()), default=folder)


def same_training(folder: Path) -> str:
    """The pattern that the names of all run folders of one training fit, however its choices are named."""
    return f"{folder.name.partition('-')[0]}-*-{folder.name.rpartition('-')[2]}"


def job_folder(config: DictConfig) -> Path:
    """Folder that Hydra makes for a job: that of the run; in evaluation the current one, so that it makes none."""
    return Path() if names_a_run(config) else run_folder(config)


def names_a_run(config: DictConfig) -> bool:
    """Whether the command line names something trained: run=FOLDER or checkpoint=FILE."""
    return config.run is not None or isinstance(config.checkpoint, str)


def run_id(config: DictConfig) -> str:
    """<dataset>-<backbone>-<attention>-<srp>-<hash>, the hash being ten hexadecimal digits."""
    groups = ("dataset", "backbone", "attention", "srp")
    names = [OmegaConf.select(config, f"{group}.name", default="unnamed") for group in groups]  # for `validate` to say
    identity = json.dumps(identity_of(config), sort_keys=True, separators=(",", ":"))
    digest = hashlib.sha256(identity.encode()).hexdigest()[:10]
    return re.sub(r"[^\w.-]", "_", "-".join([names[0].replace("-", "_"), *names[1:], digest]))


def identity_of(config: DictConfig) -> dict[str, Any]:
    """The part of the resolved configuration that the hash covers.

    It leaves out the fields that can't change the result (srp_exp.config.schemas.fields), the names of choices, which
    nothing reads, and a choice of which nothing else counts.
    """
    identity = _without_settings(completed(config), plain_values(config))
    for group in identity.values():
        if isinstance(group, dict):
            group.pop("name", None)
    return {key: value for key, value in identity.items() if value != {}}


def sha256_of_file(path: str | None) -> str | None:
    """SHA-256 of a file's content, which is what a run depends on; "absent" without the file, None for None."""
    if path is None:
        return None
    file = Path(path).expanduser()
    if not file.is_file():
        return "absent"  # composing stays possible; building the network is what fails
    status = file.stat()
    return _sha256(file, status.st_mtime_ns, status.st_size)


@cache
def _sha256(file: Path, _mtime_ns: int, _size: int) -> str:
    """Hash once while the file stays as it is: the hash of a run is asked for several times."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def plain_values(config: DictConfig) -> dict[str, Any]:
    """The configuration of a run resolved to plain values, without Hydra's part and the study that it may be for.

    Enumerations become their names. Floats are rounded to 12 digits, so that what is computed, such as
    0.30000000000000004, trains and is named as what is written, 0.3.
    """
    config = completed(config)
    keys = [str(key) for key in config if key not in ("hydra", "study")]
    first = sorted(keys, key=lambda key: key != "recipe")  # others take their values from it, and an error names it
    plain = {key: _rounded(_plain(config, key)) for key in first}
    return {key: plain[key] for key in keys}


def _plain(config: DictConfig, key: str) -> Any:
    value = config[key]  # a copy of the configuration without the other keys would take longer than all the rest
    if OmegaConf.is_config(value):
        try:
            return OmegaConf.to_container(value, resolve=True, throw_on_missing=True, enum_to_str=True)
        except MissingMandatoryValue as error:  # which names it within its group
            name = f"{key}.{str(error).splitlines()[0].rpartition(': ')[2].removeprefix(f'{key}.')}"
            raise MissingMandatoryValue(f"Missing mandatory value: {name}") from None
    return value.name if isinstance(value, Enum) else value


def _rounded(value: Any) -> Any:
    match value:
        case float():
            return float(f"{value:.12g}") + 0.0  # -0.0 is 0.0
        case dict():
            return {key: _rounded(child) for key, child in value.items()}
        case list():
            return [_rounded(child) for child in value]
    return value


def _without_settings(node: DictConfig, resolved: dict[Any, Any]) -> dict[str, Any]:
    kept, left_out = {}, settings(node)
    for key, value in resolved.items():
        if key in left_out:
            continue
        child = node._get_node(key)
        kept[key] = _without_settings(child, value) if isinstance(child, DictConfig) and value is not None else value
    return kept


def flat_identity(config: DictConfig) -> dict[str, str | float | bool]:
    """The identity in one level under dotted names, such as {"optimizer.lr": 0.1}: without classes, with names."""
    return {
        name: value if isinstance(value, str | float | int | bool) else str(value)
        for name, value in flattened(_without_settings(completed(config), plain_values(config)))
        if value is not None and not name.rpartition(".")[2].startswith("_")
    }


def flattened(values: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every setting of nested groups by its dotted name."""
    for key, value in values.items():
        if isinstance(value, dict):
            yield from flattened(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
