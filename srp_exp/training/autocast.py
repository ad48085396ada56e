"""The precision of a forward pass, in training and evaluation."""

import torch

_DTYPES = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """The autocast context of a precision: fp32 (none), bf16 or fp16."""
    dtype = _DTYPES[precision]
    return torch.autocast(device.type, dtype, enabled=dtype is not None)
