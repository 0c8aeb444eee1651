"""Synthetic activations with known features in superposition, to hold a dictionary against the truth.

x = sum over features of size * direction, with more features than dimensions. Features fire by a Gaussian copula: with
frequencies of one's own or a Zipf law, correlated in groups through a few shared factors, and in trees in which a child
fires only where its parent does, at its own frequency all the same.
Sources: Elhage et al., "Toy models of superposition" (2022), section 2; Sharkey et al. (2022) on recovering known
features; SynthSAEBench for Zipf's law, hierarchy and low-rank correlation. Axes: row feature d factor.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor

from micrographia.core.errors import BadConfig
from micrographia.core.runtime import batch_generator
from micrographia.core.stream.batches import Activations, Batches


class Mixture(NamedTuple):
    """Activations and what they are made of: the size of each feature, 0 where it is silent."""

    x: Float[Tensor, "row d"]
    features: Float[Tensor, "row feature"]


@dataclass(frozen=True, slots=True, eq=False)
class Superposition:
    """A world of features: directions, how often they fire, and how large they then are."""

    directions: Float[Tensor, "feature d"]
    """Of norm 1."""
    frequencies: Float[Tensor, "feature"]
    """The share of rows in which each fires."""
    parents: Int[Tensor, "feature"]
    """The feature without which each does not fire; -1: none. A parent comes before its children."""
    loadings: Float[Tensor, "feature factor"]
    """How each feature depends on the shared factors; rows of norm below 1."""
    size: float = 1.0
    size_std: float = 0.0
    """Sizes are normal about `size` with this deviation, and their absolute value is taken."""
    noise: float = 0.0
    """Standard deviation of each dimension's noise."""

    def __post_init__(self) -> None:
        n = len(self.directions)
        children = (self.parents >= 0).nonzero()[:, 0]
        if not (len(self.frequencies) == len(self.parents) == len(self.loadings) == n):
            raise BadConfig(
                f"{n} features were given with {len(self.frequencies)} frequencies, {len(self.parents)} parents and "
                f"{len(self.loadings)} rows of loadings. Give one of each to every feature."
            )
        if not bool(((self.frequencies > 0) & (self.frequencies <= 1)).all()):
            raise BadConfig(
                f"Features fire at frequencies between 0 and 1. Found {float(self.frequencies.min()):.3g} to "
                f"{float(self.frequencies.max()):.3g}: ask for fewer active features, or a smaller exponent."
            )
        if bool((self.parents[children] >= children).any()):
            raise BadConfig("A feature was given a parent that comes after it. Order parents before their children.")
        if bool((self.frequencies[children] > self.frequencies[self.parents[children]]).any()):
            raise BadConfig("A child fires more often than its parent, without which it cannot. Lower its frequency.")

    @property
    def n_features(self) -> int:
        return len(self.directions)

    @property
    def d(self) -> int:
        return self.directions.shape[1]

    @property
    def mean_active(self) -> float:
        """How many features fire in a row, on average: the L0 of the truth."""
        return float(self.frequencies.sum())

    def draw(self, n: int, generator: Generator) -> Mixture:
        """n independent rows. 2 n features d FLOPs; three tensors (row, feature)."""
        features = self._fires(n, generator) * self._sizes(n, generator)
        x = features @ self.directions
        if self.noise:
            x = x + self.noise * torch.randn(tuple(x.shape), generator=generator)
        return Mixture(x, features)

    def batches(self, size: int, seed: int) -> Batches:
        """Batches for training, each a pure function of the step."""
        return lambda step: Activations(self.draw(size, batch_generator(seed, step)).x)

    def _fires(self, n: int, generator: Generator) -> Tensor:
        factors = torch.randn(n, self.loadings.shape[1], generator=generator)
        own = (1 - self.loadings.square().sum(1)).clamp(min=0).sqrt()
        z = factors @ self.loadings.T + own * torch.randn(n, self.n_features, generator=generator)
        given_parent = self.frequencies / torch.where(
            self.parents >= 0, self.frequencies[self.parents.clamp(min=0)], 1.0
        )
        fires = z < torch.special.ndtri(given_parent.double()).to(z)
        for level in self._levels():
            fires[:, level] &= fires[:, self.parents[level]]
        return fires.float()

    def _levels(self) -> list[Tensor]:
        """Features that have a parent, by their depth."""
        depth = torch.zeros(self.n_features, dtype=torch.long)
        for child in (self.parents >= 0).nonzero()[:, 0].tolist():
            depth[child] = depth[self.parents[child]] + 1
        return [(depth == level).nonzero()[:, 0] for level in range(1, int(depth.max()) + 1)]

    def _sizes(self, n: int, generator: Generator) -> Tensor:
        drawn = torch.randn(n, self.n_features, generator=generator) if self.size_std else torch.zeros(1, 1)
        return (self.size + self.size_std * drawn).abs()


def superposition(
    n_features: int,
    d: int,
    *,
    generator: Generator,
    mean_active: float = 5.0,
    exponent: float = 0.5,
    frequencies: Sequence[float] | Tensor | None = None,
    children: float = 0.0,
    factors: int = 0,
    correlation: float = 0.0,
    size: float = 1.0,
    size_std: float = 0.15,
    noise: float = 0.0,
) -> Superposition:
    """A world with random directions.

    `frequencies`: given, or by Zipf's law proportional to rank^-`exponent`, with `mean_active` features a row.
    `children`: the share of features, from the less frequent half, that have a parent, drawn among the more frequent
    half. `correlation`: the share of a feature's variance in the copula that `factors` shared factors make.
    Raises BadConfig for frequencies above 1 and sizes that do not fit.
    """
    if not (n_features > 0 and d > 0 and 0 <= children <= 1 and 0 <= correlation < 1):
        raise BadConfig(
            f"Asked for {n_features} features in {d} dimensions, a share {children} of children and the correlation "
            f"{correlation}. Give positive sizes, and shares below 1."
        )
    if frequencies is None:
        rank = torch.arange(1, n_features + 1, dtype=torch.float64)
        law = rank**-exponent
        often = (mean_active * law / law.sum()).float()
    else:
        often = torch.as_tensor(frequencies, dtype=torch.float32)
    directions = torch.randn(n_features, d, generator=generator)
    loadings = torch.randn(n_features, max(factors, 1), generator=generator)
    loadings = loadings / loadings.norm(dim=1, keepdim=True) * math.sqrt(correlation if factors else 0.0)
    return Superposition(
        directions / directions.norm(dim=1, keepdim=True),
        often,
        _parents(often, children, generator),
        loadings,
        size=size,
        size_std=size_std,
        noise=noise,
    )


def _parents(frequencies: Tensor, share: float, generator: Generator) -> Int[Tensor, "feature"]:
    """Parents among the first half, for a share of the features in the second half; only where they fire less often."""
    n = len(frequencies)
    found = torch.full((n,), -1)
    half = n // 2
    wanted = min(int(share * n), n - half)
    if not wanted or not half:
        return found
    chosen = half + torch.randperm(n - half, generator=generator)[:wanted]
    drawn = torch.randint(half, (wanted,), generator=generator)
    fits = frequencies[chosen] <= frequencies[drawn]
    found[chosen[fits]] = drawn[fits]
    return found
