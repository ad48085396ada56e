"""Choose attention modules by their class or by their name.

A class or a name pattern (as of the shell: `*` stands for anything, dots too) means the modules that match it and all
that lie in them, so the class of a block or the name of a stage will do. Of these it chooses

- the attention modules that are found without a choice too: a pooled value multiplies the map it was pooled from;
- where there are none of these, the modules in which a pooled value comes back to its map in another way, such as
  a sum or an einsum: here the user's word counts. A classifier's pooling never comes back to its map.
"""

from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import TypeAlias

from torch import nn

from srp_exp.errors import UserError
from srp_exp.srp.finding.findings import Pooling

Selector: TypeAlias = type[nn.Module] | str
Where: TypeAlias = Selector | Sequence[Selector]
"""A class, a name pattern such as "layer4.*.se", or several of them."""


def choose(model: nn.Module, poolings: list[Pooling], where: Where | None) -> list[Pooling]:
    """Return those `poolings` of `model`, in their order, that `where` chooses: all that gate their map if it is None.

    Raises:
        ValueError: a class or a pattern chooses nothing.
    """
    if where is None:
        return [pooling for pooling in poolings if pooling.gates]
    chosen: list[Pooling] = []
    selectors = [where] if isinstance(where, str | type) else list(where)
    if not selectors:
        raise UserError(f"where={where!r} names nothing: give a class or a pattern of names, or None for all attention")
    for selector in selectors:
        named = [pooling for pooling in poolings if _matches(model, pooling.module, selector)]
        if not named:
            name = selector if isinstance(selector, str) else selector.__name__
            raise UserError(
                f"where={name!r} chooses no attention module of {type(model).__name__}: {_summary(model, poolings)}"
            )
        chosen += [pooling for pooling in named if pooling.gates] or named
    return [pooling for pooling in poolings if pooling in chosen]


def _matches(model: nn.Module, name: str, selector: Selector) -> bool:
    """Whether the module `name`, or one that it lies in, is of the class or has a name of the pattern `selector`."""
    parts = name.split(".") if name else []
    paths = [".".join(parts[:length]) for length in range(len(parts) + 1)]
    if isinstance(selector, str):
        return any(fnmatchcase(path, selector) for path in paths)
    return any(isinstance(model.get_submodule(path), selector) for path in paths)


def _summary(model: nn.Module, poolings: list[Pooling]) -> str:
    """The classes of the modules that can be chosen, each with the number and the first name."""
    names: dict[str, list[str]] = {}
    for pooling in poolings:
        names.setdefault(type(model.get_submodule(pooling.module)).__name__, []).append(pooling.module)
    kinds = [f"{len(set(paths))} {kind} such as {paths[0]!r}" for kind, paths in names.items()]
    return f"it can choose {', '.join(kinds)}" if kinds else "it has none to choose"
