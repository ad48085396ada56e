"""Parts of a network that a fine-tuning leaves as its weights had them."""

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from srp_exp.errors import UserError
from srp_exp.training.optimizer import classifier


def freeze(model: nn.Module, part: str) -> None:
    """Train no parameter of `part`: "backbone", all but the classifier, or "batch_norm".

    Batch norms of that part normalise by their running statistics, which stay. Raises UserError where `model` has no
    such part.
    """
    head = {id(parameter) for parameter in classifier(model)} if part == "backbone" else set()
    if part == "backbone" and not head:
        raise UserError(
            f"recipe.freeze=backbone: {type(model).__name__} has neither get_classifier() nor a module `classifier`"
        )
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm)]
    norms = [norm for norm in norms if not any(id(parameter) in head for parameter in norm.parameters())]
    if part == "batch_norm" and not norms:
        raise UserError(f"recipe.freeze=batch_norm: {type(model).__name__} has no batch norm; leave it out")
    for norm in norms:
        norm.eval()
    frozen = model.parameters() if part == "backbone" else (p for norm in norms for p in norm.parameters())
    for parameter in frozen:
        parameter.requires_grad_(id(parameter) in head)
