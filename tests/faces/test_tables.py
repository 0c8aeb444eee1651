"""Cells as texts: as many decimals as the largest figure of a column needs, and nothing lost that matters."""

import pytest

from micrographia.core import figures
from micrographia.faces.tables import format_column, table_of, texts_of
from micrographia.faces.words import decimals, fixed


@pytest.mark.parametrize(
    ("column", "places"),
    [([58.2, 1e-9], 1), ([0.871], 3), ([-1234.0], 0), ([1e-20], 22), ([0.0], 0), ([], 0)],
)
def test_a_column_has_the_decimals_of_its_largest_figure(column, places):
    assert decimals(column) == places


def test_nothing_is_not_minus_nothing():
    assert [fixed(x, 2) for x in (-1e-9, 0.0, -0.126, 1234.5, float("nan"))] == [
        "0.00",
        "0.00",
        "-0.13",
        "1,234.50",
        "–",
    ]


@pytest.mark.parametrize(
    ("cells", "texts"),
    [
        ([0.5, None, float("nan"), True], ["0.500", "–", "–", "yes"]),
        ([12.345, -0.001], ["12.3", "0.0"]),  # signed effects: next to nothing is nothing
        ([5.27, 1.5e-5], ["5.27", "1.5e-5"]),  # losses keep their size
        ([1e-5, 2e-7], ["1e-5", "2e-7"]),
        ([3, 14, 1200], ["3", "14", "1,200"]),
        ([108, 0.931], ["108", "0.931"]),  # figures of several kinds
        ([2.5e7, 0.5], ["25,000,000", "0.5"]),
        ([[14, 35], []], ["14, 35", "none"]),
        ([{"low": 0.8801, "high": 0.951, "median": 0.93}, {"low": None, "high": None, "value": -0.5}],
         ["0.93 (0.88 to 0.95)", "-0.50"]),
        ([{"low": 500, "high": 625, "median": 550, "never": 1}], ["550 (500 to 625), 1 never"]),
    ],
)  # fmt: skip
def test_the_figures_of_a_column_are_written_alike(cells, texts):
    assert format_column(cells) == texts


def test_columns_of_words_are_those_with_a_text_and_those_that_are_named():
    rows = [["a", 1, 2.5], ["b", 2, None]]
    found = table_of(figures.table("t", "t", rows, columns=["x", "y", "z"], texts=["y"], highlight=[1]).data)
    assert (found.texts, found.strong) == (frozenset({0, 1}), frozenset({1}))
    assert found.rows == [["a", "1", "2.50"], ["b", "2", "–"]]


def test_a_text_has_paragraphs_and_lines():
    assert texts_of({"paragraphs": ["a"], "preformatted": ["b", " c"]}) == (["a"], ["b", " c"])
    assert texts_of({"paragraphs": ["a"], "preformatted": True}) == ([], ["a"])
    assert texts_of({"paragraphs": ["a"]}) == (["a"], [])
