"""Edges patched together, each by itself, are path patching of each by itself."""

import pytest
import torch

from micrographia.core.errors import UserError
from micrographia.core.graph import INPUT, Edge, Node, graph_of
from micrographia.core.metrics import log_prob, logit_difference
from micrographia.core.prompts import Pairs
from micrographia.core.sites import Site
from micrographia.core.sweep import Place
from micrographia.methods.edge_patching import edge_patch
from micrographia.methods.paths import path_patch
from small import A_FEW, small_model
from tiny_families import VOCAB, tiny

MODELS = {
    **{name: lambda name=name: small_model(A_FEW[name], dtype=torch.float64) for name in ("normed", "attention-only")},
    **{name: lambda name=name: tiny(name) for name in ("grouped heads", "parallel blocks", "norms behind")},
}


def pairs_for(model, n_pos: int = 4) -> Pairs:
    drawn = torch.Generator().manual_seed(3)
    clean, corrupt = (torch.randint(0, min(VOCAB, model.shape.d_vocab_out), (2, n_pos), generator=drawn) for _ in "ab")
    return Pairs(clean, corrupt, torch.tensor([0, 1]), torch.tensor([3, 4]))


@pytest.mark.parametrize("name", MODELS)
def test_every_edge_is_its_path_whatever_the_batch(name):
    model = MODELS[name]()
    pairs = pairs_for(model)
    metrics = [logit_difference(pairs.answer, pairs.wrong), log_prob(pairs.answer)]
    graph = graph_of(model, heads=True if name == "norms behind" else None)
    edges = list({edge.reader.site: edge for edge in graph.edges[::3]}.values())  # one into each kind, layer by layer
    assert {edge.reader.site.kind for edge in edges} > {"v", "logits"}
    assert len({edge.writer.site for edge in edges}) > 1
    found = edge_patch(model, pairs, metrics, edges, mode="noise")
    assert found.effects()[..., 0].abs().max() > 1e-2
    pieces = edge_patch(model, pairs, metrics, edges[::-1], mode="noise", tokens_at_once=30)
    close = {"rtol": 1e-6, "atol": 1e-6}  # Hugging Face's norms round to float32
    torch.testing.assert_close(pieces.values, found.values.flip(0), **close)
    for edge, value in zip(edges, found.values):
        sender = (Place(edge.writer.site, {} if edge.writer.head is None else {"head": edge.writer.head}),)
        path = path_patch(model, pairs, metrics, [sender], [edge.reader], mode="noise")
        torch.testing.assert_close(value, path.values[0], **close)
        torch.testing.assert_close(found.base, path.base, **close)


def test_an_edge_that_does_not_exist_is_refused():
    model = tiny("grouped heads")
    edge = Edge(Node(Site("mlp_out", 1)), Node(Site("q", 0), 0))
    with pytest.raises(UserError, match="reads before"):
        edge_patch(model, pairs_for(model), [log_prob(torch.tensor([0, 1]))], [Edge(Node(INPUT), edge.reader), edge])
