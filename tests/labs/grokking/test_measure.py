"""Which figure is measured for each claim, what it is held against, and what a summary reports."""

import math
import tomllib
from pathlib import Path

import pytest
import torch

from micrographia.core.claims import Judged, Measured, judge_all, load_claims
from micrographia.core.config import with_fields
from micrographia.core.small.transformer import Transformer
from micrographia.core.small.weights import init_weights
from micrographia.core.store import load_run
from micrographia.labs.grokking.config import tiny
from micrographia.labs.grokking.measure import (
    CLAIMS,
    against_controls,
    measure,
    phases_in_order,
    published_sets,
    same_before_training,
)
from micrographia.labs.grokking.network import tensors_of
from micrographia.labs.grokking.quantities import present_frequencies
from micrographia.labs.grokking.run import opening
from micrographia.labs.grokking.task import architecture, make_pairs
from micrographia.methods.phases import NAMES, ORDERED

RESULTS = Path(__file__).parents[3] / "docs" / "results"
RUNS = [RESULTS / name for name in ("quick-seed0", *(f"paper-seed{seed}" for seed in range(4)))]
STATED = {claim.id: claim for claim in load_claims(CLAIMS)}


def network(seed=0, **changes):
    """Untrained: nothing that a claim is about is there."""
    small = {"modulus": 11, "d_model": 16, "n_heads": 2, "d_head": 8, "d_mlp": 24}
    config = with_fields(tiny(), **{**small, **changes})
    arch = architecture(config)
    return tensors_of(Transformer(arch, init_weights(arch, torch.Generator().manual_seed(seed))), make_pairs(config))


def measured(r, start=None, frequencies=None):
    frequencies = present_frequencies(r) if frequencies is None else frequencies
    phases = dict.fromkeys(NAMES)
    return measure(r, frequencies, phases=phases, start=start, generator=torch.Generator().manual_seed(0))


KEYS = [{"k": k, "kind": "key", "energy": 0.1, "loss_change": 0.25 * k, "p_value": 0.0} for k in (1, 3)]


@pytest.fixture(scope="module")
def with_keys():
    """An untrained network in which frequencies 1 and 3 are taken for key."""
    return measured(network(), network(1), KEYS)


@pytest.mark.parametrize("operation", ["add", "multiply", "polynomial"])
def test_every_claim_has_its_figure_whatever_the_network(operation):
    _, measures = measured(network(operation=operation))
    assert measures.keys() == STATED.keys()


def test_a_claim_has_a_null_where_it_states_one(with_keys):
    _, measures = with_keys
    assert {name for name, each in measures.items() if each.null is not None} == {
        name for name, claim in STATED.items() if claim.null
    }


def test_without_the_network_before_training_only_controls_are_nulls():
    _, measures = measured(network(), frequencies=KEYS)
    controls = {*against_controls(measured(network())[0]), *published_sets([], 11), "phases-in-order"}
    assert {name for name, each in measures.items() if each.null is not None} == controls


def test_the_null_is_the_same_figure_of_the_other_network(with_keys):
    _, measures = with_keys
    _, other = measured(network(1), frequencies=KEYS)
    same = same_before_training({})
    assert {name: measures[name].null for name in same} == {name: other[name].value for name in same}


def test_figures_are_losses_over_the_networks_own(with_keys):
    results, measures = with_keys
    m, loss = results["measures"], {row["name"]: row["loss"] for row in results["ablations"]}
    assert measures["algorithm-beats-network"].value == m["trig_loss"] / m["loss"]
    assert measures["only-sum-waves"].null == m["null"]["restricted_projection"] / m["loss"]
    assert measures["null-space"].value == loss["neurons off the key directions"] / math.log(11)
    assert measures["every-key-frequency-counts"].value == 0.25


def test_what_was_not_measured_was_not_reproduced():
    _, measures = measured(network(operation="polynomial"))
    judged = judge_all(CLAIMS, measures, preset="quick", config={"seed": 0})
    verdicts = {each.claim.id: each.verdict for each in judged}
    assert set(verdicts.values()) == {"fails", "not run"}
    assert verdicts["phases-in-order"] == verdicts["logit-variance"] == "fails"
    assert verdicts["final-loss"] == "not run"


@pytest.mark.parametrize(
    ("epochs", "verdict"), [((1, 2, 3, 4), "holds"), ((1, 3, 2, 4), "fails"), ((1, 2, 3, None), "fails")]
)
def test_phases_hold_in_their_order_alone(epochs, verdict):
    measures = phases_in_order(dict(zip(ORDERED, epochs)))
    judged = {each.claim.id: each for each in judge_all(CLAIMS, measures, preset="quick", config={})}
    assert judged["phases-in-order"].verdict == verdict


def test_the_order_of_phases_is_held_against_the_orders_that_could_come_out():
    assert phases_in_order({})["phases-in-order"].null == 1 / 8


def test_a_seeds_set_is_judged_at_that_seed_alone():
    def verdicts(keys):
        judged = judge_all(CLAIMS, published_sets(keys, 113), preset="paper", config={"seed": 0})
        return {each.claim.id: each.verdict for each in judged}

    assert verdicts([14, 35, 41, 42, 52])["key-frequencies-seed-0"] == "holds"
    assert verdicts([14, 35, 41, 42, 52])["key-frequencies-seed-1"] == "not run"
    assert verdicts([14, 35, 42, 52, 55])["key-frequencies-seed-0"] == "fails"


def test_a_random_set_shares_as_many_members_as_both_are_large(with_keys):
    for name, each in published_sets([1, 2, 3], 113).items():
        assert each.null == 3 * len(STATED[name].published) / 56


@pytest.mark.parametrize("place", RUNS, ids=lambda place: place.name)
def test_stored_runs_are_judged_as_they_were(place):
    run = load_run(place)
    n = run.results["measures"]["n"]
    figures = {name: Measured(value) for name, value in same_before_training(run.results["measures"]).items()}
    figures |= phases_in_order(run.results["phases"]) | against_controls(run.results)
    figures |= published_sets(run.results["key_frequencies"], n)
    found = {each.claim.id: each for each in judge_all(CLAIMS, figures, preset=run.preset, config=run.config)}
    for old in run.claims:
        new = found[old.claim.id]
        assert (new.measured, new.verdict) == (old.measured, old.verdict), old.claim.id
        if old.null_measured is not None and old.claim.id not in same_before_training({}):  # those need the start
            assert new.null_measured == old.null_measured, old.claim.id


def test_a_claim_is_short_and_says_so_when_it_fails():
    for claim in tomllib.loads(CLAIMS.read_text(encoding="utf-8"))["claim"]:
        assert len(claim["text"].split()) <= 15, claim["id"]
        assert claim["fails"], claim["id"]


@pytest.mark.parametrize("value", [None, math.nan, 0.5, [1, 2], [], {"median": 0.5, "low": 0.25, "high": 1.0}], ids=str)
def test_the_sentences_of_claims_hold_whatever_was_measured(value):
    for claim in STATED.values():
        for verdict in ("holds", "fails"):
            sentence = Judged(claim=claim, measured=value, verdict=verdict, null_measured=value).sentence
            assert sentence == "" or sentence.endswith(".")


@pytest.mark.parametrize("operation", ["add", "polynomial"])
@pytest.mark.parametrize("known", [True, False])
def test_a_summary_is_three_sentences_at_most(operation, known):
    r = network(operation=operation)
    r = r if known else tensors_of(r.model, r.pairs._replace(train=None))
    assert 2 <= len(opening(measured(r)[0], preset="tiny")) <= 3


def test_a_summary_reports_the_algorithm_where_there_is_one(with_keys):
    assert len(opening(with_keys[0])) == 3  # nothing on clock or pizza: it has not learned the task
