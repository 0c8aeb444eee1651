"""How many neurons a decoder row writes to: 1-sparse, 10-sparse or dense, and how heavy its tails are.

For dictionaries of MLP neurons, whose basis is privileged. The squares of a row are sorted: `fve_1` is the share of the
largest, `fve_10` that of the ten largest. The same functions take the baselines: Gaussian rows, and the rows themselves
in a random basis, where no neuron is special any more.
Source: Nanda, "Some open source sparse autoencoders for a one-layer model" (2023), code 1L-Sparse-Autoencoder.
Axes: latent neuron.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Generator, Tensor

from micrographia.core.errors import BadShape

TEN = 10


class NeuronShares(NamedTuple):
    """Of each row, the share of its squared norm in its largest entry, and in its ten largest. NaN for a row of 0."""

    fve_1: Float[Tensor, "latent"]
    fve_10: Float[Tensor, "latent"]

    @property
    def next_9(self) -> Float[Tensor, "latent"]:
        return self.fve_10 - self.fve_1


class CutOffs(NamedTuple):
    """The published rule: 1-sparse above `one` with the next nine below `next_nine`, else 10-sparse above `ten`."""

    one: float = 0.35
    next_nine: float = 0.1
    ten: float = 0.35


class SparsityClasses(NamedTuple):
    """The share of rows of each class; they sum to 1, and are NaN of no rows."""

    one: float
    ten: float
    dense: float


PUBLISHED = CutOffs()


def neuron_shares(rows: Float[Tensor, "latent neuron"]) -> NeuronShares:
    """The shares of the largest and the ten largest squares. Copies the rows once. Raises BadShape below ten."""
    if rows.shape[1] < TEN:
        raise BadShape(f"The rule looks at the ten largest of a row's neurons. Found rows of {rows.shape[1]}.")
    squares = rows.double().square()
    largest = squares.topk(TEN, dim=1).values / squares.sum(1, keepdim=True)
    return NeuronShares(largest[:, 0], largest.sum(1))


def sparsity_classes(
    shares: NeuronShares, cut: CutOffs = PUBLISHED, among: Bool[Tensor, "latent"] | None = None
) -> SparsityClasses:
    """The share of 1-sparse, 10-sparse and dense rows, `among` some of them or all; rows of 0 are left out.

    >>> rows = torch.eye(12)[:2] + torch.tensor([[0.0], [1.0]])
    >>> sparsity_classes(neuron_shares(rows))
    SparsityClasses(one=0.5, ten=0.5, dense=0.0)
    """
    known = shares.fve_1.isfinite() if among is None else among & shares.fve_1.isfinite()
    one = (shares.fve_1 > cut.one) & (shares.next_9 < cut.next_nine)
    ten = (shares.fve_10 > cut.ten) & ~one
    first, second = (float(chosen[known].double().mean()) for chosen in (one, ten))
    return SparsityClasses(first, second, 1 - first - second)


def by_cut_offs(
    shares: NeuronShares, fves: Sequence[float], nexts: Sequence[float], among: Bool[Tensor, "latent"] | None = None
) -> Float[Tensor, "3 fve next"]:
    """The three shares under other cut-offs: `fves` for one and ten neurons alike, `nexts` for the next nine.

    What is above `fve` with one neuron is so with ten: how many are dense does not depend on `nexts`.
    """
    grid = [[sparsity_classes(shares, CutOffs(fve, nine, fve), among) for nine in nexts] for fve in fves]
    return torch.tensor(grid, dtype=torch.float64).permute(2, 0, 1)


def kurtosis(rows: Float[Tensor, "latent neuron"]) -> Float[Tensor, "latent"]:
    """The fourth central moment of each row over its squared variance: 3 for a Gaussian, more with heavier tails."""
    centred = rows.double() - rows.double().mean(1, keepdim=True)
    return centred.pow(4).mean(1) / centred.square().mean(1).square()


def gaussian_rows(like: Float[Tensor, "latent neuron"], generator: Generator) -> Float[Tensor, "latent neuron"]:
    """As many Gaussian rows as wide: the baseline in which no basis is privileged."""
    return torch.randn(like.shape, generator=generator).to(like)


def rotated_rows(rows: Float[Tensor, "latent neuron"], generator: Generator) -> Float[Tensor, "latent neuron"]:
    """The rows in a random orthogonal basis: their lengths and angles, but no neuron. Cost: one QR of neuron^3."""
    d = rows.shape[1]
    drawn, triangle = torch.linalg.qr(torch.randn(d, d, generator=generator, dtype=torch.float64))
    basis = drawn * triangle.diagonal().sign()  # without the signs it is not uniform (Mezzadri 2007, section 4)
    return (rows.double() @ basis.to(rows.device)).to(rows.dtype)


def null_share(
    vectors: Float[Tensor, "vector neuron"], W_out: Float[Tensor, "neuron d_model"]
) -> Float[Tensor, "vector"]:
    """The share of each vector's squared norm that W_out reads nothing of: what lies in its null space.

    Baseline, for directions at random: 1 - rank(W_out) / neurons. Cost: one SVD of W_out.
    """
    seen, sizes, _ = torch.linalg.svd(W_out.double(), full_matrices=False)
    seen = seen[:, sizes > sizes.max() * max(W_out.shape) * torch.finfo(W_out.dtype).eps]
    wide = vectors.double()
    return 1 - (wide @ seen).square().sum(1) / wide.square().sum(1)


def null_share_by_chance(W_out: Float[Tensor, "neuron d_model"]) -> float:
    """`null_share` of a random direction."""
    return 1 - float(torch.linalg.matrix_rank(W_out)) / len(W_out)
