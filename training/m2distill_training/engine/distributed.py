"""Data-parallel training: several processes, started by torchrun, learn one run, each from its share of every batch.

Gradients are added up in one block after the backward pass. With 5 million values (21 MB), DDP's overlap of
communication and computation gains nothing, and the strategy receives the policy itself instead of a wrapper. All
processes make the same steps from the same weights. Only the first of them, the leader, writes the run folder, which
must be visible to all.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed
from torch import Tensor

from m2distill_policy.errors import UserError

RENDEZVOUS = ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")  # set by torchrun, besides WORLD_SIZE


@dataclass(frozen=True)
class DistributedContext:
    """Place of this process among those that learn together."""

    rank: int = 0
    size: int = 1
    device: str = "cpu"  # of the tensors in messages

    @property
    def leads(self) -> bool:
        return self.rank == 0

    def add_up(self, tensors: Sequence[Tensor]) -> None:
        """Replace every tensor, in place, by its sum over all processes."""
        if self.size == 1:
            return
        block = torch.cat([x.flatten() for x in tensors])
        torch.distributed.all_reduce(block)
        for x, total in zip(tensors, block.split([x.numel() for x in tensors]), strict=True):
            x.copy_(total.view_as(x))

    def any(self, here: bool) -> bool:
        """Return True if `here` is true in any process."""
        flag = torch.tensor([float(here)], device=self.device)
        self.add_up([flag])
        return bool(flag)

    def wait(self) -> None:
        """Wait until all processes have called this method."""
        if self.size > 1:
            torch.distributed.barrier()


def started_by_torchrun(device: str = "cpu") -> DistributedContext:
    """Return this process's place from the environment that torchrun sets; a single process without it.

    "cuda" becomes the process's own GPU. Raises UserError if the environment is incomplete.
    """
    size = _number("WORLD_SIZE", 1)
    if size == 1:
        return DistributedContext(device=device)
    if missing := [name for name in RENDEZVOUS if name not in os.environ]:
        raise UserError(
            f"WORLD_SIZE is {size} but {', '.join(missing)} {'are' if len(missing) > 1 else 'is'} not set, as if by a "
            "job system; start with torchrun, or unset WORLD_SIZE to train in one process"
        )
    if device == "cuda":
        device = f"cuda:{_number('LOCAL_RANK', 0)}"
    return DistributedContext(_number("RANK", 0), size, device)


def _number(name: str, default: int) -> int:
    text = os.environ.get(name, str(default))
    if not text.isdecimal() or (name == "WORLD_SIZE" and int(text) == 0):
        raise UserError(f"the environment variable {name} is {text!r}, expected a number; unset it or use torchrun")
    return int(text)


@contextmanager
def joined(device: str) -> Iterator[DistributedContext]:
    """Connect the processes: with NCCL if `device` is a GPU, otherwise with gloo."""
    context = started_by_torchrun(device)
    if context.size == 1:
        yield context
        return
    torch.distributed.init_process_group("nccl" if device.startswith("cuda") else "gloo")
    try:
        yield context
    finally:
        torch.distributed.destroy_process_group()
