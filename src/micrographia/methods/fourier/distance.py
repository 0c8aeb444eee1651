"""How the height of each wave cos(w_k(a + b - c)) depends on the distance a - b: constant for a clock, not for a pizza.

A clock multiplies waves of a and b and writes cos(w_k(a + b - c)) alike for all pairs. A pizza adds the embeddings
first: cos wa + cos wb = 2 cos(w(a - b)/2) cos(w(a + b)/2) and the same with sines, a point at half the angle on a
circle whose radius depends on a - b. Its neurons double the angle (|cos x| is 2/pi + 4/(3 pi) cos 2x - ..), which
leaves |cos(w_k(a - b)/2)| cos(w_k(a + b - c)). Here both are fitted together. Shapes as in `closed_form`.
Source: Zhong, Liu, Tegmark and Andreas, "The Clock and the Pizza" (2023), sections 2 and 3; the joint fit is ours.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Complex, Float
from torch import Tensor

from micrographia.methods.fourier.closed_form import Algorithm, Wave, phase_degrees, phase_text
from micrographia.methods.fourier.cubes import centred_energy


class Slice(NamedTuple):
    """One term (clock + pizza |cos(w_k(a - b)/2)|) cos(w_k(a + b - c) - phase)."""

    k: int
    clock: float
    pizza: float
    """Both in logits. 0 at the Nyquist frequency, where a - b has only two distances."""
    phase: float

    @property
    def lost(self) -> float:
        """Fraction of the height at a = b that is missing where a and b are half a period apart."""
        return self.pizza / (self.clock + self.pizza) if self.clock + self.pizza else math.nan


def read_slices(logits: Float[Tensor, "n n n"], algorithm: Algorithm) -> list[Slice]:
    """Least squares over all distances of each wave's height, in the direction of its phase as printed.

    One transform over c and O(n^2) for each wave; float64.
    """
    n = algorithm.n
    along = heights(logits, [wave.k for wave in algorithm.waves])
    return [_fit(wave, row, n) for wave, row in zip(algorithm.waves, along)]


def heights(logits: Float[Tensor, "n n n"], ks: Sequence[int]) -> Complex[Tensor, "waves n"]:
    """For each distance d = a - b the amplitude of cos (real part) and of sin (imaginary) of w_k(a + b - c)."""
    n = len(logits)
    over_c = torch.fft.rfft(logits.double(), dim=-1)
    a = torch.arange(n, device=logits.device)
    b = (a - a[:, None]) % n  # [d, a]
    rows = []
    for k in ks:
        angle = 2 * math.pi / n * (k * (a + b) % n).double()
        turned = (torch.polar(torch.ones_like(angle), angle) * over_c[a, b, k]).mean(dim=1) / n
        rows.append(turned * (1 if 2 * k == n else 2))
    return torch.stack(rows) if rows else over_c.new_zeros(0, n)


def shrinking(k: int, n: int) -> Float[Tensor, "n"]:
    """|cos(w_k d / 2)| for each distance d mod n; float64."""
    return (math.pi / n * (k * torch.arange(n) % n).double()).cos().abs()


def distance_logits(slices: Sequence[Slice], n: int) -> Float[Tensor, "n n n"]:
    """The logits of the terms, printed digits only. One (n, n, n) tensor in float64."""
    x = torch.arange(n)
    logits = torch.zeros(n, n, n, dtype=torch.float64)
    for each in slices:
        height = (each.clock + each.pizza * shrinking(each.k, n))[(x[:, None] - x) % n]
        wave = (2 * math.pi / n * (each.k * x % n).double() - each.phase).cos()
        logits += height[..., None] * wave[(x[:, None, None] + x[:, None] - x) % n]
    return logits


def variance_explained(logits: Float[Tensor, "n n n"], terms: Float[Tensor, "n n n"]) -> float:
    """1 - the energy of what the terms leave over that of the logits, both less each pair's mean over c; float64."""
    return 1 - (centred_energy(logits.double() - terms) / centred_energy(logits)).item()


def formula(logits: Float[Tensor, "n n n"], slices: Sequence[Slice]) -> list[str]:
    """The terms in words: the formula, what it explains, and what each wave loses with the distance.

    A part of a term that is 0 in the digits printed is left out. Nothing without a term.
    """
    n = len(logits)
    if not slices:
        return []
    terms = " + ".join(
        f"{_height(each, n)} cos(2 pi {each.k} (a+b-c) / {n}{phase_text(phase_degrees(each.phase))})" for each in slices
    )
    explained = variance_explained(logits, distance_logits(slices, n))
    lost = ", ".join(f"{each.lost:.0%} (k = {each.k})" for each in slices)
    return [
        f"Closed form with the distance a - b: logit(c) = {terms}.",
        f"Together they hold {explained:.1%} of the logits' variance over c.",
        f"From a = b to half a period apart the waves lose of their height: {lost}. A pure pizza's lose 100%, a "
        "clock's 0%.",
    ]


def _fit(wave: Wave, height: Complex[Tensor, "n"], n: int) -> Slice:
    phase = math.radians(phase_degrees(wave.phase))
    along = height.real * math.cos(phase) + height.imag * math.sin(phase)
    clock, pizza = along.mean().item(), 0.0
    if 2 * wave.k != n:
        columns = torch.stack([torch.ones(n, dtype=torch.float64), shrinking(wave.k, n)], dim=1).to(along.device)
        clock, pizza = torch.linalg.lstsq(columns, along[:, None]).solution[:, 0].tolist()
    size = abs(clock) + abs(pizza)
    clock, pizza = (float(f"{x:.3g}") if abs(x) >= 0.005 * size else 0.0 for x in (clock, pizza))
    return Slice(wave.k, clock, pizza, phase)


def _height(each: Slice, n: int) -> str:
    shrinks = f"|cos(pi {each.k} (a-b) / {n})|"
    if not each.pizza:
        return f"{each.clock:.3g}"
    if not each.clock:
        return f"{each.pizza:.3g} {shrinks}"
    return f"({each.clock:.3g} {'-' if each.pizza < 0 else '+'} {abs(each.pizza):.3g} {shrinks})"
