"""Ranks: the processes that train one network together, and what they must agree on.

The gradients are averaged once a step, all of them in one tensor. DistributedDataParallel would begin during the
backward pass, but arranges its buckets anew after its first step: a resumed run would add in another order and end
with other bits.
"""

import os
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor, distributed

T = TypeVar("T")


@dataclass(frozen=True)
class Rank:
    """One of `size` processes that train together."""

    index: int = 0
    size: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this is the one that writes and tells."""
        return self.index == 0

    @torch.no_grad()
    def average(self, tensors: Sequence[Tensor]) -> None:
        """Replace every tensor by its mean over the ranks."""
        if self.size == 1:
            return
        flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
        distributed.all_reduce(flat)
        flat /= self.size
        for tensor, mean in zip(tensors, flat.split([tensor.numel() for tensor in tensors]), strict=True):
            tensor.copy_(mean.reshape(tensor.shape))

    def gather(self, value: T) -> list[T]:
        """Every rank's value, in their order."""
        if self.size == 1:
            return [value]
        values: list[T] = [value] * self.size
        distributed.all_gather_object(values, value)
        return values


ALONE = Rank()


@contextmanager
def joined() -> Generator[tuple[Rank, torch.device]]:
    """This process's rank and device, from what the launcher wrote into the environment.

    The CPU's cores are shared out among the ranks of a machine.
    """
    local, here = int(os.environ["LOCAL_RANK"]), int(os.environ["LOCAL_WORLD_SIZE"])
    device = torch.device("cpu")
    if torch.cuda.is_available():
        device = torch.device("cuda", local)
        torch.cuda.set_device(device)
    torch.set_num_threads(max(1, torch.get_num_threads() // here))
    distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    yield Rank(distributed.get_rank(), distributed.get_world_size()), device
    distributed.destroy_process_group()
