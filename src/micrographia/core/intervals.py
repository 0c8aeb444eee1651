"""Confidence intervals for a fraction, a median or a mean over a few seeds.

Fractions have Wilson's interval, medians the exact interval of order statistics, in which an event that did not happen
within the observation counts as later than all others (infinity) instead of being dropped. Means over networks that
share something (an initialisation) use a cluster bootstrap.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy import ndarray
from scipy import stats
from torch import Generator

from micrographia.core.errors import BadConfig


class Interval(NamedTuple):
    """An estimate and the bounds of its interval; `coverage` is its actual coverage."""

    estimate: float
    low: float
    high: float
    coverage: float


def share(count: int, total: int, *, confidence: float = 0.95) -> Interval:
    """The fraction `count` / `total`, with Wilson's interval; NaN for a total of 0.

    Source: Wilson, "Probable inference, the law of succession, and statistical inference" (1927).
    """
    if not 0 <= count <= total:
        raise BadConfig(f"The fraction {count} of {total} was asked for. Give a count between 0 and the total.")
    if total == 0:
        return Interval(math.nan, math.nan, math.nan, confidence)
    bounds = stats.binomtest(count, total).proportion_ci(confidence, method="wilson")
    return Interval(count / total, float(bounds.low), float(bounds.high), confidence)


def median(values: Sequence[float], *, confidence: float = 0.95) -> Interval:
    """The median, between two order statistics that cover it with at least `confidence`, whatever the distribution.

    Infinity means "not within the observation" and takes part in the order. With fewer than six values
    95 % is out of reach: the bounds are the smallest and the largest value, and `coverage` is lower. NaN without
    values. Source: Conover, "Practical Nonparametric Statistics", section 3.2.
    """
    x = np.sort(np.asarray(values, dtype=np.float64))
    if np.isnan(x).any():
        raise BadConfig(f"The median of {list(values)} was asked for. Give infinity for what was not reached, not NaN.")
    n = len(x)
    if n == 0:
        return Interval(math.nan, math.nan, math.nan, 0.0)
    cover = 1 - 2 * stats.binom.cdf(np.arange(max(1, n // 2)), n, 0.5)  # by the number of values left out at each side
    out = int(np.flatnonzero(cover >= confidence).max(initial=0))
    middle = float(x[n // 2]) if n % 2 else _between(x[n // 2 - 1], x[n // 2])
    return Interval(middle, float(x[out]), float(x[n - 1 - out]), max(0.0, float(cover[out])))


def clustered_mean(
    values: Float[ndarray, "*curves n"],
    cluster: Int[ndarray, "n"],
    *,
    generator: Generator,
    draws: int = 2000,
    confidence: float = 0.95,
) -> tuple[Float[ndarray, "*curves"], Float[ndarray, "*curves"], Float[ndarray, "*curves"]]:
    """Mean over the last axis, with percentile bootstrap bounds from whole clusters drawn with replacement.

    One set of draws for all curves. With few clusters (below ten) such intervals are somewhat narrow.
    Source: Davison and Hinkley, "Bootstrap Methods and their Application" (1997), section 3.8.
    """
    names, place = np.unique(cluster, return_inverse=True)
    drawn = torch.randint(len(names), (draws, len(names)), generator=generator).numpy()
    weight = np.stack([np.bincount(row, minlength=len(names)) for row in drawn])[:, place].astype(np.float64)
    means = values @ weight.T / weight.sum(1)
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2], axis=-1)
    return np.asarray(values.mean(-1)), np.asarray(low), np.asarray(high)


def _between(low: float, high: float) -> float:
    return float(high) if math.isinf(high) else float(low + high) / 2
