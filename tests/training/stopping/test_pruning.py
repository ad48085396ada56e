"""When a run of a search is given up."""

from typing import Any

import pytest

from srp_exp.training.stopping.pruning import bar_of, is_behind, read_bar, validations, write_bar


def history(*values: float | None) -> list[dict[str, Any]]:
    """Epochs from 1 on; None: not validated."""
    return [{"epoch": n, **({} if v is None else {"val/top1": v})} for n, v in enumerate(values, 1)]


def test_the_bar_is_the_median_of_enough_runs() -> None:
    runs = [validations(history(*of)) for of in ((0.1, None, 0.5), (0.3, None, 0.7), (0.2, None, 0.4))]
    assert bar_of(runs, fewest=3) == {1: 0.2, 3: 0.5}
    assert bar_of(runs, fewest=4) == {}
    assert bar_of([*runs, validations(history(0.4))], fewest=3) == {1: pytest.approx(0.25), 3: 0.5}


RUNS = [
    ((0.1,), True),
    ((0.2,), False),  # as good as the median
    ((0.5, 0.1), False),  # its best counts
    ((0.25, None), False),  # epoch 2 wasn't validated: judged at epoch 1
    ((0.25, 0.29), True),
    ((0.3, 0.3, 0.0), False),  # there is no bar yet
    ((), False),
]


def test_a_run_is_behind_whose_best_is_below_the_bar(tmp_path) -> None:
    for values, expected in RUNS:
        write_bar(tmp_path / "bar.json", {1: 0.2, 2: 0.3})
        assert is_behind(history(*values), read_bar(tmp_path / "bar.json")) is expected
        assert not is_behind(history(*values), read_bar(tmp_path / "absent.json"))
