"""The three tests of paired values against scipy, and against what must be so."""

import numpy as np
import pytest
from scipy import stats

from micrographia.core.errors import BadConfig, BadShape
from micrographia.core.paired_tests import paired_tests

RANDOM = np.random.default_rng(0)
FIRST = RANDOM.normal(size=200)
NEAR = FIRST + RANDOM.normal(scale=0.3, size=200)


@pytest.mark.parametrize("second", [NEAR, NEAR + 0.2])
def test_they_are_scipys(second):
    found = paired_tests(FIRST, second, 0.1)
    assert found.t_p == pytest.approx(stats.ttest_rel(FIRST, second).pvalue)
    assert found.ks_p == pytest.approx(stats.ks_2samp(FIRST, second, method="asymp").pvalue)
    sides = [
        stats.ttest_1samp(FIRST - second, bound, alternative=side).pvalue
        for bound, side in ((-0.1, "greater"), (0.1, "less"))
    ]
    assert found.equivalence_p == pytest.approx(max(sides))
    low, high = stats.ttest_1samp(FIRST - second, 0).confidence_interval()
    assert (found.low, found.high) == pytest.approx((low, high))


def test_too_few_noisy_pairs_show_neither_difference_nor_equality():
    found = paired_tests(FIRST[:10], RANDOM.normal(size=10), 0.1)
    assert found.t_p > 0.05
    assert not found.equivalent


def test_many_close_pairs_are_equal_and_a_shift_beyond_the_margin_is_not():
    shift = float((FIRST - NEAR).mean())
    assert paired_tests(FIRST - shift, NEAR, 0.1).equivalent
    assert not paired_tests(FIRST - shift + 0.2, NEAR, 0.1).equivalent


@pytest.mark.parametrize("widened", [0.999, 1.001])
def test_the_least_margin_is_where_the_verdict_turns(widened):
    margin = paired_tests(FIRST, NEAR, 0.1).least_margin
    assert paired_tests(FIRST, NEAR, widened * margin).equivalent is (widened > 1)


@pytest.mark.parametrize(("by", "t_p", "equal"), [(0.0, 1.0, 0.0), (1.0, 0.0, 1.0)])
def test_differences_without_noise_are_certain(by, t_p, equal):
    whole = np.arange(4.0)
    found = paired_tests(whole + by, whole, 0.1)
    assert (found.t_p, found.equivalence_p) == (t_p, equal)


def test_bad_requests_are_refused():
    with pytest.raises(BadShape, match="one shape"):
        paired_tests(FIRST[:1], NEAR[:1], 0.1)
    with pytest.raises(BadConfig, match="positive margin"):
        paired_tests(FIRST, NEAR, 0.0)


def test_whole_numbers_and_half_precision_are_tested_as_float64():
    small = np.array([0, 1, 2, 250], dtype=np.uint8)
    found = paired_tests(small, small[::-1], 1.0)
    assert found == paired_tests(small.astype(float), small[::-1].astype(float), 1.0)
    assert paired_tests(FIRST.astype(np.float16), NEAR.astype(np.float16), 0.1).difference != 0


@pytest.mark.parametrize("odd", [np.nan, np.inf])
def test_values_that_are_not_finite_are_refused(odd):
    with pytest.raises(BadConfig, match="Found 1 not finite"):
        paired_tests(np.array([odd, 1.0, 2.0]), np.arange(3.0), 0.1)
