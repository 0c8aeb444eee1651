"""Gradients that the caller has switched off are on again where they are needed, and give the same scores."""

import pytest
import torch

from micrographia.core.errors import UserError
from micrographia.core.metrics import logit_difference
from micrographia.core.prompts import Pairs
from micrographia.methods.attribution.attribute import METHODS, attribute
from micrographia.methods.attribution.edges import edge_attribution
from small import A_FEW, small_model, some_tokens
from tiny_families import tiny

OFF = {"no_grad": torch.no_grad, "inference_mode": torch.inference_mode}
off = pytest.mark.parametrize("switch", OFF.values(), ids=OFF)
CASES = {"small": (lambda: small_model(A_FEW["normed"]), 7), "pretrained": (lambda: tiny("grouped heads"), 31)}
case = pytest.mark.parametrize("name", CASES)


def pairs_of(name: str) -> Pairs:
    ids = torch.randint(0, CASES[name][1], (4, 4), generator=torch.Generator().manual_seed(0))
    return Pairs(ids[:2], ids[2:], torch.tensor([1, 2]), torch.tensor([3, 4]))


@off
@case
@pytest.mark.parametrize("method", METHODS)
def test_attribution_without_gradients_around_it_is_the_same(name, method, switch):
    model, pairs = CASES[name][0](), pairs_of(name)
    metric = logit_difference(pairs.answer, pairs.wrong)
    wanted = attribute(model, pairs, metric, ["L*.z", "L*.resid_pre"], method=method).scores
    with switch():
        found = attribute(model, pairs, metric, ["L*.z", "L*.resid_pre"], method=method).scores
        assert torch.is_grad_enabled() is False
    assert all(torch.equal(found[site], wanted[site]) for site in wanted)
    assert any(bool(score.abs().max() > 1e-3) for score in wanted.values())


@off
@pytest.mark.parametrize("method", ["eap", "eap-ig"])
def test_edges_without_gradients_around_them_are_the_same(method, switch):
    model, pairs = small_model(A_FEW["normed"]), pairs_of("small")
    metric = logit_difference(pairs.answer, pairs.wrong)
    wanted = edge_attribution(model, pairs, metric, method=method).values
    with switch():
        assert torch.equal(edge_attribution(model, pairs, metric, method=method).values, wanted)


def test_what_was_made_in_inference_mode_is_named_as_the_cause():
    with torch.inference_mode():
        model, ids = small_model(A_FEW["normed"]), some_tokens(A_FEW["normed"])
        pairs = Pairs(ids[:1], ids[1:2], torch.tensor([1]), torch.tensor([2]))
    with pytest.raises(UserError, match="inference_mode"):
        attribute(model, pairs, logit_difference(pairs.answer, pairs.wrong), "L*.z")
