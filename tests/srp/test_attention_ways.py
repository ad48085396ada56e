"""Every way to write attention of attention_ways.py, and the table that it wrote."""

import warnings

import pytest

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # torch.jit.script is deprecated, and still written
    from attention_ways import BEGIN, DOCUMENT, END, WAYS, Way, check, table


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("way", WAYS, ids=[way.text for way in WAYS])
def test_way(way: Way) -> None:
    assert check(way) == []


@pytest.mark.filterwarnings("ignore")
def test_the_table_is_in_the_document() -> None:
    assert f"{BEGIN}\n{table()}\n{END}" in DOCUMENT.read_text()


def test_a_check_that_fails_says_so() -> None:
    """A way that is said to be left out but is converted, and the other way round."""
    converted = next(way for way in WAYS if way.refused is None)
    refused = next(way for way in WAYS if way.refused is not None)
    assert check(Way(converted.build, "", refused="a norm"))
    assert check(Way(refused.build, ""))
