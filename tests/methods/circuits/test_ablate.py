"""Circuits alone: the ends are the models themselves, and what is between is the sweep's or brute force."""

import pytest
import torch
from torch import Tensor

from micrographia.core.edits import put
from micrographia.core.errors import BadConfig, UserError
from micrographia.core.graph import INPUT, LOGITS, Edge, Node, graph_of
from micrographia.core.metrics import Metric, logit_difference
from micrographia.core.model import Model
from micrographia.core.prompts import Pairs
from micrographia.core.sites import Site
from micrographia.core.sweep import Place
from micrographia.methods.circuits.ablate import Ablation, edges_alone, nodes_alone
from micrographia.methods.circuits.members import Part, parts_of
from micrographia.methods.paths import path_patch
from small import A_FEW, head, mlp, small_model
from tiny_families import VOCAB, tiny

DOUBLE = torch.float64
BLOCKS = ("grouped heads", "parallel blocks", "norms behind")
SMALL = ("plain-2", "modern", "attention-only")


def given(name: str) -> tuple[Model, Pairs, Metric]:
    model = small_model(A_FEW[name], dtype=DOUBLE) if name in A_FEW else tiny(name)
    n_vocab, n_pos = (A_FEW[name].d_vocab_out, A_FEW[name].n_ctx) if name in A_FEW else (VOCAB, 5)
    drawn = torch.Generator().manual_seed(3)
    clean, corrupt = (torch.randint(0, n_vocab, (2, n_pos), generator=drawn) for _ in range(2))
    pairs = Pairs(clean, corrupt, torch.tensor([0, 1]), torch.tensor([3, 4]))
    assert pairs.wrong is not None
    return model, pairs, logit_difference(pairs.answer, pairs.wrong)


def value(model: Model, metric: Metric, tokens: Tensor, edits=()) -> Tensor:
    logits = model.run(tokens, edits=edits).logits
    return metric.of_vocabulary(logits, torch.arange(len(tokens)))


@pytest.mark.parametrize("name", [*SMALL, *BLOCKS])
def test_all_edges_are_the_model_and_no_edge_is_the_other_prompt(name):
    model, pairs, metric = given(name)
    graph = graph_of(model)
    found = edges_alone(model, pairs, metric, graph)([frozenset(graph.edges), frozenset()])
    expected = torch.stack([value(model, metric, tokens) for tokens in (pairs.clean, pairs.corrupt)])
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)
    assert (expected[0] - expected[1]).abs().min() > 1e-3


@pytest.mark.parametrize("name", [*SMALL, *BLOCKS])
def test_all_edges_but_one_is_that_edges_path_noised(name):
    model, pairs, metric = given(name)
    graph = graph_of(model)
    some = graph.edges[2 :: len(graph.edges) // 3]
    found = edges_alone(model, pairs, metric, graph)([frozenset(graph.edges) - {edge} for edge in some])
    for edge, score in zip(some, found):
        where = {} if edge.writer.head is None else {"head": edge.writer.head}
        sender = [(Place(edge.writer.site, where),)]
        expected = path_patch(model, pairs, [metric], sender, [edge.reader], mode="noise").values[0, :, 0]
        torch.testing.assert_close(score, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["modern", "parallel blocks"])
def test_a_node_without_its_outgoing_edges_is_a_node_outside(name):
    model, pairs, metric = given(name)
    graph = graph_of(model)
    out = Node(Site("z", 0), 1)
    circuit = frozenset(edge for edge in graph.edges if edge.writer != out)
    by_edges = edges_alone(model, pairs, metric, graph)([circuit])
    universe = parts_of(model)
    by_nodes = nodes_alone(model, pairs, metric, universe)([frozenset(universe) - {Part(out)}])
    torch.testing.assert_close(by_edges, by_nodes, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("by", ["other", "zero", "mean"])
def test_what_is_outside_a_node_circuit_is_written_over(by):
    model, pairs, metric = given("modern")
    universe = parts_of(model)
    circuit = frozenset([head(0, 0), head(1, 2), mlp(1)])
    found = nodes_alone(model, pairs, metric, universe, ablation=Ablation(by))([circuit])
    other = model.run(pairs.corrupt, keep=["L*.z", "L0.mlp_out"]).cache
    stands_in = {
        "other": lambda x: x,
        "zero": torch.zeros_like,
        "mean": lambda x: x.mean(0, keepdim=True).expand_as(x),
    }[by]
    edits = [
        put("L0.z", stands_in(other["L0.z"])[:, :, [1, 2]], head=[1, 2]),
        put("L1.z", stands_in(other["L1.z"])[:, :, [0, 1]], head=[0, 1]),
        put("L0.mlp_out", stands_in(other["L0.mlp_out"])),
    ]
    torch.testing.assert_close(found[0], value(model, metric, pairs.clean, edits))


def test_a_reference_gives_the_mean_that_stands_in():
    model, pairs, metric = given("modern")
    reference = torch.randint(0, 6, (7, pairs.clean.shape[1]), generator=torch.Generator().manual_seed(1))
    ablation = Ablation("mean", reference)
    found = nodes_alone(model, pairs, metric, parts_of(model, mlps=False), ablation=ablation)([frozenset()])
    cache = model.run(reference, keep="L*.z").cache
    edits = [put(site, cache[site].mean(0, keepdim=True)) for site in cache]
    torch.testing.assert_close(found[0], value(model, metric, pairs.clean, edits))
    assert str(ablation) == "the mean over 7 reference prompts, position by position"


@pytest.mark.parametrize("by", ["other", "zero"])
def test_a_reference_that_nothing_reads_is_refused(by):
    model, pairs, metric = given("modern")
    with pytest.raises(UserError, match="only 'mean' reads"):
        nodes_alone(model, pairs, metric, parts_of(model), ablation=Ablation(by, pairs.clean))


def test_parts_may_be_cut_by_position():
    model, pairs, metric = given("modern")
    universe = parts_of(model, n_pos=pairs.clean.shape[1])
    outside = Part(Node(Site("z", 0), 1), 2)
    found = nodes_alone(model, pairs, metric, universe)([frozenset(universe) - {outside}, frozenset(universe)])
    donor = model.run(pairs.corrupt, keep="L0.z").cache["L0.z"]
    edits = [put("L0.z", donor[:, 2, 1], pos=2, head=1)]
    torch.testing.assert_close(found[0], value(model, metric, pairs.clean, edits))
    torch.testing.assert_close(found[1], value(model, metric, pairs.clean))


def test_edge_circuits_with_zeros_for_what_is_outside_keep_the_biases():
    model, pairs, metric = given("plain-2")
    graph = graph_of(model)
    only = frozenset([Edge(Node(INPUT), Node(LOGITS))])
    found = edges_alone(model, pairs, metric, graph, ablation=Ablation("zero"))([only])
    edits = [put(site, 0.0) for site in model.sites if site.kind in ("z", "mlp_out")]
    torch.testing.assert_close(found[0], value(model, metric, pairs.clean, edits))


@pytest.mark.parametrize("name", ["modern", "parallel blocks", "attention-only"])
def test_circuits_scored_one_by_one_score_the_same(name):
    """In one batch circuits share the layers in which they read alike."""
    model, pairs, metric = given(name)
    graph = graph_of(model)
    drawn = torch.Generator().manual_seed(0)
    circuits = [graph.chosen(torch.rand(graph.legal.shape, generator=drawn) < share) for share in (0.2, 0.5, 0.9)]
    circuits += [circuits[1] - {edge} for edge in sorted(circuits[1], key=str)[::5]]
    together = edges_alone(model, pairs, metric, graph)(circuits)
    apart = edges_alone(model, pairs, metric, graph, numbers_at_once=1)(circuits)
    torch.testing.assert_close(together, apart)
    assert len({round(float(x), 6) for x in together.mean(1)}) > 4


def test_heads_behind_a_norm_are_no_writers_of_an_exact_circuit():
    model, pairs, metric = given("norms behind")
    with pytest.raises(BadConfig, match="norm behind attention"):
        edges_alone(model, pairs, metric, graph_of(model, heads=True))


def test_members_from_elsewhere_are_refused():
    model, pairs, metric = given("modern")
    with pytest.raises(UserError, match=r"L9\.z\[0\]"):
        nodes_alone(model, pairs, metric, parts_of(model))([frozenset([head(9, 0)])])
