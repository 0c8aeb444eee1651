"""A model whose embeddings are added instead of laid side by side, and its training on several questions a row."""

import dataclasses

import pytest
import torch

from micrographia.core.errors import BadConfig, BadShape
from micrographia.core.small.architecture import Architecture
from micrographia.core.small.ensemble import PlainObjective, init_ensemble
from micrographia.core.small.several_answers import SeveralAnswers
from micrographia.core.training import AdamW, fresh_state, train
from small import A_FEW, SIZES, small_model, some_tokens

ARCH = Architecture(**{**SIZES, "n_ctx": 3}, n_layers=2, attention=False, joined="summed", act="gelu")
BLOCKS = [4, 2]


def draws(members: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in range(members)]


def questions(data: int = 1, rows: int = 12) -> tuple[torch.Tensor, torch.Tensor]:
    drawn = torch.Generator().manual_seed(3)
    tokens = torch.randint(0, ARCH.d_vocab, (data, rows, 3), generator=drawn)
    labels = torch.stack([torch.randint(0, size, (data, rows), generator=drawn) for size in BLOCKS], -1)
    return tokens, labels


@pytest.mark.parametrize("norm", ["none", "layernorm"])
def test_summed_tokens_may_change_places_and_the_last_is_not_read(norm):
    model = small_model(dataclasses.replace(ARCH, norm=norm), dtype=torch.float64)
    tokens = some_tokens(ARCH)
    swapped = torch.cat([tokens[:, [1, 0]], 1 - tokens[:, 2:].clamp(max=1)], 1)
    torch.testing.assert_close(model.run(tokens).logits, model.run(swapped).logits)
    other = tokens.clone()
    other[:, 0] = (other[:, 0] + 1) % ARCH.d_vocab
    assert not torch.allclose(model.run(tokens).logits, model.run(other).logits)


def test_the_first_mlp_adds_to_the_summed_embeddings():
    model, tokens = small_model(A_FEW["summed"]), some_tokens(A_FEW["summed"])
    cache = model.run(tokens, keep=["embed", "L0.mlp_out", "L0.resid_post"]).cache
    joined = cache["embed"][:, :-1].sum(1, keepdim=True)
    torch.testing.assert_close(cache["L0.resid_post"], joined + cache["L0.mlp_out"])


def test_a_model_with_attention_refuses_to_join_its_tokens():
    with pytest.raises(BadConfig, match="joined"):
        Architecture(**SIZES, joined="summed")


def test_an_old_architecture_loads_as_it_was():
    stored = dataclasses.asdict(A_FEW["mlp-only"])
    del stored["joined"]
    assert Architecture(**stored) == A_FEW["mlp-only"]


def test_one_question_is_the_plain_objective():
    tokens, labels = questions()
    weights = init_ensemble(ARCH, draws(2), dtype=torch.float64)
    several = SeveralAnswers(ARCH, tokens, labels[..., :1], [ARCH.d_vocab_out])(weights)
    plain = PlainObjective(ARCH, tokens, labels[..., 0])(weights)
    torch.testing.assert_close(several.loss, plain.loss)
    torch.testing.assert_close(several.gradient, plain.gradient)


def test_what_is_not_asked_counts_for_nothing():
    tokens, labels = questions()
    weights = init_ensemble(ARCH, draws(1), dtype=torch.float64)
    alone = labels.clone()
    alone[..., 1] = -1
    found = SeveralAnswers(ARCH, tokens, alone, BLOCKS)
    loss, _ = found.evaluate(weights)
    torch.testing.assert_close(found(weights).loss, loss[:, 0])
    first = SeveralAnswers(ARCH, tokens, labels, BLOCKS, rows=lambda step: torch.arange(12)[None, step : step + 6])
    half = SeveralAnswers(ARCH, tokens[:, 3:9], labels[:, 3:9], BLOCKS)
    torch.testing.assert_close(first(weights, 3).loss, half(weights).loss)


def test_members_learn_their_own_facts_in_one_program():
    tokens, labels = questions(2)
    objective = SeveralAnswers(ARCH, tokens, labels, BLOCKS)
    state = fresh_state(init_ensemble(ARCH, draws(2), dtype=torch.float64))
    before, _ = objective.evaluate(state.weights)
    for now, _ in train(state, objective, AdamW(lr=1e-2, weight_decay=0.0), steps=150):
        state = now
    loss, right = objective.evaluate(state.weights)
    assert bool((loss < before / 2).all())
    assert bool((right > 0.8).all())


def test_blocks_that_do_not_fit_the_outputs_are_refused():
    tokens, labels = questions()
    with pytest.raises(BadShape, match="blocks"):
        SeveralAnswers(ARCH, tokens, labels, [4, 3])
    with pytest.raises(BadShape, match="block"):
        SeveralAnswers(ARCH, tokens, labels + 3, BLOCKS)
