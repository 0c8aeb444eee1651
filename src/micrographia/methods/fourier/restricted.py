"""Restricted loss: the loss with only the key frequencies kept in the logits.

Three definitions are in use, and on trained networks they differ by factors of 10 to 100,000, so each has a name:
*projection* keeps the part of the logits along cos and sin(w_k(a + b)), *quadratic* the products of one wave of a and
one of b, *neurons* projects the neurons instead. The first and the third depend on s = a + b only: a table (n, n).
For even n the Nyquist frequency has a cosine only.
Source: Nanda et al., "Progress measures for grokking via mechanistic interpretability" (2023), section 5.1, and the two
published implementations named below.
"""

from collections.abc import Sequence
from typing import Literal

from jaxtyping import Bool, Float
from torch import Tensor

from micrographia.core.basis import fold, fourier_basis, frequency_rows, rows_of_frequencies
from micrographia.core.errors import BadConfig
from micrographia.methods.fourier.losses import Losses, losses, table_losses


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
