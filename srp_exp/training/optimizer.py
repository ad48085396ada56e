"""Parameter groups: which parameters decay, and at what learning rate they are trained."""

from typing import Any

from torch import nn

from srp_exp.errors import UserError


def parameter_groups(
    model: nn.Module, weight_decay: float, decay_norm_and_bias: bool, lr: float | None = None, head_factor: float = 1.0
) -> list[dict[str, Any]]:
    """Groups for a torch optimizer; vectors and scalars, that is norms and biases, decay only if told to.

    The classifier is trained at `head_factor` times `lr`, in groups after those of the body, for fine-tuning, where it
    alone begins from nothing. Raises UserError where the network doesn't say which its classifier is.
    """
    head = {id(parameter) for parameter in classifier(model)} if head_factor != 1 else set()
    if head_factor != 1 and not head:
        raise UserError(
            f"optimizer.head_lr_factor: {type(model).__name__} has neither get_classifier() nor a module `classifier`; "
            "set it to 1"
        )
    groups = []
    for in_head in (False, True):
        for decays in (True, False):
            parameters = [
                p
                for p in model.parameters()
                if p.requires_grad and (id(p) in head) == in_head and (decay_norm_and_bias or p.ndim > 1) == decays
            ]
            group: dict[str, Any] = {"params": parameters, "weight_decay": weight_decay if decays else 0.0}
            if in_head and lr is not None:
                group["lr"] = head_factor * lr
            groups.append(group)
    return [group for group in groups if group["params"]]


def classifier(model: nn.Module) -> list[nn.Parameter]:
    """The parameters of the classifier: what timm's networks answer, or the module of that name in ours; or none."""
    found = model.get_classifier() if hasattr(model, "get_classifier") else getattr(model, "classifier", None)  # type: ignore[operator]
    parts = found if isinstance(found, tuple | list) else [found]
    return [p for part in parts if isinstance(part, nn.Module) for p in part.parameters()]
