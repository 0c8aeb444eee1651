"""Pairs attributed in groups: the same scores, a default that follows the model's size, and what cannot be grouped."""

import pytest
import torch
from attribution_cases import metric_of, model_of, pairs_of

from micrographia.core.edits import zero
from micrographia.core.errors import UserError
from micrographia.core.metrics import logit_difference
from micrographia.core.model import ModelShape
from micrographia.methods.attribution import attribute as attribute_module
from micrographia.methods.attribution.atp import attribution_patching
from micrographia.methods.attribution.attribute import METHODS, at_once, attribute
from small import A_FEW

SITES = ["L*.z", "L*.neurons", "L*.resid_pre"]


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("mode", ["denoise", "noise"])
def test_groups_give_the_scores_of_all_pairs_at_once(method, mode):
    model, pairs = model_of("normed"), pairs_of(A_FEW["normed"], 3)
    for metric in (metric_of(pairs), logit_difference(pairs.answer, pairs.wrong)):  # all columns, and two
        whole = attribute(model, pairs, metric, SITES, mode=mode, method=method, prompts_at_once=3)
        found = attribute(model, pairs, metric, SITES, mode=mode, method=method, prompts_at_once=2)
        assert list(found.scores) == list(whole.scores)
        for site, score in whole.scores.items():
            torch.testing.assert_close(found.scores[site], score)
        torch.testing.assert_close(found.clean, whole.clean)
        torch.testing.assert_close(found.corrupt, whole.corrupt)
        assert (found.notes, found.gives, found.n_passes) == (whole.notes, whole.gives, whole.n_passes)


def test_groups_are_halved_where_they_do_not_fit_into_memory_and_that_is_said(monkeypatch):
    model, pairs = model_of("normed"), pairs_of(A_FEW["normed"], 5)
    metric = metric_of(pairs)
    whole = attribute(model, pairs, metric, SITES)
    tried: list[int] = []

    def tight(estimation):
        tried.append(len(estimation.pairs))
        if len(estimation.pairs) > room:
            raise torch.OutOfMemoryError("no room")
        return attribution_patching(estimation)

    monkeypatch.setitem(attribute_module.METHODS, "atp", METHODS["atp"]._replace(run=tight))
    room, told = 2, []
    found = attribute(model, pairs, metric, SITES, watch=told.append)
    torch.testing.assert_close(found.scores, whole.scores)
    assert [note.text for note in told] == [
        "Out of memory; going on with 3 pairs at once.",
        "Out of memory; going on with 2 pairs at once.",
    ]
    room = 0
    with pytest.raises(UserError, match="does not fit"):
        attribute(model, pairs, metric, SITES)
    assert tried[-1] == 1


def test_a_small_model_takes_all_pairs_at_once_and_a_large_one_few():
    small = model_of("normed").shape
    gpt2 = ModelShape(
        n_layers=12,
        d_model=768,
        n_heads=12,
        n_kv_heads=12,
        d_head=64,
        d_mlp=3072,
        d_vocab=50257,
        d_vocab_out=50257,
        n_ctx=1024,
    )
    prompts = torch.zeros(100, 15, dtype=torch.long)
    assert at_once(small, prompts) == 100
    assert at_once(gpt2, prompts) == 8
    assert at_once(gpt2, torch.zeros(8, 1000, dtype=torch.long)) == 1


def test_the_default_is_what_is_used(monkeypatch):
    model, pairs = model_of("normed"), pairs_of(A_FEW["normed"], 3)
    monkeypatch.setattr(attribute_module, "at_once", lambda shape, inputs: 1)
    seen: list[int] = []

    def spy(estimation):
        seen.append(len(estimation.pairs))
        return attribution_patching(estimation)

    monkeypatch.setattr(attribute_module, "METHODS", {"atp": METHODS["atp"]._replace(run=spy)})
    attribute(model, pairs, metric_of(pairs), SITES)
    attribute(model, pairs, metric_of(pairs), SITES, edits=[zero("L0.mlp_out")])
    assert seen == [1, 1, 1, 3]


def test_what_meets_all_pairs_at_once_is_not_grouped():
    model, pairs = model_of("normed"), pairs_of(A_FEW["normed"])
    with pytest.raises(UserError, match="needs all pairs at once"):
        attribute(model, pairs, metric_of(pairs), SITES, prompts_at_once=1, edits=[zero("L0.mlp_out")])
