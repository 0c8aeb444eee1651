"""The frequency of each neuron and of each head's attention, and the fraction of variance that it explains.

A neuron of the trig algorithm is a polynomial of degree two in the waves of one frequency: of its 2-D Fourier
components, the eight of {1, cos w_k a, sin w_k a} x {1, cos w_k b, sin w_k b} other than 1 x 1 have all the variance
over pairs (three at the Nyquist frequency). A head's pattern is a softmax of scores that are sums of waves, so over
pairs it is about 0.5 + alpha (cos w_k a - cos w_k b) + beta (sin w_k a - sin w_k b). Neurons are `neurons[a, b, m]` at
the last position, patterns its attention to the operands' tokens, both in the order of the left one
(`Characters.left`): the score of a token does not depend on its position.
Source: Nanda et al., "Progress measures for grokking via mechanistic interpretability" (2023), sections 4 and 4.3, and
the notebook's neuron clusters.
"""

import math
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from micrographia.core.basis import fold, fourier_basis, frequency_rows, n_frequencies, pair_energy
from micrographia.methods.fourier.spectra import neuron_logit_directions

CLUSTERED = 0.85
"""A neuron belongs to its frequency's cluster above this fraction of variance (Nanda et al. 2023, section 4.3)."""


def frequency_shares(neurons: Float[Tensor, "n n m"]) -> Float[Tensor, "m n_frequencies"]:
    """Each neuron's fraction of variance in the eight components of k = 1 .. n // 2 (column k - 1), the published FVE.

    NaN for a constant neuron. One 2-D transform of which only the needed components are formed: 2 n^3 m multiplications
    in the neurons' own precision; one copy of the neurons. The released code loops over neurons
    and frequencies for the same numbers, and omits the highest frequency.
    """
    n = neurons.shape[0]
    basis = fourier_basis(n).to(neurons)
    of_a = (basis @ neurons.flatten(1)).view(n, n, -1)  # row of a, then b, then neuron
    linear_a = _by_frequency((basis[0] @ of_a).double().square(), n)  # waves of a only
    linear_b = _by_frequency((basis @ of_a[0]).double().square(), n)  # waves of b only
    quadratic = torch.stack([_own_products(of_a, basis, k) for k in range(1, n_frequencies(n) + 1)])
    return ((linear_a + linear_b + quadratic) / pair_energy(neurons)).T


class NeuronClusters(NamedTuple):
    """Each neuron's frequency (0 for a dead neuron) and its fraction of variance explained (NaN for a dead one)."""

    frequency: Int[Tensor, "m"]
    fve: Float[Tensor, "m"]
    clustered: Bool[Tensor, "m"]
    """`fve` above 0.85."""


def neuron_clusters(neurons: Float[Tensor, "n n m"]) -> NeuronClusters:
    """The frequency that explains most of each neuron's variance over pairs, as published. Cost: `frequency_shares`."""
    fve, column = frequency_shares(neurons).nan_to_num(nan=-1.0).max(dim=1)
    dead = fve < 0
    return NeuronClusters(
        frequency=torch.where(dead, 0, column + 1),
        fve=fve.masked_fill(dead, torch.nan),
        clustered=fve > CLUSTERED,
    )


def published_key_frequencies(clusters: NeuronClusters) -> list[int]:
    """The published rule: every frequency that is the dominant one of any neuron, with no threshold.

    On networks that have not converged it includes frequencies of single stray neurons. Dead neurons are ignored here.
    """
    return [k for k in clusters.frequency.unique().tolist() if k > 0]


class WaveShares(NamedTuple):
    """Fractions of a direction's variance over pairs along cos and sin(w_k(a + b)); 0 for the sine at Nyquist."""

    cosine: float
    sine: float


def fve_of_direction(u: Float[Tensor, "n n"], k: int) -> WaveShares:
    """Fraction of the variance over pairs of a direction (neurons @ u_k) in one wave of a + b; NaN for a constant.

    Source: Nanda et al. (2023), section 4.2: u_k and v_k of W_L, 93.2 % to 98.2 %.
    """
    n = u.shape[0]
    waves = fourier_basis(n).to(u.device)[frequency_rows(k, n)]
    shares = n * (waves @ fold(u)).square() / pair_energy(u.double())
    return WaveShares(shares[0].item(), shares[1].item() if len(shares) > 1 else 0.0)


def fve_of_read_out(neurons: Float[Tensor, "n n m"], W_L: Float[Tensor, "m n"], k: int) -> WaveShares:
    """Of the directions u_k and v_k that W_L reads out: the share of the first along cos, of the second along sin.

    The sine's is NaN at Nyquist's frequency, which has none. Source: Nanda et al. (2023), section 4.2, table 1.
    """
    directions = neuron_logit_directions(W_L, k).to(neurons)
    shares = [fve_of_direction(neurons @ direction, k) for direction in directions.T]
    return WaveShares(shares[0].cosine, shares[1].sine if len(shares) > 1 else math.nan)


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

    To "=" published as 0.1 % to 0.4 %; without "=" there is no such column.
    """
    fit = attention_periodicity(pattern[..., 0])
    columns = (fit.frequency, fit.fve, fit.alpha, fit.beta, *pattern.double().mean(dim=(0, 1)).T)
    names = ("k", "fve", "alpha", "beta", "to_a", "to_b", "to_equals")
    rows = zip(*(column.tolist() for column in columns))
    return [{"head": head, **dict(zip(names, row))} for head, row in enumerate(rows)]


def _by_frequency(energy: Float[Tensor, "n m"], n: int) -> Float[Tensor, "n_frequencies m"]:
    return torch.stack([energy[frequency_rows(k, n)].sum(dim=0) for k in range(1, n_frequencies(n) + 1)])


def _own_products(of_a: Float[Tensor, "n n m"], basis: Float[Tensor, "n n"], k: int) -> Float[Tensor, "m"]:
    rows = frequency_rows(k, len(basis))
    return (basis[rows] @ of_a[rows]).double().square().sum(dim=(0, 1))
