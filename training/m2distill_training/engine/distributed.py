"""Several processes that learn one run together, started by torchrun, each on its share of every batch.

Gradients are added up in one block after the backward pass: 5 million of them, 21 MB, are too few for DDP's overlap of
adding with computing to matter, and a strategy sees the policy itself rather than a wrapper. All processes make the
same steps from the same weights; the first of them, the leader, alone writes the run folder, which all must see.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed
from torch import Tensor


@dataclass(frozen=True)
class DistributedContext:
    rank: int = 0
    size: int = 1
    device: str = "cpu"  # where the messages are

    @property
    def leads(self) -> bool:
        return self.rank == 0

    def add_up(self, tensors: Sequence[Tensor]) -> None:
        """Every tensor becomes, in place, the sum of what all processes have there."""
        if self.size == 1:
            return
        block = torch.cat([x.flatten() for x in tensors])
        torch.distributed.all_reduce(block)
        for x, total in zip(tensors, block.split([x.numel() for x in tensors]), strict=True):
            x.copy_(total.view_as(x))

    def any(self, here: bool) -> bool:
        """Whether it is so in any process."""
        flag = torch.tensor([float(here)], device=self.device)
        self.add_up([flag])
        return bool(flag)

    def wait(self) -> None:
        """Until all processes have come here."""
        if self.size > 1:
            torch.distributed.barrier()


def started_by_torchrun(device: str = "cpu") -> DistributedContext:
    """This process's place, from the environment that torchrun sets; alone without it. "cuda" is its own GPU."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size > 1 and device == "cuda":
        device = f"cuda:{os.environ['LOCAL_RANK']}"
    return DistributedContext(int(os.environ.get("RANK", "0")), size, device)


@contextmanager
def joined(device: str) -> Iterator[DistributedContext]:
    """The processes, connected: by NCCL when `device` is a GPU, else by gloo."""
    ranks = started_by_torchrun(device)
    if ranks.size == 1:
        yield ranks
        return
    torch.distributed.init_process_group("nccl" if device.startswith("cuda") else "gloo")
    try:
        yield ranks
    finally:
        torch.distributed.destroy_process_group()
