"""How long a run takes is measured with its own settings, a whole batch of them where that takes no minutes."""

from types import SimpleNamespace
from typing import Any

import pytest
from omegaconf import OmegaConf

from srp_exp.config.identity import plain_values
from srp_exp.runs import rehearsal
from srp_exp.training.learner import Learner

SETTINGS = (
    "dataset=synthetic", "dataset.train_size=768", "dataset.test_size=16", "dataset.image_size=[16,16]",
    "backbone.depth=8", "recipe.batch_size=64", "recipe.epochs=2", "recipe.warmup_epochs=0", "device=cpu",
)  # fmt: skip


@pytest.mark.parametrize(
    ("seconds", "expected", "sizes"),
    [
        # 24 steps. One that takes as long whatever its images are would seem to take four times that, from 16 of them.
        (lambda images: 0.25, 24 * 0.25, [16, 64]),
        (lambda images: images / 8, 24 * 64 / 8, [16]),  # a whole batch would take 32 s
    ],
    ids=["fast", "slow"],
)
def test_a_step_is_timed_with_a_whole_batch(
    compose: Any, monkeypatch: pytest.MonkeyPatch, seconds: Any, expected: float, sizes: list[int]
) -> None:
    clock, seen = [0.0], list[int]()

    def step(self: Learner, batch: Any) -> None:
        seen.append(len(batch.images))
        clock[0] += seconds(len(batch.images))

    monkeypatch.setattr(Learner, "train_step", step)
    monkeypatch.setattr(rehearsal, "time", SimpleNamespace(perf_counter=lambda: clock[0]))
    assert rehearsal.rehearse(OmegaConf.create(plain_values(compose(*SETTINGS)))) == pytest.approx(expected)
    assert list(dict.fromkeys(seen)) == sizes
