"""The same laws on an unmodified Hugging Face model of every family: GQA, soft caps, windows, post-norms, padding."""

import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[2] / "core" / "pretrained"))

import zoo

from micrographia.core.edits import leaf, put
from micrographia.core.metrics import logit_difference, prompts
from micrographia.core.prompts import Pairs
from micrographia.core.sites import Site
from micrographia.core.sweep import Place, sweep
from micrographia.core.tokens import Batch
from micrographia.methods.attribution.attribute import attribute

PLANS = ("strict", "fast")
FEW = ("gpt2", "gemma2", "opt", "llama")


def case(name: str, dtype: torch.dtype = torch.float64):
    model = zoo.model(name, "eager", dtype)
    clean, corrupt = zoo.tokens(2, 4, seed=1), zoo.tokens(2, 4, seed=2)
    right, wrong = torch.tensor([3, 4]), torch.tensor([5, 6])
    return model, Pairs(clean, corrupt, right, wrong), logit_difference(right, wrong)


@pytest.mark.parametrize("name", FEW)
def test_checkpoints_change_no_score(name):
    model, pairs, metric = case(name)
    sites = [site for site in model.sites if site.kind != "logits"]
    plain, again = (attribute(model, pairs, metric, sites, checkpoints=checkpoints) for checkpoints in (False, True))
    for site, score in plain.scores.items():
        scale = float(score.abs().max())
        torch.testing.assert_close(again.scores[site], score, rtol=1e-4, atol=1e-5 * scale, msg=str(site))
        assert scale > 0 or site.kind == "pos_embed", site  # positions are the same in both runs
    torch.testing.assert_close(plain.scores[Site("z", 1)], plain.scores[Site("result", 1)])


@pytest.mark.parametrize("name", [*FEW, "bloom", "falcon", "gpt_oss"])
def test_the_fix_equals_brute_force(name):
    """Grouped keys, a soft cap that bites, scaled queries, learned sinks: each family compares in its own way."""
    model, pairs, metric = case(name)
    layer, prompt = 1, prompts(2)
    here = Site("pattern", layer)
    run = model.run(pairs.corrupt, keep=here, edits=[leaf("embed")], logits=metric.readout(prompt), grad=True)
    (gradient,) = torch.autograd.grad(metric(run.logits, prompt).sum(), [run.cache[here]])
    sites = [Site("q", layer), Site("k", layer)]
    donor = model.run(pairs.clean, keep=sites).cache
    found = attribute(model, pairs, metric, sites, method="atp-qk").scores
    for site in sites:
        wanted = torch.zeros_like(found[site])
        for pos in range(4):
            for head in range(donor[site].shape[2]):
                edit = put(site, donor[site][:, pos, head], pos=pos, head=head)
                change = model.run(pairs.corrupt, keep=here, edits=[edit], stop=2).cache[here] - run.cache[here]
                wanted[:, pos, head] = (change.detach() * gradient).sum((1, 2, 3))
        torch.testing.assert_close(found[site], wanted, rtol=1e-4, atol=1e-4 * float(wanted.abs().max()))


def test_a_sink_takes_part_in_the_softmax_that_is_taken_again():
    """AtP* scores queries and keys by the same fix; without the sink the numbers are others."""
    model, pairs, metric = case("gpt_oss")
    sites = ["L*.q", "L*.k"]
    fixed, ranked = (attribute(model, pairs, metric, sites, method=each).scores for each in ("atp-qk", "atp-star"))
    assert fixed.keys() == ranked.keys()
    assert all(bool(score.isfinite().all()) and float(score.abs().max()) > 0 for score in ranked.values())
    sinks = [model.weights.score_sinks[layer] for layer in range(2)]
    with torch.no_grad():
        for each in sinks:
            each.sub_(20)  # then they weigh nothing
    try:
        without = attribute(model, pairs, metric, sites, method="atp-qk").scores
    finally:
        with torch.no_grad():
            for each in sinks:
                each.add_(20)
    assert not any(torch.allclose(without[site], fixed[site], rtol=1e-2) for site in fixed)


@pytest.mark.parametrize("method", ["atp", "atp-qk", "relp"])
def test_a_padded_pair_scores_as_alone_and_its_padding_nothing(method):
    model, pairs, metric = case("llama")
    pad = torch.zeros(2, 2, dtype=torch.long)
    mask = torch.tensor([[False] * 2 + [True] * 4] * 2)
    padded = Pairs(
        *(Batch(torch.cat([pad, ids], 1), mask) for ids in (pairs.clean, pairs.corrupt)), pairs.answer, pairs.wrong
    )
    kinds = ["z", "neurons", "resid_pre"] + (["q", "k", "pattern"] if method != "relp" else [])
    sites = [f"L*.{kind}" for kind in kinds]
    alone, found = (attribute(model, each, metric, sites, method=method).scores for each in (pairs, padded))
    for site, score in found.items():
        inside = score[..., 2:, 2:] if site.kind == "pattern" else score[:, 2:]
        scale = float(alone[site].abs().max())
        torch.testing.assert_close(inside, alone[site], rtol=1e-4, atol=1e-4 * scale, msg=str(site))
        assert float(score.abs().sum() - inside.abs().sum()) == pytest.approx(0, abs=1e-4)


@pytest.mark.parametrize("name", zoo.NAMES)
def test_in_bfloat16_a_patch_is_that_of_the_edited_run_and_estimates_are_numbers(name):
    """The fast plan runs GELU as one kernel, whose rounding shows in this dtype; else the patch is the run's own."""
    model, pairs, metric = case(name, torch.bfloat16)
    site, prompt = Site("z", 1), prompts(2)
    found = attribute(model, pairs, metric, [site, Site("resid_pre", 1)])
    assert all(bool(score.isfinite().all()) for score in found.scores.values())
    donor = model.run(pairs.clean, keep=site).cache
    patches = [(Place(site, {"pos": 0, "head": 3}),)]
    edit = put(site, donor[site][:, 0, 3], pos=0, head=3)
    strict, fast = (sweep(model, pairs.corrupt, patches, donor, [metric], plan=plan)[0, :, 0] for plan in PLANS)
    alone = metric(model.run(pairs.corrupt, edits=[edit], logits=metric.readout(prompt)).logits, prompt)
    scale = float(model.run(pairs.corrupt).logits.abs().max())
    torch.testing.assert_close(strict.float(), alone.float(), rtol=0, atol=0.02 * scale)
    torch.testing.assert_close(fast.float(), strict.float(), rtol=0, atol=0.02 * scale)
