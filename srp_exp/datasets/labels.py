"""Names of classes and labels: what is refused, and what is noted, of every kind of data set."""

import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from srp_exp.errors import UserError, first_few


def check_classes(
    names: Sequence[str],
    parts: Mapping[str, NDArray[np.int64]],
    place: object,
    name_of: Callable[[str, int], str] = "{0} row {1}".format,
) -> tuple[str, ...]:
    """Notes on what is unusual about the classes of a data set.

    names: one per label. parts: the labels, (N,), of each split by its name; "train" has to be one. place: where the
    set is, for messages. name_of: of a picture, by its split and position there. Raises UserError where a name is
    empty, isn't UTF-8 or occurs twice, in the same or another Unicode form; where a label is none of the classes; and
    where there is one class only.
    """
    for label, name in enumerate(names):
        if re.search("[\ud800-\udfff]", name):  # bytes that Python couldn't decode
            raise UserError(
                f"{place}: the name of class {label}, {name!a}, isn't UTF-8, which predictions and tables are "
                f"written in; rename it, for example with convmv -f latin1 -t utf8"
            )
        if not name or "\0" in name:
            raise UserError(f"{place}: class {label} has the name {name!a}; give it another")
    for one, other in _pairs(names, _composed):
        how = "occurs twice" if one == other else f"and {other!a} differ in their Unicode form only"
        raise UserError(f"{place}: class {one!a} {how}; rename one, or join the two")
    for part, labels in parts.items():
        wrong = np.flatnonzero((labels < 0) | (labels >= len(names)))
        if len(wrong):
            found = first_few([f"{name_of(part, row)}: {labels[row]}" for row in wrong.tolist()])
            raise UserError(
                f"{place}: {len(wrong):,} labels are outside the {len(names)} classes, counted from 0 "
                f"({found}); the lists are damaged or belong to another set: mend or fetch them again"
            )
    counts = {part: np.bincount(labels, minlength=len(names)) for part, labels in parts.items()}
    if np.count_nonzero(counts["train"]) == 1:
        only = names[int(counts["train"].argmax())]
        raise UserError(
            f"{place}: all pictures are of one class, {only!r}, and training needs at least two; is it the folder or "
            f"column of the classes?"
        )
    notes = [
        f"{place}: classes {one!r} and {other!r} differ in case or spaces only; they are taken as two"
        for one, other in _pairs(names, _folded)
    ]
    for part, count in counts.items():
        unseen = [names[label] for label in np.flatnonzero(count == 0).tolist()]
        if unseen and len(parts[part]):
            notes.append(f"{place}: {part} has no picture of {len(unseen):,} classes ({first_few(unseen)})")
    return tuple(notes)


def check_numbers(labels: NDArray[np.int64], column: str, place: object) -> None:
    """Raise UserError unless integer labels, (N,), that no list names can number classes 0, 1, ...

    They can where at least half of the numbers from 0 to the highest occur: a network has an output for each.
    """
    if not len(labels):
        return
    distinct, lowest, highest = len(np.unique(labels)), int(labels.min()), int(labels.max())
    if lowest < 0 or highest + 1 > 2 * distinct:
        raise UserError(
            f"{place}: column {column} has {distinct:,} different labels from {lowest:,} to {highest:,}, which don't "
            f"number classes 0, 1, ...; choose another column, number the classes from 0, or make the labels texts"
        )


def refuse_unknown(found: Iterable[str], known: Iterable[str], part: str, place: object) -> None:
    """Raise UserError where the split `part` has names of classes that aren't among the `known` ones, train's."""
    known = set(known)
    unknown = sorted(set(found) - known)
    if not unknown:
        return
    alike = {_folded(name): name for name in known}
    similar = [
        f"{name!a} is {other!a} in train, in another {_difference(name, other)}"
        for name in unknown
        if (other := alike.get(_folded(name))) is not None
    ]
    if similar:
        raise UserError(f"{place}: {part} writes classes in another way than train ({first_few(similar)}); rename them")
    raise UserError(
        f"{place}: {part} has classes that train lacks ({first_few([ascii(name)[1:-1] for name in unknown])}), so they "
        f"have no label; put pictures of them into train, or remove them from {part}"
    )


def _composed(name: str) -> str:
    return unicodedata.normalize("NFC", name)


def _folded(name: str) -> str:
    """What names share that look the same but for case and spaces."""
    return " ".join(unicodedata.normalize("NFKC", name).casefold().split())


def _difference(one: str, other: str) -> str:
    if _composed(one) == _composed(other):
        return "Unicode form"
    return "case" if one.casefold() == other.casefold() else "way of writing"


def _pairs(names: Sequence[str], form: Callable[[str], str]) -> list[tuple[str, str]]:
    """The names whose form is that of an earlier one, each after that one."""
    first: dict[str, str] = {}
    pairs = []
    for name in names:
        if form(name) in first:
            pairs.append((first[form(name)], name))
        first.setdefault(form(name), name)
    return pairs
