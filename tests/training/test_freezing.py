"""Frozen parts keep every bit of their weights and statistics, and the rest is trained as on fixed features."""

from typing import Any

import pytest
import torch
from timm.layers import BatchNormAct2d, SEModule
from torch import nn

from srp_exp.datasets import BatchLoader
from srp_exp.errors import UserError
from srp_exp.evaluation.accuracy import evaluation_mode
from srp_exp.srp import apply_srp
from srp_exp.training.freezing import freeze

CLASSES = 3


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        norms = nn.BatchNorm2d(8), BatchNormAct2d(8)
        self.body = nn.Sequential(
            nn.Conv2d(3, 8, 3), norms[0], SEModule(8, rd_channels=4), nn.Conv2d(8, 8, 3), norms[1]
        )
        self.classifier = nn.Linear(8, CLASSES)
        for norm in norms:
            nn.init.uniform_(norm.running_mean)
            nn.init.uniform_(norm.weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.classifier(self.body(x).mean((2, 3)))


@pytest.mark.parametrize(
    ("part", "changes"),
    [("backbone", {"classifier"}), ("batch_norm", {"classifier", "body.0", "body.2.fc1", "body.2.fc2", "body.3"})],
)
def test_what_is_frozen_keeps_its_bits(part: str, changes: set[str], make_learner: Any, batches: BatchLoader) -> None:
    model = Network()
    apply_srp(model, 0.5, example_input=torch.zeros(2, 3, 8, 8))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    freeze(model, part)
    learner = make_learner(model, ema_decay=0.5, clip_norm=1.0)
    for batch in batches.epoch(0):
        learner.train_step(batch, watch=True)
        with evaluation_mode(model):  # which sets modes, and sets them back
            pass
    for state in (model.state_dict(), learner.evaluated_model.state_dict()):
        changed = {name.rpartition(".")[0] for name, value in state.items() if not torch.equal(value, before[name])}
        assert changed == changes


def test_a_frozen_backbone_makes_fixed_features(make_learner: Any, batches: BatchLoader) -> None:
    model, reference = Network(), Network()
    freeze(model, "backbone")
    learner = make_learner(model)
    head = reference.classifier
    reference.eval()
    optimizer = torch.optim.SGD(head.parameters(), lr=learner.lr, momentum=0.9, nesterov=True, weight_decay=1e-3)
    batch = next(iter(batches.epoch(0)))
    learner.train_step(batch)
    with torch.no_grad():
        features = reference.body(batch.images).mean((2, 3))
    nn.functional.cross_entropy(head(features), batch.labels).backward()
    optimizer.step()
    torch.testing.assert_close(model.classifier.weight, head.weight)


@pytest.mark.parametrize("part", ["backbone", "batch_norm"])
def test_a_network_without_the_part_is_refused(part: str) -> None:
    with pytest.raises(UserError, match=rf"recipe\.freeze={part}"):
        freeze(nn.Sequential(nn.Flatten(), nn.Linear(4, 2)), part)
