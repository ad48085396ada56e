"""One line for what went wrong with a configuration: the value, the place, the nearest valid choice."""

import dataclasses
import difflib
import re
from collections.abc import Iterable, Iterator
from typing import Any

from hydra.errors import (
    ConfigCompositionException,
    InstantiationException,
    MissingConfigException,
    OverrideParseException,
)
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import (
    ConfigAttributeError,
    ConfigIndexError,
    ConfigKeyError,
    ConfigTypeError,
    InterpolationKeyError,
    InterpolationResolutionError,
    InterpolationToMissingValueError,
    MissingMandatoryValue,
    OmegaConfBaseException,
    ValidationError,
)
from yaml import YAMLError

from srp_exp.config.choices import BASES
from srp_exp.config.documented import in_brackets
from srp_exp.config.failures.imports import import_failure, own_place
from srp_exp.config.register import SCHEMAS
from srp_exp.config.schemas.run import Config
from srp_exp.config.schemas.training import RecipeConfig
from srp_exp.config.visible import visible
from srp_exp.errors import UserError

LONGEST = 280
"""Characters of a line, besides the name of the command: what is longer is no longer read."""

_SHOWN = 160
"""Characters of choices that are listed where none resembles the wrong one."""

_TOLD = {
    r"Missing mandatory value: ([\w.]+)": "{0} has no value: give one, as {0}=...",
    r"Could not delete from config\. '(.*)' does not exist": "{0} is not a setting{near}",
    r"Could not delete from config\. The value of '(.*)' is": "~{0}: {0} has another value; give yours, as {0}=...",
    r"Error merging override ~([^=]*)": "~{0}: it can't be deleted, as every setting has a value; give another",
    r"Could not append to config\. An item is already at '(.*)'": "+{0}: {0} exists already; leave out the +",
    r"force-add of config groups is not supported: '\+\+(.*)'": "++{0}: one is chosen already; leave out the ++",
    r"Multiple values for (\S*)\. ": "{0} is chosen twice: leave out the +, or in a file write `override /{0}: CHOICE`",
    r"Sweep parameters '(.*)' requires --multirun": "{0}: several values are a sweep, which needs -m before it",
    r"Ambiguous value for argument '(.*)'": "{0}: several values are a sweep, which needs -m; a list is in []",
    r"Could not override '(\w+)@\w+\.\w+'\.": "{0}: write `override /{0}@_global_.{0}: CHOICE`",
    r"Could not override '([^']*)'\.": "{0} is not a setting{near}",
    r"Additional config directory '(.*)' not found": "--config-dir={0}: there is no such folder",
}
"""What Hydra says in more than one line, or without a remedy: pattern -> what is said of it."""


def nearest(name: str, choices: Iterable[str], listed: bool = True) -> str:
    """ "; did you mean ..." with up to three choices that resemble `name`, else "; valid are ..." with all, if any."""
    valid = sorted({str(choice) for choice in choices if not str(choice).startswith("_")})
    similar = difflib.get_close_matches(name, valid, n=3, cutoff=0.7)
    similar = similar or [choice for choice in valid if choice.lower() == name.lower()]
    if similar or not listed:
        return f"; did you mean {' or '.join(similar)}?" if similar else ""
    text = ", ".join(valid)
    if len(text) > _SHOWN:
        text = f"{text[:_SHOWN].rpartition(',')[0]} and others: srp-exp --help"
    return f"; valid are {text}" if valid else ""


def explain(error: BaseException) -> str:
    """Describe an error of Hydra, OmegaConf, YAML or srp_exp in one line; never raises one itself."""
    try:
        line = _explain(list(_chain(error)))
    except Exception:  # an explanation that fails must not hide what it was to explain
        line = _first_line(error)
    return shortened(line)


def shortened(line: str) -> str:
    """One line of at most LONGEST characters; a longer one loses the beginnings of long paths, then its middle."""
    line = visible(" ".join(line.split()))
    if len(line) > LONGEST:
        line = re.sub(r"(?<!\S)(\w*=)?/\S{50,}(?=/\S)", r"\1...", line)
    half = LONGEST // 2 - 3
    return line if len(line) <= LONGEST else f"{line[:half]} ... {line[-half:]}"


def _explain(chain: list[BaseException]) -> str:
    message = str(chain[0])
    if mendable := next((cause for cause in chain if isinstance(cause, UserError)), None):
        return str(mendable)
    file = re.match(r"In '([^']*)': ", message)
    override = re.match(r"Error merging override ([^~\n]*)", message)
    place = f" (in {file[1]}.yaml)" if file and "/" in file[1] and not file[1].startswith("hydra/") else ""
    if isinstance(chain[0], InterpolationResolutionError):  # of the run's folder, or of a file of weights
        for cause in chain:
            if isinstance(cause, OSError) and cause.errno is not None:
                return f"{cause.filename}: {cause.strerror}"
    for cause in chain:
        line = _of_key(cause)
        if line and file and line.startswith(("experiment is not", "study.study is not", "study.hydra is not")):
            return f"{file[1]}.yaml: its first line has to be `# @package _global_`"
        if line:
            return line + place
    for pattern, told in _TOLD.items():
        found = re.search(pattern, message)
        if found:
            return told.format(found[1], near=nearest(found[1].rpartition("@")[0] or found[1], _all_settings())) + place
    for cause in chain:
        line = _of_value(cause, override[1] if override else "")
        if line:
            return line + place
    if not isinstance(chain[0], ConfigCompositionException):
        return message if isinstance(chain[0], ValueError | OSError) else _first_line(chain[0])
    said = [text for text in message.removeprefix(file[0] if file else "").splitlines() if text.strip()]
    return (said[1] if len(said) > 1 and said[0].endswith("raised while composing config:") else said[0]) + place


def _of_key(cause: BaseException) -> str:
    """The line for an error about an unknown name; empty for other errors."""
    match cause:
        case MissingConfigException(missing_cfg_file=str(path)):
            return _missing_file(path, cause.options or [])
        case InstantiationException():
            return _not_built(cause)
        case YAMLError():
            return _yaml_line(cause)
        case (
            ConfigKeyError(parent_node=DictConfig() as parent)
            | ConfigAttributeError(parent_node=DictConfig() as parent)
        ) if not isinstance(cause, MissingMandatoryValue):
            group, _, key = str(cause.full_key).partition(".")
            if group in BASES and key in {field.name for field in dataclasses.fields(BASES[group])}:
                return f"{cause.full_key} isn't in the file of this {group}: write +{cause.full_key}=... or add it"
            return f"{cause.full_key} is not a setting{_nearest_key(str(cause.key), parent)}"
    return ""


def _not_built(error: InstantiationException) -> str:
    """Why Hydra could not build an object."""
    inner, said = error.__cause__, re.search(r"target '([^']*)'", str(error))
    name = said[1] if said else "a class of the configuration"
    if str(error).startswith("Error locating"):
        return import_failure(name, error)
    if str(error).startswith("Expected a callable target"):
        return f"{str(error).partition(chr(10))[0]}: name a class or function in _target_"
    if inner is None:
        return str(error)
    if isinstance(inner, ValueError | OSError):  # a class that refuses its settings
        return explain(inner)
    place = own_place(inner)
    return f"{name}: {type(inner).__name__}: {inner}{f' (at {place})' if place else ''}"


def _of_value(cause: BaseException, override: str) -> str:
    """A line for an error about a value, which `override` of the command line may have set; empty for another."""
    match cause:
        case OverrideParseException():
            return _unreadable(cause)
        case MissingMandatoryValue() | InterpolationToMissingValueError():
            key = _first_line(cause).rpartition(": ")[2]
            return f"{key} has no value: give one, as {key}=..."
        case ValidationError(full_key=str(key)) if key:
            if cause.value == {} and override.startswith(f"{key}."):
                return f"{override}: {key} is a single value, and has no settings"
            if "is not a ListConfig" in str(cause):
                return f"{override or f'{key}={cause.value}'}: a list is written in brackets, as {key}=[{cause.value}]"
            meaning = in_brackets(cause.object_type, str(cause.key))
            return f"{override or f'{key}={cause.value}'}: {_first_line(cause)}{meaning}"
        case ConfigIndexError() if override:
            return f"{override}: {_first_line(cause)}; give the whole list, as [a,b]"
        case InterpolationKeyError():
            name = _first_line(cause).split("'")[1]
            if name in {field.name for field in dataclasses.fields(Config)}:  # every run has them
                return f"{name} was deleted, and {cause.full_key} refers to it: give {name} a value, as {name}=..."
            return f"{cause.full_key}: there is no {name} to refer to{nearest(name, _all_settings(), listed=False)}"
        case ConfigTypeError(full_key=str(key)) if key:
            return f"{key}: {_first_line(cause)}"
        case InterpolationResolutionError() if not isinstance(cause.__cause__, OmegaConfBaseException):
            return f"{cause.full_key}: {_first_line(cause)}"
    return ""


def _missing_file(path: str, options: Iterable[str]) -> str:
    group, _, name = path.rpartition("/")
    if group.startswith("hydra/schema/"):
        kind = group.rpartition("/")[2]
        return f"/{path}: there is no such schema{nearest(name, SCHEMAS.get(kind, SCHEMAS))}"
    if not group:
        return f"--config-name={name}: there is no such file"
    return f"{group}={name}: there is no such choice{nearest(name, options)}"


def _yaml_line(error: YAMLError) -> str:
    """File, line and problem."""
    mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None)
    if mark is None:
        return " ".join(str(error).split())
    context = f" {error.context}" if getattr(error, "context", None) else ""
    tab = "; indent with spaces" if "\\t" in str(problem) else ""
    return f"{mark.name}, line {mark.line + 1}: no valid YAML:{context} {problem}{tab}"


def _unreadable(error: OverrideParseException) -> str:
    said = [line for line in str(error).splitlines() if line.strip() and not line.startswith(("Error parsing", "See "))]
    why = said[0].partition(" while evaluating ") if said else ("", "", "")
    reason = f"; {said[0].partition(': ')[2]}" if why[1] else ""
    remedy = "" if reason else "; special characters need quotes, as 'name=\"a, b\"'"
    return f"{error.override}: can't be read as an override, which is name=value{reason}{remedy}"


def _all_settings() -> list[str]:
    """Dotted names of all settings of all schemas."""
    groups: dict[str, list[type[Any]]] = {
        "": [Config],
        "recipe.": [RecipeConfig],
        **{f"{group}.": list(s.values()) for group, s in SCHEMAS.items()},
    }
    return [f"{prefix}{f.name}" for prefix, schemas in groups.items() for s in schemas for f in dataclasses.fields(s)]


def _nearest_key(name: str, parent: DictConfig) -> str:
    """The nearest key of `parent`; where none has that very name, a key of that name further down."""
    keys = [str(key) for key in parent if key != "hydra"]
    nodes = {key: parent._get_node(key) for key in keys if not OmegaConf.is_missing(parent, key)}
    groups = {key: node for key, node in nodes.items() if isinstance(node, DictConfig) and not node._is_none()}
    below = [f"{key}.{name}" for key, node in groups.items() if name in node]
    return f"; did you mean {' or '.join(below)}?" if below else nearest(name, keys)


def _chain(error: BaseException) -> Iterator[BaseException]:
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__ or cause.__context__


def _first_line(error: BaseException) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
