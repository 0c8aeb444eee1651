"""Tests whether a frequency's cube cos(w_k(a + b - c)) is present in a network's logits, with an empirical null.

Independent noise is not a valid null: with n^3 logits a cosine similarity of 0.003 is significant. So each cube is
compared with cubes of the same network that the trig algorithm does not use. Two nulls, each too weak alone:
*signs*: sin(w_k(a + b - c)) and both waves of w_k(+-a +-b - c) with other signs, seven cubes with the same three
frequencies. Under noise whose spectrum has no preferred direction all eight have the same distribution, so v / rms
follows Student's t with 7 degrees of freedom. A circuit that is still forming has the other signs too (each neuron
makes all of them). *sines*: only the sines, of all frequencies together, which stay empty while circuits form. Their
scales differ, so the scale is regressed on neighbouring coefficients. Both are ours; the sine as a null follows from
Nanda et al. (2023), section 3.1.
"""

import math
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float
from scipy.special import gammaln, stdtr
from torch import Tensor

from micrographia.core.basis import n_frequencies

# The regression of the sines' scale: log scale = constant + slope * log of a sine's surroundings. These are points of
# an average, not thresholds: all are weighted by how well they predict the sines. A slope of 1 on the other signs is
# isotropic noise; slopes above 1 on the wrong sums are smooth noise, with a spectrum that falls in a, b and c.
SLOPES_ON_SIGNS = (0.0, 0.5, 1.0)
SLOPES_ON_SUMS = (0.5, 1.0, 1.5, 2.0, 3.0)
DEGREES_OF_FREEDOM = (2.0, 3.0, 6.0, 50.0)
LOG_SCALES = np.linspace(-4, 5, 46)  # about the median sine

TINY = 1e-150  # its square does not underflow
"""Replaces 0 in logarithms and denominators."""


class CubeCells(NamedTuple):
    """Scalar products of the logits with cubes of norm 1, and sizes of neighbouring cubes; row k - 1 is frequency k.

    At the Nyquist frequency (even n) sine and other signs do not exist: NaN.
    """

    cosine: Float[Tensor, "n_frequencies"]
    """v_k, with cos(w_k(a + b - c))."""
    sine: Float[Tensor, "n_frequencies"]
    other_signs: Float[Tensor, "n_frequencies"]
    """Root mean square over the six waves of w_k(a + b + c), w_k(a - b + c) and w_k(a - b - c)."""
    wrong_sums: Float[Tensor, "n_frequencies"]
    """Root mean square over all other waves of any multiples of a and b, with the same w_k c."""


def cube_cells(logits: Float[Tensor, "n n n"], pairs: Bool[Tensor, "n n"] | None = None) -> CubeCells:
    """The cubes of every frequency and their surroundings, over all pairs or over the selected ones.

    Independent of each pair's mean over c. One transform over c and 2 n^3 complex multiplications; float64.
    """
    n = logits.shape[0]
    over_c = torch.fft.rfft(logits.double(), dim=-1)[..., 1:]  # [a, b, k - 1]
    if pairs is not None:
        over_c = over_c * pairs[..., None]
    x = torch.arange(n, device=logits.device)
    k = torch.arange(1, n_frequencies(n) + 1, device=logits.device)
    angle = 2 * math.pi / n * (k[:, None] * x % n).double()
    forth = torch.polar(torch.ones_like(angle), angle)
    cell = [torch.einsum("kb,bk->k", of_b, torch.einsum("ka,abk->bk", of_a, over_c)) for of_a, of_b in _signs(forth)]
    same_answer = n**2 * over_c.abs().square().sum(dim=(0, 1))
    answer = cell[0] / n**1.5
    wrong_sums = ((same_answer / n**3 - answer.abs().square()) / (n**2 - 1)).clamp_min(0).sqrt()
    other_signs = torch.stack(cell[1:]).abs().square().mean(dim=0).sqrt() / n**1.5
    nyquist = 2 * k == n
    return CubeCells(
        cosine=torch.where(nyquist, 1.0, 2.0).double().sqrt() * answer.real,
        sine=(math.sqrt(2) * answer.imag).masked_fill(nyquist, torch.nan),
        other_signs=other_signs.masked_fill(nyquist, torch.nan),
        wrong_sums=wrong_sums,
    )


def stepped_down(cells: CubeCells, *, floor: float, family_wise_error: float) -> Float[Tensor, "n_frequencies"]:
    """Adjusted p-values of each cube, significant below the error: the smallest of each frequency over the steps.

    A significant frequency is removed from the null: the sines of a circuit's frequencies are larger than those of
    empty ones, so they would hide weaker frequencies of it. The null is then recomputed from the sines of the others,
    until no frequency is added. Without a significant one there is a single step, so pure noise is judged as before.
    Source: the step-down idea is Holm's (1979); its use on the null's own sample is ours.
    """
    least = torch.ones_like(cells.cosine)
    silent = torch.ones_like(cells.cosine, dtype=torch.bool)
    while True:
        least = torch.minimum(least, family_wise(p_values(cells, floor=floor, null=silent)))
        still = least >= family_wise_error
        if bool((still == silent).all()) or int((still & ~cells.sine.isnan()).sum()) < FEWEST_SINES:
            return least
        silent = still


FEWEST_SINES = 3
"""A scale, a slope and a tail cannot be estimated from fewer."""


def p_values(
    cells: CubeCells, *, floor: float, null: Bool[Tensor, "n_frequencies"] | None = None
) -> Float[Tensor, "n_frequencies"]:
    """Two-sided p-value of each cube under both nulls: the harmonic mean of the two, not yet adjusted for the family.

    `floor`: the rounding error of a coefficient; anything smaller has p = 1. `null`: the frequencies whose sines form
    the null of sines, by default all.
    Source: Wilson, "The harmonic mean p-value for combining dependent tests" (2019).
    """
    v, sine, signs, sums = (x.abs().cpu().numpy() for x in cells)
    paired = ~np.isnan(sine)
    if not paired.any():
        return torch.ones_like(cells.cosine)
    # The Nyquist frequency has no other signs: they are set, relative to its wrong sums, to the largest of all.
    signs, sums, sine = (np.maximum(x, max(floor, TINY)) for x in (signs, sums, sine))
    signs[~paired] = sums[~paired] * (signs[paired] / sums[paired]).max()
    by_signs = np.ones_like(v)
    by_signs[paired] = 2 * stdtr(7, -v[paired] / np.sqrt((6 * signs[paired] ** 2 + sine[paired] ** 2) / 7))
    speaking = paired if null is None else paired & null.cpu().numpy()
    by_sines = sine_p_values(v, sine[speaking], speaking, signs, sums)
    p = 2 / (1 / np.maximum(by_signs, TINY) + 1 / np.maximum(by_sines, TINY))
    return torch.from_numpy(np.where(v > floor, np.minimum(p, 1), 1.0)).to(cells.cosine)


def sine_p_values(
    v: np.ndarray, sine: np.ndarray, paired: np.ndarray, signs: np.ndarray, sums: np.ndarray
) -> np.ndarray:
    """P(|sine| > |v_k|) of each frequency, as predicted from the sines.

    Sines are modelled as Student's t with a scale e^constant * surroundings^slope; the tail probability is averaged
    over constant, slope, kind of surroundings and degrees of freedom, each weighted by its likelihood (flat priors), so
    that the test is conservative with few or irregular sines. `paired` gives the frequencies of the sines.
    """
    shapes = [slope * np.log(signs) for slope in SLOPES_ON_SIGNS] + [slope * np.log(sums) for slope in SLOPES_ON_SUMS]
    shape = np.array(shapes)  # (model, k)
    centre = np.median(np.log(sine) - shape[:, paired], axis=1)
    log_scale = shape[:, None] + centre[:, None, None] + LOG_SCALES[:, None]  # (model, constant, k)
    of_sine = np.exp(np.log(sine) - log_scale[..., paired])
    of_v = np.exp(np.log(np.maximum(v, TINY)) - log_scale)
    fit = [(_log_t(of_sine, nu) - log_scale[..., paired]).sum(axis=-1) for nu in DEGREES_OF_FREEDOM]
    weight = np.exp(np.array(fit) - np.max(fit))
    tail = np.array([2 * stdtr(nu, -of_v) for nu in DEGREES_OF_FREEDOM])
    return (weight[..., None] * tail).sum(axis=(0, 1, 2)) / weight.sum()


def family_wise(p: Float[Tensor, "tests"]) -> Float[Tensor, "tests"]:
    """p-values adjusted for the family-wise error: the probability of any value below e under the null is at most e.

    Source: Holm, "A simple sequentially rejective multiple test procedure" (1979).
    """
    order = p.argsort()
    remaining = torch.arange(len(p), 0, -1, device=p.device)
    stepped = (p[order] * remaining).clamp_max(1).cummax(dim=0).values if len(p) else p
    return torch.empty_like(p).index_copy_(0, order, stepped)


def _signs(forth: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Waves of a and of b that, with e^(-i w c), form the answer's cube and then those of the other signs."""
    back = forth.conj()
    return [(forth, forth), (back, back), (forth, back), (back, forth)]


def _log_t(x: np.ndarray, nu: float) -> np.ndarray:
    """Log density of Student's t."""
    constant = gammaln((nu + 1) / 2) - gammaln(nu / 2) - math.log(nu * math.pi) / 2
    return constant - (nu + 1) / 2 * np.log1p(x**2 / nu)
