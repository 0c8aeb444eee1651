"""The periodicity of the last position's attention in the two operands.

A head's pattern is a softmax of scores that are sums of waves, so over pairs it is about 0.5 + alpha (cos w_k a - cos
w_k b) + beta (sin w_k a - sin w_k b) for one frequency k. Patterns are over the operands' tokens, both in the order of
the left one (`Characters.left`): the score of a token does not depend on its position.
Source: Nanda et al., "Progress measures for grokking via mechanistic interpretability" (2023), section 4.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from micrographia.core.basis import fourier_basis, frequency_rows, n_frequencies, pair_energy


class Periodicity(NamedTuple):
    """For each head the best-fitting frequency, the fit, and the fraction of variance explained."""

    frequency: Int[Tensor, "head"]
    fve: Float[Tensor, "head"]
    alpha: Float[Tensor, "head"]
    beta: Float[Tensor, "head"]
    mean: Float[Tensor, "head"]
    """The mean pattern; 0.5 in the paper."""


def attention_periodicity(to_a: Float[Tensor, "n n head"]) -> Periodicity:
    """Least-squares fit of attention from "=" to a by mean + alpha (cos w_k a - cos w_k b) + beta (sin .. - sin ..).

    The waves are orthogonal, so the fit reads the Fourier coefficients of the difference of the two marginal means. The
    constant is fitted too, so a little attention to "=" costs no variance. NaN fractions, at frequency 1, for a
    constant pattern. One pass; float64.
    Source: Nanda et al. (2023), section 4: 97.9 % to 99.1 % over the heads.
    """
    n, x = to_a.shape[0], to_a.double()
    difference = x.mean(dim=1) - x.mean(dim=0)  # over a, minus over b
    coefficients = fourier_basis(n).to(x.device) @ difference
    rows = [coefficients[frequency_rows(k, n)] for k in range(1, n_frequencies(n) + 1)]
    energy = torch.stack([row.square().sum(dim=0) for row in rows])
    best = energy.argmax(dim=0)
    # Over the pairs a wave of a minus that of b has norm^2 = 2 n |f|^2 for a basis row f of norm 1.
    fve = energy.gather(0, best[None])[0] * n / 2 / pair_energy(x)
    scale = torch.where(2 * (best + 1) == n, 1 / n, 2 / n) ** 0.5  # a basis row is this times a wave
    waves = torch.stack([torch.nn.functional.pad(row, (0, 0, 0, 2 - len(row))) for row in rows])
    alpha, beta = waves[best, :, torch.arange(len(best))].T * scale / 2
    return Periodicity(best + 1, fve, alpha, beta, x.mean(dim=(0, 1)))


def head_waves(pattern: Float[Tensor, "n n head key"]) -> list[dict[str, float]]:
    """A row for each head: the wave of its attention to a, and its mean attention to a, b and "=" over pairs.

    To "=" published as 0.1 % to 0.4 %.
    """
    fit = attention_periodicity(pattern[..., 0])
    columns = (fit.frequency, fit.fve, fit.alpha, fit.beta, *pattern.double().mean(dim=(0, 1)).T)
    names = ("k", "fve", "alpha", "beta", "to_a", "to_b", "to_equals")
    rows = zip(*(column.tolist() for column in columns))
    return [{"head": head, **dict(zip(names, row))} for head, row in enumerate(rows)]
