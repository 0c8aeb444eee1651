"""Figures of a question's tables: as many decimals as the largest of a column needs, spreads beside their means."""

import pytest

from micrographia.faces.asked import BUILDERS, decimals, fixed, with_spread


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


def check(**more):
    pearson = {"value": 0.9, "low": None, "high": None}
    return {"kind": "z", "mode": "noise", "checked": 8, "n_top": 4, "pearson": pearson, "spearman": pearson, **more}


def test_edges_have_no_bound_on_what_was_missed_and_the_table_says_so():
    (section,) = BUILDERS["calibration"]([check(kind="edges")], {})
    assert "large, unseen" not in section.table.columns
    assert "how many large ones were left unseen is not bounded" in section.lead
    (section,) = BUILDERS["calibration"]([check(missed={"most": 2, "of": 9})], {})
    assert section.table.columns[-1] == "large, unseen"
    assert section.table.rows[0][-1] == "≤ 2 of 9"
    assert "not bounded" not in section.lead


def test_a_p_value_is_called_one():
    found = {"members": 2, "of": 5, "ablation": "zeros", "null_p_value": 0.02}
    (section,) = BUILDERS["circuit"](found, {})
    assert ["p-value against random circuits", "0.02"] in section.table.rows


def test_what_a_trace_left_out_is_said_above_its_table():
    (section,) = BUILDERS["restored"]([], {"trace": {"left_out": "The last position is left out."}})
    assert section.lead.endswith("The last position is left out.")
    (section,) = BUILDERS["restored"]([], {"trace": {}})
    assert "left out" not in section.lead
