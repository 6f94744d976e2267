"""Device of the training."""

import re

import torch

from m2distill_policy.errors import UserError


def usable_device(name: str) -> str:
    """Return the device of that name; "auto" is a GPU if there is one. Raises UserError for an unusable one."""
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if not re.fullmatch(r"cpu|cuda(:\d+)?", name):
        raise UserError(f"unknown device {name!r} (allowed: auto, cpu, cuda, or one GPU as in cuda:1)")
    try:
        torch.empty(1, device=name)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"device {name!r} cannot be used here ({reason}); use --device cpu") from None
    return name
