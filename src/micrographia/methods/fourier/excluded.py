"""Excluded loss: the loss after removing given frequencies from the logits.

*2d* removes the part along cos and sin(w_k(a + b)) whatever its dependence on c, *3d* only the cubes cos(w_k(a + b -
c)) themselves. Neither corrects the bias. Both subtract a table over s = a + b. The published figure is over the
training pairs: there, a memorising network does not need the frequencies, but one after cleanup does.
Source: Nanda et al., "Progress measures for grokking via mechanistic interpretability" (2023), section 5.1; both forms
are in its notebook.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from micrographia.core.basis import fold, n_frequencies, unfold
from micrographia.core.errors import BadConfig
from micrographia.methods.fourier.cubes import cube_table
from micrographia.methods.fourier.losses import Losses, losses
from micrographia.methods.fourier.restricted import projected_table

Form = Literal["2d", "3d"]

SAFE_SPREAD = 600.0
"""exp of this much, up or down, stays a normal float64 (its range is about 700)."""


def excluded_loss(
    logits: Float[Tensor, "n n n"],
    ks: Sequence[int],
    train: Bool[Tensor, "n n"] | None = None,
    *,
    form: Form = "2d",
) -> Losses:
    """Losses without the frequencies `ks`, all at once; the published one is `train_loss`. Two float64 copies."""
    return losses(excluded_logits(logits, ks, form=form), train)


def excluded_logits(logits: Float[Tensor, "n n n"], ks: Sequence[int], *, form: Form = "2d") -> Float[Tensor, "n n n"]:
    """The logits with the frequencies `ks` removed, in float64.

    *2d*: the sum with the restricted logits before their bias correction is the original logits.
    """
    return logits.double() - unfold(_table(fold(logits), ks, form))


def excluded_loss_per_frequency(
    logits: Float[Tensor, "n n n"], pairs: Bool[Tensor, "n n"], *, form: Form = "2d"
) -> Float[Tensor, "n_frequencies"]:
    """Mean loss over the chosen pairs without frequency k alone, for k = 1 .. n // 2; NaN without a pair. Float64.

    With t_k the table of frequency k, log sum_c exp(L - t_k) = log sum_c exp(L) exp(-t_k) is a product of matrices for
    each s, exact to rounding while both stay within float64's range; else it is summed directly. O(n_pairs n^2 / 2)
    multiplications, n^3 / 2 numbers of memory.
    """
    tables = _tables(logits, form)
    total = torch.zeros(len(tables), dtype=torch.float64, device=logits.device)
    for s, rows in enumerate(_rows_by_sum(logits, pairs)):
        table = tables[:, s]
        total += (_log_sum_exp(rows, table) - rows[:, s, None] + table[:, s]).sum(dim=0)
    return total / pairs.sum()


def _table(folded: Float[Tensor, "n n"], ks: Sequence[int], form: Form) -> Float[Tensor, "n n"]:
    if form == "2d":
        return projected_table(folded, ks)
    if form == "3d":
        return cube_table(folded, ks)
    raise BadConfig(f"Excluded loss in the form {form!r} was asked for; known are 2d and 3d.")


def _tables(logits: Float[Tensor, "n n n"], form: Form) -> Float[Tensor, "n_frequencies n n"]:
    folded = fold(logits)
    return torch.stack([_table(folded, [k], form) for k in range(1, n_frequencies(len(folded)) + 1)])


def _rows_by_sum(logits: Float[Tensor, "n n n"], pairs: Bool[Tensor, "n n"]) -> list[Float[Tensor, "rows n"]]:
    n = logits.shape[0]
    a = torch.arange(n, device=logits.device)
    by_sum = []
    for s in range(n):
        b = (s - a) % n
        chosen = a[pairs[a, b]]
        by_sum.append(logits[chosen, (s - chosen) % n].double())
    return by_sum


def _log_sum_exp(rows: Float[Tensor, "rows n"], tables: Float[Tensor, "k n"]) -> Float[Tensor, "rows k"]:
    if not len(rows):
        return rows.new_zeros(0, len(tables))
    top, low = rows.amax(dim=1, keepdim=True), tables.amin(dim=1)
    spread = (top - rows.amin(dim=1, keepdim=True)).max() + (tables.amax(dim=1) - low).max()
    if spread < SAFE_SPREAD:
        return ((rows - top).exp() @ (low[:, None] - tables).exp().T).log() + top - low
    return (rows[:, None] - tables).logsumexp(dim=-1)
