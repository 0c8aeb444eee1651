"""Integrated gradients are complete, GradDrop is its formula, RelP conserves what theory says it conserves."""

import dataclasses

import pytest
import torch
from attribution_cases import exact, metric_of, model_of, pairs_of
from linear_model import LinearModel

from micrographia.core.edits import apply, leaf, observe
from micrographia.core.errors import UserError
from micrographia.core.metrics import log_prob, logit, logit_difference, prompts
from micrographia.core.prompts import Pairs
from micrographia.core.sites import Site
from micrographia.core.small.architecture import Architecture
from micrographia.core.small.transformer import Transformer
from micrographia.core.small.weights import init_weights
from micrographia.methods.attribution.attribute import METHODS, attribute
from micrographia.methods.attribution.estimation import Passes
from micrographia.methods.attribution.ig import along
from micrographia.methods.attribution.relp import relevance_rules
from small import A_FEW

EMBED = Site("embed")


@pytest.mark.parametrize("method", sorted(METHODS.keys() - {"atp-star"}))  # which gives sizes
def test_every_method_is_exact_on_a_linear_model(method):
    model, pairs = LinearModel(), pairs_of(A_FEW["plain"])
    metric = logit_difference(pairs.answer, pairs.wrong)
    found = attribute(model, pairs, metric, ["L*.z", "L1.mlp_out", "L0.resid_pre"], method=method)
    for site, score in found.scores.items():
        torch.testing.assert_close(score, exact(model, pairs, metric, found, site), msg=str(site))


@pytest.mark.parametrize("rule", ["midpoint", "right"])
def test_scores_of_the_embedding_sum_to_the_gap_as_steps_grow(rule):
    """The midpoint's error falls with the square of the steps, the right end's with the steps."""
    model, pairs = model_of("plain-2"), pairs_of(A_FEW["plain-2"])
    errors = []
    for steps in (5, 10, 20):
        found = attribute(model, pairs, metric_of(pairs), EMBED, method="ig", steps=steps, rule=rule)
        assert found.n_passes == Passes(steps + 2, steps)
        errors.append(float((found.scores[EMBED].sum(-1) - (found.clean - found.corrupt)).abs().max()))
    order = {"midpoint": 4, "right": 2}[rule]
    assert errors[1] / errors[2] == pytest.approx(order, rel=0.15)


def test_along_its_own_path_a_site_sums_to_the_effect_of_patching_it_whole():
    model, pairs = model_of("plain-2"), pairs_of(A_FEW["plain-2"])
    sites = [Site("resid_pre", 1), Site("mlp_out", 0), Site("z", 1), Site("result", 1), Site("pattern", 1)]
    found = attribute(model, pairs, metric_of(pairs), sites, method="ig-activation", steps=40)
    donor = model.run(pairs.clean, keep=sites).cache
    prompt = prompts(len(pairs))
    for site in sites:
        patched = model.run(pairs.corrupt, edits=[apply(site, lambda _, new=donor[site]: new)], logits="last")
        effect = metric_of(pairs)(patched.logits, prompt) - found.corrupt
        torch.testing.assert_close(found.scores[site].flatten(1).sum(1), effect, rtol=1e-3, atol=1e-4, msg=str(site))


def test_a_single_right_end_is_the_gradient_at_the_donor():
    model, pairs = model_of("normed"), pairs_of(A_FEW["normed"])
    found = attribute(model, pairs, metric_of(pairs), "L*.z", method="ig", steps=1, rule="right")
    other = attribute(model, pairs, metric_of(pairs), "L*.z", mode="noise")
    assert along(2, "midpoint") == [0.25, 0.75]
    assert along(2, "right") == [0.5, 1.0]
    for site, score in found.scores.items():
        torch.testing.assert_close(score, -other.scores[site])


def dropped_by_hand(model, pairs, metric, sites, layer):
    """Attribution with the branches of one layer cut out of the graph."""
    prompt = prompts(len(pairs))
    here = [Site(kind, layer) for kind in ("attn_out", "mlp_out") if Site(kind, layer) in model.sites]
    cuts = [apply(site, lambda value: value.detach()) for site in here]
    donor = model.run(pairs.clean, keep=sites).cache
    live = {}
    looks = [observe(site, lambda value, site=site: live.__setitem__(site, value)) for site in sites]
    run = model.run(pairs.corrupt, edits=[leaf("embed"), *looks, *cuts], logits=metric.readout(prompt), grad=True)
    gradients = torch.autograd.grad(metric(run.logits, prompt).sum(), [live[s] for s in sites], allow_unused=True)
    return {
        site: ((donor[site] - live[site].detach()) * (0 if gradient is None else gradient)).sum(-1)
        for site, gradient in zip(sites, gradients)
    }


def test_grad_drop_is_the_mean_size_over_dropped_layers():
    arch = Architecture(**{**vars_of("normed"), "n_layers": 3})
    model, pairs = Transformer(arch, init_weights(arch, torch.Generator().manual_seed(3))), pairs_of(arch)
    sites = [Site(kind, layer) for layer in range(3) for kind in ("z", "mlp_out", "resid_pre")]
    found = attribute(model, pairs, metric_of(pairs), sites, method="atp-star")
    plain = attribute(model, pairs, metric_of(pairs), sites)
    each = [dropped_by_hand(model, pairs, metric_of(pairs), sites, layer) for layer in range(3)]
    assert found.n_passes == Passes(2, 4)
    assert found.gives == "size"
    for site in sites:
        size = sum(one[site].abs() for one in each) / 2  # layers - 1
        torch.testing.assert_close(found.scores[site].abs(), size, rtol=1e-4, atol=1e-6)
        assert torch.equal(found.scores[site] < 0, (plain.scores[site] < 0) & (size > 0))
        if site.kind == "mlp_out":
            assert not each[site.layer][site].any()  # its own layer's term is zero


def vars_of(name: str) -> dict:
    return dataclasses.asdict(A_FEW[name])


def test_a_place_whose_effects_cancel_is_found_by_grad_drop_alone():
    """The second MLP takes away what the first wrote: nothing is left of its gradient, until one of them is blocked."""
    arch = Architecture(d_vocab=3, d_vocab_out=2, n_ctx=1, n_layers=2, d_model=3, n_heads=1, d_head=2, d_mlp=3)
    weights = {name: torch.zeros(shape) for name, shape in arch.weight_shapes().items()}
    for name in ("embed.W_E", "blocks.0.mlp.W_in", "blocks.1.mlp.W_in"):
        weights[name] = torch.eye(3)
    weights["blocks.0.mlp.W_out"][0, 2] = 1.0  # token 0 writes along the third unit
    weights["blocks.1.mlp.W_out"][2, 2] = -1.0  # which is taken away
    weights["blocks.1.mlp.b_in"][2] = 0.1
    weights["unembed.W_U"][2, 0] = 1.0
    model, site = Transformer(arch, weights), Site("mlp_out", 0)
    pairs = Pairs(torch.tensor([[0]]), torch.tensor([[1]]), torch.tensor([0]))
    plain, star = (attribute(model, pairs, logit(pairs.answer), site, method=m) for m in ("atp", "atp-star"))
    assert float(plain.scores[site].abs().max()) == 0
    assert float(star.scores[site].max()) == pytest.approx(1.0)


def homogeneous(norm: str, act: str, positions: str = "rotary") -> Transformer:
    """Every layer scales with its input once patterns and norms are held: no bias anywhere."""
    arch = Architecture(
        **{**vars_of("modern"), "norm": norm, "act": act, "positions": positions, "mlp_bias": False, "tied": False}
    )
    weights = init_weights(arch, torch.Generator().manual_seed(1), dtype=torch.float64)
    return Transformer(arch, weights)


@pytest.mark.parametrize(("norm", "act"), [("rmsnorm", "swiglu"), ("layernorm", "gelu"), ("none", "relu")])
def test_relevance_is_conserved_from_layer_to_layer(norm, act):
    """Without biases the rules make the network homogeneous, so that activation times relevance sums to the logit."""
    model = homogeneous(norm, act)
    pairs = pairs_of(model.arch)
    prompt, live = prompts(3), {}
    streams = [Site("resid_pre", 0), Site("resid_pre", 1), Site("resid_post", 1)]
    looks = [observe(site, lambda value, site=site: live.__setitem__(site, value)) for site in streams]
    metric = logit(pairs.answer)
    edits = [leaf("embed"), *relevance_rules(model), *looks]
    run = model.run(pairs.clean, edits=edits, logits=metric.readout(prompt), grad=True)
    value = metric(run.logits, prompt)
    gradients = torch.autograd.grad(value.sum(), [live[site] for site in streams])
    for site, gradient in zip(streams, gradients):
        torch.testing.assert_close((live[site] * gradient).sum((1, 2)), value, msg=str(site))


@pytest.mark.parametrize("name", ["normed", "modern", "plain-2", "mlp-only"])
def test_the_rules_change_derivatives_and_no_value(name):
    model, pairs = model_of(name), pairs_of(A_FEW[name])
    bare = model.run(pairs.clean, logits="all").logits
    ruled = model.run(pairs.clean, edits=relevance_rules(model), logits="all").logits
    assert torch.equal(bare, ruled)
    found = attribute(model, pairs, metric_of(pairs), "L*.mlp_out", method="relp")
    plain = attribute(model, pairs, metric_of(pairs), "L*.mlp_out")
    assert not torch.allclose(found.scores[Site("mlp_out", 0)], plain.scores[Site("mlp_out", 0)])


def test_relevance_checkpointed_is_relevance():
    model, pairs = model_of("modern"), pairs_of(A_FEW["modern"])
    sites = ["L*.mlp_out", "L*.v", "L*.neurons", "L*.mlp_up", "embed", "final_norm"]
    plain, again = (
        attribute(model, pairs, metric_of(pairs), sites, method="relp", checkpoints=checkpoints).scores
        for checkpoints in (False, True)
    )
    for site, score in plain.items():
        torch.testing.assert_close(again[site], score, msg=str(site))


def test_a_gated_neuron_shares_its_relevance_half_and_half():
    """Relevance of either side of the product, activation times gradient, is half that of the neuron."""
    model = homogeneous("rmsnorm", "swiglu")
    pairs = pairs_of(model.arch)
    prompt, live = prompts(3), {}
    sites = [Site(kind, 1) for kind in ("mlp_pre", "mlp_up", "neurons")]
    looks = [observe(site, lambda value, site=site: live.__setitem__(site, value)) for site in sites]
    metric = log_prob(pairs.answer)
    edits = [leaf("embed"), *relevance_rules(model), *looks]
    run = model.run(pairs.clean, edits=edits, logits=metric.readout(prompt), grad=True)
    gradients = torch.autograd.grad(metric(run.logits, prompt).sum(), [live[site] for site in sites])
    gate, up, neuron = (live[site] * gradient for site, gradient in zip(sites, gradients))
    torch.testing.assert_close(gate, neuron / 2)
    torch.testing.assert_close(up, neuron / 2)


def test_what_is_held_has_no_relevance():
    model, pairs = model_of("normed"), pairs_of(A_FEW["normed"])
    with pytest.raises(UserError, match=r"Relevance of L0\.attn_norm_scale, L0\.scores was asked for"):
        attribute(model, pairs, metric_of(pairs), ["L0.attn_norm_scale", "L0.scores"], method="relp")
    with pytest.raises(UserError, match="no gradient reaches it"):
        attribute(model, pairs, metric_of(pairs), "L0.z", edits=[apply("L0.z", torch.Tensor.detach)])
