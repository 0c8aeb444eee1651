"""Statistics of a few seeds: intervals for a fraction, a median or a mean, and a test of ranks.

Fractions have Wilson's interval, medians the exact interval of order statistics, in which an event that did not happen
within the observation counts as later than all others (infinity) instead of being dropped. Means over networks that
share something (an initialisation) use a cluster bootstrap.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy import ndarray
from scipy import stats
from torch import Generator, Tensor

from micrographia.core.errors import BadConfig

CONFIDENCE = 0.95
"""Of every interval."""


class Interval(NamedTuple):
    """An estimate and the bounds of its interval; `coverage` is its actual coverage."""

    estimate: float
    low: float
    high: float
    coverage: float

    def ends(self) -> dict[str, float] | None:
        """The figure of a claim: the estimate, as `median`, between `low` and `high`; None for NaN."""
        known = {"median": self.estimate, "low": self.low, "high": self.high}
        return None if math.isnan(self.estimate) else known


def share(count: int, total: int) -> Interval:
    """The fraction `count` / `total`, with Wilson's interval; NaN for a total of 0.

    Source: Wilson, "Probable inference, the law of succession, and statistical inference" (1927).
    """
    if not 0 <= count <= total:
        raise BadConfig(f"The fraction {count} of {total} was asked for. Give a count between 0 and the total.")
    if total == 0:
        return Interval(math.nan, math.nan, math.nan, CONFIDENCE)
    bounds = stats.binomtest(count, total).proportion_ci(CONFIDENCE, method="wilson")
    return Interval(count / total, float(bounds.low), float(bounds.high), CONFIDENCE)


def median(values: Sequence[float]) -> Interval:
    """The median, between two order statistics that cover it with at least 95 %, whatever the distribution.

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
    out = int(np.flatnonzero(cover >= CONFIDENCE).max(initial=0))
    middle = float(x[(n - 1) // 2] + x[n // 2]) / 2
    return Interval(middle, float(x[out]), float(x[n - 1 - out]), max(0.0, float(cover[out])))


def clustered_mean(
    values: Float[ndarray, "*curves n"],
    cluster: Int[ndarray, "n"],
    *,
    generator: Generator,
    draws: int = 2000,
) -> tuple[Float[ndarray, "*curves"], Float[ndarray, "*curves"], Float[ndarray, "*curves"]]:
    """Mean over the last axis, with percentile bootstrap bounds from whole clusters drawn with replacement.

    One set of draws for all curves. With few clusters (below ten) such intervals are somewhat narrow.
    Source: Davison and Hinkley, "Bootstrap Methods and their Application" (1997), section 3.8.
    """
    names, place = np.unique(cluster, return_inverse=True)
    drawn = torch.randint(len(names), (draws, len(names)), generator=generator).numpy()
    weight = np.stack([np.bincount(row, minlength=len(names)) for row in drawn])[:, place].astype(np.float64)
    means = values @ weight.T / weight.sum(1)
    low, high = np.quantile(means, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2], axis=-1)
    return np.asarray(values.mean(-1)), np.asarray(low), np.asarray(high)


def clustered_ratio(
    top: Float[ndarray, "n"],
    bottom: Float[ndarray, "n"],
    cluster: Int[ndarray, "n"],
    *,
    generator: Generator,
    draws: int = 2000,
) -> Interval:
    """sum(top) / sum(bottom), with percentile bootstrap bounds from whole clusters drawn with replacement.

    The two of a row are drawn together. NaN where the sum of `bottom` is not above 0, or there is no row.
    Source: Davison and Hinkley, "Bootstrap Methods and their Application" (1997), section 3.8.
    """
    if not bottom.sum() > 0:
        return Interval(math.nan, math.nan, math.nan, CONFIDENCE)
    _, place = np.unique(cluster, return_inverse=True)
    sums = np.stack([np.bincount(place, weights=each) for each in (top, bottom)])
    drawn = torch.randint(sums.shape[1], (draws, sums.shape[1]), generator=generator).numpy()
    tops, bottoms = sums[:, drawn].sum(-1)
    ratios = np.divide(tops, bottoms, out=np.full(draws, np.nan), where=bottoms != 0)
    low, high = np.nanquantile(ratios, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Interval(float(top.sum() / bottom.sum()), float(low), float(high), CONFIDENCE)


def rank_z(values: Float[Tensor, "n"], chosen: Bool[Tensor, "n"], among: Bool[Tensor, "n"] | None = None) -> float:
    """The rank sum of the chosen values in standard deviations from its mean; below 0 where they are smaller.

    Midranks for ties, and the exact variance over all choices of as many. 0 where there is nothing to compare.
    Source: Mann and Whitney (1947).
    """
    if among is not None:
        values, chosen = values[among], chosen[among]
    n, m = len(values), int(chosen.sum())
    if m in (0, n):
        return 0.0
    ranks = torch.from_numpy(stats.rankdata(values.numpy()))
    variance = m * (n - m) / n * ranks.var().item()
    return (ranks[chosen].sum().item() - m * ranks.mean().item()) / variance**0.5 if variance else 0.0


def median_entry(values: Sequence[float | None], *, censored: bool = False) -> dict[str, float | int | None]:
    """The median of a group and its interval, ready for JSON: what is not finite is None; `n` values were counted.

    None or NaN is "not within the observation" where `censored` (`never` of them), else not measured.
    """
    known = [float(x) for x in values if x is not None and not math.isnan(x)]
    never = len(values) - len(known) if censored else 0
    found = median(known + [math.inf] * never)
    ends = {"median": _finite(found.estimate), "low": _finite(found.low), "high": _finite(found.high)}
    return {**ends, "coverage": found.coverage, "n": len(known) + never, "never": never}


def share_entry(held: Sequence[bool]) -> dict[str, float | int | None]:
    """How many of a group hold, with the ends of the fraction's interval, ready for JSON."""
    found = share(sum(held), len(held))
    return {"count": sum(held), "of": len(held), "low": _finite(found.low), "high": _finite(found.high)}


def _finite(x: float) -> float | None:
    return x if math.isfinite(x) else None
