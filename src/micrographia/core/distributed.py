"""Processes that compute together, each on its part of every batch: `torchrun`, or one process by default.

`joined` makes a process one of those that torchrun started; `current_group` is how a training finds the others. It is
the only place that talks to torch.distributed. Tested with two processes of one machine on gloo, on CPUs.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor

from micrographia.core.errors import BadShape

BY_TORCHRUN = {"RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"}
"""The environment variables by which its processes find each other."""
PATIENCE = timedelta(days=7)
"""How long a process waits for another, which may train a language model or evaluate meanwhile."""


@dataclass(frozen=True, slots=True)
class Ranks:
    """This process among those that train together."""

    rank: int = 0
    size: int = 1

    def sum(self, value: Tensor) -> Tensor:
        """The sum over all processes, in place; the same bits in each."""
        if self.size > 1:
            dist.all_reduce(value)
        return value

    def any(self, own: bool) -> bool:
        """Whether it is so in some process."""
        return own if self.size == 1 else bool(self.sum(torch.tensor(int(own))))

    def from_first(self, value: Tensor) -> Tensor:
        """The value of the first process, in place."""
        if self.size > 1:
            dist.broadcast(value, 0)
        return value

    def gather(self, value: Tensor) -> Tensor:
        """The values of all processes, which have one shape, along the last axis in the order of ranks."""
        if self.size == 1:
            return value
        parts = [torch.empty_like(value) for _ in range(self.size)]
        dist.all_gather(parts, value.contiguous())
        return torch.cat(parts, -1)

    def own_rows(self, batch: Tensor) -> Tensor:
        """This process's rows of (..., batch, d): a contiguous part, the same number for each. Raises BadShape."""
        rows = batch.shape[-2]
        if rows % self.size:
            raise BadShape(f"A batch of {rows} rows cannot be shared by {self.size} processes. Give a multiple.")
        each = rows // self.size
        return batch[..., self.rank * each : (self.rank + 1) * each, :]

    def wait(self) -> None:
        """Go on when all processes have come here."""
        self.any(False)

    @contextmanager
    def first_before_others(self) -> Iterator[None]:
        """The block is run by the first process, and when it is through by the others, which find what it wrote."""
        if self.rank > 0:
            self.wait()
        yield
        if self.rank == 0:
            self.wait()


ALONE = Ranks()


def current_group() -> Ranks:
    """The processes of torch.distributed where it was set up (by `joined`, or by the user), else this one."""
    if dist.is_available() and dist.is_initialized():
        return Ranks(dist.get_rank(), dist.get_world_size())
    return ALONE


@contextmanager
def joined() -> Iterator[Ranks]:
    """Join the processes that torchrun started, over gloo, for the length of the block; alone where there are none.

    Where torch.distributed is set up already, that group is taken as it is.
    """
    alone = not os.environ.keys() >= BY_TORCHRUN or os.environ["WORLD_SIZE"] == "1"
    if alone or current_group().size > 1:
        yield current_group()
        return
    dist.init_process_group("gloo", timeout=PATIENCE)
    try:
        yield current_group()
    finally:
        dist.destroy_process_group()
