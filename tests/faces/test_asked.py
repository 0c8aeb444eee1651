"""Figures of a question's tables: as many decimals as the largest of a column needs, spreads beside their means."""

import pytest

from micrographia.faces.asked import decimals, fixed, with_spread


@pytest.mark.parametrize(
    ("column", "places"),
    [([58.2, 1e-9], 1), ([0.871], 3), ([-1234.0], 0), ([1e-20], 8), ([0.0, None], 0), ([], 0)],
)
def test_a_column_has_the_decimals_of_its_largest_figure(column, places):
    assert decimals(column) == places


def test_nothing_is_not_minus_nothing():
    assert [fixed(x, 2) for x in (-1e-9, 0.0, -0.126, 1234.5, None)] == ["0.00", "0.00", "-0.13", "1,234.50", "–"]


def test_a_spread_stands_beside_its_mean_where_it_is_known():
    assert with_spread(3.0204, 0.1949) == "3.02 ± 0.19"
    assert with_spread(3.0204, None) == "3.02"
    assert with_spread(None, None) == "–"
