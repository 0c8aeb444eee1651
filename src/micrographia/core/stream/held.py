"""A supply that fits in memory twice: read once, in the order of its rows, then served from there in every pass.

So a short text is read by the model once, however often it is trained on.
"""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Int
from torch import Tensor

from micrographia.core.events import Progress, Watch, silent
from micrographia.core.sites import Site
from micrographia.core.stream.harvest import Harvested, Kept
from micrographia.core.stream.mixing import Supply

ROWS = 64
"""That are served at once."""


class _Held(NamedTuple):
    values: dict[Site, Tensor]
    bad: Tensor
    first: Tensor
    """Where the tokens of each row begin."""


@dataclass(slots=True)
class HeldSupply:
    """`supply` at these Sites, all of it kept at the first pass as `kept` says. Memory: that of all its tokens."""

    supply: Supply
    kept: Mapping[Site, Kept]
    watch: Watch = silent
    _all: _Held | None = None

    def count(self) -> Int[Tensor, "row"]:
        return self.supply.count()

    def kinds(self) -> Mapping[Site, Kept]:
        return self.kept

    def passes(self, which: Int[Tensor, "row"], sites: Collection[Site] | None = None) -> Iterator[Harvested]:
        """The activations of these rows, in this order. The first call reads everything."""
        held = self._all = self._all or self._read()
        wanted = self.kept if sites is None else sites
        for start in range(0, len(which), ROWS):
            rows = which[start : start + ROWS].tolist()
            at = torch.cat([torch.arange(int(held.first[row]), int(held.first[row + 1])) for row in rows])
            bad = held.bad[at]
            row = torch.tensor(rows).repeat_interleave(held.first.diff()[rows])
            values = {site: held.values[site][at.to(held.values[site].device)] for site in wanted}
            yield Harvested(values, row, bad if bool(bad.any()) else None)

    def _read(self) -> _Held:
        counts = self.supply.count()
        total, at = int(counts.sum()), 0
        values = {site: torch.empty(total, k.width, dtype=k.dtype, device=k.device) for site, k in self.kept.items()}
        bad = torch.zeros(total, dtype=torch.bool)
        for found in self.supply.passes(torch.arange(len(counts)), self.kept.keys()):
            here = slice(at, at + len(found.row))
            for site, store in values.items():
                store[here] = found.values[site].to(store)
            if found.bad is not None:
                bad[here] = found.bad
            at = here.stop
            self.watch(Progress("read activations", at, total, "token"))
        assert at == total, "a supply gives as many tokens as it counts"
        return _Held(values, bad, torch.cat([torch.zeros(1, dtype=torch.long), counts.cumsum(0)]))
