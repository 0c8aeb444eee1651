"""Explained variance: our definition, and what other tools compute under the same name.

Ours is 1 - FVU, FVU = E||x - x̂||² / E||x - E x||² with both means over all tokens. The others differ in what they take
off the residual, in the mean that they compare with, and in what is averaged; those computed per batch change with its
size. As the tools compute it was measured with sae-lens 6.54, sae-bench 0.6, dictionary-learning 0.1 and sparsify 1.3.
Here x is what should come out: a transcoder's target.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from jaxtyping import Float
from torch import Tensor

from micrographia.methods.dictionaries.evaluation.moments import Mean, Variance


@dataclass(slots=True)
class Residuals:
    """Everything that the definitions read, summed block by block. A block is a batch of theirs."""

    target: Variance = field(default_factory=Variance)
    residual: Variance = field(default_factory=Variance)
    squares: Mean = field(default_factory=Mean)
    """||x||² of each token."""
    errors: Mean = field(default_factory=Mean)
    """||x - x̂||² of each token."""
    per_token: Mean = field(default_factory=Mean)
    """1 - ||x - x̂||² / ||x - mean of the batch||² of each token."""
    per_batch_centred: Mean = field(default_factory=Mean)
    per_batch: Mean = field(default_factory=Mean)

    def add(self, y: Float[Tensor, "token d"], output: Float[Tensor, "token d"]) -> None:
        y = y.double()
        e = y - output.double()
        errors, own = e.square().sum(1), (y - y.mean(0)).square().sum(1)
        self.target.add(y)
        self.residual.add(e)
        self.squares.add(y.square().sum(1))
        self.errors.add(errors)
        self.per_token.add((1 - errors / own)[own > 0])
        if float(own.sum()) > 0:
            centred = (e - e.mean(0)).square().sum()
            self.per_batch_centred.add((1 - centred / own.sum())[None])
            self.per_batch.add((1 - errors.sum() / own.sum())[None])

    @property
    def fvu(self) -> float:
        """The fraction of variance that is left unexplained; NaN where there is no variance."""
        return _over(self.errors.value, self.target.total)


def _over(part: float, whole: float) -> float:
    return part / whole if whole > 0 else float("nan")


def _per_dimension(sums: Residuals) -> float:
    """Dimensions without variance are left out, as they have no R²."""
    squares = sums.residual.deviations + sums.residual.n * sums.residual.mean.square()
    there = sums.target.deviations > 0
    return float((1 - squares[there] / sums.target.deviations[there]).mean()) if bool(there.any()) else float("nan")


def _saebench(sums: Residuals) -> float:
    per_dimension = sums.squares.value / len(sums.target.mean)
    variance = sums.squares.value - per_dimension**2  # negative where activations are large
    return 1 - sums.errors.value / variance if variance else float("nan")


class Definition(NamedTuple):
    """One meaning of "explained variance"."""

    who: str
    formula: str
    of: Callable[[Residuals], float]
    note: str = ""


DEFINITIONS: dict[str, Definition] = {
    "pooled": Definition("this package", "1 - E||x - x̂||² / E||x - E x||²", lambda sums: 1 - sums.fvu),
    "saelens": Definition(
        "SAELens explained_variance",
        "1 - E||x - x̂||² / (E||x||² - ||E x||²)",
        lambda sums: 1 - _over(sums.errors.value, sums.squares.value - float(sums.target.mean.square().sum())),
        "the same number, but for what cancels in the difference",
    ),
    "saelens_legacy": Definition(
        "SAELens and SAEBench explained_variance_legacy",
        "E[1 - ||x - x̂||² / ||x - batch mean||²]",
        lambda sums: sums.per_token.value,
        "a mean of ratios: tokens near the mean weigh most; depends on the batch",
    ),
    "dictionary_learning": Definition(
        "dictionary_learning frac_variance_explained",
        "mean over batches of 1 - Σ Var(x - x̂) / Σ Var(x)",
        lambda sums: sums.per_batch_centred.value,
        "the residual is centred: a constant error costs nothing; depends on the batch",
    ),
    "sparsify": Definition(
        "sparsify 1 - fvu",
        "mean over batches of 1 - Σ||x - x̂||² / Σ||x - batch mean||²",
        lambda sums: sums.per_batch.value,
        "depends on the batch",
    ),
    "saebench": Definition(
        "SAEBench explained_variance",
        "1 - E||x - x̂||² / (E||x||² - (E||x||² / d)²)",
        _saebench,
        "changes with the scale of x, and may exceed 1",
    ),
    "centred": Definition(
        "centred residual, pooled",
        "1 - Σ Var(x - x̂) / Σ Var(x)",
        lambda sums: 1 - _over(sums.residual.total, sums.target.total),
        "a constant error costs nothing",
    ),
    "per_dimension": Definition(
        "mean of R² over dimensions",
        "mean over d of 1 - E(x_d - x̂_d)² / Var(x_d)",
        _per_dimension,
        "small dimensions weigh as much as large ones",
    ),
}


def explained_variance(sums: Residuals) -> dict[str, float]:
    """Every definition's value, by name."""
    return {name: definition.of(sums) for name, definition in DEFINITIONS.items()}
