"""From what a lab measured to verdicts and sentences: figures by claim, over networks, judged, and said."""

import math
from itertools import product

import pytest

from micrographia.core.claims import (
    Claim,
    Judged,
    Measured,
    above_null,
    headline,
    judge,
    judge_all,
    load_claims,
    median_interval,
    over_networks,
)
from micrographia.core.errors import BadConfig

FILE = """
[[claim]]
id = "gain"
source = "section 1"
text = "It gains."
published = 0.5
kind = "above"
presets = ["paper"]
null = "chance"
holds = "It gains {measured:.2f} (chance: {null:.2f}, published: {published:.1f})."
fails = "It gains {measured:+.2f} alone."

[[claim]]
id = "order"
source = "section 2"
text = "One after the other."
published = ["a", "b"]
kind = "ordering"
presets = ["paper"]
holds = "They come as {measured}."

[[claim]]
id = "seeded"
source = "section 3"
text = "At the published seed alone."
published = 3
kind = "exact"
presets = ["paper"]
when = { seed = 0 }
holds = "It is {measured}."
fails = "It is {measured}, not {published}."
"""


@pytest.fixture
def path(tmp_path):
    found = tmp_path / "claims.toml"
    found.write_text(FILE, encoding="utf-8")
    return found


def judged(path, measures, *, preset="paper", seed=0):
    return {each.claim.id: each for each in judge_all(path, measures, preset=preset, config={"seed": seed})}


def test_every_claim_is_judged_by_the_figure_of_its_name(path):
    found = judged(path, {"gain": Measured(0.75, 0.25), "order": Measured(["a", "b"]), "seeded": Measured(4)})
    assert {name: (each.verdict, each.measured, each.null_measured) for name, each in found.items()} == {
        "gain": ("holds", 0.75, 0.25),
        "order": ("holds", ["a", "b"], None),
        "seeded": ("fails", 4, None),
    }
    assert [each.claim for each in found.values()] == list(load_claims(path))


def test_what_was_not_measured_or_is_no_number_was_not_reproduced(path):
    found = judged(path, {"gain": Measured(math.nan, math.nan), "nobody's": Measured(1.0)})
    assert {name: each.verdict for name, each in found.items()} == dict.fromkeys(("gain", "order", "seeded"), "fails")
    assert (found["gain"].measured, found["gain"].null_measured) == (None, None)  # stored as null, not as NaN


def test_elsewhere_than_at_its_preset_and_config_a_claim_is_not_run_and_not_in_the_headline(path):
    measures = {"gain": Measured(0.75, 0.25), "order": Measured(["a", "b"]), "seeded": Measured(3)}
    assert {each.verdict for each in judged(path, measures, preset="tiny").values()} == {"not run"}
    assert headline(judged(path, measures, preset="tiny").values()) == []
    assert judged(path, measures, seed=1)["seeded"].verdict == "not run"
    assert len(headline(judged(path, measures, seed=1).values())) == 2
    assert len(headline(judged(path, measures).values())) == 3


def test_a_headline_holds_the_sentence_of_each_verdict_in_the_order_of_the_claims(path):
    well = judged(path, {"gain": Measured(0.75, 0.25), "order": Measured(["a", "b"]), "seeded": Measured(4)})
    assert headline(well.values()) == [
        "It gains 0.75 (chance: 0.25, published: 0.5).",
        "They come as a, b.",
        "It is 4, not 3.",
    ]
    badly = judged(path, {"gain": Measured(0.25), "order": Measured(["b", "a"]), "seeded": Measured(3)})
    assert headline(badly.values()) == ["It gains +0.25 alone.", "It is 3."]  # no sentence: in the table alone


VALUES = {
    "nothing": (None, "unknown"),
    "nan": (math.nan, "unknown"),
    "a number": (0.5, "0.50"),
    "a whole number": (14, "14"),
    "a truth value": (True, "True"),
    "a text": ("relu", "relu"),
    "a list": ([0.25, 0.5], "0.25, 0.50"),
    "names": (["a", "b"], "a, b"),
    "an empty list": ([], "none"),
    "a list with a gap": ([0.5, None], "0.50, unknown"),
    "an interval": ({"median": 0.5, "low": 0.25, "high": 1.0}, "0.50 (0.25 to 1.00)"),
    "an interval of one": ({"median": 0.5, "low": 0.5, "high": 0.5}, "0.50"),
    "an interval of nothing": ({"median": None, "low": None, "high": None}, "unknown"),
}


def filled(template: str, value: object, null: object = None) -> str:
    about = Claim(id="x", source="s", text="t", published=value, kind="exact", holds=template)
    return Judged(claim=about, measured=value, verdict="holds", null_measured=null).sentence


@pytest.mark.parametrize(("value", "said"), VALUES.values(), ids=VALUES)
def test_a_template_says_any_value(value, said):
    assert filled("{measured:.2f}", value) == said
    assert filled("{published:.2f} beside {null:.2f}", value, value) == f"{said} beside {said}"


@pytest.mark.parametrize(("name", "spec"), list(product(VALUES, ("", ".0%", "+.1f", ".3g", ",", ".2e"))))
def test_no_format_of_a_number_breaks_on_any_value(name, spec):
    assert filled(f"{{measured:{spec}}}", VALUES[name][0])


def test_networks_on_both_sides_of_a_bound_are_said_to_show_no_difference():
    about = Claim(
        id="x", source="s", text="t", published=0.5, kind="above", presets=("paper",), holds="It is {measured:.1f}."
    )
    ends = {"apart": (0.6, 0.9), "on both sides": (0.4, 0.9)}
    said = {
        name: judge(about, {"median": 0.7, "low": low, "high": high}, preset="paper", config={}).sentence
        for name, (low, high) in ends.items()
    }
    assert said["apart"] == "It is 0.7 (0.6 to 0.9)."
    assert "no difference" in said["on both sides"]
    assert said["on both sides"].endswith(".")
    assert ".;" not in said["on both sides"]


def test_a_null_below_zero_is_none():
    assert above_null(0.5, 0.125) == 0.375
    assert above_null(0.5, 0.0) == above_null(0.5, -3.0) == 0.5
    assert math.isnan(above_null(0.5, math.nan))


def test_figures_over_networks_are_a_median_with_its_ends():
    found = over_networks([{"a": Measured(float(i), 0.5)} for i in (3, 1, 2)])
    assert found == {"a": Measured({"median": 2, "low": 1, "high": 3}, {"median": 0.5, "low": 0.5, "high": 0.5}, None)}


def test_networks_without_a_figure_are_left_out_and_none_at_all_is_none():
    found = over_networks([
        {"a": Measured(1.0, None, 4.0), "b": Measured(None, math.nan)},
        {"a": Measured(math.nan, 0.25, math.nan)},
        {"a": Measured(3, 0.75), "c": Measured(True)},
        {},
    ])  # fmt: skip
    assert found["a"] == Measured(
        {"median": 2, "low": 1, "high": 3},
        {"median": 0.5, "low": 0.25, "high": 0.75},
        {"median": 4, "low": 4, "high": 4},
    )
    assert found["b"] == Measured(None, None, None)
    assert found["c"].value == {"median": 1, "low": 1, "high": 1}
    assert list(found) == ["a", "b", "c"]
    assert over_networks([]) == {}


def test_what_is_no_number_has_no_median():
    with pytest.raises(BadConfig, match=r"'a' over networks must be numbers. Found \['x'\]"):
        over_networks([{"a": Measured(1.0)}, {"a": Measured(["x"])}])


def test_the_ends_of_a_median_narrow_as_networks_come_in():
    few, many = (median_interval([float(i) for i in range(n)]) for n in (5, 41))
    assert (few["low"], few["high"]) == (0, 4)  # an interval of 95 % needs six
    assert 0 < many["low"] < many["median"] == 20 < many["high"] < 40
    assert median_interval([]) is median_interval([math.nan]) is None
