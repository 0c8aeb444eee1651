"""Which latents of a row are active, found without sorting or listing all of them: exact, and a fraction of the cost.

`p` (row, latent) are pre-activations. Adjacent parts of a row are folded on one another by their maximum, so that most
of it is ruled out at an eighth of the reads; a bound on the k-th largest comes from the maxima of k parts. What is
left, a little more than what is kept, is compared one by one. Entries come row after row, in no order within a row.
Ties at the last place kept are broken arbitrarily, as by `torch.topk`.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

PARTS = (8, 4, 2, 1)  # of a row that are folded on one another


class Entries(NamedTuple):
    """Some entries of a matrix: ascending rows, latents, values."""

    rows: Int[Tensor, "entry"]
    latents: Int[Tensor, "entry"]
    values: Float[Tensor, "entry"]

    def where(self, kept: Tensor) -> "Entries":
        """Those at a mask, or at ascending places."""
        at = kept.nonzero().squeeze(1) if kept.dtype == torch.bool else kept
        return Entries(*(each.index_select(0, at) for each in self))


def joined(parts: list[Entries], rows: list[int]) -> Entries:
    """The entries of blocks of rows, that many in each block, as those of one matrix."""
    starts = torch.tensor([0, *rows[:-1]]).cumsum(0).tolist()
    moved = [each.rows + start for each, start in zip(parts, starts, strict=True)]
    return Entries(torch.cat(moved), *(torch.cat(each) for each in list(zip(*parts, strict=True))[1:]))


def above(
    p: Float[Tensor, "row latent"],
    bound: Float[Tensor, "row"] | float,
    *,
    or_at: bool = False,
    maxima: Float[Tensor, "row part"] | None = None,
) -> Entries:
    """The entries above a bound, which may be one for every row; with `or_at` those at it too.

    `maxima` may give `folded(p)` where it is known.
    """
    n = p.shape[1]
    p = p.contiguous()
    maxima = folded(p) if maxima is None else maxima
    width = maxima.shape[1]
    compare = torch.ge if or_at else torch.gt
    limit = bound[:, None] if isinstance(bound, Tensor) else bound
    at = compare(maxima, limit).reshape(-1).nonzero().squeeze(1)  # row * width + latent modulo width
    rows = at.div(width, rounding_mode="floor")
    places = (at + rows * (n - width))[:, None] + torch.arange(0, n, width, device=p.device)  # in all of p
    values = p.view(-1).index_select(0, places.view(-1)).view(places.shape)
    limit = bound.index_select(0, rows)[:, None] if isinstance(bound, Tensor) else bound
    kept = compare(values, limit).view(-1).nonzero().squeeze(1)
    rows = rows.index_select(0, kept.div(n // width, rounding_mode="floor"))
    return Entries(rows, places.view(-1).index_select(0, kept) - rows * n, values.view(-1).index_select(0, kept))


def folded(p: Float[Tensor, "row latent"]) -> Float[Tensor, "row part"]:
    """Equal parts of each row laid on one another, by their maximum; as it is where its length is odd."""
    parts = next(each for each in PARTS if p.shape[1] % each == 0)
    return p.unflatten(1, (parts, -1)).amax(1) if parts > 1 else p


def row_bound(maxima: Float[Tensor, "row part"], k: int) -> Float[Tensor, "row"]:
    """A number that at least k entries of each row reach: the k-th largest of k or more maxima of parts of it."""
    while maxima.shape[1] % 2 == 0 and maxima.shape[1] >= 4 * k:
        maxima = maxima.unflatten(1, (2, -1)).amax(1)
    return maxima.topk(k, sorted=False).values.amin(1)


def top_of_rows(p: Float[Tensor, "row latent"], k: int) -> Entries:
    """The k largest of each row, those of them that are positive."""
    n_rows, n = p.shape
    k = min(k, n)
    p = p.contiguous()
    maxima = folded(p)
    bound = row_bound(maxima if k <= maxima.shape[1] else p, k)
    found = above(p, bound.clamp_min(torch.finfo(p.dtype).tiny), or_at=True, maxima=maxima)
    counts = torch.bincount(found.rows, minlength=n_rows)
    most = int(counts.max()) if n_rows else 0
    if most <= k:
        return found
    starts = counts.cumsum(0) - counts
    place = torch.arange(len(found.rows), device=p.device) - starts.index_select(0, found.rows)
    table = p.new_full((n_rows, most), -torch.inf)
    flat = found.rows * most + place
    table.view(-1)[flat] = found.values
    kept = torch.zeros_like(table, dtype=torch.bool)
    kept.scatter_(1, table.topk(k, sorted=False).indices, True)
    return found.where(kept.view(-1).index_select(0, flat))


def top_of_all(found: Entries, n: int) -> Entries:
    """The n largest of these entries; all of them if they are fewer."""
    if len(found.values) <= n:
        return found
    kept = found.values.topk(n, sorted=False).indices
    return found.where(kept.sort().values)


def share_bound(p: Float[Tensor, "row latent"], each: float) -> float:
    """About the number that `each` entries of a row exceed, from a sample of the entries; never below 0."""
    sample = p.view(-1)[:: max(1, p.numel() // 65_536)]
    rank = min(len(sample), max(1, round(each / p.shape[1] * len(sample))))
    return max(0.0, float(sample.kthvalue(len(sample) - rank + 1).values))
