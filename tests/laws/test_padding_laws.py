"""Prompts of several lengths in one batch, padded on the left: each scores as it does alone, whatever is done to it."""

import pytest
import torch
from torch import Tensor

from micrographia.core.graph import INPUT, Graph, Node, graph_of
from micrographia.core.metrics import Metric, logit_difference
from micrographia.core.pretrained import Pretrained
from micrographia.core.prompts import Pairs
from micrographia.core.sites import Site
from micrographia.core.sweep import Patch, Place
from micrographia.core.tokens import Batch
from micrographia.methods.attribution.edges import edge_attribution
from micrographia.methods.circuits.ablate import Ablation, edges_alone, nodes_alone
from micrographia.methods.circuits.members import parts_of
from micrographia.methods.paths import Rule, path_patch
from tiny_families import VOCAB, tiny

BLOCKS = ("grouped heads", "parallel blocks", "norms behind", "flattened mlp")
LENGTHS = (6, 3, 4)
PAD = 7  # a token like any other, so that only the mask tells it
CLOSE = {"rtol": 2e-4, "atol": 2e-4}


def model_of(kind: str) -> Pretrained:
    return tiny(kind)


def rows() -> tuple[Pairs, list[Pairs]]:
    """Pairs of three lengths as one padded batch, and each by itself."""
    drawn = torch.Generator().manual_seed(11)
    texts = [[torch.randint(0, VOCAB, (n,), generator=drawn) for n in LENGTHS] for _ in range(2)]
    right, wrong = torch.tensor([1, 2, 3]), torch.tensor([4, 5, 6])
    alone = [
        Pairs(clean[None], corrupt[None], right[i : i + 1], wrong[i : i + 1])
        for i, (clean, corrupt) in enumerate(zip(*texts))
    ]
    return Pairs(*map(padded, texts), right, wrong), alone


def padded(texts: list[Tensor]) -> Batch:
    longest = max(map(len, texts))
    ids = torch.stack([torch.cat([torch.full((longest - len(text),), PAD), text]) for text in texts])
    return Batch(ids, torch.stack([torch.arange(longest) >= longest - len(text) for text in texts]))


def difference(pairs: Pairs) -> Metric:
    assert pairs.wrong is not None
    return logit_difference(pairs.answer, pairs.wrong)


def some_senders(graph: Graph) -> list[Patch]:
    """Writers whole, and places counted from the end, which padding does not move."""
    whole: list[Patch] = [(Place(n.site, {} if n.head is None else {"head": n.head}),) for n in graph.writers[::2]]
    return [*whole, (Place(Site("mlp_out", 0), {"pos": -2}),), (Place(Site("v", 0), {"pos": -3, "head": 1}),)]


@pytest.mark.parametrize(
    "rule",
    [Rule(), Rule(receivers="independent", mlps="free"), Rule(norms="frozen")],
    ids=["interacting", "independent", "norms held"],
)
@pytest.mark.parametrize("kind", BLOCKS)
def test_paths_of_a_padded_prompt_are_those_of_the_prompt_alone(kind, rule):
    model, (batch, alone) = model_of(kind), rows()
    graph = graph_of(model)
    senders, receivers = some_senders(graph), graph.readers[3::4]

    def effects(pairs: Pairs) -> Tensor:
        return path_patch(model, pairs, [difference(pairs)], senders, receivers, rule=rule).effects()[..., 0]

    found, expected = effects(batch), torch.cat([effects(one) for one in alone], 1)
    torch.testing.assert_close(found, expected, **CLOSE)
    assert (expected.abs().amax(0) > 0.01).all()


@pytest.mark.parametrize("by", ["other", "zero"])
@pytest.mark.parametrize("kind", BLOCKS)
def test_circuits_of_edges_and_of_parts_score_a_padded_prompt_as_the_prompt_alone(kind, by):
    model, (batch, alone) = model_of(kind), rows()
    graph, universe = graph_of(model), parts_of(model)
    drawn = torch.Generator().manual_seed(2)
    edges = [graph.chosen(torch.rand(graph.legal.shape, generator=drawn) < share) for share in (0.0, 0.5, 0.8)]
    parts = [frozenset(part for i, part in enumerate(universe) if i % step) for step in (2, 3)]

    def scores(pairs: Pairs) -> Tensor:
        metric, ablation = difference(pairs), Ablation(by)
        by_edges = edges_alone(model, pairs, metric, graph, ablation=ablation)(edges)
        return torch.cat([by_edges, nodes_alone(model, pairs, metric, universe, ablation=ablation)(parts)])

    found, expected = scores(batch), torch.cat([scores(one) for one in alone], 1)
    torch.testing.assert_close(found, expected, **CLOSE)
    assert (expected.amax(0) - expected.amin(0) > 0.01).all()


@pytest.mark.parametrize(("kind", "method"), [*((kind, "eap") for kind in BLOCKS), ("grouped heads", "eap-ig")])
def test_edges_of_a_padded_prompt_score_as_those_of_the_prompt_alone(kind, method):
    model, (batch, alone) = model_of(kind), rows()

    def scores(pairs: Pairs) -> Tensor:
        return edge_attribution(model, pairs, difference(pairs), method=method, steps=2).values

    found, expected = scores(batch), torch.cat([scores(one) for one in alone])
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3 * float(expected.abs().max()))


def test_without_its_mask_a_padded_prompt_scores_otherwise():
    model, (batch, _) = model_of("grouped heads"), rows()
    bare = Pairs(batch.clean.ids, batch.corrupt.ids, batch.answer, batch.wrong)
    sender: list[Patch] = [(Place(INPUT),)]
    found, other = (
        path_patch(model, pairs, [difference(pairs)], sender, graph_of(model).readers).values for pairs in (batch, bare)
    )
    assert not torch.allclose(found[:, 1], other[:, 1], **CLOSE)
    assert Node(INPUT) in graph_of(model).writers
