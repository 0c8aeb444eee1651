"""Logistic regression, fitted to the end: the probe of all probing evaluations here.

Inputs are standardised by the training data; an L2 penalty of 1 / (2 C n) ||w||², C = 1 as in scikit-learn's default.
The loss is convex, so the start does not matter and there is no seed. Axes: row feature.
"""

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float
from scipy.optimize import minimize
from torch import Tensor

from micrographia.core.errors import UserError

STEPS = 500


class LogisticProbe(NamedTuple):
    """Reads a binary label off activations: positive where x @ direction + bias > 0."""

    direction: Float[Tensor, "feature"]
    bias: float

    def logits(self, x: Float[Tensor, "row feature"]) -> Float[Tensor, "row"]:
        return x.to(self.direction) @ self.direction + self.bias

    def accuracy(self, x: Float[Tensor, "row feature"], labels: Bool[Tensor, "row"]) -> float:
        return float(((self.logits(x) > 0) == labels.to(self.direction.device)).double().mean())

    def f1(self, x: Float[Tensor, "row feature"], labels: Bool[Tensor, "row"]) -> float:
        """0 where nothing is positive."""
        said, true = self.logits(x) > 0, labels.to(self.direction.device)
        return float(2 * (said & true).sum() / max(int(said.sum() + true.sum()), 1))


def fit(
    x: Float[Tensor, "row feature"], labels: Bool[Tensor, "row"], *, C: float = 1.0, balanced: bool = False
) -> LogisticProbe:
    """A probe of these labels; float64. `balanced` weighs both classes alike. About 50 products with x.

    Raises UserError where all labels are alike.
    """
    y = labels.cpu().numpy().astype(np.float64)
    n, positives = len(y), float(y.sum())
    if not 0 < positives < n:
        raise UserError(f"A probe needs both classes. Found {int(positives)} positives in {n} examples. Give more.")
    X = x.detach().double().cpu().numpy()
    mean, std = X.mean(0), X.std(0)
    std[std == 0] = 1.0  # a constant feature: its weight stays 0
    X = (X - mean) / std
    weight = np.where(y > 0, n / (2 * positives), n / (2 * (n - positives))) if balanced else np.ones(n)
    sign = 2 * y - 1

    def loss(theta: np.ndarray) -> tuple[float, np.ndarray]:
        w, b = theta[:-1], theta[-1]
        margin = sign * (X @ w + b)
        slope = -weight * sign * np.exp(-np.logaddexp(0, margin)) / n
        value = float((weight * np.logaddexp(0, -margin)).mean() + w @ w / (2 * C * n))
        return value, np.append(X.T @ slope + w / (C * n), slope.sum())

    found = minimize(loss, np.zeros(X.shape[1] + 1), jac=True, method="L-BFGS-B", options={"maxiter": STEPS})
    w, b = found.x[:-1] / std, float(found.x[-1])
    return LogisticProbe(torch.from_numpy(w), b - float(mean @ w))
