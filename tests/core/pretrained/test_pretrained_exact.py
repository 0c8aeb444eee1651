"""Bit for bit: watching a model, or changing nothing in it, changes no bit of what it computes."""

import pytest
import torch
import zoo

from micrographia.core.edits import apply, leaf, observe, put
from micrographia.core.errors import UnknownSite
from micrographia.core.model import Start
from micrographia.core.pretrained import Pretrained
from micrographia.core.sites import Site

pytestmark = pytest.mark.usefixtures("unchecked")  # the same calls are checked in the other files
every = pytest.mark.parametrize(("name", "how"), zoo.EVERY)
exact = pytest.mark.parametrize(("name", "how", "dtype"), zoo.EXACT)


@exact
def test_logits_with_every_site_kept_are_those_of_the_bare_module(name, how, dtype):
    module, ids = zoo.bare(name, how, dtype), zoo.tokens()
    kept = zoo.model(name, how, dtype).run(ids, keep=zoo.model(name, how, dtype).sites)
    assert torch.equal(kept.logits, zoo.logits_of(module, ids))
    assert module.config._attn_implementation == how


@exact
def test_edits_that_change_nothing_at_all_sites_at_once_change_no_bit(name, how, dtype):
    model, ids = zoo.model(name, how, dtype), zoo.tokens()
    inside = ("scores", "pattern") if how == "sdpa" else ()
    edits = [apply(site, lambda value: value) for site in model.sites if site.kind not in inside]
    assert torch.equal(model.run(ids, edits=edits).logits, zoo.logits_of(zoo.bare(name, how, dtype), ids))


@pytest.mark.parametrize("name", zoo.NAMES)
def test_an_edit_that_changes_nothing_changes_no_bit_at_any_one_site(name):
    model, ids = zoo.model(name), zoo.tokens()
    wanted = zoo.logits_of(zoo.bare(name), ids)
    sites = [site for site in model.sites if site.layer in (None, 1)]
    assert all(torch.equal(model.run(ids, edits=[apply(site, lambda v: v)]).logits, wanted) for site in sites)


@pytest.mark.parametrize("name", zoo.NAMES)
def test_a_site_that_is_observed_or_made_a_leaf_changes_no_bit(name):
    model, ids = zoo.model(name), zoo.tokens()
    wanted = zoo.logits_of(zoo.bare(name), ids)
    for watch in (observe, leaf):
        edits = [watch(site, lambda value: None) for site in model.sites if site.layer in (None, 1)]
        assert torch.equal(model.run(ids, edits=edits, grad=True).logits, wanted)


@every
def test_a_restart_at_any_layer_gives_the_bits_of_the_whole_run(name, how):
    model, ids = zoo.model(name, how), zoo.tokens()
    whole = model.run(ids, keep=["L*.resid_pre", "L*.pattern", "L2.mlp_out", "L2.resid_post"])
    for layer in range(4):
        residual = whole.cache[f"L{layer}.resid_pre" if layer < 3 else "L2.resid_post"]
        keep = ["L2.mlp_out", f"L{layer}.pattern"] if layer < 3 else []
        again = model.run(ids, keep=keep, start=Start(layer, residual))
        assert torch.equal(again.logits, whole.logits)
        assert all(torch.equal(again.cache[site], whole.cache[site]) for site in keep)
    assert all("forward" not in vars(layer) for layer in model.body.layers)


@pytest.mark.parametrize("name", zoo.NAMES)
def test_a_run_that_stops_early_keeps_what_came_before_and_gives_no_logits(name):
    model, ids = zoo.model(name), zoo.tokens()
    whole = model.run(ids, keep=["L0.resid_post", "L1.z"]).cache
    stopped = model.run(ids, keep=["L0.resid_post", "L1.z"], stop=2)
    assert stopped.maybe_logits is None
    assert all(torch.equal(stopped.cache[site], whole[site]) for site in whole)
    assert model.run(ids, keep="embed", stop=0).cache["embed"].shape == (2, zoo.LENGTH, 32)


@pytest.mark.parametrize("name", zoo.NAMES)
def test_a_run_leaves_at_the_site_it_is_told_to(name):
    model, ids = zoo.model(name), zoo.tokens()
    whole = model.run(ids, keep=["L0.resid_post", "L1.v", "L1.z"]).cache
    left = model.run(ids, keep=["L0.resid_post", "L1.v"], stop=Site("z", 1))
    assert left.maybe_logits is None
    assert all(torch.equal(left.cache[site], whole[site]) for site in left.cache)
    with pytest.raises(UnknownSite, match=r"never reached L1\.attn_out"):
        model.run(ids, keep="L1.attn_out", stop=Site("z", 1))
    logits = model.run(ids, keep="logits", stop=Site("logits")).cache["logits"]
    assert torch.equal(logits, model.run(ids).logits)


@pytest.mark.parametrize("name", ["gpt2", "gpt_neo"])
def test_fused_activations_are_the_models_own_to_rounding_and_for_their_runs_alone(name):
    module = zoo.fresh(name).double()
    model, ids = Pretrained(module), zoo.tokens()
    own = model.run(ids, keep="L*.neurons")
    inside = []
    edits = [observe("L1.neurons", lambda value: inside.append(model.run(ids).logits))]
    fused = model.fused.run(ids, keep="L*.neurons", edits=edits)
    for site, value in own.cache.items():
        torch.testing.assert_close(fused.cache[site], value, rtol=1e-12, atol=1e-12)
    assert not all(torch.equal(fused.cache[site], value) for site, value in own.cache.items()), "nothing was replaced"
    assert torch.equal(inside[0], own.logits)
    assert torch.equal(model.run(ids).logits, own.logits)
    assert all("forward" not in vars(part) for part in module.modules())
    with pytest.raises(ZeroDivisionError):
        model.fused.run(ids, edits=[observe("L1.neurons", lambda value: 1 / 0)])
    assert all("forward" not in vars(part) for part in module.modules())


def test_the_comparison_can_fail():
    model, ids = zoo.model("gpt2"), zoo.tokens()
    nudged = model.run(ids, edits=[put("L1.z", 1e-4, pos=0, head=0, unit=0)]).logits
    assert not torch.equal(nudged, zoo.logits_of(zoo.bare("gpt2"), ids))
