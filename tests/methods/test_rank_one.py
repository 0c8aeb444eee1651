"""A rank-one edit gives the new answer, changes one matrix by rank one, and spares what has other keys."""

import pytest
import torch

from micrographia.core.errors import UserError
from micrographia.core.small.architecture import Architecture
from micrographia.methods.rank_one import keys_of, rewritten, value_for
from small import small_model

ARCH = Architecture(d_vocab=9, d_vocab_out=9, n_ctx=2, d_model=8, n_heads=2, d_head=4, d_mlp=64, act="gelu")
PROMPTS = torch.tensor([[i, 8] for i in range(8)])
NAME = "blocks.0.mlp.W_out"


def test_the_prompt_gets_the_new_answer_by_a_change_of_rank_one():
    model = small_model(ARCH)
    after = rewritten(model, PROMPTS[:1], 5, keys_of(model, PROMPTS, layer=0))
    assert after.run(PROMPTS[:1], logits="last").logits[0, -1].softmax(-1)[5] > 0.98
    change = after.state[NAME] - model.state[NAME]
    values = torch.linalg.svdvals(change)
    assert values[1] < 1e-5 * values[0]
    assert all(after.state[name] is w for name, w in model.state.items() if name != NAME)


def test_other_prompts_move_less_than_the_edited_one():
    model = small_model(ARCH)
    after = rewritten(model, PROMPTS[:1], 5, keys_of(model, PROMPTS, layer=0))
    moved = (after.run(PROMPTS, logits="last").logits - model.run(PROMPTS, logits="last").logits)[:, -1].norm(dim=-1)
    assert moved[1:].max() < 0.2 * moved[0]


def test_an_answer_that_the_layer_cannot_give_is_refused():
    model = small_model(ARCH)
    model.state = {**model.state, "unembed.W_U": torch.zeros_like(model.state["unembed.W_U"])}
    with pytest.raises(UserError, match="Choose a later layer"):
        value_for(model, PROMPTS[:1], 5, layer=0)
