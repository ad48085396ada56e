"""What is done with a network's answers when it is tested: the mirrored picture too, and some of the classes only."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class WithMirrored(nn.Module):
    """Answers (B, classes) with the log of the mean of the probabilities for each picture and for its mirror image."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        both = torch.stack([F.log_softmax(self.model(seen).float(), dim=1) for seen in (images, images.flip(-1))])
        return both.logsumexp(0) - torch.tensor(2.0).log()


def choose_among(model: nn.Module, classes: Tensor) -> None:
    """Let `model` answer with -inf for all but `classes`, (N,) int64: its probability is divided among them alone.

    The names of its modules stay, so that what measures them finds them.
    """

    def mask(_: nn.Module, __: object, logits: Tensor) -> Tensor:
        others = torch.ones(logits.shape[1], dtype=torch.bool, device=logits.device)
        others[classes.to(logits.device)] = False
        return logits.masked_fill(others, -torch.inf)

    model.register_forward_hook(mask)
