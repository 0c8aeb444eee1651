"""Edge attribution against brute force: a separate copy of the residual input for every reader."""

import pytest
import torch
from torch import Tensor

from micrographia.core.edits import leaf, observe
from micrographia.core.errors import BadConfig, UserError
from micrographia.core.graph import INPUT, LOGITS, Edge, Node, graph_of
from micrographia.core.metrics import log_prob, logit_difference
from micrographia.core.model import Model
from micrographia.core.prompts import Pairs
from micrographia.core.sites import Site
from micrographia.core.small.architecture import Architecture
from micrographia.core.small.transformer import ACTIVATIONS, NORM_EPS, Transformer, rotate
from micrographia.methods.attribution import edges
from micrographia.methods.attribution.edges import edge_attribution
from small import A_FEW, SIZES, small_model, some_tokens
from tiny_families import VOCAB, tiny

DOUBLE = torch.float64
ARCHS = {name: A_FEW[name] for name in ("plain-2", "normed", "modern", "attention-only")}
TIGHT = {"rtol": 1e-9, "atol": 1e-11}


def pairs_for(arch: Architecture) -> Pairs:
    clean, corrupt = some_tokens(arch, batch=3, seed=1), some_tokens(arch, batch=3, seed=2)
    return Pairs(clean, corrupt, torch.tensor([0, 1, 2]), torch.tensor([3, 3, 0]))


def metric_for(pairs: Pairs):
    assert pairs.wrong is not None
    return logit_difference(pairs.answer, pairs.wrong)


def separated(model: Transformer, tokens: Tensor, copies: dict[Node, Tensor]) -> Tensor:
    """The logits of a forward pass in which each reader has an input of its own: the stream plus its copy."""
    arch, w = model.arch, model.state
    x = w["embed.W_E"][tokens]
    if arch.positions == "learned":
        x = x + w["pos_embed.W_pos"][: tokens.shape[1]]

    def normed(x: Tensor, name: str) -> Tensor:
        if arch.norm == "none":
            return x
        x = x - x.mean(-1, keepdim=True) if arch.norm == "layernorm" else x
        y = x / (x.pow(2).mean(-1, keepdim=True) + NORM_EPS).sqrt() * w[name + ".w"]
        return y + w[name + ".b"] if arch.norm == "layernorm" else y

    for i in range(arch.n_layers):
        block, out = f"blocks.{i}.", 0
        for h in range(arch.n_heads):
            q, k, v = (
                normed(x + copies[Node(Site(kind, i), h)], block + "ln1") @ w[f"{block}attn.W_{kind.upper()}"][h]
                + (w[f"{block}attn.b_{kind.upper()}"][h] if arch.attn_bias else 0)
                for kind in "qkv"
            )
            if arch.positions == "rotary":
                q, k = (rotate(y[:, :, None])[:, :, 0] for y in (q, k))
            scores = q @ k.mT / arch.d_head**0.5
            ahead = torch.ones(scores.shape[-2:], dtype=torch.bool).triu(1)
            out = out + scores.masked_fill(ahead, -torch.inf).softmax(-1) @ v @ w[f"{block}attn.W_O"][h]
        x = x + out + (w[f"{block}attn.b_O"] if arch.attn_bias else 0)
        if arch.mlp:
            y = normed(x + copies[Node(Site("mlp_pre", i))], block + "ln2")
            pre = y @ w[f"{block}mlp.W_in"] + (w[f"{block}mlp.b_in"] if arch.mlp_bias else 0)
            gated = arch.act == "swiglu"
            h = pre * torch.nn.functional.silu(y @ w[f"{block}mlp.W_gate"]) if gated else ACTIVATIONS[arch.act](pre)
            x = x + h @ w[f"{block}mlp.W_out"] + (w[f"{block}mlp.b_out"] if arch.mlp_bias else 0)
    x = normed(x + copies[Node(LOGITS)], "ln_final")
    return x @ model.weights.W_U + (w["unembed.b_U"] if arch.unembed_bias else 0)


def by_brute_force(model: Transformer, metric, base: Tensor, other: Tensor) -> Tensor:
    graph = graph_of(model)
    copies = {
        node: torch.zeros(*base.shape, model.arch.d_model, dtype=DOUBLE, requires_grad=True) for node in graph.readers
    }
    value = metric.of_vocabulary(separated(model, base, copies), torch.arange(len(base)))
    gradients = torch.autograd.grad(value.sum(), list(copies.values()))
    writes = {node.site for node in graph.writers}
    here, there = (model.run(tokens, keep=writes).cache for tokens in (base, other))
    found = torch.zeros(len(base), len(graph.writers), len(graph.readers), dtype=DOUBLE)
    for i, node in enumerate(graph.writers):
        delta = there[node.site] - here[node.site]
        if node.head is not None:
            delta = delta[:, :, node.head] @ model.weights.W_O[node.site.layer, node.head]
        for j, gradient in enumerate(gradients):
            found[:, i, j] = (delta * gradient).sum((1, 2)) if graph.legal[i, j] else 0
    return found


@pytest.mark.parametrize("name", ARCHS)
@pytest.mark.parametrize("mode", ["denoise", "noise"])
def test_edge_scores_are_those_of_separate_copies_for_every_reader(name, mode):
    model = small_model(ARCHS[name], dtype=DOUBLE)
    pairs = pairs_for(model.arch)
    found = edge_attribution(model, pairs, metric_for(pairs), mode=mode)
    base, other = (pairs.corrupt, pairs.clean) if mode == "denoise" else (pairs.clean, pairs.corrupt)
    expected = by_brute_force(model, metric_for(pairs), base, other)
    assert expected.abs().max() > 1e-3
    torch.testing.assert_close(found.values, expected, **TIGHT)


def test_positions_and_prompts_taken_in_pieces_give_the_same_scores(monkeypatch):
    model = small_model(A_FEW["normed"], dtype=DOUBLE)
    pairs = pairs_for(model.arch)
    whole = edge_attribution(model, pairs, metric_for(pairs))
    monkeypatch.setattr(edges, "HELD", 1)
    pieces = edge_attribution(model, pairs, metric_for(pairs), prompts_at_once=2)
    torch.testing.assert_close(pieces.values, whole.values, **TIGHT)
    torch.testing.assert_close(pieces.clean, whole.clean, **TIGHT)


def test_the_ends_are_the_metric_of_clean_and_corrupt_run():
    model = small_model(A_FEW["normed"], dtype=DOUBLE)
    pairs = pairs_for(model.arch)
    metric, rows = metric_for(pairs), torch.arange(3)
    for mode in ("denoise", "noise"):
        found = edge_attribution(model, pairs, metric, mode=mode)
        torch.testing.assert_close(found.clean, metric.of_vocabulary(model.run(pairs.clean).logits, rows))
        torch.testing.assert_close(found.corrupt, metric.of_vocabulary(model.run(pairs.corrupt).logits, rows))


@pytest.mark.usefixtures("unchecked")
def test_the_integral_over_inputs_recovers_what_the_input_does_as_steps_grow():
    """Completeness of integrated gradients: the edges out of the input sum to the whole change of the metric."""
    model = small_model(A_FEW["normed"], dtype=DOUBLE)
    pairs = pairs_for(model.arch)
    gaps = []
    for steps in (4, 16, 48):
        found = edge_attribution(model, pairs, log_prob(pairs.answer), method="eap-ig", steps=steps)
        gaps.append(float((found.of_writers()[:, 0] - (found.clean - found.corrupt)).abs().max()))
    assert gaps[1] < gaps[0] / 8  # middles: the error falls with the square of the steps, 16 fold
    assert gaps[2] < gaps[1] / 5  # 9 fold


def test_one_step_of_the_integral_is_the_gradient_at_the_middle():
    model = small_model(Architecture(**SIZES, mlp=False), dtype=DOUBLE)
    pairs = pairs_for(model.arch)
    plain = edge_attribution(model, pairs, metric_for(pairs))
    halfway = edge_attribution(model, pairs, metric_for(pairs), method="eap-ig", steps=1)
    back = edge_attribution(model, pairs, metric_for(pairs), method="eap-ig", steps=1, mode="noise")
    assert not torch.allclose(halfway.values, plain.values)
    torch.testing.assert_close(halfway.values[:, 0], -back.values[:, 0], **TIGHT)  # one middle, seen from both ends


def test_the_largest_edges_come_first_and_exist():
    model = small_model(A_FEW["plain-2"], dtype=DOUBLE)
    pairs = pairs_for(model.arch)
    found = edge_attribution(model, pairs, metric_for(pairs))
    best = found.top(5)
    sizes = [abs(score) for _, score in best]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] == pytest.approx(float(found.mean().abs().max()))
    assert all(edge in found.graph.edges for edge, _ in best)


def test_edges_of_a_model_without_attention_are_refused():
    model = small_model(A_FEW["mlp-only"])
    pairs = pairs_for(model.arch)
    with pytest.raises(UserError):
        edge_attribution(model, pairs, metric_for(pairs))


def test_no_steps_are_refused():
    model = small_model(A_FEW["normed"])
    pairs = pairs_for(model.arch)
    with pytest.raises(BadConfig, match="at least one"):
        edge_attribution(model, pairs, metric_for(pairs), method="eap-ig", steps=0)


def test_an_edge_against_the_order_of_the_run_is_refused():
    graph = graph_of(small_model(A_FEW["normed"]))
    with pytest.raises(UserError, match="reads before"):
        graph.place(Edge(Node(Site("z", 1), 0), Node(Site("q", 0), 0)))
    assert graph.place(Edge(Node(INPUT), Node(LOGITS))) == (0, len(graph.readers) - 1)


def node_scores(model: Model, pairs: Pairs, site: Site) -> Tensor:
    """(donor - base) . gradient of a Site, denoising: per prompt, and head where it has some."""
    metric, held = metric_for(pairs), []
    there = model.run(pairs.clean, keep=site).cache[site]
    run = model.run(pairs.corrupt, edits=[leaf(INPUT), observe(site, held.append)], grad=True)
    value = metric.of_vocabulary(run.logits, torch.arange(len(pairs)))
    (gradient,) = torch.autograd.grad(value.sum(), held)
    return ((there - held[0].detach()) * gradient).sum((1, -1))


@pytest.mark.parametrize("kind", ["grouped heads", "parallel blocks", "norms behind", "normed q and k"])
def test_edges_out_of_a_writer_sum_to_its_own_score_in_every_kind_of_block(kind):
    """With a norm behind attention the heads' parts go through that norm's derivative, and still sum so."""
    model = tiny(kind)
    drawn = torch.Generator().manual_seed(5)
    clean, corrupt = (torch.randint(0, VOCAB, (3, 5), generator=drawn) for _ in range(2))
    pairs = Pairs(clean, corrupt, torch.tensor([0, 1, 2]), torch.tensor([3, 3, 0]))
    found = edge_attribution(model, pairs, metric_for(pairs), heads=True)
    summed = dict(zip(found.graph.writers, found.of_writers().T))
    for site in (Site("z", 0), Site("mlp_out", 0), Site("z", 1), INPUT):
        scores = node_scores(model, pairs, site)
        for head in range(4) if site.kind == "z" else [None]:
            expected = scores if head is None else scores[:, head]
            torch.testing.assert_close(summed[Node(site, head)], expected, rtol=1e-5, atol=1e-6)


def test_edges_into_a_reader_sum_to_the_attribution_of_its_residual_input():
    model = small_model(A_FEW["normed"], dtype=DOUBLE)
    pairs = pairs_for(model.arch)
    found = edge_attribution(model, pairs, metric_for(pairs))
    last = Site("resid_post", 1)
    torch.testing.assert_close(found.values.sum(1)[:, -1], node_scores(model, pairs, last), **TIGHT)
    copies = {
        node: torch.zeros(*pairs.clean.shape, model.arch.d_model, dtype=DOUBLE, requires_grad=True)
        for node in found.graph.readers
    }
    value = metric_for(pairs).of_vocabulary(separated(model, pairs.corrupt, copies), torch.arange(3))
    there, here = (
        model.run(tokens, keep=["L1.resid_pre", "L1.resid_mid"]).cache for tokens in (pairs.clean, pairs.corrupt)
    )
    for node, stream in ((Node(Site("k", 1), 2), "L1.resid_pre"), (Node(Site("mlp_pre", 1)), "L1.resid_mid")):
        (gradient,) = torch.autograd.grad(value.sum(), copies[node], retain_graph=True)
        expected = ((there[stream] - here[stream]) * gradient).sum((1, 2))
        torch.testing.assert_close(found.values.sum(1)[:, found.graph.readers.index(node)], expected, **TIGHT)
