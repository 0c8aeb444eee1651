"""The cubes cos(w_k(a + b - c)), the logits of the trig algorithm, and their fraction of a network's logits.

The network adds a + b on the circle by trigonometric identities and reads out cos(w_k(a + b - c)), largest at the right
c. Each cube depends on d = a + b - c only, so n numbers (`core.basis.fold_difference`) suffice. Source: Nanda et al.,
"Progress measures for grokking via mechanistic interpretability" (2023), sections 3.1 and 4.2.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from micrographia.core.basis import (
    cube_coefficients,
    fold,
    fourier_basis,
    pair_energy,
    rows_of_frequencies,
    table_difference,
)
from micrographia.methods.fourier.losses import Losses, table_losses


def cosine_coefficients(logits: Float[Tensor, "n n n"]) -> Float[Tensor, "n_frequencies"]:
    """v_k = <L, C_k>, C_k the cube cos(w_k(a + b - c)) of norm 1 over all n^3 entries; in float64.

    Source: the notebook of Nanda et al. (2023), "cosine coefficients" over training.
    """
    return cube_coefficients(logits).cosine


def logit_variance_explained(logits: Float[Tensor, "n n n"], ks: Sequence[int]) -> float:
    """Fraction of the row-centred logits' energy in the cubes of `ks`: sum_k v_k^2 / |Lc|^2.

    Raw logits would be dominated by their mean over c, which softmax ignores.
    Source: Nanda et al. (2023), section 4.2 ("95 % of the variance").
    """
    rows = cosine_rows(ks, logits.shape[0])
    return (cosine_coefficients(logits)[rows // 2].square().sum() / centred_energy(logits)).item()


def centred_energy(logits: Float[Tensor, "n n n"]) -> Float[Tensor, ""]:
    """|Lc|^2: the sum of squares of the logits minus each pair's mean over c; in float64."""
    return logits.double().var(dim=-1, correction=0).sum() * logits.shape[-1]


def cube_table(table: Float[Tensor, "n n"], ks: Sequence[int]) -> Float[Tensor, "n n"]:
    """sum_k <L, C_k> C_k as a table over s = a + b, from T = `fold(logits)`: its entry at (s, c) depends on s - c only.

    Along d = s - c the projection on cos(w_k d), without the sine. O(n^2).
    """
    n = table.shape[0]
    index = torch.arange(n, device=table.device)
    cosines = fourier_basis(n).to(table.device)[cosine_rows(ks, n)]
    along = cosines.T @ (cosines @ table_difference(table.double()))
    return along[(index[:, None] - index) % n]


def trig_loss(logits: Float[Tensor, "n n n"], ks: Sequence[int], train: Bool[Tensor, "n n"] | None = None) -> Losses:
    """Losses of the logits projected on the cubes of `ks` only: sum_k <L, C_k> C_k. One pass, then O(n^2).

    Source: Nanda et al. (2023), section 4.2: replacing the logits by five cubes improves the loss.
    """
    return table_losses(cube_table(fold(logits), ks), train)


def trig_ratio(x: Float[Tensor, "n n m"], ks: Sequence[int]) -> Float[Tensor, "m"]:
    """Fraction of each column's variance over pairs along cos and sin(w_k(a + b)), k in `ks`: of logits or of neurons.

    NaN for a constant column. The published number is the mean over columns.
    Source: the ARENA grokking chapter, "trig ratio".
    """
    n = x.shape[0]
    waves = fourier_basis(n).to(x.device)[rows_of_frequencies(ks, n)]
    energy = n * (waves @ fold(x)).square().sum(dim=0)
    return energy / pair_energy(x)


def cosine_rows(ks: Sequence[int], n: int) -> Int[Tensor, "rows"]:
    """The cosine rows of `fourier_basis(n)` of these frequencies: row 2 k - 1, each once."""
    rows = rows_of_frequencies(ks, n)
    return rows[rows % 2 == 1]
