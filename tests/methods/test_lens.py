"""Direct parts sum to the logits; heads split by source; the lens ends where the model does."""

import pytest
import torch

from micrographia.core.errors import UserError
from micrographia.core.graph import Node
from micrographia.core.model import Model
from micrographia.core.sites import Site
from micrographia.labs.planted.theory import PLANTED
from micrographia.methods.lens import by_source, direct_logit_attribution, logit_lens
from small import A_FEW, small_model, some_tokens
from tiny_families import VOCAB, tiny

DOUBLE = torch.float64
SMALL = ("plain", "plain-2", "normed", "biased", "modern", "attention-only")
BLOCKS = ("grouped heads", "parallel blocks", "no norms before", "flattened mlp")

RIGHT, WRONG = torch.tensor([0, 1, 2]), torch.tensor([3, 3, 0])


def given(name: str) -> tuple[Model, torch.Tensor]:
    if name in A_FEW:
        return small_model(A_FEW[name], dtype=DOUBLE), some_tokens(A_FEW[name], batch=3)
    return tiny(name), torch.randint(0, VOCAB, (3, 5), generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("pos", [-1, 1])
@pytest.mark.parametrize("name", [*SMALL, *BLOCKS])
def test_parts_sum_to_the_logit_and_to_the_difference(name, pos):
    model, tokens = given(name)
    logits = model.run(tokens).logits[:, pos]
    rows = torch.arange(3)
    found = direct_logit_attribution(model, tokens, RIGHT, WRONG, pos=pos)
    tight = {"rtol": 1e-9, "atol": 1e-10} if name in SMALL else {"rtol": 1e-5, "atol": 1e-5}
    torch.testing.assert_close(found.total, logits[rows, RIGHT] - logits[rows, WRONG], **tight)
    alone = direct_logit_attribution(model, tokens, RIGHT, pos=pos)
    torch.testing.assert_close(alone.total, logits[rows, RIGHT], **tight)


def test_parts_sum_to_the_difference_before_gemmas_cap():
    model, tokens = given("norms behind")
    cap = model.module.config.final_logit_softcapping
    uncapped = cap * torch.atanh(model.run(tokens).logits[:, -1] / cap)
    rows = torch.arange(3)
    found = direct_logit_attribution(model, tokens, RIGHT, WRONG)
    torch.testing.assert_close(found.total, uncapped[rows, RIGHT] - uncapped[rows, WRONG], rtol=1e-4, atol=1e-4)
    assert "L1.z[3]" in found.labels  # heads stay apart behind the norm


@pytest.mark.parametrize("kind", ["grouped heads", "norms behind", "flattened mlp"])
def test_parts_of_a_bfloat16_model_are_summed_in_float32(kind):
    model, tokens = tiny(kind, dtype=torch.bfloat16), given(kind)[1]
    heads = [Node(Site("z", 1), 2), Node(Site("z", 0), 0)]
    found = direct_logit_attribution(model, tokens, RIGHT, WRONG)
    by = by_source(model, tokens, heads, RIGHT, WRONG).sum(-1)
    of_heads = torch.stack([found.values[:, found.labels.index(str(head))] for head in heads], 1)
    assert (found.values.dtype, by.dtype) == (torch.float32, torch.float32)
    torch.testing.assert_close(by, of_heads, rtol=0.05, atol=0.05 * float(of_heads.abs().max()))


def test_every_bias_has_a_part_of_its_own():
    model, tokens = given("biased")
    labels = direct_logit_attribution(model, tokens, RIGHT, WRONG).labels
    assert {"L0.b_O", "L0.b_out", "final_norm_b", "b_U", "embed", "pos_embed", "L0.z[2]", "L0.mlp_out"} == {
        label for label in labels if label not in ("L0.z[0]", "L0.z[1]")
    }


def test_a_part_is_what_the_logits_lose_when_its_writer_is_taken_out_with_the_scale_held():
    model, tokens = given("normed")
    found = direct_logit_attribution(model, tokens, RIGHT, WRONG)
    cache = model.run(tokens, keep=["L1.resid_post", "final_norm_scale", "L0.z"]).cache
    head = cache["L0.z"][:, -1, 1] @ model.weights.W_O[0, 1]
    read = model.weights.final_readout(model.weights.W_U[:, RIGHT] - model.weights.W_U[:, WRONG]).T
    expected = (head * read).sum(-1) / cache["final_norm_scale"][:, -1, 0]
    torch.testing.assert_close(found.values[:, found.labels.index("L0.z[1]")], expected)


@pytest.mark.parametrize("name", ["normed", "modern", "grouped heads", "norms behind"])
def test_a_heads_part_by_source_sums_to_its_part(name):
    model, tokens = given(name)
    heads = [Node(Site("z", 1), 2), Node(Site("z", 0), 0), Node(Site("z", 0), 1)]
    found = by_source(model, tokens, heads, RIGHT, WRONG)
    direct = direct_logit_attribution(model, tokens, RIGHT, WRONG)
    expected = torch.stack([direct.values[:, direct.labels.index(str(head))] for head in heads], 1)
    assert found.shape == (3, 3, tokens.shape[1])
    torch.testing.assert_close(found.sum(-1), expected, rtol=1e-6, atol=1e-7)


def test_nothing_is_carried_from_later_tokens():
    model, tokens = given("normed")
    found = by_source(model, tokens, [Node(Site("z", 1), 0)], RIGHT, pos=1)
    assert (found[..., 2:] == 0).all()
    assert (found[..., :2] != 0).all()


def test_the_lens_behind_the_last_layer_is_the_models_own_answer():
    model, tokens = given("normed")
    answers = torch.stack([RIGHT, WRONG], 1)
    found = logit_lens(model, tokens, answers, at=[-1, 0], k=3)
    logits = model.run(tokens).logits[:, [-1, 0]]
    prob = logits.softmax(-1)
    torch.testing.assert_close(found.logit[-1], logits.gather(-1, answers[:, None].expand(-1, 2, -1)))
    torch.testing.assert_close(found.top[-1], prob.topk(3, dim=-1).indices)
    torch.testing.assert_close(found.top_prob[-1], prob.topk(3, dim=-1).values)
    order = logits.argsort(-1, descending=True)
    for i in range(3):
        for j in range(2):
            for a in range(2):
                assert order[i, j, found.rank[-1, i, j, a]] == answers[i, a]
    assert found.logit.shape == (2, 3, 2, 2)
    assert not torch.allclose(found.prob[0], found.prob[1])


def test_the_lens_reads_any_residual_site():
    model, tokens = given("grouped heads")
    found = logit_lens(model, tokens, RIGHT[:, None], sites=["L*.resid_pre", "L1.resid_mid"])
    assert [str(site) for site in found.sites] == ["L0.resid_pre", "L1.resid_pre", "L1.resid_mid"]


def test_in_the_planted_chain_only_the_right_speaker_and_murmurs_write_the_answer():
    planted = PLANTED["chain"]()
    pairs = planted.pairs
    found = direct_logit_attribution(planted.model, pairs.clean, pairs.answer, pairs.wrong)
    label, part = found.top(1)[0]
    assert label == "L2.mlp_out"
    assert part == pytest.approx(2.0, abs=0.2)  # the gain, and the murmurs around


def test_what_is_no_head_has_no_sources():
    model, tokens = given("normed")
    with pytest.raises(UserError, match=r"L0\.mlp_out"):
        by_source(model, tokens, [Node(Site("mlp_out", 0))], RIGHT)


def test_an_encoder_has_no_direct_parts():
    model, tokens = given("encoder")
    with pytest.raises(UserError):
        direct_logit_attribution(model, tokens, RIGHT)
