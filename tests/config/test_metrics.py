"""Metrics by class stand on a console where they differ from those by picture."""

from srp_exp.config.metrics import is_share, worth_showing


def test_metrics_by_class_are_shown_where_class_sizes_differ() -> None:
    for split in ("", "val/"):
        names = [f"{split}{name}" for name in ("loss", "top1", "balanced_top1", "macro_f1")]
        differing = dict(zip(names, (1.0, 0.9, 0.5, 0.4), strict=True))
        assert worth_showing(differing) == differing
        assert list(worth_showing({**differing, names[2]: 0.9 + 1e-12})) == names[:2]


def test_splits_are_judged_one_by_one() -> None:
    metrics = {"val/top1": 0.9, "val/balanced_top1": 0.9, "test/top1": 0.8, "test/balanced_top1": 0.7}
    assert list(worth_showing(metrics)) == ["val/top1", "test/top1", "test/balanced_top1"]


def test_a_share_is_known_by_the_end_of_its_name() -> None:
    for name in ("top1", "val/balanced_top1", "robustness.clean_top1", "macro_f1"):
        assert is_share(name) and not is_share(f"{name}_per_class")
