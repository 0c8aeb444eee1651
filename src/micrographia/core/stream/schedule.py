"""WindowSchedule: which rows are read for which steps, by arithmetic alone: a pure function of (seed, step).

Each epoch takes all rows in an order of its own and divides them into blocks of about equally many tokens. The window
of a block serves all that the block before left and a part of this block's own tokens, in an order of its own; about
half of the block's tokens are left for the next window, whose batches thus mix two blocks. A window needs its own block
and the one before, never more, so that any step is reached by reading two blocks. Nothing is served twice or lost: what
fills no batch at an epoch's end comes first in the next epoch.
"""

import hashlib
from bisect import bisect_right
from dataclasses import dataclass, field
from itertools import pairwise
from typing import NamedTuple

import torch
from jaxtyping import Int
from torch import Generator, Tensor

from micrographia.core.errors import BadConfig, UserError
from micrographia.core.runtime import batch_generator


class Window(NamedTuple):
    """Steps `first_step` to before `first_step + n_steps`, and the block that is read for them."""

    number: int
    first_step: int
    n_steps: int
    rows: Int[Tensor, "row"]
    """The block's rows, in the order in which they are read."""
    n_tokens: int
    """Of the block."""
    n_carried: int
    """Tokens left by the block before, all of which this window serves."""
    n_left: int
    """Tokens of this block that are left for the next window."""

    @property
    def n_own(self) -> int:
        """Tokens of this block that this window serves."""
        return self.n_tokens - self.n_left


@dataclass(frozen=True, slots=True, eq=False)
class WindowSchedule:
    """Batches of `batch` tokens from rows with `counts` tokens each, `n_blocks` blocks an epoch.

    Holds two orders of the rows, 16 bytes a row. Raises UserError where the rows have fewer tokens than a batch,
    BadConfig where blocks would be smaller than two batches.
    """

    counts: Int[Tensor, "row"]
    batch: int
    n_blocks: int
    seed: int
    total: int = field(init=False)
    _epochs: "dict[int, list[Window]]" = field(init=False, default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "total", int(self.counts.sum()))
        longest = int(self.counts.max()) if len(self.counts) else 0
        if self.batch < 1 or self.n_blocks < 1:
            raise BadConfig(f"Asked for {self.n_blocks} blocks of batches of {self.batch}. Give 1 or more of each.")
        if self.total < self.batch:
            raise UserError(
                f"Asked for batches of {self.batch:,} tokens; all {len(self.counts):,} rows have {self.total:,} that "
                f"count. Give at least {self.batch / max(self.total, 1):.1f} times as much text, or a smaller batch."
            )
        if self.n_blocks > most_blocks(self.total, self.batch, longest):
            raise BadConfig(
                f"Asked for {self.n_blocks} blocks of {self.total:,} tokens. A block holds two batches at least: "
                f"{most_blocks(self.total, self.batch, longest)} blocks at most."
            )

    def window(self, step: int) -> Window:
        """The window that serves this step."""
        if step < 0:
            raise BadConfig(f"Asked for the batch of step {step}. Steps count from 0.")
        windows = self._epoch(self.epoch(step))
        return windows[bisect_right([each.first_step for each in windows], step) - 1]

    def before(self, window: Window) -> Window | None:
        """The window before this one; None before the first."""
        if window.number == 0:
            return None
        epoch, place = divmod(window.number - 1, self.n_blocks)
        return self._epoch(epoch)[place]

    def epoch(self, step: int) -> int:
        """The epoch in whose windows this step lies: the one with e * total < (step + 1) * batch <= (e + 1) * total."""
        return ((step + 1) * self.batch - 1) // self.total

    def draws(self, window: Window) -> Generator:
        """The generator of a window: first of which of its own tokens it serves, then of the order."""
        return drawn(self.seed, "blocks", window.number)

    def _epoch(self, epoch: int) -> list[Window]:
        if epoch not in self._epochs:
            while len(self._epochs) > 1:
                self._epochs.pop(next(iter(self._epochs)))
            self._epochs[epoch] = self._planned(epoch)
        return self._epochs[epoch]

    def _planned(self, epoch: int) -> list[Window]:
        order = torch.randperm(len(self.counts), generator=drawn(self.seed, "rows", epoch))
        ends = self.counts[order].cumsum(0)
        wanted = torch.arange(1, self.n_blocks) * self.total // self.n_blocks
        cuts = [0, *(torch.searchsorted(ends, wanted) + 1).tolist(), len(order)]
        step, carried = epoch * self.total // self.batch, epoch * self.total % self.batch
        found = []
        for place, (first, last) in enumerate(pairwise(cuts)):
            rows = order[first:last]
            n_tokens = int(self.counts[rows].sum())
            kept = 0 if place == self.n_blocks - 1 else n_tokens // 2
            n_steps = (carried + n_tokens - kept) // self.batch
            left = carried + n_tokens - n_steps * self.batch
            found.append(Window(epoch * self.n_blocks + place, step, n_steps, rows, n_tokens, carried, left))
            step, carried = step + n_steps, left
        return found


def most_blocks(total: int, batch: int, longest: int) -> int:
    """How many blocks of at least two batches so many tokens make, where a row has up to `longest`."""
    return max(1, total // (2 * batch + longest))


def capacity(total: int, batch: int, longest: int, n_blocks: int) -> int:
    """Tokens that are in memory at most: a block, and what the one before left."""
    block = total if n_blocks == 1 else -(-total // n_blocks) + longest
    return block + batch if n_blocks == 1 else block + block // 2 + batch


def blocks_for(room: int, total: int, batch: int, longest: int) -> int | None:
    """The fewest blocks an epoch that fit into a buffer with room for so many tokens; None where none do."""
    if capacity(total, batch, longest, 1) <= room:
        return 1
    block = int((room - batch) / 1.5) - longest - 1
    n_blocks = -(-total // block) if block > 0 else total + 1
    return n_blocks if n_blocks <= most_blocks(total, batch, longest) else None


def drawn(seed: int, purpose: str, at: int) -> Generator:
    """A generator for one purpose at one place: the draws of two purposes have nothing in common."""
    own = int.from_bytes(hashlib.sha256(f"{purpose} {seed}".encode()).digest()[:7], "little")
    return batch_generator(own, at)
