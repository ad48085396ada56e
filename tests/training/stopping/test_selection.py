"""Which epoch is the best, and when a training ends early, against values looked through by hand."""

from srp_exp.training.stopping.selection import is_best, is_hopeless


def history_of(top1: list[float | None]) -> list[dict[str, float]]:
    return [{"epoch": epoch} | ({} if v is None else {"val/top1": v}) for epoch, v in enumerate(top1, 1)]


BEST_EPOCHS = [
    ([0.0, 0.0, 0.0], [1]),
    ([None, 0.4, 0.4], [2]),
    ([0.4, None, 0.6], [1, 3]),
]


def test_the_first_of_the_highest_is_the_best() -> None:
    for top1, best_epochs in BEST_EPOCHS:
        history = history_of(top1)
        found = [epoch for epoch in range(1, 4) if is_best(history[:epoch], "val/top1")]
        assert found == best_epochs
        assert not any(is_best(history[:epoch], None) for epoch in range(1, 4))
        assert not any(is_best(history[:epoch], "val/top5") for epoch in range(1, 4))


ENDS = [
    ([0.5, 0.4, 0.4, 0.3], 3, 4),
    ([0.5, 0.4, 0.4, 0.3], 4, None),
    ([0.5, 0.4, 0.6, 0.6, 0.5], 2, 5),
    ([0.5, None, 0.5, None, 0.4, None], 2, 5),  # epochs without an evaluation don't count
    ([0.5, 0.4, 0.3], None, None),
]


def test_a_training_ends_when_patience_values_bring_no_better_one() -> None:
    for top1, patience, ends_after in ENDS:
        history = history_of(top1)
        ends = [epoch for epoch in range(len(top1) + 1) if is_hopeless(history[:epoch], "val/top1", patience)]
        assert (ends[0] if ends else None) == ends_after
