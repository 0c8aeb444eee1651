"""What the mask and padding forbid stays out of every mean, and no edit of scores lifts the mask."""

import pytest
import torch

from micrographia.core.edits import add, apply, mean, put, scale, zero
from micrographia.core.metrics import logit_difference
from micrographia.core.prompts import Pairs
from micrographia.core.sites import Site
from micrographia.core.sweep import Reference, replacement
from micrographia.core.tokens import Batch
from micrographia.methods.attribution.attribute import attribute
from micrographia.methods.patching import patch_sites
from small import A_FEW, small_model, some_tokens
from tiny_families import tiny

FAMILIES = ("grouped heads", "norms behind", "encoder")
LOWEST = torch.finfo(torch.float32).min
MASK = torch.tensor([[False, False, True, True], [True] * 4])


def two_lengths() -> Pairs:
    ids = torch.randint(1, 31, (4, 4), generator=torch.Generator().manual_seed(0))
    return Pairs(Batch(ids[:2], MASK), Batch(ids[2:], MASK), torch.tensor([1, 2]), torch.tensor([3, 4]))


def test_a_mean_of_scores_is_over_the_rows_that_may_attend():
    scores = torch.arange(32.0).reshape(2, 1, 4, 4)
    seen = MASK[:, None, :, None] & MASK[:, None, None, :] & torch.ones(4, 4, dtype=torch.bool).tril()
    scores = scores.masked_fill(~seen, LOWEST)
    found = replacement("mean", Reference({Site("scores", 0): scores}, MASK), 2, 4)[Site("scores", 0)]
    assert found[0, 0, 3, 2] == (14 + 30) / 2  # both rows
    assert found[0, 0, 3, 1] == 29  # padding in the first
    assert found[0, 0, 1, 3] == 0  # in none
    whole = mean("L0.scores", scores, MASK)(torch.zeros(1, 1, 4, 4))
    assert torch.equal(whole, found)


def test_a_mean_of_patterns_gives_no_weight_to_padding():
    pattern = torch.full((2, 1, 4, 4), 0.25)
    found = replacement("mean", Reference({Site("pattern", 0): pattern}, MASK), 2, 4, mask=MASK)[Site("pattern", 0)]
    assert found[0, 0, 3].tolist() == [0, 0, 0.25, 0.25]
    assert found[1, 0, 3].tolist() == [0.25] * 4


def test_the_mean_edit_leaves_out_padding_where_it_is_told_of_it():
    values = torch.arange(16.0).reshape(2, 4, 2)
    assert torch.equal(mean("L0.mlp_out", values, MASK)(torch.zeros(1, 4, 2))[0, 0], values[1, 0])
    assert torch.equal(mean("L0.mlp_out", values, MASK)(torch.zeros(1, 4, 2))[0, 2], values[:, 2].mean(0))


@pytest.mark.parametrize("replace", ["mean", "zero"])
@pytest.mark.parametrize("kind", FAMILIES)
def test_pairs_of_two_lengths_have_a_number_at_every_place(kind, replace):
    pairs = two_lengths()
    metric = logit_difference(pairs.answer, pairs.wrong)
    for site in ("L*.scores", "L*.pattern", "L*.z"):
        (found,) = patch_sites(tiny(kind, dtype=torch.float32), pairs, site, [metric], by=["head"], replace=replace)
        assert all(bool(score.isfinite().all()) for score in found.scores.values())
        assert float(found[site.replace("*", "0")].abs().max()) > 0.01


EDITS = [put("L0.scores", 3.0), add("L0.scores", 1e30), scale("L0.scores", -1.0), zero("L0.scores", key=-1)]


@pytest.mark.parametrize("edit", EDITS, ids=lambda edit: edit.name)
def test_no_edit_of_scores_lifts_the_mask(edit):
    model, ids = small_model(A_FEW["normed"]), some_tokens(A_FEW["normed"])
    cache = model.run(ids, edits=[edit], keep=["L0.scores", "L0.pattern"]).cache
    ahead = torch.ones(ids.shape[1], ids.shape[1]).triu(1).bool()
    assert bool((cache["L0.scores"][..., ahead] == -torch.inf).all())
    assert not cache["L0.pattern"][..., ahead].any()
    llama, pairs = tiny("grouped heads"), two_lengths()
    cache = llama.run(pairs.clean, edits=[edit], keep=["L0.scores", "L0.pattern"]).cache
    assert not cache["L0.pattern"][0, :, 2:, :2].any()  # padding
    assert not cache["L0.pattern"][1, :, 0, 1:].any()  # ahead
    assert bool((cache["L0.scores"][0, :, 2:, :2] == torch.finfo(torch.float64).min).all())


def test_equal_scores_attend_equally_to_what_is_allowed_and_patterns_are_written_as_given():
    model, ids = small_model(A_FEW["normed"]), some_tokens(A_FEW["normed"])
    pattern = model.run(ids, edits=[zero("L0.scores")], keep="L0.pattern").cache["L0.pattern"]
    torch.testing.assert_close(pattern[0, 0, 1, :2], torch.full((2,), 0.5, dtype=pattern.dtype))
    ahead = apply("L0.pattern", lambda old: torch.full_like(old, 0.25))
    assert bool((model.run(ids, edits=[ahead], keep="L0.pattern").cache["L0.pattern"] == 0.25).all())


def test_scores_attributed_have_a_number_at_every_place():
    model = small_model(A_FEW["normed"])
    ids = some_tokens(model.arch)
    pairs = Pairs(ids[:1], ids[1:2], torch.tensor([1]), torch.tensor([2]))
    found = attribute(model, pairs, logit_difference(pairs.answer, pairs.wrong), "L*.scores")
    assert all(bool(score.isfinite().all()) for score in found.scores.values())
