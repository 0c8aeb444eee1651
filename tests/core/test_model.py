"""Cache and Tap: what a run keeps, how edits meet it, and a dictionary spliced in."""

import pytest
import torch
from torch import Tensor

from micrographia.core.edits import add, put, scale, splice, zero
from micrographia.core.errors import UnknownSite
from micrographia.core.model import SILENT, Cache, Model, ModelShape, Tap, run_tapped
from micrographia.core.sites import Site
from small import A_FEW, Halves, small_model

HERE = Site("mlp_out", 0)
SITES = (Site("embed"), Site("resid_pre", 0), HERE, Site("logits"))


@pytest.fixture
def value() -> Tensor:
    return torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0))


def test_a_cache_reads_by_site_by_text_and_by_a_lens_name(value):
    cache = Cache({HERE: value})
    assert cache[HERE] is cache["L0.mlp_out"] is cache["blocks.0.hook_mlp_out"] is value
    assert list(cache) == [HERE]
    assert len(cache) == 1


def test_a_cache_knows_what_it_has(value):
    cache = Cache({HERE: value})
    assert HERE in cache
    assert "L0.mlp_out" in cache
    assert "L1.mlp_out" not in cache
    assert Site("logits") not in cache
    assert cache.get("L1.mlp_out") is None
    assert cache.get("L0.mlp_out") is value
    assert dict(cache.items()) == {HERE: value}


def test_a_cache_tells_what_was_kept_when_something_else_is_asked_for(value):
    with pytest.raises(UnknownSite, match=r"did not keep 'L1\.mlp_out'. It kept L0\.mlp_out"):
        Cache({HERE: value})["L1.mlp_out"]


def test_a_cache_cannot_be_written_to_and_shows_shapes(value):
    cache = Cache({HERE: value})
    with pytest.raises(TypeError):
        cache[HERE] = value
    assert repr(cache) == "Cache(L0.mlp_out: 2x3x4)"


def test_a_cache_does_not_follow_the_mapping_it_was_made_from(value):
    values = {HERE: value}
    cache = Cache(values)
    values.clear()
    assert HERE in cache


def test_a_silent_tap_hands_back_the_value(value):
    assert SILENT("mlp_out", 0, value) is value
    assert len(SILENT.finish()) == 0
    assert not SILENT.keeps("mlp_out", 0)
    assert not SILENT.changes("mlp_out", 0)


def test_a_tap_keeps_what_was_asked_for_and_nothing_else(value):
    tap = Tap(keep=[HERE])
    assert tap("mlp_out", 0, value) is value
    tap("mlp_out", 1, value)
    tap("logits", None, value)
    assert list(tap.finish()) == [HERE]
    assert tap.keeps("mlp_out", 0)
    assert not tap.keeps("mlp_out", 1)


def test_a_tap_keeps_the_value_after_the_edits_in_the_order_of_the_list(value):
    tap = Tap(keep=[HERE], edits=[scale(HERE, 2.0), add(HERE, 1.0)])
    there = tap("mlp_out", 0, value)
    back = Tap(edits=[add(HERE, 1.0), scale(HERE, 2.0)])("mlp_out", 0, value)
    assert torch.equal(there, 2 * value + 1)
    assert torch.equal(back, 2 * (value + 1))
    assert torch.equal(tap.finish()[HERE], there)
    assert tap.changes("mlp_out", 0)


@pytest.mark.parametrize("detach", [True, False])
def test_kept_values_are_detached_unless_gradients_are_wanted(detach, value):
    tap = Tap(keep=[HERE], detach=detach)
    tap("mlp_out", 0, value.requires_grad_())
    assert tap.finish()[HERE].requires_grad is not detach


@pytest.mark.parametrize("ask", [{"keep": [HERE]}, {"edits": [zero(HERE)]}, {"keep": [HERE.within("sae", "latents")]}])
def test_a_site_that_was_never_reached_is_an_error(ask, value):
    tap = Tap(**ask)
    tap("mlp_out", 1, value)
    with pytest.raises(UnknownSite, match=r"never reached L0\.mlp_out"):
        tap.finish()


def test_a_spliced_dictionary_reconstructs_and_has_sites(value):
    latents, error = HERE.within("sae", "latents"), HERE.within("sae", "error")
    tap = Tap(keep=[HERE, latents, error], edits=[splice(HERE, Halves())])
    out = tap("mlp_out", 0, value)
    cache = tap.finish()
    torch.testing.assert_close(out, value)
    torch.testing.assert_close(cache[latents], 8 * value[..., :2])
    torch.testing.assert_close(cache[error][..., 2:], value[..., 2:])
    torch.testing.assert_close(cache[error][..., :2], torch.zeros_like(value[..., :2]))
    torch.testing.assert_close(cache["L0.mlp_out[sae].latents"], cache[latents])


def test_latents_and_error_can_be_edited(value):
    halves = splice(HERE, Halves())
    no_latents = Tap(edits=[halves, zero("L0.mlp_out[sae].latents")])("mlp_out", 0, value)
    no_error = Tap(edits=[zero("L0.mlp_out[sae].error"), halves])("mlp_out", 0, value)
    one = Tap(edits=[halves, put("L0.mlp_out[sae].latents", 5.0, unit=[1])])("mlp_out", 0, value)
    torch.testing.assert_close(no_latents, torch.cat([torch.zeros_like(value[..., :2]), value[..., 2:]], -1))
    torch.testing.assert_close(no_error, torch.cat([value[..., :2], torch.zeros_like(value[..., 2:])], -1))
    torch.testing.assert_close(one[..., 1], torch.full_like(value[..., 1], 5 / 8))
    torch.testing.assert_close(one[..., [0, 2, 3]], value[..., [0, 2, 3]])


def test_edits_before_a_splice_are_seen_by_it_and_edits_after_change_what_it_gave(value):
    latents = HERE.within("sae", "latents")
    before, after = (
        Tap(keep=[latents], edits=edits)
        for edits in ([zero(HERE), splice(HERE, Halves())], [splice(HERE, Halves()), zero(HERE)])
    )
    assert before("mlp_out", 0, value).abs().max() == 0
    assert after("mlp_out", 0, value).abs().max() == 0
    assert before.finish()[latents].abs().max() == 0
    assert after.finish()[latents].abs().max() > 0


def test_two_dictionaries_at_one_site_have_their_own_sites(value):
    names = [HERE.within(name, "latents") for name in ("first", "second")]
    tap = Tap(keep=names, edits=[splice(HERE, Halves(), "first"), zero(names[0]), splice(HERE, Halves(), "second")])
    tap("mlp_out", 0, value)
    cache = tap.finish()
    assert cache[names[0]].abs().max() == 0
    assert cache[names[1]].abs().max() == 0  # it reads what the first one gave


def test_gradients_flow_through_a_spliced_dictionary(value):
    latents = HERE.within("sae", "latents")
    tap = Tap(keep=[latents], edits=[splice(HERE, Halves())], detach=False)
    tap("mlp_out", 0, value.requires_grad_()).square().sum().backward()
    assert tap.finish()[latents].requires_grad
    torch.testing.assert_close(value.grad, 2 * value.detach())


def test_an_edit_at_a_site_that_the_model_lacks_is_refused_before_the_run():
    def forward(tap: Tap) -> None:
        raise AssertionError("the run began")

    with pytest.raises(UnknownSite, match=r"no site 'L5\.mlp_out'"):
        run_tapped(SITES, forward, [], [zero("L5.mlp_out")], grad=False)
    with pytest.raises(UnknownSite, match=r"no site 'L5\.mlp_out'"):
        run_tapped(SITES, forward, "L5.mlp_out", [], grad=False)


def test_a_transformer_is_a_model():
    model = small_model(A_FEW["modern"])
    assert isinstance(model, Model)
    assert model.shape == ModelShape(
        n_layers=2, d_model=10, n_heads=3, n_kv_heads=3, d_head=4, d_mlp=12, d_vocab=7, d_vocab_out=6, n_ctx=4
    )
