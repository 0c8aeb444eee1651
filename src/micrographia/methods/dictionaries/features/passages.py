"""Which passages are shown of each latent, and its activation at every token of them.

A row gives a latent one passage at most, around its largest activation there, whatever its sign. Sorted by that, the
rows in which it fires fall into groups of equal size, the quantiles; from each some are drawn, one from every equal
part of the group, so that they are spread over it. Axes: latent passage window; `passage` counts through the groups,
the largest first.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor

from micrographia.methods.dictionaries.features.firings import FiringStore, LatentFirings


@dataclass(frozen=True, kw_only=True, slots=True)
class PassageChoice:
    """How many passages of a latent, and how long."""

    top: int = 10
    quantiles: int = 5
    per_quantile: int = 5
    before: int = 16
    after: int = 8

    @property
    def groups(self) -> list[tuple[str, int]]:
        """Name and number of passages of each."""
        named = [(f"quantile {i} of {self.quantiles}", self.per_quantile) for i in range(1, self.quantiles + 1)]
        return [("top", self.top), *named]

    @property
    def n(self) -> int:
        return self.top + self.quantiles * self.per_quantile

    @property
    def window(self) -> int:
        return self.before + 1 + self.after


class ChosenPassages(NamedTuple):
    """Passages of a range of latents; place -1 and ids -1 where there is none."""

    places: Int[Tensor, "latent passage"]
    ids: Int[Tensor, "latent passage window"]
    values: Float[Tensor, "latent passage window"]
    """0 where it does not fire, and at tokens that do not count."""


def choose_passages(
    firings: LatentFirings, n: int, store: FiringStore, choice: PassageChoice, generator: Generator
) -> ChosenPassages:
    """The passages of latents 0 to n - 1 of these firings. Costs two sorts of them; n quantiles numbers are drawn."""
    peaks = _peaks_of_rows(firings, store.n_ctx)
    latent = firings.latent[peaks]
    counts = latent.bincount(minlength=n)
    starts = counts.cumsum(0) - counts
    bits = firings.value[peaks].abs().view(torch.int32).long()  # positive floats are ordered as their bits are
    order = peaks[((latent << 32) + (2**31 - 1 - bits)).sort(stable=True).indices]
    ranks = torch.cat([_top(counts, choice), _drawn(counts, choice, generator)], 1)
    at = (starts[:, None] + ranks).clamp(max=max(len(order) - 1, 0))
    places = torch.where(ranks >= 0, firings.place[order][at], -1) if len(order) else torch.full_like(ranks, -1)
    return _windows(places, firings, store, choice)


def _peaks_of_rows(firings: LatentFirings, n_ctx: int) -> Int[Tensor, "peak"]:
    """Which firing is the largest in size of its latent and row, the first of equals."""
    row = firings.place // n_ctx
    _, group = torch.stack([firings.latent, row]).unique_consecutive(dim=1, return_inverse=True)
    size = firings.value.abs()
    largest = size.new_zeros(int(group[-1]) + 1 if len(group) else 0)
    largest.scatter_reduce_(0, group, size, "amax")
    best = (size == largest[group]).nonzero()[:, 0]
    own = group[best]
    first = torch.ones_like(own, dtype=torch.bool)
    first[1:] = own[1:] != own[:-1]
    return best[first]


def _top(counts: Int[Tensor, "latent"], choice: PassageChoice) -> Int[Tensor, "latent passage"]:
    ranks = torch.arange(choice.top).expand(len(counts), -1)
    return torch.where(ranks < counts[:, None], ranks, -1)


def _drawn(counts: Int[Tensor, "latent"], choice: PassageChoice, generator: Generator) -> Int[Tensor, "latent passage"]:
    """Ranks from every quantile, ascending; -1 where it holds fewer."""
    n, per = choice.quantiles, choice.per_quantile
    edges = counts[:, None] * torch.arange(n + 1) // max(n, 1)
    size = edges.diff(dim=1)[..., None]
    parts = size * torch.arange(per + 1) // max(per, 1)
    drawn = torch.rand(len(counts), n, per, generator=generator, dtype=torch.float64)
    spread = parts[..., :-1] + (drawn * parts.diff(dim=-1)).long()
    rank = torch.where(size > per, spread, torch.arange(per))
    return torch.where(rank < size, edges[:, :-1, None] + rank, -1).flatten(1)


def _windows(
    places: Int[Tensor, "latent passage"], firings: LatentFirings, store: FiringStore, choice: PassageChoice
) -> ChosenPassages:
    span = store.n_rows * store.n_ctx
    around = places[..., None] + torch.arange(-choice.before, choice.after + 1)
    inside = (places[..., None] >= 0) & (around >= 0) & (around // store.n_ctx == places[..., None] // store.n_ctx)
    around = around.clamp(0, span - 1)
    signed = store.signed_ids[around].long()
    ids = torch.where(inside, torch.where(signed < 0, ~signed, signed), -1)
    keys = firings.latent * span + firings.place
    wanted = torch.arange(len(places))[:, None, None] * span + around
    at = torch.searchsorted(keys, wanted).clamp(max=max(len(keys) - 1, 0))
    found = inside & (keys[at] == wanted) if len(keys) else torch.zeros_like(inside)
    values = torch.where(found, firings.value[at], 0.0) if len(keys) else torch.zeros(around.shape)
    return ChosenPassages(places, ids, values)
