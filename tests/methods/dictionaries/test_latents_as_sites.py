"""Latents and error of a spliced dictionary as Sites: patched, attributed and steered by the methods there are."""

import pytest
import torch

from micrographia.core.dictionaries.dictionary import Dictionary, DictionaryWeights
from micrographia.core.dictionaries.form import Form
from micrographia.core.edits import add, put, splice, zero
from micrographia.core.metrics import Metric, logit_difference
from micrographia.core.prompts import Pairs
from micrographia.core.runtime import generator
from micrographia.core.sites import Site
from micrographia.core.small.transformer import Transformer
from micrographia.core.sweep import Place
from micrographia.methods.attribution.attribute import attribute
from micrographia.methods.patching import patch, patch_sites
from micrographia.methods.steering import contrast
from small import A_FEW, small_model, some_tokens

N = 15
HERE = Site("resid_post", 0)
LATENTS, ERROR = HERE.within("sae", "latents"), HERE.within("sae", "error")


def dictionary(d: int = 10, activation: str = "topk") -> Dictionary:
    g = generator(0)
    weights = DictionaryWeights(
        *(), W_enc=torch.randn(d, N, generator=g).double(), W_dec=torch.randn(N, d, generator=g).double(),
        b_enc=torch.randn(N, generator=g).double(), b_dec=torch.randn(d, generator=g).double(),
    )  # fmt: skip
    return Dictionary(weights, Form(activation=activation, k=5 if activation == "topk" else None))


def model(name: str) -> Transformer:
    return small_model(A_FEW[name], dtype=torch.float64)


def made_pairs(of: Transformer) -> tuple[Pairs, Metric]:
    clean, corrupt = some_tokens(of.arch, batch=3, seed=1), some_tokens(of.arch, batch=3, seed=2)
    metric = logit_difference(torch.tensor([1, 2, 3]), torch.tensor([4, 5, 0]))
    return Pairs(clean=clean, corrupt=corrupt, answer=torch.tensor([1, 2, 3]), wrong=torch.tensor([4, 5, 0])), metric


@pytest.mark.parametrize("name", ["plain-2", "normed", "modern"])
def test_patching_all_latents_and_the_error_is_the_clean_run(name: str):
    of = model(name)
    pairs, metric = made_pairs(of)
    spliced = splice(HERE, dictionary())
    every, latents, error = (Place(LATENTS), Place(ERROR)), (Place(LATENTS),), (Place(ERROR),)
    done = patch(of, pairs, [metric], [every, latents, error], edits=[spliced])
    clean, corrupt = (metric.of(of, each) for each in (pairs.clean, pairs.corrupt))
    torch.testing.assert_close(done.clean[:, 0], clean, rtol=1e-5, atol=1e-5)
    both, first, second = done.effects()[..., 0]
    torch.testing.assert_close(both.double(), clean - corrupt, rtol=1e-5, atol=1e-5)
    assert not torch.allclose(first, both, atol=1e-3)  # neither is all of it
    assert not torch.allclose(second, both, atol=1e-3)


def test_edits_of_all_latents_and_the_error_give_the_clean_logits_bit_for_bit():
    of = model("normed")
    pairs, _ = made_pairs(of)
    spliced = splice(HERE, dictionary())
    clean = of.run(pairs.clean, keep=[LATENTS, ERROR], edits=[spliced])
    edits = [spliced, *(put(site, clean.cache[site]) for site in (LATENTS, ERROR))]
    assert torch.equal(of.run(pairs.corrupt, edits=edits).logits, clean.logits)


def test_attribution_at_latents_and_error_is_exact_where_all_behind_is_linear():
    of = model("plain")
    pairs, metric = made_pairs(of)
    spliced = [splice(HERE, dictionary())]
    sites, by = [LATENTS, ERROR], ("pos", "unit")
    (exact,) = patch_sites(of, pairs, sites, [metric], by=by, edits=spliced)
    found = attribute(of, pairs, metric, sites, edits=spliced)
    assert float(exact.scores[LATENTS].abs().max()) > 0.05
    torch.testing.assert_close(found.scores[LATENTS], exact.scores[LATENTS], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found.scores[ERROR], exact.scores[ERROR].sum(-1), rtol=1e-4, atol=1e-5)
    whole = found.scores[LATENTS].sum((1, 2)) + found.scores[ERROR].sum(1)
    torch.testing.assert_close(whole.double(), found.clean - found.corrupt, rtol=1e-4, atol=1e-5)


def test_attribution_at_latents_is_an_estimate_where_it_is_not():
    of = model("normed")
    pairs, metric = made_pairs(of)
    spliced = [splice(HERE, dictionary())]
    (exact,) = patch_sites(of, pairs, [LATENTS], [metric], by=("pos", "unit"), edits=spliced)
    found = attribute(of, pairs, metric, [LATENTS], edits=spliced)
    a, b = exact.scores[LATENTS].flatten(), found.scores[LATENTS].flatten()
    assert not torch.allclose(a, b, atol=1e-3)
    assert float(torch.corrcoef(torch.stack([a, b]).double())[0, 1]) > 0.5


def test_steering_with_a_latent_is_steering_with_its_decoder_row():
    of, one = model("normed"), dictionary()
    ids = some_tokens(of.arch)
    row = one.weights.W_dec[3]
    through = of.run(ids, edits=[splice(HERE, one), add(LATENTS, 2.5, unit=3)]).logits
    torch.testing.assert_close(through, of.run(ids, edits=[add(HERE, 2.5 * row)]).logits)
    assert not torch.allclose(through, of.run(ids).logits, atol=1e-3)


def test_a_contrast_is_a_difference_of_latents_and_error():
    """The direction of contrasting prompts, taken apart into latents, is that of the activations."""
    of, one = model("normed"), dictionary(activation="relu")
    positive, negative = some_tokens(of.arch, seed=3), some_tokens(of.arch, seed=4)
    spliced = splice(HERE, one)
    caches = [of.run(each, keep=[LATENTS, ERROR], edits=[spliced]).cache for each in (positive, negative)]
    latents, error = (caches[0][s][:, -1].mean(0) - caches[1][s][:, -1].mean(0) for s in (LATENTS, ERROR))
    torch.testing.assert_close(latents @ one.weights.W_dec + error, contrast(of, positive, negative, HERE))


def test_ablating_the_error_leaves_the_reconstruction():
    of, one = model("normed"), dictionary()
    ids = some_tokens(of.arch)
    x = of.run(ids, keep=[HERE]).cache[HERE]
    left = of.run(ids, edits=[splice(HERE, one), zero(ERROR)]).logits
    torch.testing.assert_close(left, of.run(ids, edits=[put(HERE, one.reconstruct(x))]).logits)


def test_dictionaries_at_two_sites_are_patched_together():
    of = model("plain-2")
    pairs, metric = made_pairs(of)
    other = Site("mlp_out", 1)
    edits = [splice(HERE, dictionary()), splice(other, dictionary(activation="relu"))]
    sites = [LATENTS, ERROR, other.within("sae", "latents"), other.within("sae", "error")]
    found = attribute(of, pairs, metric, sites, edits=edits)
    assert {site: each.shape for site, each in found.scores.items()} == {
        site: (3, 4, N) if site.part == "latents" else (3, 4) for site in sites
    }
