"""An encoder without a head for words: every activation bit for bit, edits, and no logits."""

import pytest
import torch
import zoo

import micrographia as mg
from micrographia.core.errors import UnknownSite, UserError
from micrographia.core.pretrained import Pretrained, load
from micrographia.core.tokens import Batch

LAST = "L2.resid_post"


@pytest.fixture(scope="module")
def model() -> Pretrained:
    return load(zoo.fresh("bert", "sdpa").bert)


def hidden(model, ids, **given):
    with torch.no_grad():
        return model.module(input_ids=ids, **given).last_hidden_state


def test_every_site_is_kept_and_the_last_stream_is_the_modules_output(model):
    ids = zoo.tokens()
    run = model.run(ids, keep=model.sites)
    assert torch.equal(run.cache[LAST], hidden(model, ids))
    assert set(run.cache) == set(model.sites)
    assert run.maybe_logits is None
    assert "logits" not in map(str, model.sites)
    assert model.shape.d_vocab_out == 0


def test_its_layers_are_those_of_the_model_with_a_head():
    whole = zoo.model("bert", "sdpa")
    bare, ids = load(whole.module.bert), zoo.tokens()
    kept = [site for site in bare.sites if site.layer is not None]
    theirs, ours = whole.run(ids, keep=kept).cache, bare.run(ids, keep=kept).cache
    assert all(torch.equal(theirs[site], ours[site]) for site in kept)


def test_padding_and_edits_reach_the_last_stream(model):
    ids = zoo.tokens()
    mask = torch.ones_like(ids).bool()
    mask[0, :2] = False
    padded = model.run(Batch(ids, mask), keep=LAST).cache[LAST]
    assert not torch.allclose(padded[0, -1], model.run(ids, keep=LAST).cache[LAST][0, -1])
    changed = model.run(ids, keep=LAST, edits=[mg.zero("L0.z", head=1)]).cache[LAST]
    assert not torch.allclose(changed, model.run(ids, keep=LAST).cache[LAST])
    assert torch.equal(model.run(ids, keep=LAST).cache[LAST], hidden(model, ids))


def test_a_gradient_of_the_last_stream_reaches_the_first(model):
    ids = zoo.tokens()
    start = model.run(ids, keep="L0.resid_pre").cache["L0.resid_pre"].clone().requires_grad_()
    run = model.run(ids, keep=LAST, edits=[mg.put("L0.resid_pre", start)], grad=True)
    run.cache[LAST].sum().backward()
    assert start.grad is not None
    assert start.grad.abs().sum() > 0


@pytest.mark.parametrize(
    "ask",
    [
        lambda model, ids: model.run(ids).logits,
        lambda model, ids: model.run(ids, logits="last"),
        lambda model, ids: model.weights.W_U,
        lambda model, ids: model.unembed(torch.zeros(1, 32)),
        lambda model, ids: model.generate(ids, max_new_tokens=1),
        lambda model, ids: mg.Pairs(model, "a", "b", "c"),
    ],
)
def test_what_needs_logits_is_refused_with_the_reason(ask, model):
    with pytest.raises(UserError, match=r"has none|bidirectional|a head for words|predicts no words"):
        ask(model, zoo.tokens())
    with pytest.raises(UnknownSite):
        model.run(zoo.tokens(), keep="logits")


def test_a_folder_that_names_the_bare_class_gives_it(tmp_path):
    bare = zoo.fresh("bert", "sdpa").bert
    bare.save_pretrained(tmp_path)
    model, ids = load(tmp_path), zoo.tokens()
    assert torch.equal(model.run(ids, keep=LAST).cache[LAST], hidden(model, ids))
    again = load(model.save(tmp_path / "again"))
    assert torch.equal(again.run(ids, keep=LAST).cache[LAST], hidden(model, ids))
