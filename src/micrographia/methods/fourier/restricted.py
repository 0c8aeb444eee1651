"""Restricted and excluded loss: the loss with only the key frequencies kept in the logits, or with them removed.

Three definitions of the restricted loss are in use, and on trained networks they differ by factors of 10 to 100,000, so
each has a name: *projection* keeps the part of the logits along cos and sin(w_k(a + b)), *quadratic* the products of
one wave of a and one of b, *neurons* projects the neurons instead. The first and the third depend on s = a + b only: a
table (n, n). For even n the Nyquist frequency has a cosine only.
Of the excluded loss there are two: *2d* removes the part along cos and sin(w_k(a + b)) whatever its dependence on c,
*3d* only the cubes cos(w_k(a + b - c)) themselves. Neither corrects the bias. The published figure is over the training
pairs: there, a memorising network does not need the frequencies, but one after cleanup does.
Source: Nanda et al., "Progress measures for grokking via mechanistic interpretability" (2023), section 5.1, its
notebook, and the implementation named below.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from micrographia.core.basis import fold, fourier_basis, frequency_rows, n_frequencies, rows_of_frequencies, unfold
from micrographia.core.errors import BadConfig
from micrographia.methods.fourier.cubes import cube_table
from micrographia.methods.fourier.losses import Losses, losses, table_losses

Form = Literal["2d", "3d"]

SAFE_SPREAD = 600.0
"""exp of this much, up or down, stays a normal float64 (its range is about 700)."""


def restricted_loss(
    logits: Float[Tensor, "n n n"],
    ks: Sequence[int],
    train: Bool[Tensor, "n n"] | None = None,
    *,
    variant: Literal["projection", "quadratic"] = "projection",
) -> Losses:
    """Losses when only the frequencies `ks` are kept; `train_loss` and `test_loss` are over part of the pairs.

    *projection*: `restricted_table`; the definition of the paper's notebook. O(n^3) additions, then O(n^2).
    *quadratic*: `quadratic_logits`; the definition of the paper's text. Dense: two float64 copies of the logits.
    """
    if variant == "projection":
        return table_losses(restricted_table(fold(logits), ks), train)
    if variant == "quadratic":
        return losses(quadratic_logits(logits, ks), train)
    raise BadConfig(
        f"Restricted loss {variant!r} was asked for; known are projection and quadratic, and of neurons "
        "`restricted_loss_of_neurons`."
    )


def restricted_loss_of_neurons(
    neurons: Float[Tensor, "n n m"],
    W_L: Float[Tensor, "m n"],
    logits: Float[Tensor, "n n n"],
    ks: Sequence[int],
    train: Bool[Tensor, "n n"] | None = None,
) -> Losses:
    """Losses when the last layer's neurons are kept along the frequencies `ks` only, without any path around them.

    With H the neurons and W_L their map to the logits (`core.small.weights`), the logits are P(H) W_L, where P(H)
    is the mean of H plus its part along cos and sin(w_k(a + b)); then their mean over pairs is set to that of `logits`
    for each c (the bias correction), so biases and the mean of the paths that bypass the neurons are kept, but not
    their variation. The published figure is `test_loss`. O(n^2 m).
    Source: TransformerLens, Grokking demo ("restricted loss").
    """
    table = projected_table(fold(neurons), ks) @ W_L.double()
    return table_losses(table + fold(logits).mean(dim=0), train)


def projected_table(table: Float[Tensor, "n m"], ks: Sequence[int]) -> Float[Tensor, "n m"]:
    """The part of a folded table along cos and sin(w_k s), k in `ks`: F_k^T F_k T with F the rows of `fourier_basis`.

    `unfold` of it is the projection of the unfolded values on cos and sin(w_k(a + b)), a law of `fold`. O(n m |ks|).
    """
    n = table.shape[0]
    waves = fourier_basis(n).to(table.device)[rows_of_frequencies(ks, n)]
    return waves.T @ (waves @ table.double())


def restricted_table(table: Float[Tensor, "n n"], ks: Sequence[int]) -> Float[Tensor, "n n"]:
    """The restricted logits, *projection*, as a table: for *any* set of frequencies from `fold(logits)` alone.

    R[s, c] = mean_s T[s, c] + sum over k of the projection of T on cos and sin(w_k s). The mean is the bias correction:
    the kept part has mean 0 over the pairs, so the mean of the logits over them is added back, column by column.
    With T and `pairs_per_sum` one can recompute the loss of any set of frequencies.
    Source: the notebook of Nanda et al. (2023), function `trig_loss`.
    """
    return projected_table(table, ks) + table.double().mean(dim=0)


def quadratic_logits(logits: Float[Tensor, "n n n"], ks: Sequence[int]) -> Float[Tensor, "n n n"]:
    """The constant and, for each k in `ks`, the products of a wave of a (cos or sin w_k a) and one of b; in float64.

    For each c the 2-D Fourier coefficients (0, 0), (cos, cos), (cos, sin), (sin, cos), (sin, sin) are kept.
    Source: Nanda et al. (2023), section 5.1 as worded; no bias correction, as the constant is kept.
    """
    n = logits.shape[0]
    basis = fourier_basis(n).to(logits.device)
    x = logits.double()
    kept = x.mean(dim=(0, 1)).expand(n, n, n).clone()
    for k in sorted(set(ks)):
        plane = basis[frequency_rows(k, n)].T @ basis[frequency_rows(k, n)]  # (n, n): projects on frequency k
        of_a = (plane @ x.flatten(1)).view(n, n, n)
        kept += plane @ of_a  # broadcast over a: the same projection along b
    return kept


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
    folded = fold(logits)
    tables = torch.stack([_table(folded, [k], form) for k in range(1, n_frequencies(len(folded)) + 1)])
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
