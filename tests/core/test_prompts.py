"""Pairs: what is refused, and how texts become tokens."""

import pytest
import torch

from micrographia.core.errors import BadPrompt, UserError
from micrographia.core.prompts import Pairs, PairText, check_aligned, first_difference, from_texts, metric_of
from micrographia.core.small.architecture import Architecture
from micrographia.core.small.transformer import Transformer
from micrographia.core.small.weights import init_weights
from micrographia.core.tokens import Batch, Vocabulary

WORDS = Vocabulary(("<bos>", "Mary", "John", "sees", "then", "he", "she"), bos=0)
ARCH = Architecture(d_vocab=7, d_vocab_out=7, n_ctx=8, d_model=8, n_heads=2, d_head=4, d_mlp=8)


def model(vocabulary: Vocabulary | None = WORDS) -> Transformer:
    return Transformer(ARCH, init_weights(ARCH, torch.Generator().manual_seed(0)), vocabulary)


def test_pairs_of_text_become_tokens_and_answers():
    pairs = from_texts(model(), [PairText("Mary sees", "John sees", "she", "he")] * 2)
    assert len(pairs) == 2
    assert torch.equal(pairs.clean, torch.tensor([[0, 1, 3]] * 2))
    assert pairs.answer.tolist() == [6, 6]
    assert pairs.wrong is not None
    assert pairs.wrong.tolist() == [5, 5]
    assert pairs.texts[0] == ("Mary sees", "John sees")
    check_aligned(pairs, WORDS)


def test_pairs_of_several_lengths_are_padded_together():
    rows = [PairText("Mary sees", "John sees", "she"), PairText("Mary sees John then", "John sees John then", "she")]
    pairs = from_texts(model(), rows)
    assert isinstance(pairs.clean, Batch)
    assert isinstance(pairs.corrupt, Batch)
    assert pairs.clean.mask is not None
    assert pairs.clean.mask.sum(1).tolist() == [3, 5]
    assert pairs.wrong is None
    check_aligned(pairs, WORDS)
    assert pairs.rows(slice(1, 2)).texts == pairs.texts[1:]
    assert len(pairs.rows(torch.tensor([1, 0, 1]))) == 3


def test_prompts_that_do_not_line_up_are_shown_side_by_side():
    with pytest.raises(BadPrompt, match=r"pair 1 have 3 and 4") as error:
        from_texts(model(), [PairText("Mary sees", "John sees", "she"), PairText("Mary sees", "John sees then", "she")])
    assert "'sees'" in str(error.value)
    assert "<" in str(error.value)


def test_what_makes_no_pairs_is_refused():
    with pytest.raises(BadPrompt, match="no pair"):
        from_texts(model(), [])
    with pytest.raises(BadPrompt, match="should be one token"):
        from_texts(model(), [PairText("Mary sees", "John sees", "then she")])
    with pytest.raises(BadPrompt, match="Only some pairs"):
        from_texts(model(), [PairText("Mary", "John", "she", "he"), PairText("Mary", "John", "she")])
    with pytest.raises(UserError, match="no tokenizer"):
        from_texts(model(None), [PairText("Mary", "John", "she", "he")])


def test_the_first_token_of_an_answer_is_scored_when_told():
    assert from_texts(model(), [PairText("Mary", "John", "then she")], first_token=True).answer.tolist() == [4]


def test_tokens_that_do_not_line_up_are_refused_too():
    one, other = torch.zeros(2, 3, dtype=torch.long), torch.zeros(2, 4, dtype=torch.long)
    with pytest.raises(BadPrompt, match="3 and 4"):
        check_aligned(Pairs(one, other, torch.zeros(2, dtype=torch.long)))
    with pytest.raises(BadPrompt, match="2 clean prompts, 1 corrupt"):
        check_aligned(Pairs(one, one[:1], torch.zeros(2, dtype=torch.long)))
    mask = torch.tensor([[True] * 3, [False, True, True]])
    with pytest.raises(BadPrompt, match="pair 1 have 2 and 3"):
        check_aligned(Pairs(Batch(one, mask), one, torch.zeros(2, dtype=torch.long)))


def test_as_many_wrong_answers_as_right_ones_are_asked_for(unchecked):
    ids, right = torch.tensor([[0, 1], [0, 2]]), torch.tensor([3, 4])
    with pytest.raises(BadPrompt, match="2 answers and 1 wrong"):
        check_aligned(Pairs(ids, ids, right, right[:1]))


def test_metrics_by_name_ask_for_what_they_need():
    pairs = from_texts(model(), [PairText("Mary sees", "John sees", "she")])
    assert metric_of("log-prob", pairs, model()).name == "log-probability"
    divergence = metric_of("kl", pairs, model())
    logits = model().run(pairs.clean).logits
    assert divergence.of_vocabulary(logits, torch.tensor([0])).abs().item() < 1e-6
    with pytest.raises(BadPrompt, match="no wrong one"):
        metric_of("logit-diff", pairs, model())
    with pytest.raises(UserError, match="log-prob"):
        metric_of("log-probs", pairs, model())


def test_the_first_difference_is_that_of_any_pair_and_padding_is_none():
    rows = [PairText("Mary sees", "Mary then", "she"), PairText("Mary sees John then", "Mary sees Mary then", "she")]
    assert first_difference(from_texts(model(), rows[:1])) == 2
    padded = from_texts(model(), rows)  # <bos> Mary sees John then; two of padding before <bos> Mary sees
    assert first_difference(padded) == 3
    ids = padded.clean.ids.clone()
    ids[0, 0] = 5
    assert first_difference(Pairs(Batch(ids, padded.clean.mask), padded.corrupt, padded.answer)) == 3
    assert first_difference(Pairs(padded.clean, padded.clean, padded.answer)) == 5
