"""Numbers, names and claims as words."""

import pytest

from micrographia.faces import words


@pytest.mark.parametrize(
    ("thing", "text"),
    [
        (None, "–"),
        (float("nan"), "–"),
        (float("inf"), "∞"),
        (True, "yes"),
        (1200, "1,200"),
        (0.0, "0"),
        (0.97123, "0.9712"),
        (1.3e-6, "1.3e-6"),
        (-2.5e7 - 0.5, "-2.5e7"),
        ([14, 35], "14, 35"),
        ([], "none"),
        ({"test_loss": 0.5}, "test loss 0.5"),
        ({"median": 550.0, "low": 500.0, "high": None, "never": 1}, "550 (500 to –), 1 never"),
        ({"median": None, "low": None, "high": None, "never": 3}, "–, 3 never"),
        ({"count": 3, "of": 4, "low": 0.3, "high": 0.95}, "3 of 4"),
        ({"value": 0.5, "low": None, "high": None}, "0.5"),
    ],
)
def test_values_are_short_and_nothing_is_a_dash(thing, text):
    assert words.format_value(thing) == text


def test_names_become_words_but_tensors_keep_theirs():
    assert words.name("test_loss") == "test loss"
    assert words.name("gini_W_E") == "gini W_E"
    assert words.name("squared_b_in") == "squared b in"


@pytest.mark.parametrize(
    ("claim", "text"),
    [
        ({"kind": "exact", "published": [1, 2]}, "1, 2"),
        ({"kind": "within", "published": 0.95, "tolerance": 0.02}, "0.95 ± 0.02"),
        ({"kind": "within", "published": 2.4e-7, "tolerance": 0.5, "relative": True}, "2.4e-7 ± 50 %"),
        ({"kind": "within", "published": [3, 6, 9], "tolerance": 1}, "3, 6, 9 (all but 1)"),
        ({"kind": "above", "published": 0.0}, "above 0"),
        ({"kind": "below", "published": 1.0, "tolerance": 0.1}, "below 1 (give or take 0.1)"),
        ({"kind": "ordering", "published": ["a", "b"]}, "a, then b"),
    ],
)
def test_a_claim_says_its_figure_with_its_tolerance(claim, text):
    assert words.published(claim) == text


def test_a_long_list_that_was_found_as_published_is_not_written_twice():
    long = ["the estimate misses saturated attention", "the QK-fix finds its queries"]
    assert words.measured({"kind": "exact", "published": long, "measured": [*long]}) == "as published"
    assert words.measured({"kind": "exact", "published": long, "measured": long[:1]}) == long[0]
    assert words.measured({"kind": "exact", "published": [1, 2], "measured": [1, 2]}) == "1, 2"


def test_a_control_stands_with_its_figure_where_it_has_one():
    assert words.null({"null": "chance", "null_measured": 0.1}) == "chance: 0.1"
    assert words.null({"null": "chance", "null_measured": float("nan")}) == "chance"
    assert words.null({"null": "", "null_measured": 0.1}) == ""


def test_a_tally_names_only_what_occurs():
    assert words.tally(["holds", "holds", "fails"]) == "2 hold, 1 fails"
    assert words.tally([]) == "no claims"
