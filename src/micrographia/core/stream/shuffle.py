"""How well batches are mixed: likeness within a batch, against batches that a full shuffle makes of the same tokens.

Tokens of one row are alike (same text, same subject), so that a batch drawn from few rows says less than its size. The
measure is the mean cosine, about the mean of all, over pairs of tokens of one batch, beside that after full shuffles,
and where rows are known, the share of pairs from one row. Measured at L1.resid_post of SmolLM2, 60 batches of 512 from
rows of 128: rows in their order are 60 standard deviations off, a buffer of 2,500 tokens 25, one of 17,000 tokens 2.
Axes: token d.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor

from micrographia.core.errors import UserError
from micrographia.core.stream.batches import ActivationStream


class ShuffleQuality(NamedTuple):
    """Within batches as they came, and as `draws` full shuffles of the same tokens have it."""

    correlation: float
    """Mean cosine between two tokens of a batch, about the mean of all tokens."""
    shuffled: float
    spread: float
    """The standard deviation of `correlation` over full shuffles."""
    same_row: float | None = None
    """Share of the pairs of a batch that are of one row."""
    same_row_shuffled: float | None = None

    @property
    def excess(self) -> float:
        """What is above a full shuffle, in its standard deviations: below about 3 nothing is seen."""
        return (self.correlation - self.shuffled) / max(self.spread, 1e-12)

    def __str__(self) -> str:
        rows = "" if self.same_row is None else (
            f"; {self.same_row:.2%} of its pairs are of one row, {self.same_row_shuffled:.2%} in a full shuffle"
        )  # fmt: skip
        return (
            f"Mean cosine within a batch {self.correlation:.2e}, {self.shuffled:.2e} +- {self.spread:.1e} in a full "
            f"shuffle ({self.excess:+.1f} standard deviations){rows}."
        )


def shuffle_quality(
    batches: Iterable[Float[Tensor, "token d"]],
    generator: Generator,
    *,
    rows: Iterable[Int[Tensor, "token"]] | None = None,
    draws: int = 20,
) -> ShuffleQuality:
    """The mixing of some batches of one size, at one Site. 10 to 50 of them from anywhere in an epoch tell.

    Holds them all, in float32; `draws` + 1 passes over them. Raises UserError for fewer than two batches or tokens.
    """
    found = [each.detach().float() for each in batches]
    sizes = {len(each) for each in found}
    if len(found) < 2 or len(sizes) != 1 or min(sizes) < 2:
        raise UserError(
            f"Asked how well {len(found)} batches of {sorted(sizes)} tokens are mixed. Give two or more of one size."
        )
    if draws < 2:
        raise UserError(f"Asked to compare with {draws} shuffles. Give 2 or more.")
    x = torch.cat(found)
    x = x - x.mean(0)
    unit = x / x.norm(dim=-1, keepdim=True).clamp(min=1e-30)
    n, orders = len(found[0]), _orders(len(x), generator, draws)
    drawn = torch.tensor([_likeness(unit.index_select(0, order.to(x.device)), n) for order in orders]).double()
    own, own_shuffled = None, None
    if rows is not None:
        of = torch.cat([each.cpu() for each in rows])
        own = _same(of, n)
        own_shuffled = sum(_same(of[order], n) for order in orders[:5]) / len(orders[:5])
    return ShuffleQuality(_likeness(unit, n), float(drawn.mean()), float(drawn.std()), own, own_shuffled)


def stream_quality(
    stream: ActivationStream, steps: Sequence[int], generator: Generator, *, member: int = 0
) -> ShuffleQuality:
    """The mixing of a stream's batches at these steps, as one of its members reads them."""
    found, rows = list[Tensor](), list[Tensor]()
    for step in sorted(steps):
        found.append(stream.by_member(step)[member].x)
        rows.append(stream.rows(step))
    return shuffle_quality(found, generator, rows=rows)


def _orders(n: int, generator: Generator, draws: int) -> list[Tensor]:
    return [torch.randperm(n, generator=generator) for _ in range(draws)]


def _likeness(unit: Tensor, n: int) -> float:
    """The mean over batches of the mean cosine over pairs: (|sum of the batch|^2 - n) / (n (n - 1)).

    A token that is the mean of all has no direction, and takes 1 from the sum in any order.
    """
    sums = unit.unflatten(0, (-1, n)).sum(1).double()
    return float(((sums.square().sum(-1) - n) / (n * (n - 1))).mean())


def _same(rows: Tensor, n: int) -> float:
    """The share of pairs within a batch that are of one row."""
    counts = [torch.unique(batch, return_counts=True)[1] for batch in rows.unflatten(0, (-1, n))]
    return float(sum((c * (c - 1)).sum() for c in counts)) / (len(counts) * n * (n - 1))
