"""Names of classes and labels, whatever set they are of."""

import unicodedata

import numpy as np
import pytest

from srp_exp.datasets.labels import check_classes, check_numbers, refuse_unknown
from srp_exp.errors import UserError

NFC, NFD = (unicodedata.normalize(form, "Käfer") for form in ("NFC", "NFD"))


def check(names, train=None, test=(0,)):
    labels = range(len(names)) if train is None else train
    return check_classes(names, {"train": np.array(labels), "test": np.array(test)}, "here")


def test_names_that_could_not_be_told_apart_or_written_are_refused():
    for names, said in (
        (["cat", "caf\udce9"], r"name of class 1, 'caf\\udce9', isn't UTF-8.*convmv"),
        (["cat", ""], r"class 1 has the name ''"),
        (["cat", "do\0g"], r"class 1 has the name 'do\\x00g'"),
        (["cat", "dog", "cat"], "class 'cat' occurs twice"),
        ([NFC, NFD, "cat"], r"class 'K\\xe4fer' and 'Ka\\u0308fer' differ in their Unicode form only"),
        (["cat"], "all pictures are of one class, 'cat'"),
    ):
        with pytest.raises(UserError, match=rf"^here: .*{said}"):
            check(names)


def test_one_class_is_refused_however_many_are_named():
    with pytest.raises(UserError, match="all pictures are of one class, 'dog'"):
        check(["cat", "dog"], train=[1, 1, 1], test=[0, 1])


def test_labels_outside_the_classes_are_refused():
    for part, labels in (("train", [0, 1, 3]), ("train", [0, 1, -1]), ("test", [0, 1, 3])):
        with pytest.raises(UserError, match=rf"1 labels are outside the 3 classes.*{part} row 2: {labels[-1]}"):
            check(["a", "b", "c"], **{part: labels})


def test_names_that_differ_in_case_or_spaces_are_noted_and_kept():
    notes = check(["a", "A", "b", "b "], test=[0, 1, 2, 3])
    assert [[name in note for name in ("'a' and 'A'", "'b' and 'b '")] for note in notes] == [
        [True, False],
        [False, True],
    ]


def test_classes_without_pictures_are_noted():
    (note,) = check(["a", "b", "c"], test=[2])
    assert "test has no picture of 2 classes (a, b)" in note


def test_integers_number_classes_if_half_of_them_occur():
    for fine in ([], [0, 1, 1], [1, 2, 3], [0, 3], [0, 1, 2, 4, 5, 7]):
        check_numbers(np.array(fine, np.int64), "label", "here")
    for labels in ([0, 10**12], [0, 10**6], [5, 6], [0, 4], [-1, 0, 1]):
        with pytest.raises(UserError, match=r"here: column target has \d different labels from .* to .*choose"):
            check_numbers(np.array(labels), "target", "here")


def test_a_class_that_train_lacks_is_named_with_what_differs():
    refuse_unknown([NFC, "Cat"], [NFC, "Cat"], "test", "here")
    for found, said in (
        (NFD, r"'Ka\\u0308fer' is 'K\\xe4fer' in train, in another Unicode form"),
        ("cat", "'cat' is 'Cat' in train, in another case"),
        ("Cat ", "'Cat ' is 'Cat' in train, in another way of writing"),
        ("dog", r"test has classes that train lacks \(dog\).*no label"),
    ):
        with pytest.raises(UserError, match=said):
            refuse_unknown([found, "Cat"], [NFC, "Cat"], "test", "here")
