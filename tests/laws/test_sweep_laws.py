"""Laws of the exact engine: patched runs are what `model.run` with the same edits gives, however they are batched."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from micrographia.core.edits import put
from micrographia.core.metrics import Metric, kl, log_prob, logit, logit_difference, prompts
from micrographia.core.model import Model
from micrographia.core.sites import Site
from micrographia.core.small.architecture import Architecture
from micrographia.core.sweep import Donor, Patch, Place, places, sweep
from micrographia.core.sweep.places import words_of
from small import A_FEW, architectures, small_model, some_tokens

TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-10}
N = 3


def metrics(d_vocab: int, n: int = N) -> list[Metric]:
    right, wrong = torch.arange(n) % d_vocab, (torch.arange(n) + 1) % d_vocab
    return [logit_difference(right, wrong), logit(wrong)]


def naive(model: Model, tokens: Tensor, patches: list[Patch], donor: Donor, read: list[Metric]) -> Tensor:
    """One full run a patch, with `put`."""
    found = []
    for patch in patches:
        edits = [put(place.site, chosen(place, donor[place.site]), **place.where) for place in patch]
        logits = model.run(tokens, edits=edits).logits
        found.append(torch.stack([metric.of_vocabulary(logits, prompts(len(tokens))) for metric in read], -1))
    return torch.stack(found)


def chosen(place: Place, value: Tensor) -> Tensor:
    """The donor's values in the place, shaped as `put` takes them."""
    assert all(isinstance(at, int) for at in place.where.values())
    return value[tuple(place.where.get(word, slice(None)) for word in words_of(place.site))]


def some_patch(data: st.DataObject, model: Model, n_pos: int) -> Patch:
    """Any places of a few Sites."""
    shape = model.shape
    sizes = {"pos": n_pos, "query": n_pos, "key": n_pos, "head": shape.n_heads}
    sites = [site for site in model.sites if site.kind not in ("logits", "result")]
    found = []
    for site in data.draw(st.lists(st.sampled_from(sites), min_size=1, max_size=3, unique=True)):
        axes = [axis for axis in words_of(site) if axis in sizes]
        where = {
            axis: data.draw(st.integers(-sizes[axis], sizes[axis] - 1)) for axis in axes if data.draw(st.booleans())
        }
        found.append(Place(site, where))
    return tuple(found)


@given(architectures(n_layers=2), st.integers(0, 2**20), st.sampled_from(list(TOLERANCE)), st.data())
def test_strict_is_the_naive_loop_bit_for_bit_and_fast_is_it_within_tolerance(arch, seed, dtype, data):
    model = small_model(arch, seed=seed, dtype=dtype)
    base, other = (some_tokens(arch, batch=N, seed=seed + i) for i in (1, 2))
    n_pos = arch.n_ctx if arch.attention else 1
    patches = [some_patch(data, model, n_pos) for _ in range(data.draw(st.integers(1, 6)))]
    donor, read = model.run(other, keep=model.sites).cache, metrics(arch.d_vocab_out)
    expected = naive(model, base, patches, donor, read)
    assert torch.equal(sweep(model, base, patches, donor, read, plan="strict"), expected)
    tokens = data.draw(st.sampled_from([None, 1, 40]))
    fast = sweep(model, base, patches, donor, read, tokens_at_once=tokens)
    assert (fast - expected).abs().max() <= TOLERANCE[dtype] * expected.abs().max().clamp(min=1)


@given(st.sampled_from(sorted(A_FEW)), st.integers(0, 2**20), st.data())
def test_a_donor_equal_to_the_base_changes_nothing(name, seed, data):
    arch = A_FEW[name]
    model, tokens = small_model(arch, seed=seed), some_tokens(arch, batch=N, seed=seed)
    n_pos = arch.n_ctx if arch.attention else 1
    patches = [some_patch(data, model, n_pos) for _ in range(data.draw(st.integers(1, 4)))]
    logits, own = model.run(tokens, keep=model.sites)
    read = metrics(arch.d_vocab_out)
    plain = torch.stack([metric.of_vocabulary(logits, prompts(N)) for metric in read], -1)
    strict = sweep(model, tokens, patches, own, read, plan="strict")
    assert torch.equal(strict, plain.expand_as(strict))
    assert torch.allclose(sweep(model, tokens, patches, own, read), plain, atol=1e-5)


@pytest.mark.parametrize("name", sorted(A_FEW))
@pytest.mark.parametrize("plan", ["fast", "strict"])
def test_patching_everything_gives_the_donors_metric(name, plan):
    arch = A_FEW[name]
    model = small_model(arch)
    base, other = (some_tokens(arch, batch=N, seed=i) for i in (1, 2))
    donor, read = model.run(other, keep=model.sites).cache, metrics(arch.d_vocab_out)
    whole = [site for site in model.sites if site.kind not in ("logits", "result")]
    last = Site("resid_post", arch.n_layers - 1)
    found = sweep(model, base, [tuple(map(Place, whole)), (Place(last),)], donor, read, plan=plan)
    logits = model.run(other).logits
    expected = torch.stack([metric.of_vocabulary(logits, prompts(N)) for metric in read], -1)
    assert torch.allclose(found, expected.expand_as(found), atol=1e-5)


@settings(max_examples=6)
@given(st.sampled_from(["normed", "modern", "plain-2"]), st.randoms(use_true_random=False))
def test_the_order_of_patches_does_not_matter(name, random):
    arch = A_FEW[name]
    model = small_model(arch, dtype=torch.float64)
    base, other = (some_tokens(arch, batch=N, seed=i) for i in (1, 2))
    patches = places(model, "L*.z", ("layer", "pos", "head"), arch.n_ctx)
    order = list(range(len(patches)))
    random.shuffle(order)
    donor, read = model.run(other, keep="L*.z").cache, metrics(arch.d_vocab_out)
    straight = sweep(model, base, patches, donor, read)
    shuffled = sweep(model, base, [patches[i] for i in order], donor, read, tokens_at_once=60)
    assert torch.allclose(shuffled, straight[order], atol=1e-12)


def test_several_metrics_in_one_run_are_those_of_runs_of_their_own():
    arch: Architecture = A_FEW["normed"]
    model = small_model(arch, dtype=torch.float64)
    base, other = (some_tokens(arch, batch=N, seed=i) for i in (1, 2))
    donor = model.run(other, keep="L*.mlp_out").cache
    patches = places(model, "L*.mlp_out", ("layer", "pos"), arch.n_ctx)
    reference = model.run(base, logits="last").logits
    assert reference is not None
    read = [*metrics(arch.d_vocab_out), log_prob(torch.arange(N)), kl(reference[:, -1]), logit(torch.arange(N), pos=1)]
    together = sweep(model, base, patches, donor, read)
    for i, metric in enumerate(read):
        assert torch.allclose(together[..., i], sweep(model, base, patches, donor, [metric])[..., 0], atol=1e-12)
