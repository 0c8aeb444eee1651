"""Faithful, complete, minimal: on scores that are known in closed form, and on planted circuits."""

import math

import pytest
import torch
from torch import Tensor

from micrographia.core.errors import BadConfig, UserError
from micrographia.core.graph import Node, graph_of
from micrographia.core.metrics import logit_difference
from micrographia.core.sites import Site
from micrographia.labs.planted.planted import GAIN
from micrographia.labs.planted.theory import PLANTED
from micrographia.methods.attribution.edges import edge_attribution
from micrographia.methods.circuits.ablate import edges_alone, nodes_alone
from micrographia.methods.circuits.evaluate import ladder
from micrographia.methods.circuits.judge import (
    completeness,
    faithfulness,
    minimality,
    random_null,
    subsets,
    worst_subset,
)
from micrographia.methods.circuits.members import edge_scores, greedy_order, parts_of, ranked
from small import head, mlp

MEMBERS = [head(0, i) for i in range(4)] + [mlp(0)]
WORTH = dict(zip(MEMBERS, (4.0, 2.0, 1.0, -1.0, 0.0)))


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def additive(circuits) -> Tensor:
    """Each member is worth its own; the second prompt is worth half; nothing at all is worth 10."""
    worth = torch.tensor([sum(WORTH[m] for m in circuit) for circuit in circuits])
    return 10 + torch.stack([worth, worth / 2], 1)


def with_backup(circuits) -> Tensor:
    """Heads 0 and 1 do the same work: either is enough."""
    return torch.tensor([[1.0 if circuit & {head(0, 0), head(0, 1)} else 0.0] for circuit in circuits])


def test_faithfulness_is_one_for_all_and_zero_for_none():
    found = faithfulness(additive, [frozenset(MEMBERS), frozenset(), frozenset(MEMBERS[:1])], MEMBERS)
    torch.testing.assert_close(found.values, torch.tensor([1.0, 0.0, 4 / 6]))
    torch.testing.assert_close(found.empty, torch.tensor([10.0, 10.0]))


def test_faithfulness_is_a_ratio_of_means_with_an_interval_over_prompts():
    found = faithfulness(additive, [frozenset(MEMBERS[:1])], MEMBERS)
    low, high = found.interval(seeded())[0].tolist()
    assert low == pytest.approx(high) == pytest.approx(4 / 6)  # here prompts differ by a factor alone
    uneven = found._replace(scores=torch.tensor([[12.0, 14.0]]))
    low, high = uneven.interval(seeded())[0].tolist()
    assert low < (26 - 20) / 9 < high


def test_one_prompt_has_no_interval():
    found = faithfulness(with_backup, [frozenset(MEMBERS)], MEMBERS)
    assert found.interval(seeded()).isnan().all()


def test_nothing_to_be_faithful_to_is_refused():
    with pytest.raises(UserError, match="nothing to be faithful to"):
        faithfulness(lambda circuits: torch.ones(len(circuits), 2), [frozenset()], MEMBERS)


def test_a_circuit_without_the_backup_is_faithful_and_not_complete():
    circuit = frozenset([head(0, 0), head(0, 2)])
    assert float(faithfulness(with_backup, [circuit], MEMBERS).values[0]) == 1
    found = completeness(with_backup, circuit, MEMBERS, [frozenset([head(0, 0)]), frozenset([head(0, 2)])])
    assert found.gaps.tolist() == [1, 0]
    assert found.worst == 1
    whole = circuit | {head(0, 1)}
    assert completeness(with_backup, whole, MEMBERS, subsets(whole, 8, seeded())).worst == 0


def test_the_search_for_a_bad_set_finds_it():
    circuit = frozenset(MEMBERS) - {head(0, 1)}
    taken = worst_subset(with_backup, circuit, MEMBERS, seeded(), rounds=4, candidates=4)
    assert head(0, 0) in taken
    assert completeness(with_backup, circuit, MEMBERS, [taken]).worst == 1


def test_a_backed_up_member_is_minimal_only_where_its_backup_is_missing():
    circuit = frozenset([head(0, 0), head(0, 1)])
    assert minimality(with_backup, circuit, MEMBERS) == {head(0, 0): 0, head(0, 1): 0}
    contexts = {head(0, 0): frozenset([head(0, 1)])}
    assert minimality(with_backup, circuit, MEMBERS, contexts=contexts)[head(0, 0)] == 1


def test_minimality_is_each_members_share_where_members_add_up():
    found = minimality(additive, frozenset(MEMBERS), MEMBERS)
    assert found[head(0, 0)] == pytest.approx(4 / 6)
    assert found[mlp(0)] == 0


def test_sets_to_take_out_must_be_of_the_circuit():
    with pytest.raises(UserError, match="not in the circuit"):
        completeness(additive, frozenset(MEMBERS[:2]), MEMBERS, [frozenset([mlp(0)])])


def test_areas_are_trapezoids_over_the_share_of_members():
    found = ladder(additive, ranked(WORTH, signed=True), shares=(0.2, 0.4, 1.0))
    assert found.sizes == (1, 2, 5)
    f = [4 / 6, 1.0, 1.0]
    assert found.faithfulness == found.helpful == pytest.approx(f)
    assert found.cpr == pytest.approx(0.2 * (f[0] + f[1]) / 2 + 0.6)
    assert found.cmd == pytest.approx(0.2 * (1 - f[0]) / 2)


@pytest.mark.parametrize("shares", [(0.5,), (0.5, 0.2), (0.0, 1.0), (0.5, 1.5)])
def test_ladders_that_do_not_rise_are_refused(shares):
    with pytest.raises(BadConfig):
        ladder(additive, MEMBERS, shares=shares)


def test_the_null_says_how_often_chance_is_as_good():
    good = random_null(additive, frozenset(MEMBERS[:2]), MEMBERS, seeded(), draws=200)
    assert good.at_least == pytest.approx(0.1, abs=0.06)  # one pair of ten is as good
    assert good.low < 0.5 < good.high
    bad = random_null(additive, frozenset([head(0, 3)]), MEMBERS, seeded(), draws=50)
    assert bad.at_least == 1
    assert not math.isnan(bad.low)


def test_a_circuit_that_carries_more_than_the_model_is_no_better_than_one_that_carries_less():
    """Four members without the harmful one carry 7/6; of the five such sets one carries just 1, one as far off, 5/6."""
    over = random_null(additive, frozenset(MEMBERS) - {head(0, 3)}, MEMBERS, seeded(), draws=200)
    assert over.at_least > 0.3


def test_the_planted_chains_parts_are_its_faithful_and_minimal_circuit():
    planted = PLANTED["chain"]()
    pairs = planted.pairs
    assert pairs.wrong is not None
    universe = parts_of(planted.model)
    circuit = frozenset([head(0, 0), head(1, 0), mlp(2)])
    alone = nodes_alone(planted.model, pairs, logit_difference(pairs.answer, pairs.wrong), universe)
    found = faithfulness(alone, [circuit], universe)
    share = GAIN / float(found.model.mean())  # the circuit's part; murmurs, outside, say the rest
    assert 0.8 < share < 1
    assert float(found.values[0]) == pytest.approx(share)
    assert list(minimality(alone, circuit, universe).values()) == pytest.approx([share] * 3)
    assert random_null(alone, circuit, universe, seeded(), draws=20).at_least < 0.1


def test_edges_of_the_planted_chain_are_found_greedily_and_are_faithful():
    planted = PLANTED["chain"]()
    pairs = planted.pairs
    assert pairs.wrong is not None
    metric = logit_difference(pairs.answer, pairs.wrong)
    found = edge_attribution(planted.model, pairs, metric)
    graph = graph_of(planted.model)
    order = greedy_order(graph, edge_scores(graph, found.mean()))
    chain = order[:4]
    assert [str(edge) for edge in chain] == [
        "L2.mlp_out -> logits",
        "L1.z[0] -> L2.mlp_pre",
        "L0.z[0] -> L1.v[0]",
        "L0.resid_pre -> L0.v[0]",
    ]
    assert chain[2].reader == Node(Site("v", 1), 0)
    judged = faithfulness(edges_alone(planted.model, pairs, metric, graph), [frozenset(chain)], graph.edges)
    assert float(judged.values[0]) == pytest.approx(GAIN / float(judged.model.mean()))
