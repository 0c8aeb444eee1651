"""Ranks: the processes that train together, each on its rows of every batch (torchrun; one process by default)."""

from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor

from micrographia.core.errors import BadShape


@dataclass(frozen=True, slots=True)
class Ranks:
    """This process among those that train together."""

    rank: int = 0
    size: int = 1

    def sum(self, value: Tensor) -> Tensor:
        """The sum over all processes, in place."""
        if self.size > 1:
            dist.all_reduce(value)
        return value

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


ALONE = Ranks()


def current_group() -> Ranks:
    """The processes of torch.distributed where it was set up (init_process_group under torchrun), else this one."""
    if dist.is_available() and dist.is_initialized():
        return Ranks(dist.get_rank(), dist.get_world_size())
    return ALONE
