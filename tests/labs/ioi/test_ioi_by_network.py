"""What claims are judged by: differences within a network, what a null takes off, what the ends over networks say."""

import math
from types import SimpleNamespace

import pytest

from micrographia.core.claims import load_claims
from micrographia.labs.ioi.by_network import TAKINGS, beyond, by_network
from micrographia.labs.ioi.findings import judged
from micrographia.labs.ioi.judge import CLAIMS, judge_all
from micrographia.labs.ioi.network import BY_SIZE, CHANGE, Agreement
from micrographia.labs.ioi.roles import Role
from micrographia.labs.ioi.spots import KINDS, METHODS
from micrographia.labs.ioi.words import CLASSES

pytestmark = pytest.mark.usefixtures("unchecked")


def a_behaviour(mirror: float = 0.0, mirror_null: float = 0.0, circuits=None, **pearson: float):
    """A studied behaviour whose correlations are 1/2 but for those named, as kind__method."""
    trust = {kind: dict.fromkeys((*METHODS, BY_SIZE, CHANGE), Agreement(0.5, 0.5, 9)) for kind in KINDS}
    for name, value in pearson.items():
        kind, _, method = name.partition("__")
        trust[kind][method.replace("_", "-")] = Agreement(value, value, 9)
    return SimpleNamespace(trust=trust, mirror=mirror, mirror_null=mirror_null, circuits=circuits)


def taken(claim: str, *networks, roles=None):
    return by_network(networks, roles or [{} for _ in networks])[claim]


def test_a_null_is_taken_off_and_one_below_zero_lends_nothing():
    assert beyond(0.057, 0.177) == pytest.approx(-0.12)
    assert beyond(0.057, -0.177) == 0.057
    assert math.isnan(beyond(0.5, math.nan))


def test_a_difference_that_the_size_of_the_change_has_too_shows_nothing():
    network = {"ioi": a_behaviour(z__atp_size=0.9, resid_pre__atp_size=0.8, z__change=0.7, resid_pre__change=0.4)}
    (found,) = taken("heads-before-stream", network)
    assert found == pytest.approx((-0.2, 0.1, 0.3))


def test_a_difference_is_of_the_behaviours_that_have_both_sides():
    whole = a_behaviour(z__atp_size=0.9, resid_pre__atp_size=0.8)
    half = a_behaviour(z__atp_size=0.1, resid_pre__atp_size=math.nan)
    (found,) = taken("heads-before-stream", {"ioi": whole, "induction": half})
    assert found.plain == pytest.approx(0.1)


def test_the_gain_of_a_fix_is_counted_from_the_correlation_without_it():
    (found,) = taken("qk-fix-helps-keys", {"ioi": a_behaviour(k__atp=0.8, k__atp_qk=0.95)})
    assert found == pytest.approx((0.15, 0.15, 0.8))


def test_one_behaviour_that_differs_does_not_make_all_differ():
    rows = [a_behaviour(mirror, null) for mirror, null in ((0.03, 0.06), (0.05, 0.16), (0.05, 0.12), (0.58, 0.14))]
    (found,) = taken("denoising-is-not-noising", dict(enumerate(rows)))
    assert found.judged < 0


def test_heads_are_judged_by_the_median_kind_less_what_lots_give():
    whole = [(1, head) for head in range(4)]
    kinds = {
        "induction": Role(whole, whole, 4, math.nan),  # a full layer
        "S2 reader": Role([(0, 0)], [(0, 0)], 4, 1.0),
        "name mover": Role([(0, 0)], [(0, 1)], 4, 0.5),
        "duplicate token": Role([], [], 4, math.nan),  # neither way finds any: no kind to agree on
    }
    (found,) = taken("heads-found-twice", {"ioi": a_behaviour()}, roles=[kinds])
    assert found == pytest.approx((0.0, 1.0, 0.25))  # differences 0, 3/4 and -1/4


def curves(**cmd: float):
    return {name.replace("_", "-"): SimpleNamespace(cmd=value) for name, value in cmd.items()}


def test_circuits_are_judged_by_the_worst_method_and_beside_chance():
    nodes = curves(exact=0.1, atp=0.1, atp_qk=0.1, atp_star=0.7, ig=0.1, relp=0.1, random=0.6)
    chosen = SimpleNamespace(share=0.15, of=40, by_lot=30.0)
    found = SimpleNamespace(nodes=nodes, edges=curves(eap=0.3, eap_ig=0.2, random=0.8), chosen=chosen)
    network = {"ioi": a_behaviour(circuits=found)}
    assert taken("attribution-beats-chance", network)[0] == pytest.approx((0.1, 0.1, -0.5))
    assert taken("eap-ig-before-eap", network)[0] == pytest.approx((0.1, 0.1, 0.5))
    assert taken("small-circuit", network)[0] == pytest.approx((0.15, 0.15, 0.75))


def test_what_a_network_did_not_learn_is_not_told_and_has_no_row():
    assert taken("heads-before-stream", {}) == []
    (found,) = taken("small-circuit", {"pronoun": a_behaviour()})
    assert math.isnan(found.judged)
    assert "small-circuit" not in [row["claim"] for row in judged([{"pronoun": a_behaviour()}], [{}])]


def test_verdicts_go_by_the_median_and_carry_the_ends():
    networks = [{"ioi": a_behaviour(k__atp=0.9, k__atp_qk=0.9 + gain)} for gain in (-0.02, 0.01, 0.03)]
    results = {"judged_by_network": judged(networks, [{}] * 3)}
    (found,) = [each for each in judge_all(results, preset="quick", config={}) if each.claim.id == "qk-fix-helps-keys"]
    assert found.measured == pytest.approx({"median": 0.01, "low": -0.02, "high": 0.03})
    assert (found.verdict, found.undecided) == ("holds", True)
    assert found.null_measured["median"] == pytest.approx(0.9)
    assert "no difference" in str(found)


def test_every_claim_that_is_taken_by_network_is_a_claim():
    assert set(TAKINGS) <= {claim.id for claim in load_claims(CLAIMS)}


def test_the_bound_of_a_small_circuit_is_the_published_share_and_no_more():
    (claim,) = [each for each in load_claims(CLAIMS) if each.id == "small-circuit"]
    assert (claim.published, claim.tolerance) == (pytest.approx(26 / 144, abs=0.001), 0)


def test_the_words_are_as_many_as_said():
    from micrographia.labs.ioi import words
    from micrographia.labs.ioi.grammar import WORDS

    assert f"{sum(map(len, CLASSES.values()))} content words" in words.__doc__
    assert f"{len(WORDS)} in all" in words.__doc__
