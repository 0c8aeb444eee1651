"""Scores of heads: planted heads get what they deserve, and loops over rows give the same numbers."""

import pytest
import torch
from torch import Generator

from micrographia.core.errors import UserError
from micrographia.core.model import Output
from micrographia.core.small.architecture import Architecture
from micrographia.core.small.transformer import Transformer
from micrographia.core.small.weights import init_weights
from micrographia.methods.heads import (
    KINDS,
    HeadScores,
    RepeatScores,
    attention,
    copy_scores,
    copying_eigenvalues,
    evenly,
    repeat_scores,
    repeated_spans,
)
from small import small_model, some_tokens

SPAN, VOCAB = 6, 20
ARCH = Architecture(
    d_vocab=VOCAB, d_vocab_out=VOCAB, n_ctx=16, n_layers=2, d_model=VOCAB, n_heads=3, d_head=VOCAB, mlp=False
)
WORDS = torch.arange(1, VOCAB)


def spans(n: int = 12) -> torch.Tensor:
    return repeated_spans(n, SPAN, WORDS, Generator().manual_seed(0), bos=0)


class Looking(Transformer):
    """A model whose head h of layer l attends `back[l][h]` positions back, or to the first position."""

    back = ((1, SPAN, SPAN - 1), (0, 2, 3))

    def run(self, inputs, **choices) -> Output:
        out = super().run(inputs, **choices)
        for site in out.cache:
            pattern = torch.zeros_like(out.cache[site])
            for head, by in enumerate(self.back[site.layer]):
                for query in range(pattern.shape[-2]):
                    pattern[:, head, query, max(query - by, 0)] = 1
            out.cache._values[site] = pattern
        return out


def looking() -> Looking:
    return Looking(ARCH, init_weights(ARCH, Generator().manual_seed(0)))


def test_a_repeated_span_comes_twice_after_bos_and_holds_different_words():
    tokens = spans()
    assert bool((tokens[:, 0] == 0).all())
    assert torch.equal(tokens[:, 1 : SPAN + 1], tokens[:, SPAN + 1 :])
    assert all(len(set(row)) == SPAN for row in tokens[:, 1 : SPAN + 1].tolist())
    assert repeated_spans(3, SPAN, WORDS, Generator().manual_seed(0)).shape == (3, 2 * SPAN)


def test_a_span_of_more_words_than_there_are_is_refused():
    with pytest.raises(UserError, match="Spans of 4 different words were asked for, of 3"):
        repeated_spans(1, 4, torch.arange(3), torch.Generator())


def test_each_planted_head_has_one_score_of_one():
    scores = repeat_scores(looking(), spans(), SPAN)
    for kind, head in (("previous", 0), ("duplicate", 1), ("prefix_matching", 2)):
        expected = torch.zeros(2, 3)
        expected[0, head] = 1
        torch.testing.assert_close(getattr(scores, kind), expected)


def test_scores_are_means_over_the_second_copy():
    model, tokens = small_model(ARCH), spans(3)
    cache = model.run(tokens, keep="L*.pattern").cache
    scores = repeat_scores(model, tokens, SPAN)
    for layer in range(2):
        for head in range(3):
            looks = [
                cache[f"L{layer}.pattern"][row, head, q] for row in range(3) for q in range(SPAN + 1, 2 * SPAN + 1)
            ]
            queries = list(range(SPAN + 1, 2 * SPAN + 1)) * 3
            for by, score in ((1, scores.previous), (SPAN, scores.duplicate), (SPAN - 1, scores.prefix_matching)):
                mean = sum(float(look[q - by]) for look, q in zip(looks, queries)) / len(looks)
                assert float(score[layer, head]) == pytest.approx(mean, abs=1e-6)


def test_attention_is_read_at_each_rows_own_positions():
    model, tokens = small_model(ARCH), some_tokens(ARCH, batch=4)
    query, key = torch.tensor([5, 7, 9, 15]), torch.tensor([0, 7, 3, 1])
    found = attention(model, tokens, [(query, key), (query, query)])
    pattern = model.run(tokens, keep="L1.pattern").cache["L1.pattern"]
    expected = sum(pattern[i, :, query[i], key[i]] for i in range(4)) / 4
    torch.testing.assert_close(found[0, 1], expected)
    assert found.shape == (2, 2, 3)


def test_each_panel_of_the_picture_shows_the_score_that_it_is_named_after():
    scores = RepeatScores(**{name: torch.full((2, 3), float(i)) for i, name in enumerate(RepeatScores._fields)})
    (picture,) = HeadScores(scores, 0.1, (1.0, 1.0), 4, 2).figures()
    shown = dict(zip(picture.data["panels"], picture.data["z"][:, 0, 0].tolist()))
    assert shown == {kind: float(RepeatScores._fields.index(name)) for name, kind in KINDS.items()}


def test_an_even_head_gets_the_null():
    weights = init_weights(ARCH, Generator().manual_seed(0))
    flat = {name: torch.zeros_like(w) if name.endswith("W_Q") else w for name, w in weights.items()}
    query, key = torch.tensor([5, 7, 9, 15]), torch.tensor([0, 7, 3, 1])
    found = attention(Transformer(ARCH, flat), some_tokens(ARCH, batch=4), [(query, key)])
    torch.testing.assert_close(found, torch.full_like(found, evenly(query)))


def copier() -> Transformer:
    """Embedding and unembedding are one basis; head 0 copies, head 1 pushes away, head 2 moves every token by one."""
    eye = torch.eye(VOCAB)
    weights = {name: torch.zeros(shape) for name, shape in ARCH.weight_shapes().items()}
    weights |= {"embed.W_E": eye, "unembed.W_U": eye}
    for layer in range(2):
        weights[f"blocks.{layer}.attn.W_V"] = torch.stack([eye, eye, eye.roll(1, 1)])
        weights[f"blocks.{layer}.attn.W_O"] = torch.stack([eye, -eye, eye])
    return Transformer(ARCH, weights)


def test_a_head_that_copies_is_told_from_one_that_pushes_away():
    tokens, at = spans(), torch.full((12,), 3)
    copies, away = copy_scores(copier(), tokens, at, top=1), copy_scores(copier(), tokens, at, sign=-1, top=1)
    assert copies[0].tolist() == [1, 0, 0]
    assert away[0].tolist() == [0, 1, 0]


def test_copying_eigenvalues_of_copying_pushing_and_moving():
    found = copying_eigenvalues(copier())
    torch.testing.assert_close(found, torch.tensor([[1.0, -1.0, 0.0]] * 2), atol=1e-6, rtol=0)


def test_copy_scores_agree_with_the_formula_written_out():
    arch = Architecture(
        d_vocab=9, d_vocab_out=9, n_ctx=5, n_layers=3, d_model=8, n_heads=2, d_head=4, d_mlp=12, norm="layernorm"
    )
    model, tokens, at = small_model(arch), some_tokens(arch, batch=40), torch.arange(40) % 5
    found, rows, w = copy_scores(model, tokens, at, top=2), torch.arange(40), model.state
    for layer in range(3):
        early = model.run(tokens, keep=f"L{min(layer, 1)}.resid_pre").cache[f"L{min(layer, 1)}.resid_pre"][rows, at]
        x = torch.nn.functional.layer_norm(early, (8,), w[f"blocks.{layer}.ln1.w"], w[f"blocks.{layer}.ln1.b"])
        for head in range(2):
            out = x @ w[f"blocks.{layer}.attn.W_V"][head] @ w[f"blocks.{layer}.attn.W_O"][head]
            logits = torch.nn.functional.layer_norm(out, (8,), w["ln_final.w"], w["ln_final.b"]) @ w["unembed.W_U"]
            top = logits.topk(2).indices
            hits = [tokens[i, at[i]].item() in top[i].tolist() for i in range(40)]
            assert float(found[layer, head]) == pytest.approx(sum(hits) / 40)
