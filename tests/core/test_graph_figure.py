"""Edges as a picture shows them: between whole parts, nothing lost or counted twice, levels in the order of a run."""

import pytest
import torch

from micrographia.core.figures import Figure
from micrographia.core.graph import INPUT, Edge, Graph, Node, graph_of
from micrographia.core.graph_figure import LOGITS_PART, drawn, level, links_between_parts, readers_of, short_name
from micrographia.core.sites import Site
from small import A_FEW, small_model


def head(layer: int, number: int) -> Node:
    return Node(Site("z", layer), number)


@pytest.fixture(scope="module")
def graph() -> Graph:
    return graph_of(small_model(A_FEW["plain-2"]))


@pytest.fixture(scope="module")
def grouped() -> Graph:
    """Four heads that share two keys and values."""
    readers = [Node(Site(kind, 0), i) for kind, n in (("q", 4), ("k", 2), ("v", 2)) for i in range(n)]
    writers = (Node(INPUT), *(head(0, i) for i in range(4)))
    return Graph(writers, (*readers, LOGITS_PART), (*[1] * 8, 5), n_heads=4, n_kv_heads=2)


def test_edges_into_query_key_and_value_are_one_link(graph):
    values = torch.zeros(len(graph.writers), len(graph.readers))
    for kind, value in (("q", 1.0), ("k", 2.0), ("v", -4.0)):
        values[graph.place(Edge(Node(INPUT), Node(Site(kind, 0), 1)))] = value
    links = links_between_parts(graph, values)
    assert links[Node(INPUT), head(0, 1)] == -1.0
    assert all(value == 0 for link, value in links.items() if link != (Node(INPUT), head(0, 1)))


@pytest.mark.parametrize("which", ["graph", "grouped"])
def test_links_carry_together_what_the_edges_carry(which, request):
    graph = request.getfixturevalue(which)
    values = torch.randn(len(graph.writers), len(graph.readers), generator=torch.Generator().manual_seed(0))
    links = links_between_parts(graph, values)
    assert sum(links.values()) == pytest.approx(float(values[graph.legal].double().sum()))
    assert list(links.values()) == sorted(links.values(), key=lambda value: -abs(value))


def test_heads_that_share_a_key_take_an_equal_part_each(grouped):
    values = torch.zeros(5, 9)
    values[grouped.place(Edge(Node(INPUT), Node(Site("k", 0), 1)))] = 1.0
    links = links_between_parts(grouped, values)
    assert [links[Node(INPUT), head(0, i)] for i in range(4)] == [0.0, 0.0, 0.5, 0.5]
    assert readers_of(grouped)[Node(Site("k", 0), 1)] == (head(0, 2), head(0, 3))


def test_only_the_edges_that_were_chosen_are_counted(graph):
    edge = graph.edges[3]
    links = links_between_parts(graph, torch.ones(len(graph.writers), len(graph.readers)), [edge])
    assert sum(links.values()) == 1.0
    assert {writer for writer, _ in links} == {edge.writer}


def test_levels_rise_in_the_order_of_a_run(graph):
    levels = [level(writer) for writer in graph.writers]
    assert levels == sorted(levels)
    assert level(LOGITS_PART) > levels[-1]


def test_the_data_are_a_figures_and_name_both_ends_of_each_link():
    links = {(head(0, 2), LOGITS_PART): -0.5, (Node(INPUT), Node(Site("mlp_out", 0))): 1.0}
    data = drawn(links, "share")
    Figure(name="x", kind="graph", title="", caption="", data=data)  # refuses what does not fit
    assert data["nodes"] == ["input", "L0H2", "L0 MLP", "logits"]
    named = [(data["nodes"][s], data["nodes"][t]) for s, t in zip(data["sources"], data["targets"])]
    assert named == [("L0H2", "logits"), ("input", "L0 MLP")]
    assert data["weights"] == [-0.5, 1.0]
    assert data["level_names"] == [{"level": 1.0, "name": "layer 0"}]


def test_a_layers_whole_attention_has_a_short_name_too():
    assert short_name(Node(Site("attn_out", 3))) == "L3 attn"
