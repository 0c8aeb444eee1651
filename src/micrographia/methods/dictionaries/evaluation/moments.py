"""Running moments: sums over tokens that are updated block by block, in float64, without cancellation.

Means and sums of squared deviations are combined as in Chan, Golub and LeVeque, "Updating formulae and a pairwise
algorithm for computing sample variances" (1979), eq. 2.1: never as a difference of two large sums. Memory does not grow
with tokens. Axes: token d.
"""

from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(slots=True)
class Variance:
    """Mean and sum of squared deviations of each dimension, over all rows added so far."""

    n: int = 0
    mean: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.float64))
    deviations: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.float64))

    def add(self, rows: Float[Tensor, "token d"]) -> None:
        rows = rows.double()
        n, mean = len(rows), rows.mean(0)
        deviations = (rows - mean).square().sum(0)
        if not self.n:
            self.n, self.mean, self.deviations = n, mean, deviations
            return
        shift, total = mean - self.mean, self.n + n
        self.deviations = self.deviations + deviations + shift.square() * (self.n * n / total)
        self.mean = self.mean + shift * (n / total)
        self.n = total

    @property
    def total(self) -> float:
        """E ||row - E row||^2: summed over dimensions, per row."""
        return float(self.deviations.sum()) / self.n


@dataclass(slots=True)
class Covariance:
    """Mean and sum of products of deviations, (d, d); d^2 float64 numbers."""

    n: int = 0
    mean: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.float64))
    products: Tensor = field(default_factory=lambda: torch.zeros(0, 0, dtype=torch.float64))

    def add(self, rows: Float[Tensor, "token d"]) -> None:
        rows = rows.double()
        n, mean = len(rows), rows.mean(0)
        centred = rows - mean
        products = centred.T @ centred
        if not self.n:
            self.n, self.mean, self.products = n, mean, products
            return
        shift, total = mean - self.mean, self.n + n
        self.products = self.products + products + torch.outer(shift, shift) * (self.n * n / total)
        self.mean = self.mean + shift * (n / total)
        self.n = total


@dataclass(slots=True)
class Mean:
    """The mean of numbers, and its standard error, over those added so far."""

    variance: Variance = field(default_factory=Variance)

    def add(self, values: Float[Tensor, "token"]) -> None:
        if len(values):
            self.variance.add(values[:, None])

    @property
    def n(self) -> int:
        return self.variance.n

    @property
    def value(self) -> float:
        return float(self.variance.mean[0]) if self.n else float("nan")

    @property
    def error(self) -> float:
        """The standard error of the mean, as of independent numbers; NaN for fewer than two."""
        if self.n < 2:
            return float("nan")
        return (float(self.variance.deviations[0]) / (self.n - 1) / self.n) ** 0.5
