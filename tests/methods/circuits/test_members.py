"""Selection by score."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from micrographia.core.errors import UserError
from micrographia.core.graph import INPUT, LOGITS, Edge, Graph, Node, graph_of
from micrographia.core.sites import Site
from micrographia.methods.circuits.members import (
    Part,
    above,
    edge_scores,
    greedy_order,
    parts_of,
    ranked,
)
from small import A_FEW, head, mlp, small_model
from tiny_families import tiny

GRAPH = graph_of(small_model(A_FEW["normed"]))
SEEDS = st.integers(0, 10_000)


def drawn(graph: Graph, seed: int) -> dict[Edge, float]:
    return edge_scores(graph, torch.randn(graph.legal.shape, generator=torch.Generator().manual_seed(seed)))


def test_ranks_go_by_size_or_by_sign():
    scores = {head(0, 0): -3.0, head(0, 1): 2.0, mlp(0): 1.0}
    assert ranked(scores) == [head(0, 0), head(0, 1), mlp(0)]
    assert ranked(scores, signed=True) == [head(0, 1), mlp(0), head(0, 0)]
    assert above(scores, 2) == {head(0, 0), head(0, 1)}
    assert above(scores, 2, signed=True) == {head(0, 1)}


def test_parts_are_heads_and_mlps_at_all_positions_or_at_each():
    model = small_model(A_FEW["normed"])
    assert len(parts_of(model)) == 2 * (3 + 1)
    assert len(parts_of(model, mlps=False, n_pos=4)) == 2 * 3 * 4
    assert str(parts_of(model, n_pos=4)[1]) == "L0.z[0]@1"


@given(SEEDS, st.integers(1, 40))
def test_a_circuit_grown_from_the_logits_is_connected_to_them(seed, n):
    circuit = greedy_order(GRAPH, drawn(GRAPH, seed))[:n]
    readers = {edge.reader for edge in circuit}
    writers = {edge.writer for edge in circuit}
    for reader in readers - {Node(LOGITS)}:
        assert any(writer in writers for writer in GRAPH.outlets(reader))


@given(SEEDS)
def test_growing_on_takes_every_edge_once_and_the_largest_open_one_first(seed):
    scores = drawn(GRAPH, seed)
    order = greedy_order(GRAPH, scores)
    assert sorted(map(str, order)) == sorted(map(str, GRAPH.edges))
    into_logits = [edge for edge in GRAPH.edges if edge.reader == Node(LOGITS)]
    assert order[0] == max(into_logits, key=lambda edge: abs(scores[edge]))


def test_a_head_brings_the_key_and_value_readers_of_its_group():
    graph = graph_of(tiny("grouped heads"))
    scores = dict.fromkeys(graph.edges, 0.0)
    scores[Edge(Node(Site("z", 1), 3), Node(LOGITS))] = 9.0
    scores[Edge(Node(INPUT), Node(Site("k", 1), 1))] = 8.0
    scores[Edge(Node(INPUT), Node(Site("k", 1), 0))] = 7.0  # another group's
    scores[Edge(Node(Site("z", 1), 1), Node(LOGITS))] = 1.0
    order = greedy_order(graph, scores)
    assert order[:2] == [Edge(Node(Site("z", 1), 3), Node(LOGITS)), Edge(Node(INPUT), Node(Site("k", 1), 1))]
    assert order[2] == Edge(Node(Site("z", 1), 1), Node(LOGITS))


def test_scores_must_cover_the_graph():
    with pytest.raises(UserError, match="have no score"):
        greedy_order(GRAPH, {})


def test_a_part_prints_its_position():
    assert str(Part(Node(Site("z", 9), 6), -1)) == "L9.z[6]@-1"
