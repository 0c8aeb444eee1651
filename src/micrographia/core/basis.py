"""The real Fourier basis of a cyclic group, and the coordinates in which an operation is addition mod n.

A quantity over pairs is `x[a, b, ...]`, logits are `x[a, b, c]` with the right answer at c = a + b mod n; `Characters`
carries subtraction and multiplication into these coordinates. What a trigonometric algorithm computes depends on
s = a + b only, so most measures need the *folded* table (n, ...) alone; only `unfold` is larger than its input.
Frequencies are k = 1 .. n // 2, with w_k = 2 pi k / n. For even n the last one (Nyquist) has a cosine and no sine.
Source: Nanda et al., "Progress measures for grokking via mechanistic interpretability" (2023), section 3.
"""

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float, Int, Shaped
from torch import Generator, Tensor

from micrographia.core.errors import BadConfig, BadShape


def n_frequencies(n: int) -> int:
    """The number of frequencies besides the constant: k = 1 .. n // 2."""
    return n // 2


def fourier_basis(n: int, dtype: torch.dtype = torch.float64) -> Float[Tensor, "n n"]:
    """Orthonormal rows [constant, cos 1, sin 1, cos 2, sin 2, ...]; for even n the last row is cos(pi x).

    Row r at x is sqrt(2 / n) cos(w_k x) or sin(w_k x), and sqrt(1 / n) times the constant 1 or (-1)^x. Angles are
    reduced mod n as integers, so that the float64 basis is orthonormal to rounding. O(n^2) memory.
    Source: Nanda et al. (2023), the basis of their analysis; the Nyquist row is ours, so that even n is complete.
    """
    if n < 2:
        raise BadConfig(f"A Fourier basis over {n} points was asked for; it needs at least 2.")
    x = torch.arange(n)
    frequency = torch.arange(1, n_frequencies(n) + 1)
    angle = (2 * math.pi / n) * (frequency[:, None] * x % n).double()
    waves = torch.stack([angle.cos(), angle.sin()], dim=1).flatten(0, 1)[: n - 1]  # even n: no sine at the end
    rows = torch.cat([torch.ones(1, n, dtype=torch.float64), waves])
    norm = torch.full((n, 1), math.sqrt(2 / n), dtype=torch.float64)
    norm[0] = math.sqrt(1 / n)
    if n % 2 == 0:
        norm[-1] = math.sqrt(1 / n)
    return (rows * norm).to(dtype)


def frequency_rows(k: int, n: int) -> slice:
    """The rows of `fourier_basis(n)` that belong to frequency k: cosine and sine, or the cosine alone at Nyquist."""
    if not 1 <= k <= n_frequencies(n):
        raise BadConfig(f"Frequency {k} of {n} points was asked for; they are 1 to {n_frequencies(n)}.")
    return slice(2 * k - 1, min(2 * k + 1, n))


def draw_others(ks: Collection[int], n: int, size: int, generator: Generator) -> list[int]:
    """`size` frequencies that are not among `ks`, drawn at random: the control of a set; all others where too few."""
    others = [k for k in range(1, n_frequencies(n) + 1) if k not in ks]
    return sorted(others[i] for i in torch.randperm(len(others), generator=generator)[:size].tolist())


def rows_of_frequencies(ks: Sequence[int], n: int) -> Int[Tensor, "rows"]:
    """The rows of `fourier_basis(n)` that belong to any of these frequencies, in the basis' order, each once."""
    rows = [row for k in sorted(set(ks)) for row in range(n)[frequency_rows(k, n)]]
    return torch.tensor(rows, dtype=torch.long)


@dataclass(frozen=True, eq=False, slots=True)
class Characters:
    """Coordinates in which an operation on residues mod p is addition mod `order`.

    `left[i] o right[j] = out[(i + j) mod order]` for all i, j; each tensor gives the residue whose index is i.
    """

    modulus: int
    order: int
    left: Int[Tensor, "n"]
    right: Int[Tensor, "n"]
    out: Int[Tensor, "n"]


def characters(operation: str, p: int) -> Characters | None:
    """The cyclic coordinates of `add`, `subtract` or `multiply` mod p; None for `polynomial`, which has none.

    Multiplication is over the p - 1 non-zero residues of a prime p, as powers of its least primitive root.
    """
    residues = torch.arange(p)
    if operation == "add":
        return Characters(p, p, residues, residues, residues)
    if operation == "subtract":
        return Characters(p, p, residues, -residues % p, residues)
    if operation == "multiply":
        powers = _powers_of_least_primitive_root(p)
        return Characters(p, p - 1, powers, powers, powers)
    if operation == "polynomial":
        return None
    raise BadConfig(f"Characters of {operation!r} were asked for; known are add, subtract, multiply, polynomial.")


def to_cyclic(logits: Float[Tensor, "*pairs p"], characters: Characters) -> Float[Tensor, "n n n"]:
    """Logits over residues, (p, p, p) or (p * p, p), in cyclic coordinates. Further columns ("=") are left out.

    One copy; same dtype.
    """
    if logits.shape[-1] < characters.modulus:
        raise BadShape(f"Logits over {characters.modulus} residues were expected; found shape {tuple(logits.shape)}.")
    by_pairs = logits.reshape(characters.modulus, characters.modulus, -1) if logits.ndim == 2 else logits
    return pairs_to_cyclic(by_pairs, characters)[..., characters.out]


def pairs_to_cyclic(x: Shaped[Tensor, "p p *rest"], characters: Characters) -> Shaped[Tensor, "n n *rest"]:
    """Anything over pairs of residues (a mask, neurons, patterns) in cyclic coordinates. One copy; same dtype."""
    if x.shape[:2] != (characters.modulus, characters.modulus):
        raise BadShape(f"Pairs of {characters.modulus} residues were expected; found shape {tuple(x.shape)}.")
    return x[characters.left[:, None], characters.right]


def fold(x: Shaped[Tensor, "n n *rest"]) -> Float[Tensor, "n *rest"]:
    """Mean over the n pairs with (a + b) mod n = s, for each s; in float64. One pass, no temporary of the input's size.

    Equal to the projection of `x` on all functions of a + b, read at one pair for each s.
    """
    n = _pairs(x)
    total = torch.zeros(x.shape[1:], dtype=torch.float64, device=x.device)
    for a in range(n):  # row a holds s = a .. n - 1, then 0 .. a - 1
        total[a:] += x[a, : n - a]
        total[:a] += x[a, n - a :]
    return total / n


def unfold(table: Shaped[Tensor, "n *rest"]) -> Shaped[Tensor, "n n *rest"]:
    """The function of a + b with this table, at every pair: `table[(a + b) mod n]`. The result is n times as large."""
    index = torch.arange(table.shape[0])
    return table[(index[:, None] + index) % table.shape[0]]


def pair_energy(x: Float[Tensor, "n n *rest"]) -> Float[Tensor, "*rest"]:
    """Sum over pairs of the squared distance from the mean over pairs; NaN where `x` is constant up to rounding.

    Distances in the precision of `x`, their sum in float64. Fractions of variance divide by it, so a constant has none.
    """
    n = _pairs(x)
    mean = x.mean(dim=(0, 1))
    energy = torch.zeros(x.shape[2:], dtype=torch.float64, device=x.device)
    for a in range(n):  # row by row, to make no temporary of the input's size
        energy += (x[a] - mean).square().sum(dim=0)
    constant = energy <= 100 * torch.finfo(x.dtype).eps ** 2 * (energy + n**2 * mean.double().square())
    return energy.masked_fill(constant, torch.nan)


def fold_difference(logits: Float[Tensor, "n n n"]) -> Float[Tensor, "n"]:
    """Mean of the row-centred logits over the n^2 entries with (a + b - c) mod n = d, for each d; in float64."""
    table = fold(logits)
    return table_difference(table - table.mean(dim=1, keepdim=True))


def table_difference(table: Float[Tensor, "n n"]) -> Float[Tensor, "n"]:
    """Mean over s of `table[s, s - d]`, for each d: the part of a folded table that depends on s - c alone. O(n^2)."""
    n = _pairs(table)
    index = torch.arange(n, device=table.device)
    return table[index, (index - index[:, None]) % n].mean(dim=1)  # [d, s] -> the column c = s - d


class CubeCoefficients(NamedTuple):
    """Scalar products of the row-centred logits with the normalised cubes cos and sin(w_k(a + b - c)); row k - 1 is k.

    The sine has no entry at Nyquist's frequency.
    """

    cosine: Float[Tensor, "n_frequencies"]
    sine: Float[Tensor, "n_sines"]


def cube_coefficients(logits: Float[Tensor, "n n n"]) -> CubeCoefficients:
    """Coefficients of the logits on the cubes cos(w_k(a + b - c)), which the algorithm writes, and sin(w_k(a + b - c)).

    v_k = <L, C_k> with |C_k| = 1 over all n^3 entries: n times the Fourier coefficient of `fold_difference`. The trig
    algorithm does not use the sine cubes, so they serve as a null. One pass over the logits, then O(n^2); float64.
    Source: Nanda et al. (2023), the terms cos(w_k(a + b - c)) of their algorithm, section 3.1; the null is ours.
    """
    n = _pairs(logits)
    coefficients = n * (fourier_basis(n).to(logits.device) @ fold_difference(logits))
    return CubeCoefficients(cosine=coefficients[1::2], sine=coefficients[2::2])


def _pairs(x: Tensor) -> int:
    if x.ndim < 2 or x.shape[0] != x.shape[1]:
        raise BadShape(f"Values over pairs, (n, n, ...), were expected; found shape {tuple(x.shape)}.")
    return x.shape[0]


def _powers_of_least_primitive_root(p: int) -> Int[Tensor, "n"]:
    for root in range(1, p):
        powers = [1]
        while (power := powers[-1] * root % p) not in (0, 1):
            powers.append(power)
        if len(powers) == p - 1:
            return torch.tensor(powers)
    raise BadConfig(f"Multiplication mod {p} was asked for; it is cyclic on the non-zero residues of a prime only.")
