"""Whether paired values differ, and whether they may be called equal: t, Kolmogorov-Smirnov, and equivalence.

A test that finds no difference is no evidence that there is none. Two one-sided tests (TOST) are: the values are called
equal where the mean difference is shown to lie within a margin that was set beforehand.
"""

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Real
from numpy import ndarray
from scipy import stats

from micrographia.core.errors import BadConfig, BadShape
from micrographia.core.intervals import CONFIDENCE

LEVEL = 1 - CONFIDENCE


class PairedTests(NamedTuple):
    """Of `n` differences, first less second. `low`, `high`: the interval of their mean, 95 %."""

    n: int
    difference: float
    low: float
    high: float
    margin: float
    t_p: float
    """Paired t: how likely so large a mean difference is if there is none."""
    ks_p: float
    """Kolmogorov-Smirnov, two samples: whether the values have one distribution; pairs are not used.
    Its asymptotic p."""
    equivalence_p: float
    """TOST: how likely a mean so far within the margin is if the true one lies outside."""
    least_margin: float
    """The smallest margin within which they could be called equal: the sample shows no finer equality than that."""

    @property
    def equivalent(self) -> bool:
        return self.equivalence_p < LEVEL


def paired_tests(first: Real[ndarray, "n"], second: Real[ndarray, "n"], margin: float) -> PairedTests:
    """All three tests of paired values, in their own unit. Differences are taken to be independent.

    Computed in float64. Raises BadShape for samples that are not paired or of fewer than two pairs, BadConfig for a
    margin that is not positive and for values that are not finite.
    Source: Schuirmann, "A comparison of the two one-sided tests procedure and the power approach" (1987).
    """
    if first.shape != second.shape or first.ndim != 1 or len(first) < 2:
        raise BadShape(f"Paired values have one shape (n,), n at least 2. Found {first.shape} and {second.shape}.")
    if not margin > 0:
        raise BadConfig(f"Asked for equivalence within {margin}. Give a positive margin.")
    first, second = first.astype(np.float64), second.astype(np.float64)
    odd = int((~(np.isfinite(first) & np.isfinite(second))).sum())
    if odd:
        raise BadConfig(f"Tests of {len(first)} pairs were asked for. Found {odd} not finite. Leave those pairs out.")
    d = first - second
    n, mean = len(d), float(d.mean())
    error = float(d.std(ddof=1)) / math.sqrt(n)
    reach = float(stats.t.ppf((1 + CONFIDENCE) / 2, n - 1)) * error
    one_sided = float(stats.t.ppf(CONFIDENCE, n - 1)) * error
    return PairedTests(
        n=n,
        difference=mean,
        low=mean - reach,
        high=mean + reach,
        margin=margin,
        t_p=_two_sided(mean, error, n),
        ks_p=float(np.asarray(stats.ks_2samp(first, second, method="asymp"))[1]),
        equivalence_p=max(_beyond(margin - mean, error, n), _beyond(margin + mean, error, n)),
        least_margin=abs(mean) + one_sided,
    )


def _two_sided(mean: float, error: float, n: int) -> float:
    if error == 0:
        return float(mean == 0)
    return float(2 * stats.t.sf(abs(mean) / error, n - 1))


def _beyond(room: float, error: float, n: int) -> float:
    """How likely the mean is to come so far inside a bound at the distance `room`, if the true one lies on it."""
    if error == 0:
        return float(room <= 0)
    return float(stats.t.sf(room / error, n - 1))
