"""The measures of the ioi lab on a network whose circuit is known, and on small tables."""

import math

import numpy as np
import pytest
import torch

from micrographia.core.graph import LOGITS, Node, graph_of
from micrographia.core.prompts import first_difference, metric_of
from micrographia.core.runtime import generator
from micrographia.core.sites import Site
from micrographia.core.sweep import Place
from micrographia.labs.ioi import analysis, circuits, estimates, heads
from micrographia.labs.ioi.grammar import IDS
from micrographia.labs.ioi.heads import HeadKind
from micrographia.labs.ioi.task import BEHAVIOURS, case_of, positions_of
from micrographia.labs.planted.found import chain
from micrographia.labs.planted.hidden import cancelling
from micrographia.methods.circuits.ablate import nodes_alone
from micrographia.methods.circuits.evaluate import evaluate, ladder, random_ladder, size_grid
from micrographia.methods.circuits.members import parts_of, ranked
from micrographia.methods.patching import patch

pytestmark = pytest.mark.usefixtures("unchecked")


@pytest.fixture(scope="module")
def planted():
    return chain()


@pytest.fixture(scope="module")
def metric(planted):
    return metric_of("logit-diff", planted.pairs, planted.model)


def compared(planted, metric, kinds, mode="denoise"):
    return estimates.compare(planted.model, planted.pairs, metric, kinds, mode=mode, most=None, draw=generator(0))


def test_estimates_agree_with_exact_effects_on_a_linear_circuit(planted, metric):
    found = compared(planted, metric, ["z", "v"])
    for kind in found.values():
        torch.testing.assert_close(kind.estimates["atp"], kind.exact)
        assert estimates.correlations(kind, generator(0))["atp"].pearson == pytest.approx(1)


def test_a_cancelling_head_lowers_the_agreement_of_attribution_patching_alone():
    here = cancelling()
    m = metric_of("logit-diff", here.pairs, here.model)
    trust = estimates.correlations(compared(here, m, ["z"])["z"], generator(0))
    assert trust["atp"].pearson < 0.5 < trust["ig"].pearson


def test_places_are_not_asked_where_nothing_can_change(planted):
    begin = first_difference(planted.pairs)
    found = estimates.sampled(planted.model, planted.pairs, "pattern", None, generator(0))
    assert all(p.where["query"] >= begin and p.where["key"] <= p.where["query"] for p in found)
    assert len(estimates.sampled(planted.model, planted.pairs, "z", 5, generator(0))) == 5


def test_the_heads_with_a_direct_effect_are_those_that_were_planted(planted, metric):
    to_logits = heads.path_patch_heads(planted.model, planted.pairs, metric, [Node(LOGITS)])
    (mover,) = planted.roles["mover"]
    mlps = [node for node in graph_of(planted.model).readers if node.site.kind == "mlp_pre"]
    to_mlp = heads.path_patch_heads(planted.model, planted.pairs, metric, mlps)
    assert to_mlp.argmax() == mover.site.layer * planted.model.shape.n_heads + mover.index
    assert to_logits.abs().max() < to_mlp.max()  # the planted mover acts through neurons


def test_a_circuit_of_the_planted_parts_is_faithful_before_one_by_chance(planted, metric):
    parts = circuits.candidates(planted.model, planted.pairs)
    alone = nodes_alone(planted.model, planted.pairs, metric, parts)
    scores = circuits.part_scores(parts, compared(planted, metric, ("z", "mlp_out"), "noise"))
    order = ranked(scores["exact"])
    exact = ladder(alone, order, ranked(scores["exact"], signed=True))
    chance = random_ladder(alone, parts, generator(0), orders=6)
    assert exact.cmd < chance.cmd
    assert exact.min_share() < chance.min_share()
    grid = size_grid(len(parts), **circuits.GRID)
    found = evaluate(alone, order, generator(0), along=exact, sizes=grid, steps=("orders",))
    assert {"L0.z[0]", "L1.z[0]"} <= {str(part.node) for part in found.members}
    assert abs(1 - found.faithfulness) <= 0.1
    assert len(found.members) < found.random_size <= found.of == len(parts)


def test_a_part_that_is_no_candidate_cannot_reach_the_answer(planted, metric):
    """Every part by position that circuits are not cut from, ablated by itself."""
    parts = set(circuits.candidates(planted.model, planted.pairs))
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
    found = circuits.candidates(model, case.pairs, case.others)
    assert min(part.pos for part in found) == begin
    last = model.shape.n_layers - 1
    assert {part.pos for part in found if part.node.site.layer == last} == {len(case.positions) - 1}


def test_maps_that_are_alike_do_not_differ_and_opposite_ones_do():
    x = torch.tensor([[1.0, 0.0], [0.5, -0.5]])
    assert analysis.difference(x, x) == 0
    assert analysis.difference(x, torch.zeros_like(x)) == 1


def a_kind(exact, **by_method):
    places = [Place(Site("z", 0), {"pos": i, "head": 0}) for i in range(len(exact))]
    return estimates.Comparison(places, exact, by_method, exact.abs())


def test_sizes_are_held_against_sizes():
    exact = torch.tensor([[1.0], [-2.0], [3.0], [-4.0], [5.0], [-6.0], [7.0], [-8.0]])
    found = estimates.correlations(a_kind(exact, **{"atp-star": exact.abs(), "atp": exact.abs()}), generator(0))
    assert (
        found["atp-star"].pearson
        == found[estimates.BY_SIZE].pearson
        == found[estimates.NORM].pearson
        == pytest.approx(1)
    )
    assert found["atp"].pearson < 0.5


def test_few_places_give_no_correlation():
    exact = torch.arange(estimates.FEWEST - 1.0)[:, None]
    assert math.isnan(estimates.correlations(a_kind(exact, atp=exact), generator(0))["atp"].pearson)


@pytest.mark.parametrize("behaviour", BEHAVIOURS)
def test_the_prompts_of_a_case_are_of_one_wording_and_judged_on_others(behaviour):
    case = case_of(behaviour, 8, generator(0), torch.device("cpu"))
    assert len(case.pairs) == len(case.others) == 8
    assert len(case.positions) == case.pairs.clean.shape[1]
    seen = {tuple(row) for row in case.pairs.clean.tolist()}
    assert any(tuple(row) not in seen for row in case.others.clean.tolist())
    assert case.behaviour == behaviour


def test_a_position_is_named_by_its_word_or_by_what_kind_of_word_stands_there():
    rows = torch.tensor(
        [[IDS["When"], IDS["Mary"], IDS["and"], IDS["John"]], [IDS["When"], IDS["Tom"], IDS["and"], IDS["Mary"]]]
    )
    assert positions_of(rows) == ("0 When", "1 name 1", "2 and", "3 name 2")


def test_heads_that_only_one_way_finds_count_against_their_agreement():
    found = HeadKind([(0, 1), (1, 2)], [(0, 1), (1, 0), (1, 3)], 4, 0.9)
    assert (found.both, found.either, found.agreement) == (1, 4, 0.25)
    assert math.isnan(HeadKind([], [], 4, math.nan).agreement)
    assert HeadKind([], [(0, 1)], 4, math.nan).agreement == HeadKind([], [(0, 1)], 4, math.nan).agreement_by_chance == 0


def test_chance_draws_within_layers():
    whole = [(1, head) for head in range(4)]
    assert HeadKind(whole, whole, 4, math.nan).agreement_by_chance == pytest.approx(1)  # a full layer shows nothing
    assert HeadKind([(0, 0)], [(1, 0)], 4, 0.5).agreement_by_chance == 0
    assert HeadKind([(0, 0)], [(0, 1)], 4, 0.5).agreement_by_chance == pytest.approx(1 / 4)
    draw, looks, found = np.random.default_rng(0), [(0, 0), (0, 1), (1, 3)], [(0, 1), (0, 2), (1, 3), (1, 0)]
    drawn = [{(0, i) for i in draw.permutation(4)[:2]} | {(1, int(draw.integers(4)))} for _ in range(4000)]
    mean = np.mean([len(some & set(found)) / len(some | set(found)) for some in drawn])
    kind = HeadKind(looks, found, 4, 0.5)
    assert kind.agreement_by_chance == pytest.approx(mean, abs=0.01)
    assert kind.both_by_chance == pytest.approx(np.mean([len(some & set(found)) for some in drawn]), abs=0.03)


@pytest.mark.parametrize(
    ("effects", "found"),
    [
        (
            [[0.30, 0.11, 0.09], [0.0, 0.0, -0.5]],
            [(0, 0), (0, 1)],
        ),  # a third of the largest, whatever a head attends to
        ([[0.009, 0.008, 0.0], [0.0, 0.0, 0.0]], []),  # idle heads are none
        ([[-0.3, -0.2, -0.1], [-0.1, -0.2, -0.3]], []),
    ],
)
def test_patching_has_a_threshold_of_its_own(monkeypatch, effects, found):
    monkeypatch.setattr(heads, "direct_effects", lambda model, case, kind: torch.tensor(effects))
    looks = [(1, 2)]
    assert heads.head_kind(None, None, heads.KINDS["name mover"], looks)[:2] == (looks, found)


def test_a_head_of_the_last_layer_is_no_candidate_for_receivers_in_later_layers(monkeypatch):
    effects = torch.tensor([[0.1, 0.9], [0.0, 0.0]])
    monkeypatch.setattr(heads, "direct_effects", lambda model, case, kind: effects)
    found = heads.head_kind(None, None, heads.KINDS["previous token"], [(0, 1), (1, 1)])
    assert (found.by_attention, found.by_path, found.n_heads) == ([(0, 1)], [(0, 1)], 2)
    assert np.isclose(found.area, 1.0)
