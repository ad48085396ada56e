"""Parameter groups: which parameters decay."""

from torch import nn


def parameter_groups(model: nn.Module, weight_decay: float, decay_norm_and_bias: bool) -> list[dict[str, object]]:
    """Groups for a torch optimizer; vectors and scalars, that is norms and biases, decay only if told to."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    if decay_norm_and_bias:
        return [{"params": parameters, "weight_decay": weight_decay}]
    return [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
