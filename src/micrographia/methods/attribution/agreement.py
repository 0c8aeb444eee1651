"""How well estimates agree with what was measured, and what may have been missed: the statistics of a calibration.

Places are not drawn alike: the largest estimates are all measured, the rest by lot. Correlations therefore weigh each
place by how many it stands for, ranks included, so that they estimate those over all places. Intervals resample
prompts, the unit over which a finding should hold; they do not cover the lot of places.
"""

import math
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray
from scipy import stats
from torch import Generator

CONFIDENCE = 0.95
FEWEST = 2  # prompts, below which there is no interval


class Estimate(NamedTuple):
    """A statistic with its bootstrap 95 % interval over prompts, None for a single prompt; NaN where nothing varies."""

    value: float
    low: float | None = None
    high: float | None = None

    def __str__(self) -> str:
        ends = "n=1, no interval" if self.low is None or self.high is None else f"{self.low:.2f} to {self.high:.2f}"
        return f"{self.value:.2f} ({ends})"


class Missed(NamedTuple):
    """How many of the places that were not measured may have an effect above `threshold`.

    `hits` of `drawn` places, taken by lot from `of`, had one; with 95 % confidence at most `share` of the `of` do.
    """

    threshold: float
    hits: int
    drawn: int
    of: int
    share: float

    @property
    def most(self) -> int:
        """The bound as a number of places."""
        return math.floor(self.share * self.of)


def missed(hits: int, drawn: int, of: int, threshold: float) -> Missed:
    """The exact upper bound of a share from draws without replacement, 1 where nothing was drawn.

    The largest number of hits in `of` places for which `drawn` of them would still show as few as `hits` with a
    probability of 5 %: the hypergeometric form of the bound of Clopper and Pearson (1934). The bound of AtP* (Kramar et
    al. 2024) draws subsets and patches each together; this one patches places singly, and so says nothing
    about effects that only several places have together.
    """
    if not of:
        return Missed(threshold, hits, drawn, of, 0.0)
    counts = np.arange(hits, of - (drawn - hits) + 1)
    possible = counts[stats.hypergeom.cdf(hits, of, counts, drawn) > 1 - CONFIDENCE]
    return Missed(threshold, hits, drawn, of, float(possible.max(initial=hits)) / of)


def correlation(
    x: Float[ndarray, "draw place"], y: Float[ndarray, "draw place"], weight: Float[ndarray, "place"]
) -> Float[ndarray, "draw"]:
    """Pearson's, with weights; NaN where x or y is constant."""
    share = weight / weight.sum()
    varied = (np.ptp(x, axis=-1) > 0) & (np.ptp(y, axis=-1) > 0)
    x, y = (values - (values * share).sum(-1, keepdims=True) for values in (x, y))
    with np.errstate(invalid="ignore", divide="ignore"):
        found = (x * y * share).sum(-1) / np.sqrt((x * x * share).sum(-1) * (y * y * share).sum(-1))
    return np.where(varied, found, np.nan)


def slope(
    estimate: Float[ndarray, "place prompt"], exact: Float[ndarray, "place prompt"], weight: Float[ndarray, "place"]
) -> float:
    """Effect per estimate, by least squares on the means over prompts, with weights; NaN for a constant estimate."""
    share = weight / weight.sum()
    x, y = (values - (values * share).sum() for values in (estimate.mean(1), exact.mean(1)))
    return float((x * y * share).sum()) / float((x * x * share).sum()) if np.ptp(x) > 0 else math.nan


def ranks(x: Float[ndarray, "draw place"], weight: Float[ndarray, "place"]) -> Float[ndarray, "draw place"]:
    """Ranks from 1 among all the places that these stand for; equal values share the mean of theirs. NaN among NaNs."""
    known = np.nan_to_num(x)
    in_order = weight[known.argsort(-1)]
    before = np.pad(in_order.cumsum(-1), [(0, 0), (1, 0)])  # of the lowest so many, how many places they stand for
    first, last = (stats.rankdata(known, method=side, axis=-1).astype(int) for side in ("min", "max"))
    middle = (np.take_along_axis(before, first - 1, -1) + np.take_along_axis(before, last, -1) + 1) / 2
    return np.where(np.isnan(x).any(-1, keepdims=True), np.nan, middle)


def agreement(
    estimate: Float[ndarray, "place prompt"],
    exact: Float[ndarray, "place prompt"],
    weight: Float[ndarray, "place"],
    *,
    generator: Generator,
    draws: int,
) -> tuple[Estimate, Estimate]:
    """Pearson's and Spearman's correlation of the means over prompts, each with its interval."""
    n = estimate.shape[1]
    drawn = torch.randint(n, (draws if n >= FEWEST else 0, n), generator=generator).tolist()
    share = np.array([np.bincount(rows, minlength=n) / n for rows in [range(n), *drawn]])  # the pairs as they are first
    x, y = share @ estimate.T, share @ exact.T
    return _of(correlation(x, y, weight)), _of(correlation(ranks(x, weight), ranks(y, weight), weight))


def _of(values: Float[ndarray, "draw"]) -> Estimate:
    """The first value, and percentiles of those of the others that exist."""
    value, spread = float(values[0]), values[1:][~np.isnan(values[1:])]
    if len(values) == 1:
        return Estimate(value)
    if not len(spread):
        return Estimate(value, math.nan, math.nan)
    low, high = np.quantile(spread, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Estimate(value, float(low), float(high))
