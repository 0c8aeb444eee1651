"""Agreement of attribution with exact patching: correlations, a bound on missed effects, and flags of disagreement.

The largest estimates are all measured, the rest sampled at random; each place is weighted by the number that it
represents, ranks included. Intervals resample prompts, the unit over which a finding should generalise.
A flag is a disagreement of estimate and exact effect, with the mechanism that it suggests: a single place missed or
overstated, or places (those sampled, a whole Site, all Sites of a kind) whose joint effect is larger or smaller than
the sum of single ones. A gate shows in these whether or not its inputs were sampled.
Source: Heimersheim and Nanda, "How to use and interpret activation patching" (2024), section 3, for the gates.
"""

import math
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray
from scipy import stats
from torch import Generator, Tensor

from micrographia.core.sweep import Patch
from micrographia.core.titles import Mode

CONFIDENCE = 0.95
FEWEST = 2  # prompts; with fewer there is no interval

APART = 0.4
"""Estimate and effect disagree where they differ by more than this fraction of the larger. Our choice, made after the
fact: it was 0.5 until a test of two perfect gates failed, since the joint effect of two inputs of which each is
sufficient (or each necessary) is exactly half of the sum of their single effects, and rounding decided. On the planted
circuits every number from 0.25 to 0.49 gives the same flags, as a test checks; from 0.5 on only the "less together"
flags of those gates are lost."""
STREAM = frozenset({"embed", "pos_embed", "resid_pre", "resid_mid", "resid_post"})
"""One stream at several layers: patched whole it is the other run, and its places are in series."""

Kind = Literal["missed", "overstated", "more together", "less together"]

USEFUL = 0.1
"""A bound on the share of large effects that is above this says nothing of use. Our choice."""
PART = 0.1
"""An estimate with the effect's sign and more than this fraction of its size captures part of it. Our choice."""
UNSEEN = "the gradient misses it: saturation, a gate, or paths that cancel"
SEEN_IN_PART = "the gradient captures part of it: saturation, a gate, or paths that cancel"
TURNED = "the gradient has the opposite sign: a gate, or paths that cancel"
OVERSTATED = "the gradient overstates it: saturation, or self-repair"
TOGETHER: Mapping[Mode, Mapping[Kind, str]] = {
    "denoise": {
        "more together": "each needs the other (an AND)",
        "less together": "each is sufficient alone (an OR)",
    },
    "noise": {
        "more together": "each compensates for the other (an OR, a backup), so single effects are small",
        "less together": "each is necessary alone (an AND)",
    },
}
"""The mechanism that a flag suggests, after Heimersheim and Nanda (2024), section 3."""
OR_ELSE: Mapping[Kind, str] = {
    "more together": "or estimates are too small where nothing was patched alone",
    "less together": "or estimates are too large where nothing was patched alone",
}


class Estimate(NamedTuple):
    """A statistic with its bootstrap 95 % interval over prompts, None for a single prompt; NaN where nothing varies."""

    value: float
    low: float | None = None
    high: float | None = None

    def __str__(self) -> str:
        interval = "n=1, no interval" if self.low is None or self.high is None else f"{self.low:.2f} to {self.high:.2f}"
        return f"{self.value:.2f} ({interval})"

    @property
    def width(self) -> float:
        """How far apart the ends of the interval are; 0 without one."""
        return 0.0 if self.low is None or self.high is None else self.high - self.low


class Missed(NamedTuple):
    """A bound on the number of unmeasured places with an effect above `threshold`.

    `hits` of `drawn` places, sampled at random from `of`, had one; with 95 % confidence at most a fraction `share` of
    the `of` do.
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

    @property
    def needed(self) -> int | None:
        """How many draws would bound the share at `USEFUL` if none of them had a large effect; None where the bound is
        useful, or where one that was drawn had: then it is not for want of draws.
        """
        if self.share <= USEFUL or self.hits or self.drawn == self.of:
            return None
        return bisect_left(range(self.of), True, key=lambda drawn: missed(0, drawn, self.of, 0.0).share <= USEFUL)


def missed(hits: int, drawn: int, of: int, threshold: float) -> Missed:
    """The exact upper bound of a fraction from sampling without replacement, 1 without a sample.

    The largest number of hits in `of` places for which `drawn` of them would still show as few as `hits` with a
    probability of 5 %: the hypergeometric form of the bound of Clopper and Pearson (1934). The bound of AtP* (Kramar et
    al. 2024) samples subsets and patches each jointly; this one patches single places, so it does not cover effects
    that only several places have jointly.
    """
    if not of:
        return Missed(threshold, hits, drawn, of, 0.0)
    counts = range(hits, of - (drawn - hits) + 1)  # the probability falls as the count rises
    n = bisect_left(counts, True, key=lambda count: not stats.hypergeom.cdf(hits, of, count, drawn) > 1 - CONFIDENCE)
    return Missed(threshold, hits, drawn, of, (counts[n - 1] if n else hits) / of)


def correlation(
    x: Float[ndarray, "draw place"], y: Float[ndarray, "draw place"], weight: Float[ndarray, "place"]
) -> Float[ndarray, "draw"]:
    """Weighted Pearson correlation; NaN where x or y is constant."""
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
    """Ranks from 1 among all the places that these represent; ties get their mean rank. NaN among NaNs."""
    known = np.nan_to_num(x)
    in_order = weight[known.argsort(-1)]
    before = np.pad(in_order.cumsum(-1), [(0, 0), (1, 0)])  # the number of places that the lowest ones represent
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
    """Pearson and Spearman of the means over prompts, with intervals; Spearman's covers the sampling of places too."""
    n = estimate.shape[1]
    drawn = torch.randint(n, (draws if n >= FEWEST else 0, n), generator=generator).tolist()
    share = np.array([np.bincount(rows, minlength=n) / n for rows in [range(n), *drawn]])  # the original pairs first
    x, y = share @ estimate.T, share @ exact.T
    in_order = _of(correlation(ranks(x, weight), ranks(y, weight), weight))
    return _of(correlation(x, y, weight)), sampled(in_order, weight) if (weight > 1).any() else in_order


def sampled(found: Estimate, weight: Float[ndarray, "place"]) -> Estimate:
    """A rank correlation with an interval that covers the sampling of places: the wider end on either side.

    Fisher's transformation with variance (1 + r^2 / 2) / (n - 3), n being the number of evenly weighted places that
    say as much, (sum w)^2 / sum w^2 (Kish 1965); from -1 to 1 for n of at most 4. A correlation of 1 is taken as the
    next value of Spearman's coefficient below it, since n places in order do not show that all are (our choice).
    Source: Bonett and Wright, "Sample size requirements for estimating Pearson, Kendall and Spearman correlations"
    (2000).
    """
    n = float(weight.sum() ** 2 / (weight**2).sum())
    if math.isnan(found.value):
        return found
    most = 1 - 6 / (n * (n**2 - 1)) if n > FEWEST else 1.0
    r = max(-most, min(most, found.value))
    spread = float(stats.norm.ppf((1 + CONFIDENCE) / 2)) * math.sqrt((1 + r**2 / 2) / (n - 3)) if n > 4 else math.inf
    low, high = (math.tanh(math.atanh(r) + side * spread) if n > 4 else side for side in (-1.0, 1.0))
    ends = [end for end in (found.low, found.high) if end is not None and not math.isnan(end)]
    return found._replace(low=min(low, *ends, found.value), high=max(high, *ends, found.value))


def _of(values: Float[ndarray, "draw"]) -> Estimate:
    """The first value, with percentiles of the finite others."""
    value, spread = float(values[0]), values[1:][~np.isnan(values[1:])]
    if len(values) == 1:
        return Estimate(value)
    if not len(spread):
        return Estimate(value, math.nan, math.nan)
    low, high = np.quantile(spread, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Estimate(value, float(low), float(high))


class Flag(NamedTuple):
    """A disagreement of estimate and exact effect: means over prompts, in the metric's unit.

    "together" flags compare the joint effect of places (`exact`) with the sum of their single effects (`estimate`),
    measured where available, else estimated. A place without `where` is a whole Site.
    """

    kind: Kind
    patch: Patch
    estimate: float
    exact: float
    meaning: str

    def __str__(self) -> str:
        where = ", ".join(map(str, self.patch[:3])) + (", ..." if len(self.patch) > 3 else "")
        label = "sum of single effects" if self.kind in OR_ELSE else "estimated"
        return f"{self.kind}: {where}: exact {self.exact:+.3g}, {label} {self.estimate:+.3g}; {self.meaning}"


class Whole(NamedTuple):
    """Places patched jointly: the mean effect, and the sum of single effects, measured where known."""

    patch: Patch
    alone: float
    exact: float
    all_measured: bool


class Checked(NamedTuple):
    """The check of one kind of Site: estimates, exact effects, and their agreement."""

    kind: str
    patches: Sequence[Any]
    """Patches of one place each; of edges, tuples of one."""
    estimate: Float[Tensor, "place prompt"]
    exact: Float[Tensor, "place prompt"]
    n_top: int
    pearson: Estimate
    spearman: Estimate
    slope: float
    """Effect per estimate, which a correlation does not show; NaN where scores are sizes."""
    missed: Missed
    together: float | None = None
    """The mean effect of patching all these places jointly; None of edges, which are not."""
    wholes: tuple[Whole, ...] = ()
    """Joint effects of each Site, and of all Sites of the kind; none for the residual stream or where scores are
    sizes."""
    gives_size: bool = False
    """Whether scores are sizes that rank places (AtP*), and no effects."""


def flags_of(each: Checked, mode: Mode, gives: str = "effect") -> list[Flag]:
    """Flags of joint effects; then flags of single places, the largest gap first."""
    return [*_joint_flags(each, mode), *(_single_flags(each) if gives == "effect" else [])]


def _single_flags(each: Checked) -> list[Flag]:
    means = zip(each.patches, each.estimate.mean(1).tolist(), each.exact.mean(1).tolist())
    found = []
    for patch, estimate, exact in means:
        larger = max(abs(estimate), abs(exact))
        if larger > each.missed.threshold and abs(estimate - exact) > APART * larger:
            kind, meaning = _error_of(estimate, exact)
            found.append(Flag(kind, patch, estimate, exact, meaning))
    return sorted(found, key=lambda flag: -abs(flag.exact - flag.estimate))


def _error_of(estimate: float, exact: float) -> tuple[Kind, str]:
    """The kind of error of an estimate, and its meaning; the sign of an estimate near 0 is ignored."""
    if abs(estimate) <= PART * abs(exact):
        return "missed", UNSEEN
    if estimate * exact < 0:
        return "missed", TURNED
    return ("missed", SEEN_IN_PART) if abs(exact) > abs(estimate) else ("overstated", OVERSTATED)


def _joint_flags(each: Checked, mode: Mode) -> list[Flag]:
    """Flags Site by Site; then of the sampled places and of the whole kind, unless a narrower flag covers them."""
    if in_series(each.kind):
        return []
    limit = each.missed.threshold
    alone = float(each.exact.mean(1).sum())
    drawn = [] if each.together is None else [Whole(joint(each.patches), alone, each.together, True)]
    found = [flag for whole in each.wholes if len(whole.patch) == 1 for flag in _joint_flag(whole, mode, limit)]
    for whole in [*drawn, *(whole for whole in each.wholes if len(whole.patch) > 1)]:
        covered = {flag.kind for flag in found}
        found += [flag for flag in _joint_flag(whole, mode, limit) if flag.kind not in covered]
    return found


def _joint_flag(whole: Whole, mode: Mode, threshold: float) -> list[Flag]:
    """The flag of a joint effect. Places of several Sites may be in series: a smaller joint effect is expected."""
    kind = compared(whole, threshold)
    several_sites = len({place.site for place in whole.patch}) > 1
    if kind not in ("more together", "less together") or (several_sites and kind == "less together"):
        return []
    meaning = TOGETHER[mode][kind] + ("" if whole.all_measured else f", {OR_ELSE[kind]}")
    return [Flag(kind, whole.patch, whole.alone, whole.exact, meaning)]


def compared(whole: Whole, threshold: float) -> Kind | Literal["alike", "too small", "opposite"]:
    """The joint effect beside the sum of single effects: alike within the tolerance of flags; else too small where
    neither exceeds the threshold; of opposite signs, which matches no known gate; or larger or smaller than the sum.
    """
    larger = max(abs(whole.alone), abs(whole.exact))
    if abs(whole.alone - whole.exact) <= APART * larger:
        return "alike"
    if larger <= threshold:
        return "too small"
    if whole.alone * whole.exact < 0:
        return "opposite"
    return "more together" if abs(whole.exact) > abs(whole.alone) else "less together"


def in_series(kind: str) -> bool:
    return kind.partition("[")[0] in STREAM


def joint(patches: Sequence[Patch]) -> Patch:
    """All patches in one run."""
    return tuple(place for patch in patches for place in patch)
