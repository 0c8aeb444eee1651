"""Random circuits that could carry something hold what they must, and all their edges are on a path."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from micrographia.core.graph import INPUT, LOGITS, Node, graph_of
from micrographia.methods.circuits.null import needed, random_members, random_paths
from small import A_FEW, small_model
from tiny_families import tiny

GRAPHS = {"deep": graph_of(small_model(A_FEW["plain-2"])), "grouped": graph_of(tiny("grouped heads"))}
GRAPHS["parallel"] = graph_of(tiny("parallel blocks"))


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def on_a_path(graph, edges):
    """The edges that a signal from the input to the logits can take."""
    reached, grown = {Node(INPUT)}, -1
    while len(reached) != grown:
        grown = len(reached)
        for edge in edges:
            if edge.writer in reached:
                reached.update(graph.outlets(edge.reader))
    open_, grown = {Node(LOGITS)}, -1
    while len(open_) != grown:
        grown = len(open_)
        for edge in edges:
            if edge.reader in open_:
                open_.update(graph.inlets(edge.writer))
    return {edge for edge in edges if edge.writer in reached and edge.reader in open_}


@pytest.mark.parametrize("name", GRAPHS)
@settings(max_examples=15)
@given(size=st.integers(1, 40), seed=st.integers(0, 99), held=st.integers(0, 2))
def test_every_edge_of_a_random_circuit_is_on_a_path(name, size, seed, held):
    graph = GRAPHS[name]
    kept = [graph.edges[i] for i in torch.randperm(len(graph.edges), generator=seeded(seed))[:held]]
    found = random_paths(graph, size, seeded(seed), kept)
    assert on_a_path(graph, found) == found
    assert found.issuperset(kept)
    assert len(found) == min(size, len(graph.edges)) or (kept and len(found) > size)


def test_random_edges_alone_are_seldom_on_a_path_and_draws_differ():
    graph = GRAPHS["deep"]
    evenly = random_members(graph.edges, 12, seeded())
    assert on_a_path(graph, evenly) < evenly
    assert len({random_paths(graph, 12, seeded(seed)) for seed in range(20)}) > 15
    drawn = [edge for seed in range(800) for edge in random_paths(graph, 6, seeded(seed))]
    assert set(drawn) == set(graph.edges)  # none is left out


def test_all_edges_can_be_asked_for():
    graph = GRAPHS["grouped"]
    assert random_paths(graph, len(graph.edges) + 5, seeded()) == frozenset(graph.edges)


def test_what_is_held_is_in_every_draw_and_the_rest_is_even():
    members = list(GRAPHS["deep"].edges)
    held = needed({members[0]: 0.9, members[1]: 0.49, members[2]: 0.5})
    assert held == {members[0], members[2]}
    draws = [random_members(members, 5, seeded(seed), held) for seed in range(300)]
    assert all(len(draw) == 5 and held <= draw for draw in draws)
    assert set().union(*draws) == set(members)
    assert random_members(members, 1, seeded(), held) == held  # never less than what is held
