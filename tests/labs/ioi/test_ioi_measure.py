"""What the measures of the ioi lab say of a network whose circuit is known, and of small tables."""

import math

import numpy as np
import pytest
import torch

from micrographia.core.prompts import first_difference, metric_of
from micrographia.core.runtime import generator
from micrographia.core.sites import Site
from micrographia.core.sweep import Place
from micrographia.labs.ioi import circuit, measure, network, roles
from micrographia.labs.ioi.cases import FRAME, case_of, positions_of
from micrographia.labs.ioi.grammar import IDS
from micrographia.labs.planted.found import chain
from micrographia.labs.planted.hidden import cancelling
from micrographia.labs.ioi.spots import places_of
from micrographia.labs.ioi.templates import BEHAVIOURS
from micrographia.methods.circuits.members import parts_of
from micrographia.methods.patching import patch

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
    parts = measure.universe(planted.model, planted.pairs)
    alone = measure.node_game(planted.model, planted.pairs, metric, parts, circuit.Ablation("other"))
    scores = measure.part_scores(parts, found)
    exact = circuit.curve(*measure.ladder(alone, scores["exact"]))
    chance = circuit.by_chance(alone, parts, generator(0))
    assert exact.cmd < chance.cmd
    assert exact.needed < chance.needed
    chosen = circuit.choose("exact", alone, measure.ranked(scores["exact"]), generator(0))
    assert {"L0.z[0]", "L1.z[0]"} <= {name.partition("@")[0] for name in chosen.members}
    assert abs(1 - chosen.faithfulness) <= 1 - circuit.FAITHFUL
    assert len(chosen.members) < chosen.by_lot <= chosen.of == len(parts)


def test_a_part_outside_the_universe_cannot_reach_the_answer(planted, metric):
    """Every part by position that circuits are not cut from, ablated by itself."""
    parts = set(measure.universe(planted.model, planted.pairs))
    every = parts_of(planted.model, n_pos=planted.pairs.clean.shape[1])
    dead = [
        (Place(p.node.site, {"pos": p.pos} | ({} if p.node.head is None else {"head": p.node.head})),)
        for p in every
        if p not in parts
    ]
    effects = patch(planted.model, planted.pairs, [metric], dead, mode="noise").effects()
    assert 0 < len(dead) < len(every)
    torch.testing.assert_close(effects, torch.zeros_like(effects), atol=1e-4, rtol=0)


def test_a_part_before_the_first_difference_of_either_side_is_left_out():
    case = case_of("ioi", 4, generator(0), torch.device("cpu"))
    model = chain().model
    begin = first_difference(case.pairs)
    found = measure.universe(model, case.pairs, case.others)
    assert min(part.pos for part in found) == begin
    last = model.shape.n_layers - 1
    assert {part.pos for part in found if part.node.site.layer == last} == {len(case.positions) - 1}


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
    assert (
        found["atp-star"].pearson == found[network.BY_SIZE].pearson == found[network.CHANGE].pearson == pytest.approx(1)
    )
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


def test_heads_that_only_one_way_finds_count_against_their_agreement():
    found = roles.Role([(0, 1), (1, 2)], [(0, 1), (1, 0), (1, 3)], 4, 0.9)
    assert (found.both, found.either, found.agreement) == (1, 4, 0.25)
    assert math.isnan(roles.Role([], [], 4, math.nan).agreement)
    assert (
        roles.Role([], [(0, 1)], 4, math.nan).agreement == roles.Role([], [(0, 1)], 4, math.nan).agreement_by_lot == 0
    )


def test_lots_are_drawn_within_layers():
    whole = [(1, head) for head in range(4)]
    assert roles.Role(whole, whole, 4, math.nan).agreement_by_lot == pytest.approx(1)  # a full layer shows nothing
    assert roles.Role([(0, 0)], [(1, 0)], 4, 0.5).agreement_by_lot == 0
    assert roles.Role([(0, 0)], [(0, 1)], 4, 0.5).agreement_by_lot == pytest.approx(1 / 4)
    draw, looks, found = np.random.default_rng(0), [(0, 0), (0, 1), (1, 3)], [(0, 1), (0, 2), (1, 3), (1, 0)]
    drawn = [{(0, i) for i in draw.permutation(4)[:2]} | {(1, int(draw.integers(4)))} for _ in range(4000)]
    mean = np.mean([len(heads & set(found)) / len(heads | set(found)) for heads in drawn])
    role = roles.Role(looks, found, 4, 0.5)
    assert role.agreement_by_lot == pytest.approx(mean, abs=0.01)
    assert role.both_by_lot == pytest.approx(np.mean([len(heads & set(found)) for heads in drawn]), abs=0.03)


@pytest.mark.parametrize(
    ("effects", "found"),
    [
        ([[0.30, 0.11, 0.09], [0.0, 0.0, -0.5]], [(0, 0), (0, 1)]),  # a third of the largest, whoever looks the part
        ([[0.009, 0.008, 0.0], [0.0, 0.0, 0.0]], []),  # idle heads are none
        ([[-0.3, -0.2, -0.1], [-0.1, -0.2, -0.3]], []),
    ],
)
def test_patching_has_a_threshold_of_its_own(monkeypatch, effects, found):
    monkeypatch.setattr(roles, "traced", lambda model, case, how: torch.tensor(effects))
    looks = [(1, 2)]
    assert roles.role(None, None, roles.TRACED["name mover"], looks)[:2] == (looks, found)


def test_a_head_of_the_last_layer_is_no_candidate_for_what_later_heads_hear(monkeypatch):
    effects = torch.tensor([[0.1, 0.9], [0.0, 0.0]])
    monkeypatch.setattr(roles, "traced", lambda model, case, how: effects)
    found = roles.role(None, None, roles.TRACED["previous token"], [(0, 1), (1, 1)])
    assert (found.looks, found.found, found.n_heads) == ([(0, 1)], [(0, 1)], 2)
    assert np.isclose(found.area, 1.0)
