"""How well estimates agree with what was measured, what may have been missed, and where they disagree for a reason.

Places are not drawn alike: the largest estimates are all measured, the rest at random. Correlations therefore weigh each
place by how many it stands for, ranks included, so that they estimate those over all places. Intervals resample
prompts, the unit over which a finding should hold; they do not cover which places were drawn.

A flag marks where estimate and effect disagree, and what that suggests about the mechanism. A place alone: missed
(saturation, or a gate that the gradient does not see, or sees in part) or overstated. Places together: a joint effect
larger or smaller than the sum of single effects. Those that were drawn are compared, and each Site patched whole, and
all of a kind: a gate shows in these whether or not its inputs were drawn.
Source: Heimersheim and Nanda, "How to use and interpret activation patching" (2024), section 3, for the gates.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray
from scipy import stats
from torch import Generator, Tensor

from micrographia.core.sweep import Patch
from micrographia.core.titles import Mode

CONFIDENCE = 0.95
FEWEST = 2  # prompts, below which there is no interval

APART = 0.4
"""Estimate and effect disagree where they differ by more than this share of the larger. Our choice, and made after the
fact: it stood at 0.5 until a test of two perfect gates failed, for what two inputs do of which each is enough (or each
needed) is together exactly half of what they do alone, and rounding decided. On the planted circuits every number from
0.25 to 0.49 gives the same flags, which a test holds; from 0.5 on only what those gates do less together is lost."""
STREAM = frozenset({"embed", "pos_embed", "resid_pre", "resid_mid", "resid_post"})
"""One stream at several layers: patched whole it is the other run, and its places lie behind each other."""

Kind = Literal["missed", "overstated", "more together", "less together"]

PART = 0.1
"""An estimate of the effect's sign and of more than this share of it sees part of it. Our choice."""
UNSEEN = "the gradient does not see it: saturation, a gate, or paths that cancel"
SEEN_IN_PART = "the gradient sees part of it: saturation, a gate, or paths that cancel"
TURNED = "the gradient points the other way: a gate, or paths that cancel"
OVERSTATED = "the gradient overstates it: saturation, or another component takes over"
TOGETHER: Mapping[Mode, Mapping[Kind, str]] = {
    "denoise": {
        "more together": "each needs the other (an AND)",
        "less together": "each is enough alone (an OR)",
    },
    "noise": {
        "more together": "each covers for the other (an OR, a backup), so that alone they look idle",
        "less together": "each is needed alone (an AND)",
    },
}
"""What a flag says of the mechanism, after Heimersheim and Nanda (2024), section 3."""
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
        ends = "n=1, no interval" if self.low is None or self.high is None else f"{self.low:.2f} to {self.high:.2f}"
        return f"{self.value:.2f} ({ends})"


class Missed(NamedTuple):
    """How many of the places that were not measured may have an effect above `threshold`.

    `hits` of `drawn` places, drawn at random from `of`, had one; with 95 % confidence at most `share` of the `of` do.
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


class Flag(NamedTuple):
    """Where estimate and effect disagree: means over prompts, in the metric's unit.

    "together" flags compare what places do at once with the sum of what they do alone, which stands as `estimate`:
    measured where that was done, else estimated. A place without `where` is a whole Site.
    """

    kind: Kind
    patch: Patch
    estimate: float
    exact: float
    meaning: str

    def __str__(self) -> str:
        where = ", ".join(map(str, self.patch[:3])) + (", ..." if len(self.patch) > 3 else "")
        beside = "single effects sum to" if self.kind in OR_ELSE else "estimated"
        return f"{self.kind}: {where}: exact {self.exact:+.3g}, {beside} {self.estimate:+.3g}; {self.meaning}"


class Whole(NamedTuple):
    """Places patched at once: the mean effect, and the sum of what they do alone as far as that is known."""

    patch: Patch
    alone: float
    exact: float
    all_measured: bool


class Checked(NamedTuple):
    """One kind of Site: what was estimated and what was measured, and how they agree."""

    kind: str
    patches: list[Patch]
    estimate: Float[Tensor, "place prompt"]
    exact: Float[Tensor, "place prompt"]
    n_top: int
    pearson: Estimate
    spearman: Estimate
    slope: float
    """Effect per estimate, which a correlation does not see; NaN where scores are sizes."""
    missed: Missed
    together: float
    """The mean effect of patching all these places at once."""
    wholes: tuple[Whole, ...] = ()
    """Each Site patched whole, and all of the kind; none for the residual stream, and where scores are sizes."""


def flags_of(each: Checked, mode: Mode, gives: str = "effect") -> list[Flag]:
    """Whether places do otherwise together; then where estimate and effect disagree, the largest gap first."""
    return [*_together(each, mode), *(_alone(each) if gives == "effect" else [])]


def _alone(each: Checked) -> list[Flag]:
    estimate, exact = each.estimate.mean(1), each.exact.mean(1)
    found = []
    for patch, told, real in zip(each.patches, estimate.tolist(), exact.tolist()):
        if _apart(told, real, each.missed.threshold):
            kind, meaning = _parted(told, real)
            found.append(Flag(kind, patch, told, real, meaning))
    return sorted(found, key=lambda flag: -abs(flag.exact - flag.estimate))


def _parted(told: float, real: float) -> tuple[Kind, str]:
    """Which way an estimate fails, and what that says; an estimate of about 0 has no sign to speak of."""
    if abs(told) <= PART * abs(real):
        return "missed", UNSEEN
    if told * real < 0:
        return "missed", TURNED
    return ("missed", SEEN_IN_PART) if abs(real) > abs(told) else ("overstated", OVERSTATED)


def _together(each: Checked, mode: Mode) -> list[Flag]:
    """Site by Site; then what was drawn, and the whole kind, if no narrower flag says the same."""
    if in_series(each.kind):
        return []
    limit = each.missed.threshold
    drawn = Whole(joint(each.patches), float(each.exact.mean(1).sum()), each.together, True)
    found = [flag for whole in each.wholes if len(whole.patch) == 1 for flag in _at_once(whole, mode, limit)]
    for whole in [drawn, *(whole for whole in each.wholes if len(whole.patch) > 1)]:
        told = {flag.kind for flag in found}
        found += [flag for flag in _at_once(whole, mode, limit) if flag.kind not in told]
    return found


def _at_once(whole: Whole, mode: Mode, threshold: float) -> list[Flag]:
    """Places of several Sites may lie behind each other, and then do less together as a matter of course."""
    kind: Kind = "more together" if abs(whole.exact) > abs(whole.alone) else "less together"
    several_sites = len({place.site for place in whole.patch}) > 1
    if whole.alone * whole.exact < 0:  # the other way round is no gate that theory knows
        return []
    if (several_sites and kind == "less together") or not _apart(whole.alone, whole.exact, threshold):
        return []
    meaning = TOGETHER[mode][kind] + ("" if whole.all_measured else f", {OR_ELSE[kind]}")
    return [Flag(kind, whole.patch, whole.alone, whole.exact, meaning)]


def _apart(told: float, real: float, threshold: float) -> bool:
    larger = max(abs(told), abs(real))
    return larger > threshold and abs(told - real) > APART * larger


def in_series(kind: str) -> bool:
    return kind.partition("[")[0] in STREAM


def joint(patches: Sequence[Patch]) -> Patch:
    """All of them in one run."""
    return tuple(place for patch in patches for place in patch)
