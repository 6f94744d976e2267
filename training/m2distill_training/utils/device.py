"""Device of the training, and the precision of its convolutions."""

import re

import torch

from m2distill_policy.errors import UserError

BFLOAT16_INSTRUCTIONS = ("avx512_bf16", "amx_bf16", "bf16", "sve_bf16")  # names of torch.cpu.get_capabilities


def fast_precision(device: torch.device | str) -> str:
    """Return "bfloat16" if the device has instructions for it, else "float32".

    Without them bfloat16 is converted to float32 and back: on a processor with AVX2 alone, a gradient step of `small`
    takes nine times as long.
    """
    if torch.device(device).type == "cuda":
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        capabilities = torch.cpu.get_capabilities()
        fast = any(capabilities.get(name) for name in BFLOAT16_INSTRUCTIONS)
    return "bfloat16" if fast else "float32"


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
