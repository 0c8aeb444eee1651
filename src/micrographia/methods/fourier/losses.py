"""Cross-entropy and accuracy over all pairs, in float64.

Logits are `logits[a, b, c]` of addition mod n, as `core.basis.to_cyclic` gives them, `train[a, b]` is True at training
pairs. Logits that depend on s = a + b only are a table (n, n), rows s, columns c; then n rows are scored instead of
n^2, each weighted by its number of pairs.
Source: Nanda et al., "Progress measures for grokking via mechanistic interpretability" (2023), section 5: losses over
the n residues, without the column of "=".
"""

import math
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from micrographia.core.basis import fold
from micrographia.core.losses import cross_entropy


class Losses(NamedTuple):
    """Mean cross-entropy in nats and accuracy, over all pairs, training pairs and held-out pairs.

    NaN where there is no such pair, or where the split is unknown.
    """

    loss: float
    train_loss: float
    test_loss: float
    accuracy: float
    train_accuracy: float
    test_accuracy: float


def losses(logits: Float[Tensor, "n n n"], train: Bool[Tensor, "n n"] | None = None) -> Losses:
    """Losses of the logits at all n^2 pairs. One float64 copy of the logits; losses below 1e-16 come out as 0."""
    n = logits.shape[0]
    index = torch.arange(n, device=logits.device)
    answer = (index[:, None] + index) % n
    loss = cross_entropy(logits, answer)
    return _means(loss, logits.argmax(-1) == answer, torch.ones_like(loss), None if train is None else train.to(loss))


def table_losses(table: Float[Tensor, "n n"], train: Bool[Tensor, "n n"] | None = None) -> Losses:
    """`losses(unfold(table), train)`, from the table: O(n^2)."""
    n = table.shape[0]
    answer = torch.arange(n, device=table.device)
    loss = cross_entropy(table, answer)
    chosen = None if train is None else pairs_per_sum(train).to(loss)
    return _means(loss, table.argmax(-1) == answer, torch.full_like(loss, n), chosen)


def pairs_per_sum(mask: Bool[Tensor, "n n"]) -> Int[Tensor, "n"]:
    """The number of selected pairs with (a + b) mod n = s, for each s."""
    return (fold(mask) * mask.shape[0]).round().long()


def _means(loss: Tensor, right: Tensor, everywhere: Tensor, train: Tensor | None) -> Losses:
    unknown = torch.full_like(everywhere, math.nan)
    parts = (everywhere, unknown, unknown) if train is None else (everywhere, train, everywhere - train)
    means = [((x * part).sum() / part.sum()).item() for x in (loss, right.to(loss)) for part in parts]
    return Losses(*means)
