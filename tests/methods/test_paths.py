"""Path patching: what it is made of, and what it must agree with."""

import pytest
import torch
from torch import Tensor

from micrographia.core.edits import put
from micrographia.core.errors import UserError
from micrographia.core.graph import INPUT, LOGITS, Graph, Node, graph_of
from micrographia.core.metrics import log_prob, logit_difference
from micrographia.core.model import Model
from micrographia.core.prompts import Pairs
from micrographia.core.sites import Site
from micrographia.core.small.architecture import Architecture
from micrographia.core.small.transformer import Transformer
from micrographia.core.sweep import Patch, Place, sweep
from micrographia.labs.planted.theory import PLANTED
from micrographia.methods.attribution.edges import edge_attribution
from micrographia.methods.paths import Rule, path_effects, path_patch
from small import A_FEW, SIZES, small_model
from tiny_families import VOCAB, tiny

DOUBLE = torch.float64
ARCHS = ("plain-2", "normed", "modern", "attention-only")
BLOCKS = ("grouped heads", "normed q and k", "parallel blocks", "norms behind")


def pairs_for(n_vocab: int, n_pos: int, n_answers: int | None = None) -> Pairs:
    drawn = torch.Generator().manual_seed(3)
    clean, corrupt = (torch.randint(0, n_vocab, (2, n_pos), generator=drawn) for _ in range(2))
    return Pairs(clean, corrupt, torch.tensor([0, 1]), torch.tensor([3, 4]))


def small(name: str) -> tuple[Transformer, Pairs]:
    model = small_model(A_FEW[name], dtype=DOUBLE)
    return model, pairs_for(model.arch.d_vocab_out, model.arch.n_ctx)


def difference(pairs: Pairs):
    assert pairs.wrong is not None
    return logit_difference(pairs.answer, pairs.wrong)


def sender(node: Node) -> Patch:
    return (Place(node.site, {} if node.head is None else {"head": node.head}),)


def senders_of(graph: Graph) -> list[Patch]:
    return [sender(node) for node in graph.writers]


def node_effects(model: Model, pairs: Pairs, patches: list[Patch]) -> Tensor:
    """Exact denoising by the sweep: (patch, prompt)."""
    metric = difference(pairs)
    donor = model.run(pairs.clean, keep={place.site for patch in patches for place in patch}).cache
    base = metric.of_vocabulary(model.run(pairs.corrupt).logits, torch.arange(len(pairs)))
    return sweep(model, pairs.corrupt, patches, donor, [metric])[..., 0] - base


@pytest.mark.parametrize("name", ARCHS)
def test_paths_to_all_readers_together_are_the_node_patch(name):
    model, pairs = small(name)
    graph = graph_of(model)
    patches = senders_of(graph)
    found = path_patch(model, pairs, [difference(pairs)], patches, graph.readers).effects()[..., 0]
    assert found.abs().max() > 0.1
    torch.testing.assert_close(found, node_effects(model, pairs, patches), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("kind", BLOCKS)
def test_paths_to_all_readers_together_are_the_node_patch_in_every_kind_of_block(kind):
    model, pairs = tiny(kind), pairs_for(VOCAB, 5)
    graph = graph_of(model)
    patches = senders_of(graph)[1::3]
    found = path_patch(model, pairs, [difference(pairs)], patches, graph.readers).effects()[..., 0]
    torch.testing.assert_close(found, node_effects(model, pairs, patches), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("kind", BLOCKS)
def test_edge_scores_are_the_slopes_of_exact_paths_in_every_kind_of_block(kind):
    """A message a little stronger or weaker than nothing: what it does to the metric is the edge's score."""
    model, pairs = tiny(kind), pairs_for(VOCAB, 5)
    metric = difference(pairs)
    graph = graph_of(model)
    scores = edge_attribution(model, pairs, metric).values
    sites = {node.site for node in graph.writers}
    here, there = (model.run(tokens, keep=sites).cache for tokens in (pairs.corrupt, pairs.clean))
    step = 3e-3  # Hugging Face's RMSNorm rounds to float32
    some = [0, *range(1, len(graph.writers), 4)]
    patches = [sender(graph.writers[i]) for i in some]
    donors = [{site: here[site] + sign * step * (there[site] - here[site]) for site in sites} for sign in (1, -1)]
    for kind in ("k", "mlp_pre"):  # of the last layer
        reader = max(node for node in graph.readers if node.site.kind == kind)
        ends = [path_patch(model, pairs, [metric], patches, [reader], donors=[donor]).values for donor in donors]
        slope = (ends[0] - ends[1])[..., 0].T / (2 * step)
        expected = scores[:, some, graph.readers.index(reader)]
        torch.testing.assert_close(slope, expected, rtol=0, atol=1e-3 * float(scores.abs().max()))


def linear() -> tuple[Transformer, Pairs]:
    """Every head attends evenly (no queries), nothing is normalised or bent: the logits are linear in the input."""
    arch = Architecture(**SIZES, n_layers=3, mlp=False, attn_bias=False)
    model = small_model(arch, dtype=DOUBLE)
    weights = {name: torch.zeros_like(w) if name.endswith("W_Q") else w for name, w in model.state.items()}
    return Transformer(arch, weights), pairs_for(arch.d_vocab_out, arch.n_ctx)


def test_on_a_linear_model_every_path_is_its_edge_score():
    model, pairs = linear()
    graph = graph_of(model)
    scores = edge_attribution(model, pairs, difference(pairs)).values
    for j in (0, 8, 16, 26, len(graph.readers) - 1):
        found = path_patch(model, pairs, [difference(pairs)], senders_of(graph), [graph.readers[j]]).effects()[..., 0].T
        torch.testing.assert_close(found, scores[:, :, j], rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("receivers", ["interacting", "independent"])
def test_on_a_linear_model_paths_to_readers_of_one_layer_add_up(receivers):
    model, pairs = linear()
    nodes = [Node(Site("v", 2), head) for head in range(3)]
    rule = Rule(receivers=receivers)
    first = [sender(Node(INPUT))]
    alone = [path_patch(model, pairs, [difference(pairs)], first, [node], rule=rule).effects() for node in nodes]
    together = path_patch(model, pairs, [difference(pairs)], first, nodes, rule=rule).effects()
    torch.testing.assert_close(together, sum(alone), rtol=1e-9, atol=1e-11)


def test_deaf_receivers_differ_from_hearing_ones_only_where_one_stands_behind_another():
    model, pairs = small("normed")
    first = [sender(Node(INPUT))]

    def of(nodes, receivers):
        rule = Rule(receivers=receivers)
        return path_patch(model, pairs, [difference(pairs)], first, nodes, rule=rule).values

    side_by_side = [Node(Site("q", 1), 0), Node(Site("v", 1), 2)]
    torch.testing.assert_close(of(side_by_side, "interacting"), of(side_by_side, "independent"))
    in_a_row = [Node(Site("v", 0), 0), Node(Site("v", 1), 2)]
    assert not torch.allclose(of(in_a_row, "interacting"), of(in_a_row, "independent"))


@pytest.mark.parametrize("mlps", ["frozen", "free"])
def test_deaf_receivers_are_the_two_runs_of_the_published_recipe(mlps):
    """Wang et al., appendix B: hold all else, store what the receivers read; then put that into the base run."""
    model, pairs = small("modern")
    base, other = pairs.corrupt, pairs.clean
    head = Node(Site("z", 0), 1)
    receivers = [Node(Site("q", 1), 0), Node(Site("q", 1), 2), Node(Site("v", 1), 1)]
    here = model.run(base, keep=model.sites).cache
    there = model.run(other, keep=head.site).cache
    held = [Site("z", 1), *([Site("mlp_out", 0)] if mlps == "frozen" else [])]
    edits = [put(head.site, there[head.site][:, :, 1], head=1), *(put(site, here[site]) for site in held)]
    stored = model.run(base, edits=edits, keep=[node.site for node in receivers]).cache
    delivered = [put(node.site, stored[node.site][:, :, node.head], head=node.head) for node in receivers]
    expected = difference(pairs).of_vocabulary(model.run(base, edits=delivered).logits, torch.arange(2))
    rule = Rule(receivers="independent", mlps=mlps)
    found = path_patch(model, pairs, [difference(pairs)], [sender(head)], receivers, rule=rule)
    torch.testing.assert_close(found.values[0, :, 0], expected, rtol=1e-10, atol=1e-12)
    assert (found.values[0, :, 0] - found.base[:, 0]).abs().max() > 1e-3


def test_a_free_mlp_passes_on_what_a_frozen_one_keeps():
    for model, pairs in (small("normed"), (tiny("parallel blocks"), pairs_for(VOCAB, 5))):
        free, frozen = (
            path_patch(model, pairs, [difference(pairs)], [sender(Node(INPUT))], [Node(LOGITS)], rule=Rule(mlps=mlps))
            for mlps in ("free", "frozen")
        )
        assert not torch.allclose(free.values, frozen.values)


def test_with_norms_frozen_a_message_to_the_logits_is_linear_in_its_strength():
    model, pairs = small("normed")
    graph = graph_of(model)
    sites = {node.site for node in graph.writers}
    here, there = (model.run(tokens, keep=sites).cache for tokens in (pairs.corrupt, pairs.clean))
    rule = Rule(norms="frozen")

    def strength(times: float, rule: Rule) -> Tensor:
        donor = {site: here[site] + times * (there[site] - here[site]) for site in sites}
        patches = senders_of(graph)
        return path_patch(
            model, pairs, [difference(pairs)], patches, [Node(LOGITS)], rule=rule, donors=[donor]
        ).effects()

    torch.testing.assert_close(strength(2, rule), 2 * strength(1, rule), rtol=1e-9, atol=1e-11)
    assert not torch.allclose(strength(2, Rule()), 2 * strength(1, Rule()), rtol=1e-3)


def test_any_place_can_send():
    """A neuron at one position, an embedding, a query: each is the node patch when everybody hears."""
    model, pairs = small("normed")
    patches: list[Patch] = [
        (Place(Site("neurons", 0), {"pos": 2, "unit": 3}),),
        (Place(Site("embed"), {"pos": 1}),),
        (Place(Site("q", 1), {"head": 2, "pos": 3}),),
        (Place(Site("resid_mid", 0), {"pos": 2}),),
        (Place(Site("pattern", 0), {"head": 1, "query": 3, "key": (0, 1)}),),
        (Place(Site("resid_pre", 1), {}),),
    ]
    found = path_patch(model, pairs, [difference(pairs)], patches, graph_of(model).readers).effects()[..., 0]
    torch.testing.assert_close(found, node_effects(model, pairs, patches), rtol=1e-9, atol=1e-11)
    assert (found.abs().amax(1) > 0).all()


def test_senders_in_pieces_and_the_noising_form():
    model, pairs = small("modern")
    graph = graph_of(model)
    metrics = [difference(pairs), log_prob(pairs.answer)]
    whole = path_patch(model, pairs, metrics, senders_of(graph), [Node(LOGITS)], mode="noise")
    pieces = path_patch(model, pairs, metrics, senders_of(graph), [Node(LOGITS)], mode="noise", tokens_at_once=1)
    torch.testing.assert_close(whole.values, pieces.values)
    swapped = Pairs(pairs.corrupt, pairs.clean, pairs.answer, pairs.wrong)
    torch.testing.assert_close(
        whole.values, path_patch(model, swapped, metrics, senders_of(graph), [Node(LOGITS)]).values
    )
    torch.testing.assert_close(whole.base, whole.clean)


def test_receivers_before_the_sender_hear_nothing():
    model, pairs = small("normed")
    found = path_patch(model, pairs, [difference(pairs)], [sender(Node(Site("z", 1), 0))], [Node(Site("q", 0), 1)])
    torch.testing.assert_close(found.values[0], found.base)


def test_in_the_planted_chain_the_carrier_speaks_to_the_movers_value_alone():
    planted = PLANTED["chain"]()
    pairs, metric = planted.pairs, difference(planted.pairs)
    graph = graph_of(planted.model)
    carrier = [sender(Node(Site("z", 0), 0))]
    whole = node_effects(planted.model, pairs, carrier)
    others = [Node(Site("v", 1), 1), Node(Site("k", 1), 0), Node(Site("mlp_pre", 2)), Node(LOGITS)]
    for reader in (Node(Site("v", 1), 0), *others):
        assert reader in graph.readers
        found = path_patch(planted.model, pairs, [metric], carrier, [reader]).effects()[0, :, 0]
        expected = whole[0] if reader == Node(Site("v", 1), 0) else torch.zeros_like(whole[0])
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    ("receivers", "words"),
    [([], "no receiver"), ([Node(Site("z", 0), 0)], "read nothing"), ([Node(Site("k", 0), 3)], "read nothing")],
)
def test_receivers_that_are_none_are_refused(receivers, words):
    model, pairs = tiny("grouped heads"), pairs_for(VOCAB, 5)
    with pytest.raises(UserError, match=words):
        path_patch(model, pairs, [difference(pairs)], [sender(Node(INPUT))], receivers)


def test_effects_of_paths_know_which_heads_share_a_value():
    model, pairs = tiny("grouped heads"), pairs_for(VOCAB, 5)
    found = path_effects(model, pairs, difference(pairs), [Place(Site("v", 0), {"head": 1})], [Node(LOGITS)])
    assert found.maps()[0].component(1) == "L0 kv head 1 (heads 2-3) value"


def test_what_writes_to_nobody_cannot_send():
    model, pairs = small("normed")
    with pytest.raises(UserError, match="writes to no later reader"):
        path_patch(model, pairs, [difference(pairs)], [(Place(Site("final_norm")),)], [Node(LOGITS)])


def test_an_encoder_whose_stream_is_normalised_is_refused():
    model, pairs = tiny("encoder"), pairs_for(VOCAB, 5)
    with pytest.raises(UserError, match="normalised or scaled"):
        path_patch(model, pairs, [difference(pairs)], [sender(Node(INPUT))], [Node(LOGITS)])
