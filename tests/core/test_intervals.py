"""Intervals for shares, medians with values that were not reached, and means over clusters."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import mannwhitneyu

from micrographia.core.errors import BadConfig
from micrographia.core.intervals import (
    clustered_mean,
    clustered_ratio,
    median,
    median_entry,
    rank_z,
    share,
    share_entry,
)


def test_wilsons_interval_of_eight_in_ten_is_the_textbooks():
    found = share(8, 10)
    assert (round(found.low, 4), round(found.high, 4)) == (0.4902, 0.9433)


def test_a_share_of_nothing_is_unknown():
    assert math.isnan(share(0, 0).estimate)


def test_more_than_all_is_refused():
    with pytest.raises(BadConfig, match="between 0 and the total"):
        share(3, 2)


def test_six_values_give_a_95_percent_interval_from_least_to_greatest_and_five_do_not():
    assert median([3, 1, 2, 6, 5, 4]) == (3.5, 1, 6, 1 - 2 / 2**6)
    assert median([1, 2, 3, 4, 5]).coverage == 1 - 2 / 2**5 < 0.95


def test_with_many_values_the_ends_move_inwards():
    found = median(range(1, 21))
    assert (found.low, found.high) == (6, 15)
    assert found.coverage >= 0.95


def test_what_was_not_reached_counts_as_later_than_all():
    assert median([100, math.inf, 200]).estimate == 200
    assert median([100, math.inf, 200]).high == math.inf
    assert median([100, math.inf, math.inf]).estimate == math.inf
    assert median([100, 200, math.inf, math.inf]).estimate == math.inf


def test_a_value_that_is_not_a_number_is_refused():
    with pytest.raises(BadConfig, match="infinity"):
        median([1.0, math.nan])


def test_the_interval_of_the_median_covers_as_often_as_it_says():
    drawn = np.random.default_rng(0).exponential(size=(2000, 9))
    found = [median(row.tolist()) for row in drawn]
    covered = np.mean([each.low <= math.log(2) <= each.high for each in found])
    assert covered == pytest.approx(found[0].coverage, abs=0.015)


@given(st.lists(st.floats(-5, 5), min_size=1, max_size=12))
def test_the_median_lies_between_its_ends(values):
    found = median(values)
    assert found.low <= found.estimate <= found.high


def test_the_clustered_interval_is_wider_than_the_naive_one_when_clusters_are_alike():
    cluster = np.repeat(np.arange(6), 10)
    values = np.random.default_rng(1).normal(size=6)[cluster]
    generator = torch.Generator().manual_seed(0)
    mean, low, high = clustered_mean(values, cluster, generator=generator)
    _, naive_low, naive_high = clustered_mean(values, np.arange(60), generator=generator)
    assert mean == pytest.approx(values.mean())
    assert high - low > 2 * (naive_high - naive_low)


def test_one_set_of_draws_serves_every_curve():
    values = np.random.default_rng(2).normal(size=(3, 4, 10))
    mean, low, high = clustered_mean(
        np.stack([values, values]), np.arange(10) % 5, generator=torch.Generator().manual_seed(0), draws=50
    )
    assert mean.shape == low.shape == high.shape == (2, 3, 4)
    assert np.array_equal(low[0], low[1])


@given(st.integers(0, 10_000))
def test_random_splits_are_standard_normal_for_any_values(seed):
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(400, generator=generator).exp().double()
    z = [rank_z(values, torch.rand(400, generator=generator) < 0.3) for _ in range(40)]
    assert max(map(abs, z)) < 5
    assert 0.5 < np.std(z) < 1.7


def test_ties_do_not_count():
    values = torch.tensor([1.0, 1.0, 1.0, 1.0])
    assert rank_z(values, torch.tensor([True, True, False, False])) == 0.0
    assert rank_z(torch.arange(4.0), torch.tensor([True, True, True, True])) == 0.0


def test_the_rank_sum_is_that_of_scipy():
    generator = torch.Generator().manual_seed(0)
    values = torch.randint(0, 30, (200,), generator=generator).double()
    chosen = torch.rand(200, generator=generator) < 0.4
    expected = mannwhitneyu(
        values[chosen], values[~chosen], method="asymptotic", use_continuity=False, alternative="less"
    )
    p_value = torch.special.ndtr(torch.tensor(rank_z(values, chosen)))
    assert p_value.item() == pytest.approx(expected.pvalue, rel=1e-3)


def test_the_entry_of_a_group_counts_what_never_happened():
    found = median_entry([10, None, 30.0], censored=True)
    assert (found["median"], found["high"], found["n"], found["never"]) == (30.0, None, 3, 1)
    assert median_entry([10, math.nan, 30])["n"] == 2
    assert share_entry([True, False])["count"] == 1
    assert share_entry([])["low"] is None


def test_a_ratio_of_equal_parts_is_certain_and_one_of_nothing_unknown():
    generator = torch.Generator().manual_seed(0)
    bottom = np.arange(1.0, 31.0)
    found = clustered_ratio(bottom / 4, bottom, np.arange(30), generator=generator)
    np.testing.assert_allclose(found[:3], 0.25)
    assert math.isnan(clustered_ratio(bottom, np.zeros(30), np.arange(30), generator=generator).estimate)


def test_the_interval_of_a_ratio_covers_the_true_one_and_is_wider_over_clusters():
    draw = np.random.default_rng(0)
    held = 0
    for seed in range(100):
        bottom = draw.uniform(1, 3, 60)
        top = bottom * 0.5 + draw.normal(0, 0.3, 60)
        found = clustered_ratio(top, bottom, np.arange(60), generator=torch.Generator().manual_seed(seed), draws=400)
        held += found.low <= 0.5 <= found.high
    assert 85 <= held <= 99
    alike, ones = np.repeat(draw.normal(1, 0.5, 12), 20), np.ones(240)
    generator = torch.Generator().manual_seed(0)
    naive = clustered_ratio(alike, ones, np.arange(240), generator=generator)
    whole = clustered_ratio(alike, ones, np.arange(240) // 20, generator=generator)
    assert whole.high - whole.low > 3 * (naive.high - naive.low)
