"""What the measures of the ioi lab say of a network whose circuit is known, and of small tables."""

import math

import numpy as np
import pytest
import torch

from micrographia.core.pairs import metric_of
from micrographia.core.runtime import generator
from micrographia.core.sites import Site
from micrographia.core.sweep import Place
from micrographia.labs.ioi import circuit, measure, network, roles
from micrographia.labs.ioi.cases import FRAME, case_of, first_difference, positions_of
from micrographia.labs.ioi.grammar import IDS
from micrographia.labs.ioi.planted.found import chain
from micrographia.labs.ioi.planted.hidden import cancelling
from micrographia.labs.ioi.spots import places_of
from micrographia.labs.ioi.templates import BEHAVIOURS

pytestmark = pytest.mark.usefixtures("unchecked")


@pytest.fixture(scope="module")
def planted():
    return chain()


@pytest.fixture(scope="module")
def metric(planted):
    return metric_of("logit-diff", planted.pairs, planted.model)


def test_estimates_agree_with_exact_effects_on_a_linear_circuit(planted, metric):
    found = measure.estimates(
        planted.model, planted.pairs, metric, ["z", "v"], mode="denoise", most=10**9, generator=generator(0)
    )
    for kind in found.values():
        torch.testing.assert_close(kind.estimates["atp"], kind.exact)
        assert network.trust(kind, generator(0))["atp"].pearson == pytest.approx(1)


def test_a_cancelling_head_lowers_the_agreement_of_attribution_patching_alone():
    here = cancelling()
    m = metric_of("logit-diff", here.pairs, here.model)
    found = measure.estimates(here.model, here.pairs, m, ["z"], mode="denoise", most=10**9, generator=generator(0))
    trust = network.trust(found["z"], generator(0))
    assert trust["atp"].pearson < 0.5 < trust["ig"].pearson


def test_places_are_not_asked_where_nothing_can_change(planted):
    begin = first_difference(planted.pairs)
    found = places_of(planted.model, planted.pairs, "pattern", 10**9, generator(0))
    assert all(p.where["query"] >= begin and p.where["key"] <= p.where["query"] for p in found)
    assert len(places_of(planted.model, planted.pairs, "z", 5, generator(0))) == 5


def test_the_heads_that_speak_to_the_logits_are_those_that_were_planted(planted, metric):
    spoken = measure.spoken(planted.model, planted.pairs, metric, measure.TO_LOGITS)
    (mover,) = planted.roles["mover"]
    to_mlp = measure.spoken(
        planted.model,
        planted.pairs,
        metric,
        [n for n in measure.graph_of(planted.model).readers if n.site.kind == "mlp_pre"],
    )
    assert to_mlp.argmax() == mover.site.layer * planted.model.shape.n_heads + mover.index
    assert spoken.abs().max() < to_mlp.max()  # the planted mover speaks through neurons


def test_a_circuit_of_the_planted_parts_is_faithful_before_one_by_chance(planted, metric):
    found = measure.estimates(
        planted.model, planted.pairs, metric, ("z", "mlp_out"), mode="noise", most=10**9, generator=generator(0)
    )
    alone = measure.node_game(planted.model, planted.pairs, metric, circuit.Ablation("other"))
    scores = measure.part_scores(planted.model, planted.pairs, found)
    exact = circuit.curve(*measure.ladder(alone, scores["exact"]))
    chance = circuit.by_chance(alone, measure.universe(planted.model, planted.pairs), generator(0))
    assert exact.cmd < chance.cmd
    assert exact.needed < chance.needed
    chosen = circuit.choose("exact", alone, measure.ranked(scores["exact"]), generator(0))
    assert {"L0.z[0]", "L1.z[0]"} <= {name.partition("@")[0] for name in chosen.members}
    assert abs(1 - chosen.faithfulness) <= 1 - circuit.FAITHFUL


def test_the_share_needed_is_the_one_after_which_nothing_falls_back():
    shares = (0.1, 0.2, 0.5, 1.0)
    assert circuit.needed([0.95, 0.2, 0.95, 1.0], shares) == 0.5
    assert circuit.needed([0.99, 0.99, 0.99, 1.0], shares) == 0.1
    assert math.isnan(circuit.needed([0.0, 0.0, 0.0, 0.0], shares))


def test_maps_that_are_alike_do_not_differ_and_opposite_ones_do():
    x = torch.tensor([[1.0, 0.0], [0.5, -0.5]])
    assert network.difference(x, x) == 0
    assert network.difference(x, torch.zeros_like(x)) == 1


def a_kind(exact, **estimates):
    places = [Place(Site("z", 0), {"pos": i, "head": 0}) for i in range(len(exact))]
    return measure.Kind(places, exact, estimates, exact.abs())


def test_sizes_are_held_against_sizes():
    exact = torch.tensor([[1.0], [-2.0], [3.0], [-4.0], [5.0], [-6.0], [7.0], [-8.0]])
    found = network.trust(a_kind(exact, **{"atp-star": exact.abs(), "atp": exact.abs()}), generator(0))
    assert found["atp-star"].pearson == pytest.approx(1)
    assert found["atp"].pearson < 0.5


def test_few_places_give_no_correlation():
    exact = torch.arange(network.FEWEST - 1.0)[:, None]
    assert math.isnan(network.trust(a_kind(exact, atp=exact), generator(0))["atp"].pearson)


@pytest.mark.parametrize("behaviour", BEHAVIOURS)
def test_the_prompts_of_a_case_are_of_one_wording_and_judged_on_others(behaviour):
    case = case_of(behaviour, 8, generator(0), torch.device("cpu"))
    assert len(case.pairs) == len(case.others) == 8
    assert len(case.positions) == case.pairs.clean.shape[1]
    seen = {tuple(row) for row in case.pairs.clean.tolist()}
    assert any(tuple(row) not in seen for row in case.others.clean.tolist())
    assert behaviour in FRAME


def test_a_position_is_named_by_its_word_or_by_what_kind_of_word_stands_there():
    rows = torch.tensor(
        [[IDS["When"], IDS["Mary"], IDS["and"], IDS["John"]], [IDS["When"], IDS["Tom"], IDS["and"], IDS["Mary"]]]
    )
    assert positions_of(rows) == ("0 When", "1 name 1", "2 and", "3 name 2")


def test_heads_by_looks_are_held_against_as_many_by_patching():
    found = roles.Role([(0, 1), (1, 2)], [(0, 1), (1, 0)], 8, 0.9)
    assert found.both == 1


def test_a_head_of_the_last_layer_is_no_candidate_for_what_later_heads_hear(monkeypatch):
    effects = torch.tensor([[0.1, 0.9], [0.0, 0.0]])
    monkeypatch.setattr(roles, "traced", lambda model, case, how: effects)
    found = roles.role(None, None, roles.TRACED["previous token"], [(0, 1), (1, 1)])
    assert (found.looks, found.found, found.candidates) == ([(0, 1)], [(0, 1)], 2)
    assert np.isclose(found.area, 1.0)
