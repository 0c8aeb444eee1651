"""Exact sweeps over models of Hugging Face: every family, both plans against one full run a patch; left padding."""

import pytest
import torch
from torch import Tensor
from zoo import DECODERS, EVERY, LENGTH, model, tokens

from micrographia.core.edits import put
from micrographia.core.metrics import log_prob, logit_difference, prompts
from micrographia.core.pretrained import Pretrained
from micrographia.core.sites import Site
from micrographia.core.sweep import Donor, Patch, Place, sweep
from micrographia.core.sweep.places import words_of
from micrographia.core.tokens import Batch, Inputs, ids_of

N = 3
READ = [logit_difference(torch.arange(N), torch.arange(N) + 1), log_prob(torch.arange(N))]
WHERE = {"pos": 3, "query": 4, "head": 1}
SDPA = ("gpt2", "gpt_neox", "gemma3", "bert")


def some_patches(one: Pretrained) -> list[Patch]:
    """A cell of every kind in the middle layer, what comes before and after the layers, and two places at once."""
    sites = [site for site in one.sites if site.layer in (1, None) and site.kind != "logits"]
    cells = [{word: WHERE[word] for word in words_of(site) if word in WHERE} for site in sites]
    for site, cell in zip(sites, cells):
        if site.kind in ("k", "v", "rot_k"):
            cell["head"] = min(cell["head"], one.shape.n_kv_heads - 1)  # Falcon has one
    patches: list[Patch] = [(Place(site, cell),) for site, cell in zip(sites, cells)]
    return [*patches, (Place(Site("v", 0), {"pos": 2}), Place(Site("mlp_out", 2), {"pos": 5}))]


def naive(one: Pretrained, inputs: Inputs, patch: Patch, donor: Donor) -> Tensor:
    edits = []
    for place in patch:
        index = tuple(place.where.get(word, slice(None)) for word in words_of(place.site))
        edits.append(put(place.site, donor[place.site][index], **place.where))
    logits = one.run(inputs, edits=edits).logits
    return torch.stack([metric.of_vocabulary(logits, prompts(N)) for metric in READ], -1)


def agree(one: Pretrained, base: Inputs, other: Inputs, patches: list[Patch]) -> None:
    donor = one.run(other, keep=list({place.site for patch in patches for place in patch})).cache
    expected = torch.stack([naive(one, base, patch, donor) for patch in patches])
    strict = sweep(one, base, patches, donor, READ, plan="strict")
    for patch, found, wanted in zip(patches, strict, expected):
        assert torch.equal(found, wanted), patch
    fast = sweep(one, base, patches, donor, READ, tokens_at_once=100)
    assert (fast - expected).abs().max() <= 1e-4 * expected.abs().max()
    assert (expected - expected[:1]).abs().max() > 1e-2, "the patches do nothing, so that nothing was tested"
    assert len(ids_of(base)) == N


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(("name", "how"), [(name, how) for name, how in EVERY if how == "eager" or name in SDPA])
def test_strict_is_the_plain_loop_bit_for_bit_and_fast_is_near_it(name, how):
    one = model(name, how)
    agree(one, tokens(N, seed=1), tokens(N, seed=2), some_patches(one))


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("name", DECODERS)
def test_padded_prompts_are_swept_like_others(name):
    one = model(name)
    mask = torch.ones(N, LENGTH, dtype=torch.bool)
    mask[0, :3], mask[1, :1] = False, False
    sites = [Site(kind, layer) for kind in ("resid_pre", "v") for layer in (0, 2)]
    patches: list[Patch] = [(Place(site, {"pos": at}),) for site in sites for at in (3, -1)]
    agree(one, Batch(tokens(N, seed=1), mask), Batch(tokens(N, seed=2), mask), patches)
