"""How a claim is judged, how a claims file is read, and what a Figure must hold."""

import math
from dataclasses import FrozenInstanceError

import numpy as np
import pytest

from micrographia.core.claims import Claim, Judged, judge, load_claims
from micrographia.core.errors import BadConfig, BadShape
from micrographia.core.figures import OPTIONAL, REQUIRED, Figure


def claim(kind: str, published: object, tolerance: float = 0.0, **more: object) -> Claim:
    fields = {"id": "x", "source": "s", "text": "t", "presets": ("paper",)}
    return Claim(kind=kind, published=published, tolerance=tolerance, **{**fields, **more})


def verdict(claim: Claim, measured: object, *, preset: str = "paper", **config: object) -> str:
    return judge(claim, measured, preset=preset, config=config).verdict


@pytest.mark.parametrize(
    ("kind", "published", "tolerance", "good", "bad"),
    [
        ("exact", 5, 0, [5, 5.0], [4, 5.1]),
        ("exact", True, 0, [True], [False]),
        ("exact", "relu", 0, ["relu"], ["gelu"]),
        ("exact", [14, 35, 41], 0, [[14, 35, 41], (14, 35, 41)], [[35, 14, 41], [14, 35], []]),
        ("ordering", ["a", "b", "c"], 0, [["a", "b", "c"]], [["a", "c", "b"], ["a", "b"]]),
        ("within", 10.0, 0.5, [9.5, 10, 10.5], [9.49, 10.51, -10.0]),
        ("within", -10.0, 0.5, [-9.5, -10.5], [-9.0, 10.0]),
        (
            "within",
            [14, 35, 41, 42, 52],
            1,
            [[14, 35, 41, 42, 52], [14, 35, 41, 42], [1, 14, 35, 41, 52]],
            [[14, 35, 41]],
        ),
        ("above", 0.9, 0, [0.91, 1], [0.9, 0.5]),
        ("above", 0.9, 0.1, [0.81, 0.95], [0.79]),
        ("below", 1e-6, 0, [9e-7, -1], [1e-6, 1.0]),
        ("below", 1.0, 0.5, [1.4], [1.6]),
    ],
)
def test_each_kind_holds_and_fails_where_it_should(kind, published, tolerance, good, bad):
    for measured in good:
        assert verdict(claim(kind, published, tolerance), measured) == "holds", measured
    for measured in bad:
        assert verdict(claim(kind, published, tolerance), measured) == "fails", measured


@pytest.mark.parametrize(
    ("kind", "good", "bad"),
    [("within", [-150.0, -250.0], [-149.0, -251.0]), ("above", [-249.0], [-251.0]), ("below", [-151.0], [-149.0])],
)
def test_a_relative_tolerance_is_a_share_of_the_published_value_whatever_its_sign(kind, good, bad):
    here = claim(kind, -200.0, 0.25, relative=True)
    assert [verdict(here, measured) for measured in good] == ["holds"] * len(good)
    assert [verdict(here, measured) for measured in bad] == ["fails"] * len(bad)


@pytest.mark.parametrize("kind", ["exact", "within", "above", "below"])
@pytest.mark.parametrize("measured", [None, math.nan, math.inf, -math.inf])
def test_what_could_not_be_measured_fails(kind, measured):
    assert verdict(claim(kind, 1.0, 0.1), measured) == "fails"


@pytest.mark.parametrize("kind", ["exact", "within", "ordering"])
def test_a_list_that_could_not_be_measured_fails(kind):
    assert verdict(claim(kind, [1, 2]), None) == "fails"


def over(median: float | None, low: float, high: float) -> dict[str, float | None]:
    return {"median": median, "low": low, "high": high}


def test_a_figure_over_networks_is_judged_by_its_median_and_told_with_its_ends():
    here = claim("above", 0.5, 0.1)
    assert verdict(here, over(0.41, 0.1, 0.9)) == "holds"
    assert verdict(here, over(0.39, 0.1, 0.9)) == "fails"
    assert verdict(here, over(math.nan, math.nan, math.nan)) == verdict(here, over(None, 0, 0)) == "fails"
    assert "measured 0.41 (0.1 to 0.9): holds" in str(judge(here, over(0.41, 0.1, 0.9), preset="paper", config={}))


@pytest.mark.parametrize(
    ("kind", "ends", "undecided"),
    [
        ("above", (0.3, 0.6), True),
        ("above", (0.41, 0.6), False),
        ("above", (0.1, 0.39), False),
        ("below", (0.5, 0.7), True),
    ],
)
def test_networks_on_both_sides_of_a_bound_show_no_difference(kind, ends, undecided):
    judged = judge(claim(kind, 0.5, 0.1), over(0.55, *ends), preset="paper", config={})
    assert judged.undecided == undecided == ("no difference" in str(judged))
    assert not judge(claim(kind, 0.5), 0.5, preset="paper", config={}).undecided


def test_a_claim_is_judged_at_its_presets_alone():
    here = claim("exact", 5, presets=("paper", "quick"))
    assert verdict(here, 5, preset="quick") == "holds"
    assert verdict(here, 5, preset="tiny") == "not run"
    assert verdict(here, 5, preset="custom") == "not run"
    assert verdict(claim("exact", 5, presets=()), 5) == "not run"


def test_a_claim_is_judged_where_the_config_is_the_published_one():
    here = claim("exact", 5, when={"seed": 0})
    assert verdict(here, 5, seed=0, lr=1.0) == "holds"
    assert verdict(here, 5, seed=1) == "not run"
    assert verdict(here, 5) == "not run"


def test_the_judged_claim_carries_measurement_and_null():
    judged = judge(claim("above", 0.9, null="chance"), 0.95, preset="paper", config={}, null_measured=0.5)
    assert judged == Judged(claim=judged.claim, measured=0.95, verdict="holds", null_measured=0.5)
    assert judged.as_json() == {
        "id": "x", "source": "s", "text": "t", "published": 0.9, "kind": "above", "tolerance": 0.0, "relative": False,
        "measured": 0.95, "null": "chance", "null_measured": 0.5, "verdict": "holds",
    }  # fmt: skip


def test_what_was_not_run_still_tells_what_was_measured():
    judged = judge(claim("exact", 5), 4, preset="tiny", config={}, null_measured=3)
    assert (judged.measured, judged.null_measured, judged.verdict) == (4, 3, "not run")


FILE = """
[[claim]]
id = "first"
source = "section 1"
text = "it is so"
published = [1, 2]
kind = "within"
tolerance = 1
presets = ["paper"]
when = { seed = 0 }

[[claim]]
id = "{second}"
source = "section 2"
text = "so it is"
published = 0.5
kind = "{kind}"
"""


def test_claims_are_read_in_the_order_of_the_file(tmp_path):
    path = tmp_path / "claims.toml"
    path.write_text(FILE.replace("{second}", "second").replace("{kind}", "above"))
    first, second = load_claims(path)
    assert (first.id, second.id) == ("first", "second")
    assert first.published == [1, 2]
    assert first.presets == ("paper",)
    assert first.when == {"seed": 0}
    assert second.presets == ()


def test_a_claim_named_twice_is_refused(tmp_path):
    path = tmp_path / "claims.toml"
    path.write_text(FILE.replace("{second}", "first").replace("{kind}", "above"))
    with pytest.raises(BadConfig, match=r"twice: \['first'\]"):
        load_claims(path)


def test_an_unknown_kind_of_claim_is_refused_when_it_is_read(tmp_path):
    path = tmp_path / "claims.toml"
    path.write_text(FILE.replace("{second}", "second").replace("{kind}", "abvoe"))
    with pytest.raises(BadConfig, match=r"'second' is of kind 'abvoe'; known are exact"):
        load_claims(path)


def test_a_claim_cannot_be_changed():
    with pytest.raises(FrozenInstanceError):
        claim("exact", 5).published = 6


def figure(kind: str = "bars", **more: object) -> Figure:
    data = {"y": np.zeros(3), "names": list("abc"), "x_label": "x", "y_label": "y"}
    return Figure(**{"name": "f", "kind": kind, "title": "t", "caption": "c", "data": data, **more})


def test_a_figure_needs_the_data_of_its_kind():
    assert figure().data["names"] == ["a", "b", "c"]
    with pytest.raises(BadConfig, match="known are lines, bars"):
        figure("pie")
    with pytest.raises(BadConfig, match=r"lacks \['x', 'x_label', 'y_label'\], has unknown \['z'\]"):
        figure("scatter", data={"y": [1], "z": [2]})


def test_every_kind_of_figure_says_what_it_may_hold():
    assert REQUIRED.keys() - {"widget"} == OPTIONAL.keys()  # a widget holds what its script reads
    assert all(not set(REQUIRED[kind]) & set(OPTIONAL[kind]) for kind in OPTIONAL)


def test_frames_and_the_arrays_that_follow_them_have_one_length():
    data = {"y": np.zeros((2, 3)), "names": list("abc"), "x_label": "x", "y_label": "y"}
    assert figure(data=data, frames=("0", "1"), framed=("y",)).frames == ("0", "1")
    with pytest.raises(BadShape, match="'y' has 2 frames, not 3"):
        figure(data=data, frames=("0", "1", "2"), framed=("y",))
    with pytest.raises(BadConfig, match="'values'"):
        figure(data=data, frames=("0", "1"), framed=("values",))


def test_frames_may_hold_lists_of_different_lengths():
    data = {"values": [[1.0], [1.0, 2.0]], "x_label": "x", "y_label": "y"}
    assert figure("histogram", data=data, frames=("0", "1"), framed=("values",)).framed == ("values",)


def test_a_judged_claim_shows_itself_in_words():
    exact = claim("exact", [1, 2], text="It is so.", when={"seed": 0})
    assert str(judge(exact, [1, 2], preset="paper", config={"seed": 0})) == (
        "It is so.\n  published 1, 2, measured 1, 2: holds"
    )
    elsewhere = judge(exact, [], preset="tiny", config={"seed": 0})
    assert str(elsewhere).endswith("measured none: not run here: it is judged at paper, seed 0")
    nothing = judge(claim("below", 0.5), None, preset="paper", config={})
    assert str(nothing) == "t\n  published below 0.5, measured nothing: fails"
