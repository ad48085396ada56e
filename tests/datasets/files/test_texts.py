"""Texts behave as the list of the same strings."""

import pickle

import pytest

from srp_exp.datasets.files.texts import Texts


@pytest.mark.parametrize("texts", [[], [""], ["a", "", "b c"], ["ünï/çödé.JPEG", "\udcff raw byte", "x" * 300]])
def test_they_are_as_a_list(texts):
    packed = Texts.of(iter(texts))
    assert len(packed) == len(texts)
    assert list(packed) == texts
    assert [packed[position] for position in range(-len(texts), len(texts))] == texts * 2
    assert packed[1:] == texts[1:]
    assert list(pickle.loads(pickle.dumps(packed))) == texts
    assert Texts.of(packed) is packed
    with pytest.raises(IndexError):
        packed[len(texts)]
