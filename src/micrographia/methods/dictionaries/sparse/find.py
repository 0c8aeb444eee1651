"""The active latents of a batch, kind by kind; encoded block by block of rows, so that pre-activations stay in cache.

`FINDERS` is the table: the kinds whose gradient reaches few latents of a row. No block is kept; what comes back are the
entries that the loss or its gradient reads. Axes: row latent d; one member at a time.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from micrographia.methods.dictionaries.sparse.select import Entries, above, joined, share_bound, top_of_rows
from micrographia.methods.dictionaries.training.recipe import Recipe
from micrographia.methods.dictionaries.training.stack import Now, ScaledBatch

BLOCK = 1 << 21
"""Pre-activations computed at a time: enough rows for a fast product, few enough for the last cache."""
SHARE = 1 / 16
"""The largest share of active latents for which going through them is the faster: an active one costs 8 d FLOPs at the
speed of memory, any one 8 d at that of dense products, which were 15 to 20 times as fast on the CPU measured."""
PROBED = 32
"""Rows of which the share is measured before all."""
SPARE = (1.5, 6.0, 24.0)
"""How many times the entries wanted a first bound of a batch may let through; then all positive ones."""

Weights = Mapping[str, Tensor]


class Found(NamedTuple):
    """What was found in a batch."""

    entries: Entries
    """Values are pre-activations; of jumprelu less the threshold, and down to half a bandwidth below it."""
    cutoff: Tensor | None = None
    """Of batchtopk: the smallest pre-activation kept."""


Finder = Callable[[Recipe, Weights, Tensor, ScaledBatch, Now], Found | None]
"""(recipe, one member's weights, encoder input (row, d_in), batch, now) -> Found; None: too many are active."""


def blocks(weights: Weights, bias: Tensor, read: Tensor) -> Iterator[Tensor]:
    """Pre-activations (row, latent), some rows at a time, each overwriting the last."""
    encoder = weights["encoder"]
    size = max(1, BLOCK // len(encoder))
    buffer = read.new_empty(min(size, len(read)), len(encoder))
    for part in read.split(size):
        yield torch.addmm(bias, part, encoder.T, out=buffer[: len(part)])


def relu(recipe: Recipe, weights: Weights, read: Tensor, batch: ScaledBatch, now: Now) -> Found | None:
    return _few_above(weights, weights["b_enc"], read, 0.0)


def jumprelu(recipe: Recipe, weights: Weights, read: Tensor, batch: ScaledBatch, now: Now) -> Found | None:
    """The threshold is taken off with the bias, so that one number bounds all latents."""
    return _few_above(weights, weights["b_enc"] - weights["threshold"], read, -recipe.bandwidth / 2)


def topk(recipe: Recipe, weights: Weights, read: Tensor, batch: ScaledBatch, now: Now) -> Found | None:
    assert recipe.k is not None
    if recipe.k > SHARE * recipe.n_latents:
        return None
    k = recipe.k
    return Found(_in_blocks((top_of_rows(p, k), len(p)) for p in blocks(weights, weights["b_enc"], read)))


def batchtopk(recipe: Recipe, weights: Weights, read: Tensor, batch: ScaledBatch, now: Now) -> Found | None:
    """The k * batch largest, over all ranks, those at the smallest of them included.

    A bound from a sample of the first block lets some more through; were they too few, a lower one is tried.
    """
    assert recipe.k is not None
    if recipe.k > SHARE * recipe.n_latents:
        return None
    count = recipe.k * batch.rows
    entries = _enough(recipe.k, count, weights, read, now)
    values = entries.values
    everyone = now.group.gather(_padded(values, count)) if now.group.size > 1 else values
    place = len(everyone) - count + 1
    cutoff = everyone.kthvalue(place).values if place >= 1 else values.new_zeros(())
    return Found(entries.where(values >= cutoff), cutoff)


FINDERS: Mapping[str, Finder] = {"relu": relu, "jumprelu": jumprelu, "topk": topk, "batchtopk": batchtopk}


def _enough(k: int, count: int, weights: Weights, read: Tensor, now: Now) -> Entries:
    """At least `count` of the largest entries over all ranks, or all positive ones; some more than that."""
    for spare in (*SPARE, None):
        entries, bound = _above_a_sample(weights, read, spare and spare * k)
        found, lowered = now.group.sum(read.new_tensor([len(entries.values), bound > 0], dtype=torch.float64)).tolist()
        if found >= count or not lowered:
            return entries
    raise AssertionError("with all positive entries no bound is left to lower")


def _above_a_sample(weights: Weights, read: Tensor, each: float | None) -> tuple[Entries, float]:
    """Entries above the bound that about `each` a row of the first block exceed, or above 0; and that bound."""
    parts, rows, bound = [], [], 0.0
    for p in blocks(weights, weights["b_enc"], read):
        if not parts and each is not None:
            bound = share_bound(p, each)
        parts.append(above(p, bound))
        rows.append(len(p))
    return joined(parts, rows), bound


def _padded(values: Tensor, count: int) -> Tensor:
    """The `count` largest, in no order; zeros where there are fewer."""
    if len(values) > count:
        return values.topk(count, sorted=False).values
    return torch.cat([values, values.new_zeros(count - len(values))])


def _few_above(weights: Weights, bias: Tensor, read: Tensor, bound: float) -> Found | None:
    """Entries above a bound, or None as soon as there are too many: first in a few rows, then in any block."""
    few = read[:: max(1, len(read) // PROBED)]
    if torch.count_nonzero(torch.addmm(bias, few, weights["encoder"].T) > bound) > SHARE * len(few) * len(bias):
        return None
    found, rows = [], []
    for p in blocks(weights, bias, read):
        found.append(above(p, bound))
        rows.append(len(p))
        if len(found[-1].values) > 2 * SHARE * p.numel():
            return None
    return Found(joined(found, rows))


def _in_blocks(parts: Iterator[tuple[Entries, int]]) -> Entries:
    entries, rows = zip(*parts)
    return joined(list(entries), list(rows))
