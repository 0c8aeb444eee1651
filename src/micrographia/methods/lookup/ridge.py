"""Linear classifiers of many places and splits solved at once: ridge regression on indicators of the class.

The strength is chosen for every place and split by leave-one-out error on the training rows, in closed form, so that no
judged row takes part. A class is what the largest of the fitted indicators says. Source: Hastie, Tibshirani and
Friedman, "The Elements of Statistical Learning", sections 3.4.1 and 4.2; leave-one-out by the hat matrix, section 7.10.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Generator, Tensor

from micrographia.core.errors import UserError

STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)
"""Of the penalty, over the mean eigenvalue of the features' covariance."""
FEWEST = 2


class Linear(NamedTuple):
    """x @ weight + bias gives a score for every class."""

    weight: Float[Tensor, "d option"]
    bias: Float[Tensor, "option"]


def split_rows(n: int, generator: Generator, *, splits: int = 10, test_share: float = 0.2) -> Bool[Tensor, "split row"]:
    """True at the rows that judge. Raises UserError where few rows are left on a side."""
    n_test = round(n * test_share)
    if n_test < FEWEST or n - n_test < FEWEST:
        raise UserError(f"{n} rows cannot be split with a share of {test_share}: {FEWEST} are needed on each side.")
    order = torch.stack([torch.randperm(n, generator=generator) for _ in range(splits)])
    return order < n_test


def ridge_accuracy(
    x: Float[Tensor, "row d"], labels: Int[Tensor, "row item"], sizes: list[int], judged: Bool[Tensor, "split row"]
) -> Float[Tensor, "item split"]:
    """The share of judged rows that a classifier of the others gets right, for several targets of the same features.

    Cost: one eigendecomposition of d x d a split, shared by all targets.
    """
    found = []
    for test in judged:
        fitted = fit_ridge(x[~test], labels[~test], sizes)
        scores = [x[test].double() @ each.weight + each.bias for each in fitted]
        found.append(torch.stack([(s.argmax(-1) == labels[test, k]).double().mean() for k, s in enumerate(scores)]))
    return torch.stack(found, 1)


def fit_ridge(x: Float[Tensor, "row d"], labels: Int[Tensor, "row item"], sizes: list[int]) -> list[Linear]:
    """A classifier for each target, in float64."""
    x = x.double()
    mean = x.mean(0)
    centred = x - mean
    values, vectors = torch.linalg.eigh(centred.T @ centred)
    values = values.clamp(min=0)
    along = centred @ vectors
    strengths = torch.tensor(STRENGTHS, dtype=x.dtype, device=x.device) * values.mean().clamp(min=1e-30)
    shrink = 1 / (values + strengths[:, None])
    leverage = along.square() @ shrink.T + 1 / len(x)
    return [
        _fit(along, mean, vectors, shrink, leverage, F.one_hot(labels[:, k], size).double())
        for k, size in enumerate(sizes)
    ]


def _fit(along: Tensor, mean: Tensor, vectors: Tensor, shrink: Tensor, leverage: Tensor, y: Tensor) -> Linear:
    base = y.mean(0)
    moved = along.T @ (y - base)
    errors = []
    for each, hat in zip(shrink, leverage.T):
        residual = y - base - along @ (each[:, None] * moved)
        errors.append((residual / (1 - hat).clamp(min=1e-6)[:, None]).square().sum())
    best = shrink[int(torch.stack(errors).argmin())]
    weight = vectors @ (best[:, None] * moved)
    return Linear(weight, base - mean @ weight)
