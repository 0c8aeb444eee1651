"""What a run keeps shares no memory: neither one value with another, nor with the weights."""

import pytest
import torch

from micrographia.core.edits import observe
from micrographia.core.sites import Site
from small import A_FEW, small_model, some_tokens
from tiny_families import CONFIGS, VOCAB, tiny

CASES = {
    **{kind: lambda kind=kind: (tiny(kind), torch.arange(8).reshape(2, 4) % VOCAB) for kind in CONFIGS},
    **{name: lambda name=name: (small_model(A_FEW[name]), some_tokens(A_FEW[name])) for name in ("plain-2", "modern")},
}


@pytest.mark.parametrize("make", CASES.values(), ids=CASES)
def test_a_kept_value_changed_in_place_changes_nothing_else(make):
    model, ids = make()
    before = model.run(ids, keep=model.sites)
    for site in model.sites:
        run = model.run(ids[:1], keep=model.sites)
        others = {other: value.clone() for other, value in run.cache.items() if other != site}
        run.cache[site].add_(1.0)
        assert [str(other) for other, value in others.items() if not torch.equal(run.cache[other], value)] == []
        if site.layer:  # a few are enough
            break
    assert torch.equal(model.run(ids).logits, before.logits)


def test_one_of_the_two_is_not_copied():
    """A copy costs memory: there is none where nobody could tell."""
    model = tiny("grouped heads")
    seen = []
    run = model.run(
        torch.tensor([[1, 2]]),
        keep=["L0.resid_post", "L1.resid_pre"],
        edits=[observe("L0.resid_post", lambda value: seen.append(value.data_ptr()))],
    )
    assert run.cache["L0.resid_post"].data_ptr() == seen[0]
    alone = model.run(torch.tensor([[1, 2]]), keep=[Site("resid_pre", 1)])
    assert torch.equal(alone.cache["L1.resid_pre"], run.cache["L1.resid_pre"])
