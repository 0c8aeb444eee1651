"""Mixing: the activations of a window in memory, in slots that are filled again as they fall free.

What the block before left stays where it is; the next block is read into the other slots, so that no more than the
buffer is held and nothing is copied twice. Slots are a matter of memory alone: what a batch holds follows from the
schedule, however one came to it.
"""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Int
from torch import Tensor

from micrographia.core.errors import NonFiniteActivations
from micrographia.core.events import Progress, Watch, silent
from micrographia.core.sites import Site
from micrographia.core.stream.harvest import Harvested, Kept
from micrographia.core.stream.schedule import Window, WindowSchedule


@runtime_checkable
class Supply(Protocol):
    """Where activations come from: a model over rows of tokens, or shards on disk."""

    def count(self) -> Int[Tensor, "row"]:
        """How many tokens of each row there are."""
        ...

    def kinds(self) -> Mapping[Site, Kept]:
        """What there is of each token."""
        ...

    def passes(self, which: Int[Tensor, "row"], sites: Collection[Site] | None = None) -> Iterator[Harvested]:
        """The activations of these rows, in this order, at these Sites; None: at all."""
        ...


class _Loaded(NamedTuple):
    """A window in memory: the slots of its tokens in the order in which they are served, and of those left."""

    window: Window
    order: Tensor
    left: Tensor


@dataclass(slots=True)
class Mixer:
    """Serves the slots of any step, reading at most two blocks for it. One process, one step at a time."""

    supply: Supply
    schedule: WindowSchedule
    values: dict[Site, Tensor]
    """Site -> (slot, d)."""
    row: Tensor
    """The row of each slot."""
    watch: Watch = silent
    _loaded: _Loaded | None = None

    def slots(self, step: int) -> Int[Tensor, "batch"]:
        """Where the tokens of this step are. Reads a block where the step is in the next window, two elsewhere."""
        window = self.schedule.window(step)
        if self._loaded is None or self._loaded.window.number != window.number:
            self._load(window)
        assert self._loaded is not None
        at = (step - window.first_step) * self.schedule.batch
        return self._loaded.order[at : at + self.schedule.batch]

    def _load(self, window: Window) -> None:
        left = self._left_before(window)
        self._loaded = None  # an error in between leaves no half of a window
        free = torch.ones(len(self.row), dtype=torch.bool)
        free[left] = False
        own = self._read(window, free.nonzero()[: window.n_tokens, 0])
        draws = self.schedule.draws(window)
        own = own[torch.randperm(window.n_tokens, generator=draws)]
        served = torch.cat([left, own[: window.n_own]])
        self._loaded = _Loaded(window, served[torch.randperm(len(served), generator=draws)], own[window.n_own :])

    def _left_before(self, window: Window) -> Tensor:
        """The slots of what the block before left; it is read again where it is not the one in memory."""
        before = self.schedule.before(window)
        if before is None or not window.n_carried:
            return torch.zeros(0, dtype=torch.long)
        if self._loaded is not None and self._loaded.window.number == before.number:
            return self._loaded.left
        self._loaded = None
        own = self._read(before, torch.arange(before.n_tokens))
        return own[torch.randperm(before.n_tokens, generator=self.schedule.draws(before))][before.n_own :]

    def _read(self, window: Window, slots: Tensor) -> Tensor:
        """Fill these slots with the block; the slots of its tokens, in which good ones stand for bad ones."""
        at, bad = 0, torch.zeros(len(slots), dtype=torch.bool)
        for found in self.supply.passes(window.rows, self.values.keys()):
            here = slots[at : at + len(found.row)]
            for site, kept in self.values.items():
                kept.index_copy_(0, here.to(kept.device), found.values[site].to(kept))
            self.row[here] = found.row
            if found.bad is not None:
                bad[at : at + len(here)] = found.bad
            at += len(here)
            self.watch(Progress("read activations", at, len(slots), "token"))
        assert at == len(slots), "a supply gives as many tokens as it counts"
        return slots if not bool(bad.any()) else _replaced(slots, bad)


def _replaced(slots: Tensor, bad: Tensor) -> Tensor:
    """Good slots in the place of bad ones, one after the other. Raises NonFiniteActivations where none is good."""
    good = slots[~bad]
    if not len(good):
        raise NonFiniteActivations(
            f"Asked for activations; all {len(slots):,} of a block are NaN or infinite. Run the model in a wider dtype."
        )
    found = slots.clone()
    found[bad] = good[torch.arange(int(bad.sum())) % len(good)]
    return found
