"""Fourier spectra of weights and of functions of pairs, and their concentration (Gini, IPR).

Rows of weights are residues in cyclic order (`core.basis.Characters`), without the row or column of "=". A spectrum is
given by row of `core.basis.fourier_basis` and by frequency, with cosine and sine combined.
Source: Nanda et al., "Progress measures for grokking via mechanistic interpretability" (2023), sections 4 and 5.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from micrographia.core.basis import fourier_basis, frequency_rows, n_frequencies, rows_of_frequencies


class Spectrum(NamedTuple):
    """Euclidean norms of the Fourier components: by basis row, and by frequency k = 1 .. n // 2 (row k - 1)."""

    rows: Float[Tensor, "n"]
    frequencies: Float[Tensor, "n_frequencies"]


def spectrum(x: Float[Tensor, "n d"]) -> Spectrum:
    """Norms over d of F x, and sqrt(|cos row|^2 + |sin row|^2) by frequency. Float64; squared rows sum to |x|^2."""
    rows = (fourier_basis(x.shape[0]).to(x.device) @ x.double()).norm(dim=1)
    ks = range(1, n_frequencies(len(rows)) + 1)
    return Spectrum(rows, torch.stack([rows[frequency_rows(k, len(rows))].norm() for k in ks]))


def embedding_spectrum(W_E: Float[Tensor, "n d_model"]) -> Spectrum:
    """The spectrum of the embedding of the n residues, without the row of "=".

    Source: Nanda et al. (2023), section 4.1, figure 3.
    """
    return spectrum(W_E)


def neuron_logit_spectrum(W_L: Float[Tensor, "m n"]) -> Spectrum:
    """The spectrum over c of the map from neurons to logits, centred over c first since softmax ignores the mean.

    Source: Nanda et al. (2023), section 4.1, figure 3: W_L = W_U W_out.
    """
    return spectrum((W_L - W_L.mean(dim=1, keepdim=True)).T)


def residual_fraction(W_L: Float[Tensor, "m n"], ks: Sequence[int]) -> float:
    """|W_L without its rows of the frequencies `ks`| / |W_L|, Frobenius norms, after centring over c.

    Source: Nanda et al. (2023), section 4.2: 0.55 %, so that W_L has rank about 10.
    """
    rows = neuron_logit_spectrum(W_L).rows
    outside = torch.ones_like(rows)
    outside[rows_of_frequencies(ks, len(rows))] = 0
    return ((rows * outside).norm() / rows.norm()).item()


def neuron_logit_directions(W_L: Float[Tensor, "m n"], k: int) -> Float[Tensor, "m waves"]:
    """u_k and v_k: the neuron directions that W_L reads out along cos(w_k c) and sin(w_k c); columns of unscaled F W_L.

    Source: Nanda et al. (2023), section 4.2: W_L is about the sum of cos(w_k c) u_k + sin(w_k c) v_k.
    """
    n = W_L.shape[1]
    return W_L.double() @ fourier_basis(n).to(W_L.device)[frequency_rows(k, n)].T


def two_d_coefficients(x: Float[Tensor, "n n *rest"]) -> Float[Tensor, "n n *rest"]:
    """F x F^T over the two operands: entry (i, j) is the coefficient of basis row i of a and row j of b.

    In the input's precision; three copies of it at most. Source: Nanda et al. (2023), figure 4.
    """
    n = x.shape[0]
    basis = fourier_basis(n).to(x)
    of_a = (basis @ x.reshape(n, -1)).reshape(n, n, -1)
    return (basis @ of_a).reshape(x.shape)


def two_d_spectrum(x: Float[Tensor, "n n *rest"]) -> Float[Tensor, "n n"]:
    """Norms of `two_d_coefficients` over all further axes, for a heat map over components of a and b."""
    return two_d_coefficients(x).flatten(2).norm(dim=2) if x.ndim > 2 else two_d_coefficients(x).abs()


def gini(x: Float[Tensor, "n"]) -> float:
    """Gini coefficient of non-negative numbers: 0 when all are equal, (n - 1) / n when only one is non-zero.

    G = sum_i (2 i - n - 1) x_(i) / (n sum x), i = 1 .. n in ascending order; NaN when all are 0.
    Source: Nanda et al. (2023), section 5, over the Fourier norms of W_E and of W_L; the paper does not state whether
    by row or by frequency, a difference of less than 0.06 on the networks tried.
    """
    ordered = x.double().sort().values
    n = len(ordered)
    rank = torch.arange(1, n + 1, device=x.device)
    return (((2 * rank - n - 1) * ordered).sum() / (n * ordered.sum())).item()


def ipr(x: Float[Tensor, "n"]) -> float:
    """Inverse participation ratio sum x^4 / (sum x^2)^2: 1 / n when all are equal, 1 when only one is non-zero.

    Source: Doshi et al., "To grok or not to grok" (2023), who use it in place of Gini's coefficient.
    """
    energy = x.double().square()
    return (energy.square().sum() / energy.sum().square()).item()


class Doublets(NamedTuple):
    """Near-equal neighbours among the leading singular values."""

    rank: int
    """The number of singular values before the largest relative drop."""
    pairs: Float[Tensor, "n_pairs 2"]
    """The two values of each doublet."""


def doublets(singular_values: Float[Tensor, "r"], *, splitting: float = 0.15) -> Doublets:
    """Pairs among the singular values of W_L or W_E: cosine and sine of one frequency have nearly equal values.

    The leading values are those before the largest ratio between neighbours in the upper half of the list; from the
    largest on, two neighbours that differ by less than the share `splitting` are a doublet. The number of doublets
    counts key frequencies without using a Fourier basis. `splitting` is ours; the published ones split by 0.3 % to 4.5
    %. Values below 1e-6 of the largest count as that much. A `rank` of about half the list means that there is no low
    rank, as in a memorising network: its doublets are meaningless.
    Source: Nanda et al. (2023), the rank of W_L, section 4.2; the pairing is ours.
    """
    values = singular_values.double().sort(descending=True).values
    if len(values) < 2 or values[0] == 0:
        return Doublets(0, values.new_zeros(0, 2))
    values = values.clamp_min(1e-6 * values[0])
    half = len(values) // 2
    rank = int((values[:half] / values[1 : half + 1]).argmax()) + 1
    pairs, i = [], 0
    while i + 1 < rank:
        paired = values[i + 1] > (1 - splitting) * values[i]
        if paired:
            pairs.append(values[i : i + 2])
        i += 2 if paired else 1
    return Doublets(rank, torch.stack(pairs) if pairs else values.new_zeros(0, 2))
