"""Which number answers which claim, and what it is held against."""

import math

import pytest

from micrographia.core.claims import load_claims
from micrographia.labs.grokking.judge import CLAIMS, MEASURED, NULLS, OWN_NULL, PHASES, judge_all

STATED = {claim.id: claim for claim in load_claims(CLAIMS)}


def results(**changes):
    """What a network without any circuit gives."""
    measures = {
        "n": 11,
        "loss": math.log(11),
        "test_accuracy": 1 / 11,
        "trig_loss": None,
        "logit_variance_explained": None,
        "restricted_loss": {"projection": None},
        "null": {},
    }
    empty = {"key_frequencies": [], "frequencies": [], "replacements": [], "ablations": [], "phases": None}
    return {"measures": measures, **empty, **changes}


def judged(found, **more):
    every = judge_all(found, None, **{"preset": "quick", "config": {"seed": 0}, **more})
    return {each.claim.id: each for each in every}


def test_every_claim_has_its_measurement_and_every_stated_null_its_figure():
    assert MEASURED.keys() == STATED.keys()
    assert NULLS.keys() == {name for name, claim in STATED.items() if claim.null}
    assert NULLS.keys() >= OWN_NULL


def test_what_was_not_measured_was_not_reproduced():
    verdicts = {name: each.verdict for name, each in judged(results()).items()}
    assert set(verdicts.values()) == {"fails", "not run"}
    assert verdicts["phases-in-order"] == verdicts["logit-variance"] == "fails"
    assert verdicts["final-loss"] == "not run"


@pytest.mark.parametrize(
    ("epochs", "verdict"), [((1, 2, 3, 4), "holds"), ((1, 3, 2, 4), "fails"), ((1, 2, 3, None), "fails")]
)
def test_phases_hold_in_their_order_alone(epochs, verdict):
    found = judged(results(phases=dict(zip(PHASES, epochs))))["phases-in-order"]
    assert found.verdict == verdict


def test_the_order_of_phases_is_held_against_the_orders_that_could_come_out():
    assert judged(results())["phases-in-order"].null_measured == 1 / 8


def test_a_seeds_set_is_judged_at_that_seed_alone():
    found = results(key_frequencies=[14, 35, 41, 42, 52])
    paper = {"preset": "paper", "config": {"seed": 0}}
    assert judged(found, **paper)["key-frequencies-seed-0"].verdict == "holds"
    assert judged(found, **paper)["key-frequencies-seed-1"].verdict == "not run"
    other = results(key_frequencies=[14, 35, 42, 52, 55])
    assert judged(other, **paper)["key-frequencies-seed-0"].verdict == "fails"
    assert judged(other, **paper)["key-frequencies-seed-0"].null_measured == 5 * 5 / 5
