"""Writers, readers and the edges between them."""

import pytest
import torch

from micrographia.core.errors import UnknownSite, UserError
from micrographia.core.graph import INPUT, LOGITS, Edge, Node, check_additive, graph_of
from micrographia.core.sites import Site
from micrographia.core.small.architecture import Architecture
from small import A_FEW, SIZES, small_model, some_tokens


def gpt2_shaped() -> Architecture:
    sizes = {**SIZES, "n_heads": 12, "d_head": 2, "d_model": 4, "d_mlp": 4}
    return Architecture(**sizes, n_layers=12, norm="layernorm")


def test_gpt2_small_has_the_157_writers_445_readers_and_32491_edges_that_the_papers_count():
    graph = graph_of(small_model(gpt2_shaped()))
    assert (len(graph.writers), len(graph.readers), len(graph.edges)) == (157, 445, 32491)


def test_a_node_survives_print_and_parse():
    graph = graph_of(small_model(A_FEW["normed"]))
    for node in (*graph.writers, *graph.readers):
        assert Node.parse(str(node)) == node
    with pytest.raises(UnknownSite):
        Node.parse("L0.nothing[1]")


def test_edges_survive_the_mask():
    graph = graph_of(small_model(A_FEW["plain-2"]))
    some = graph.edges[::3]
    assert graph.chosen(graph.mask(some)) == frozenset(some)
    assert graph.mask(graph.edges).equal(graph.legal)


def test_a_head_is_read_by_its_own_layers_mlp_and_not_by_its_own_layers_heads():
    graph = graph_of(small_model(A_FEW["normed"]))
    head = Node(Site("z", 1), 2)
    assert Edge(head, Node(Site("mlp_pre", 1))) in graph.edges
    assert Edge(head, Node(Site("q", 1), 0)) not in graph.edges
    assert Edge(Node(Site("mlp_out", 1)), Node(LOGITS)) in graph.edges


def test_inlets_and_outlets_are_each_others_inverse():
    graph = graph_of(small_model(A_FEW["normed"]))
    for writer in graph.writers:
        assert all(writer in graph.outlets(reader) for reader in graph.inlets(writer))
    assert graph.inlets(Node(INPUT)) == ()
    assert graph.outlets(Node(LOGITS)) == ()
    assert graph.inlets(Node(Site("z", 1), 2)) == tuple(Node(Site(kind, 1), 2) for kind in "qkv")


@pytest.mark.parametrize("name", ["plain", "plain-2", "normed", "biased", "modern", "attention-only"])
def test_what_the_writers_write_is_the_residual_stream(name):
    check_additive(small_model(A_FEW[name]), some_tokens(A_FEW[name]))


def test_a_stream_that_is_not_the_sum_of_its_writers_is_refused():
    model = small_model(A_FEW["normed"])
    scaled = dict(model.state)

    class Scaled(type(model)):
        """Its last stream is shown doubled, as where a layer scales what it passes on."""

        def run(self, inputs, **options):
            out = super().run(inputs, **options)
            end = Site("resid_post", 1)
            return out._replace(cache={**out.cache, end: 2 * out.cache[end]})

    with pytest.raises(UserError, match="normalised or scaled"):
        check_additive(Scaled(model.arch, scaled), some_tokens(model.arch))


def test_a_stream_that_is_no_number_is_called_so():
    model = small_model(A_FEW["normed"])
    broken = {name: w * (torch.nan if name == "blocks.0.attn.W_O" else 1) for name, w in model.state.items()}
    with pytest.raises(UserError, match="contains NaN"):
        check_additive(type(model)(model.arch, broken), some_tokens(model.arch))


def test_unknown_edges_are_refused_with_examples_of_what_there_is():
    graph = graph_of(small_model(A_FEW["normed"]))
    with pytest.raises(UserError, match=r"Writers are L0\.resid_pre"):
        graph.place(Edge(Node(Site("z", 7), 0), Node(LOGITS)))


def test_the_mask_of_legal_edges_is_upper_triangular_in_the_order_of_a_run():
    graph = graph_of(small_model(A_FEW["normed"]))
    assert torch.equal(graph.legal.sum(0), torch.tensor(graph.seen))
