"""A copy of a model that a search may run as it likes."""

import copy
import types
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd
from torch.nn.utils.parametrize import type_before_parametrizations
from torch.utils._pytree import tree_leaves

from srp_exp.errors import UserError


def twin_of(model: nn.Module, dtype: torch.dtype, training: bool) -> nn.Module:
    """A deep copy of `model` in `dtype`, in which nothing hides what follows it.

    A parameter of equal numbers, not finite, or on the meta device gets random values: a zero hides what follows it; a
    gain of 1, or weights of 1 / (H * W), leave or make a mean only until they are trained. What is on the meta device
    comes to the CPU. Torch's own modules, but for dropout, are in evaluation mode, the user's in training mode where
    `training`.

    Raises:
        UserError: the model can't be copied.
    """
    memo: dict[int, Any] = {}
    functions: list[types.FunctionType] = []
    for module in model.modules():
        if isinstance(module, torch.jit.ScriptModule):
            continue
        parameters = {id(parameter) for parameter in module.parameters(recurse=False)}
        for leaf in tree_leaves(list(vars(module).values())):
            if id(leaf) in memo:
                continue
            if isinstance(leaf, Tensor):
                value = _stand_in(leaf.detach(), dtype, id(leaf) in parameters)
                memo[id(leaf)] = nn.Parameter(value, False) if isinstance(leaf, nn.Parameter) else value
            elif isinstance(leaf, types.FunctionType):
                functions.append(leaf)
    for function in functions:  # a forward or a hook that refers to the model is to refer to the copy
        if id(function) not in memo and (function.__closure__ or function.__defaults__ or function.__kwdefaults__):
            memo[id(function)] = _unbound(function)
            held = [cell.cell_contents for cell in function.__closure__ or ()]
            functions += [one for one in held if isinstance(one, types.FunctionType)]
    try:
        twin = copy.deepcopy(model, memo)
        for function in functions:
            if id(function) in memo:
                _bind(memo[id(function)], function, memo)
    except Exception as error:  # of whatever a foreign object does when it is copied
        reason = (str(error).splitlines() or [type(error).__name__])[0][:120]
        raise UserError(
            f"{type(model).__name__} can't be deep-copied, to be looked at ({reason}): mend that"
        ) from error
    for module in twin.modules():
        module.training = training and (isinstance(module, _DropoutNd) or not is_of_torch(module))
        module.training &= not isinstance(module, _BatchNorm)  # which would mix the images
    return twin


def is_of_torch(module: nn.Module) -> bool:
    """Whether its class is torch's own."""
    return type_before_parametrizations(module).__module__.startswith("torch.nn.")


def _unbound(function: types.FunctionType) -> types.FunctionType:
    cells = tuple(types.CellType() for _ in function.__closure__ or ())
    new = types.FunctionType(function.__code__, function.__globals__, function.__name__, None, cells)
    new.__dict__.update(function.__dict__)
    return new


def _bind(new: types.FunctionType, function: types.FunctionType, memo: dict[int, Any]) -> None:
    for old_cell, cell in zip(function.__closure__ or (), new.__closure__ or (), strict=True):
        cell.cell_contents = copy.deepcopy(old_cell.cell_contents, memo)
    new.__defaults__ = copy.deepcopy(function.__defaults__, memo)
    new.__kwdefaults__ = copy.deepcopy(function.__kwdefaults__, memo)


def _stand_in(value: Tensor, dtype: torch.dtype, is_parameter: bool) -> Tensor:
    if not value.is_floating_point():
        return torch.zeros(value.shape, dtype=value.dtype) if value.is_meta else value.clone()
    if not value.is_meta:
        hides = value.numel() > 0 and bool((value == value.flatten()[:1]).all() or not value.isfinite().all())
        if not (is_parameter and hides):
            return value.to(dtype, copy=True)
    device = torch.device("cpu") if value.is_meta else value.device
    if value.dim() < 2:  # a gain, a bias, a mean or a variance
        return torch.rand(value.shape, dtype=dtype, device=device) + 0.5
    fan_in = max(1, value.shape[1:].numel())
    # Rows overlap in memory: a network of a billion parameters on the meta device shall not need as much.
    numbers = torch.randn(value.shape[0] + fan_in, dtype=dtype, device=device) * (2 / fan_in) ** 0.5
    strides = torch.empty(value.shape[1:], device="meta").stride()
    stand_in: Tensor = numbers.as_strided(value.shape, (1, *strides))
    return stand_in
