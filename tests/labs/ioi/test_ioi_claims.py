"""What claims are judged by: differences within a network, what a null takes off, what the ends over networks show."""

import math
from types import SimpleNamespace

import pytest

from micrographia.core.claims import judge_all, load_claims, over_networks
from micrographia.labs.ioi import grammar
from micrographia.labs.ioi.analysis import BehaviourAnalysis
from micrographia.labs.ioi.estimates import BY_SIZE, KINDS, METHODS, NORM, Correlation
from micrographia.labs.ioi.grammar import CLASSES, WORDS
from micrographia.labs.ioi.heads import HeadKind
from micrographia.labs.ioi.measure import CLAIMS, measures

pytestmark = pytest.mark.usefixtures("unchecked")


def a_behaviour(asymmetry: float = 0.0, split_half: float = 0.0, circuits=None, **pearson: float):
    """An analysed behaviour whose correlations are 1/2 but for those named, as kind__method."""
    found = {kind: dict.fromkeys((*METHODS, BY_SIZE, NORM), Correlation(0.5, 0.5, 9)) for kind in KINDS}
    for name, value in pearson.items():
        kind, _, method = name.partition("__")
        found[kind][method.replace("_", "-")] = Correlation(value, value, 9)
    return BehaviourAnalysis((), {}, asymmetry, split_half, found, {}, {}, [], circuits)


def measured(claim: str, analysed, kinds=None):
    """(judged, plain, null) of one network."""
    found = measures(analysed, kinds or {})[claim]
    return found.value, found.raw, found.null


def test_a_difference_that_the_activation_norm_has_too_shows_nothing():
    network = {"ioi": a_behaviour(z__atp_size=0.9, resid_pre__atp_size=0.8, z__change=0.7, resid_pre__change=0.4)}
    assert measured("heads-before-stream", network) == pytest.approx((-0.2, 0.1, 0.3))


def test_a_difference_is_of_the_behaviours_that_have_both_sides():
    whole = a_behaviour(z__atp_size=0.9, resid_pre__atp_size=0.8)
    half = a_behaviour(z__atp_size=0.1, resid_pre__atp_size=math.nan)
    assert measured("heads-before-stream", {"ioi": whole, "induction": half})[1] == pytest.approx(0.1)


def test_the_gain_of_a_fix_is_counted_from_the_correlation_without_it():
    network = {"ioi": a_behaviour(k__atp=0.8, k__atp_qk=0.95)}
    assert measured("qk-fix-helps-keys", network) == pytest.approx((0.15, 0.15, 0.8))


def test_one_behaviour_that_differs_does_not_make_all_differ():
    rows = [a_behaviour(one, null) for one, null in ((0.03, 0.06), (0.05, 0.16), (0.05, 0.12), (0.58, 0.14))]
    assert measured("denoising-is-not-noising", dict(enumerate(rows)))[0] < 0


def test_heads_are_judged_by_the_median_kind_less_its_expectation():
    whole = [(1, head) for head in range(4)]
    kinds = {
        "induction": HeadKind(whole, whole, 4, math.nan),  # a full layer
        "S2 reader": HeadKind([(0, 0)], [(0, 0)], 4, 1.0),
        "name mover": HeadKind([(0, 0)], [(0, 1)], 4, 0.5),
        "duplicate token": HeadKind([], [], 4, math.nan),  # neither criterion finds any: no kind to agree on
    }
    found = measured("heads-found-twice", {"ioi": a_behaviour()}, kinds)
    assert found == pytest.approx((0.0, 1.0, 0.25))  # differences 0, 3/4 and -1/4


def ladders(**cmd: float):
    return {name.replace("_", "-"): SimpleNamespace(cmd=value) for name, value in cmd.items()}


def test_circuits_are_judged_by_the_worst_method_and_beside_random_orders():
    nodes = ladders(exact=0.1, atp=0.1, atp_qk=0.1, atp_star=0.7, ig=0.1, relp=0.1, random=0.6)
    smallest = SimpleNamespace(share=0.15, of=40, random_size=30.0)
    found = SimpleNamespace(nodes=nodes, edges=ladders(eap=0.3, eap_ig=0.2, random=0.8), smallest=smallest)
    network = {"ioi": a_behaviour(circuits=found)}
    assert measured("attribution-beats-chance", network) == pytest.approx((0.1, 0.1, -0.5))
    assert measured("eap-ig-before-eap", network) == pytest.approx((0.1, 0.1, 0.5))
    assert measured("small-circuit", network) == pytest.approx((0.15, 0.15, 0.75))


def test_what_a_network_did_not_learn_is_not_known_and_has_no_row():
    network = {"pronoun": a_behaviour()}
    assert math.isnan(measured("small-circuit", network)[0])
    assert over_networks([measures(network, {})])["small-circuit"] == (None, None, None, True)


def test_verdicts_go_by_the_median_and_carry_the_ends():
    networks = [{"ioi": a_behaviour(k__atp=0.9, k__atp_qk=0.9 + gain)} for gain in (-0.02, 0.01, 0.03)]
    found = over_networks([measures(network, {}) for network in networks])
    (judged,) = [
        each for each in judge_all(CLAIMS, found, preset="quick", config={}) if each.claim.id == "qk-fix-helps-keys"
    ]
    assert judged.measured == pytest.approx({"median": 0.01, "low": -0.02, "high": 0.03})
    assert (judged.verdict, judged.undecided) == ("holds", True)
    assert judged.null_measured["median"] == pytest.approx(0.9)


def test_the_bound_of_a_small_circuit_is_the_published_share_and_no_more():
    (claim,) = [each for each in load_claims(CLAIMS) if each.id == "small-circuit"]
    assert (claim.published, claim.tolerance) == (pytest.approx(26 / 144, abs=0.001), 0)


def test_the_language_has_as_many_words_as_its_docstring_says():
    assert f"its {len(WORDS)} words" in grammar.__doc__
    assert sum(map(len, CLASSES.values())) == 190
