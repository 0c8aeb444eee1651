"""The QK-fix equals brute force: every query and key patched alone, its pattern recomputed, the rest linear."""

from itertools import product

import pytest
import torch
from attribution_cases import metric_of, model_of, pairs_of
from hypothesis import given
from hypothesis import strategies as st

from micrographia.core.edits import leaf, put
from micrographia.core.metrics import logit_difference, prompts
from micrographia.core.prompts import Pairs
from micrographia.core.sites import Site
from micrographia.core.small.architecture import Architecture
from micrographia.methods.attribution.attribute import attribute
from micrographia.methods.attribution.estimation import Passes
from micrographia.methods.attribution.qk import Scoring, key_fix, query_fix
from small import A_FEW, small_model


def by_force(model, pairs, metric, site):
    """sum over pairs of (pattern after patching one place - pattern before) times the pattern's gradient."""
    prompt = prompts(len(pairs))
    here = Site("pattern", site.layer)
    run = model.run(pairs.corrupt, keep=here, edits=[leaf("embed")], logits=metric.readout(prompt), grad=True)
    (gradient,) = torch.autograd.grad(metric(run.logits, prompt).sum(), [run.cache[here]])
    donor = model.run(pairs.clean, keep=site).cache[site]
    found = torch.zeros(donor.shape[:3], dtype=donor.dtype)
    for pos, head in product(range(donor.shape[1]), range(donor.shape[2])):
        edit = put(site, donor[:, pos, head], pos=pos, head=head)
        change = model.run(pairs.corrupt, keep=here, edits=[edit]).cache[here] - run.cache[here].detach()
        found[:, pos, head] = (change * gradient).sum((1, 2, 3))
    return found


@pytest.mark.parametrize("checkpoints", [False, True])
@pytest.mark.parametrize("name", ["normed", "modern"])
def test_the_fix_equals_brute_force(name, checkpoints):
    model, pairs = model_of(name), pairs_of(A_FEW[name])
    sites = [site for site in model.sites if site.kind in ("q", "k", "rot_q", "rot_k")]
    found = attribute(model, pairs, metric_of(pairs), sites, method="atp-qk", checkpoints=checkpoints)
    assert found.n_passes == (Passes(4, 1) if checkpoints else Passes(2, 1))
    for site, score in found.scores.items():
        torch.testing.assert_close(score, by_force(model, pairs, metric_of(pairs), site), msg=str(site))


def test_rotary_makes_no_difference_to_a_patch_and_other_sites_score_as_without_the_fix():
    model, pairs = model_of("modern"), pairs_of(A_FEW["modern"])
    sites = ["L*.q", "L*.k", "L*.rot_q", "L*.rot_k", "L*.z", "L*.neurons"]
    fixed, plain = (attribute(model, pairs, metric_of(pairs), sites, method=m).scores for m in ("atp-qk", "atp"))
    for layer in range(2):
        for name in "qk":
            assert torch.equal(fixed[Site(name, layer)], fixed[Site(f"rot_{name}", layer)])
            assert not torch.allclose(fixed[Site(name, layer)], plain[Site(name, layer)])
        for kind in ("z", "neurons"):
            torch.testing.assert_close(fixed[Site(kind, layer)], plain[Site(kind, layer)])


def test_summed_positions_are_the_sum():
    model, pairs = model_of("modern"), pairs_of(A_FEW["modern"])
    each, whole = (
        attribute(model, pairs, metric_of(pairs), "L*.k", method="atp-qk", positions=positions).scores
        for positions in ("each", "sum")
    )
    torch.testing.assert_close(whole[Site("k", 1)], each[Site("k", 1)].sum(1))


def saturated() -> tuple:
    """One head whose last query looks hard at the first key, unless the key or the query is the other token's."""
    arch = Architecture(d_vocab=4, d_vocab_out=2, n_ctx=3, d_model=4, n_heads=1, d_head=4, n_layers=1, mlp=False)
    model = small_model(arch, dtype=torch.float64)
    eye = torch.eye(4, dtype=torch.float64)
    weights = {"embed.W_E": eye, "pos_embed.W_pos": torch.zeros(3, 4), "blocks.0.attn.W_V": eye[None]}
    weights |= {"blocks.0.attn.W_O": eye[None], "unembed.W_U": eye[:, :2]}
    weights |= {"blocks.0.attn.W_Q": 40 * eye[None], "blocks.0.attn.W_K": torch.zeros(1, 4, 4)}
    weights["blocks.0.attn.W_K"][0, 0, 3] = weights["blocks.0.attn.W_K"][0, 1, 2] = 1.0
    model.state = model.state | {name: weight.double() for name, weight in weights.items()}
    clean, corrupt = torch.tensor([[0, 1, 3]]), torch.tensor([[0, 1, 2]])  # the last token says what to look for
    return model, Pairs(clean, corrupt, torch.tensor([0]), torch.tensor([1]))


def test_a_saturated_query_is_missed_by_the_gradient_and_found_by_the_fix():
    model, pairs = saturated()
    metric = logit_difference(pairs.answer, pairs.wrong)
    site = Site("q", 0)
    plain, fixed = (attribute(model, pairs, metric, site, method=m) for m in ("atp", "atp-qk"))
    gap = float(plain.clean - plain.corrupt)
    assert gap > 1.9
    assert abs(float(plain.scores[site][0, 2, 0])) < 0.01 * gap
    assert float(fixed.scores[site][0, 2, 0]) == pytest.approx(gap)  # all the rest is linear here


def rows(seed: int, spread: float, groups: int = 1):
    generator = torch.Generator().manual_seed(seed)
    q, new_q = (spread * torch.randn(2, 5, 2 * groups, 3, generator=generator) for _ in range(2))
    k, new_k = (spread * torch.randn(2, 5, 2, 3, generator=generator) for _ in range(2))
    gradient = torch.randn(2, 2 * groups, 5, 5, generator=generator)
    return q, k, new_q, new_k, gradient, torch.ones(2, 1, 5, 5, dtype=torch.bool).tril()


def plainly(q, k, allowed, scoring):
    scores = torch.einsum("bqhe,bkhe->bhqk", q, k.repeat_interleave(q.shape[2] // k.shape[2], 2)) * scoring.scale
    scores = scores if scoring.cap is None else scoring.cap * torch.tanh(scores / scoring.cap)
    return scores.masked_fill(~allowed, -torch.inf).softmax(-1)


@given(st.integers(0, 99), st.sampled_from([0.1, 1.0, 5.0]), st.sampled_from([1, 3]), st.sampled_from([None, 2.0]))
def test_the_closed_form_equals_a_softmax_taken_again(seed, spread, groups, cap):
    """Float32 against float64; 5.0 saturates: scores of several tens."""
    q, k, new_q, new_k, gradient, allowed = rows(seed, spread, groups)
    scoring = Scoring(0.7, cap)
    queries = query_fix(q, k, new_q, allowed, scoring).effect(gradient)
    keys = key_fix(q, k, new_k, allowed, scoring).effect(gradient)
    q, k, new_q, new_k, gradient = (x.double() for x in (q, k, new_q, new_k, gradient))
    base = plainly(q, k, allowed, scoring)
    for pos in range(5):
        patched = q.clone()
        patched[:, pos] = new_q[:, pos]
        change = ((plainly(patched, k, allowed, scoring) - base) * gradient).sum((2, 3))
        torch.testing.assert_close(queries[:, pos].double(), change, rtol=1e-4, atol=2e-5)
        for head in range(2):
            patched = k.clone()
            patched[:, pos, head] = new_k[:, pos, head]
            change = ((plainly(q, patched, allowed, scoring) - base) * gradient).sum((1, 2, 3))
            torch.testing.assert_close(keys[:, pos, head].double(), change, rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("lead", [20.0, 200.0])
@pytest.mark.parametrize("drop", [0.0, 5.0, 18.0, 40.0, 400.0])
def test_a_key_that_is_all_of_its_row_may_lose_it(drop, lead):
    """p is 1 to rounding; the patch takes its score down by as much as it led, and more."""
    q = torch.ones(1, 2, 1, 1)
    k, new_k = torch.tensor([lead, 0.0]).reshape(1, 2, 1, 1), torch.tensor([lead - drop, 0.0]).reshape(1, 2, 1, 1)
    gradient = torch.tensor([[0.0, 0.0], [3.0, 1.0]]).reshape(1, 1, 2, 2)
    allowed = torch.ones(1, 1, 2, 2, dtype=torch.bool).tril()
    found = key_fix(q, k, new_k, allowed, Scoring(1.0)).effect(gradient)[0, 0, 0]
    after, before = (1 / (1 + torch.tensor(-x, dtype=torch.float64).exp()) for x in (lead - drop, lead))
    assert float(found) == pytest.approx(float(2 * (after - before)), rel=1e-5, abs=1e-12)
