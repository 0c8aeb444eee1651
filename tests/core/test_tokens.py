"""Text to ids and back, padding, single answers, and what the errors show."""

import pytest
import torch

from micrographia.core.errors import BadPrompt, UserError
from micrographia.core.tokens import (
    Batch,
    Tokenizer,
    Vocabulary,
    aligned,
    ids_of,
    mask_of,
    rows_of,
    single_token,
    to_str_tokens,
    to_tokens,
)

WORDS = Vocabulary(("<bos>", "Mary", "sees", "John", "."), bos=0)
BARE = Vocabulary(("Mary", "sees", "John"))
IDS = torch.tensor([[1, 2, 3]])


def test_a_vocabulary_is_a_tokenizer_and_reads_what_it_writes():
    assert isinstance(WORDS, Tokenizer)
    assert WORDS.decode(WORDS.encode("Mary  sees John .")) == "Mary sees John ."


def test_an_unknown_word_is_named_with_its_nearest():
    with pytest.raises(BadPrompt, match=r"lacks 'Jon'\. Nearest: John"):
        WORDS.encode("Mary sees Jon")


def test_a_word_twice_is_refused():
    with pytest.raises(UserError, match="a stand twice"):
        Vocabulary(("a", "a"))


def test_texts_of_one_length_give_ids_and_the_first_token_comes_once():
    assert to_tokens(WORDS, "Mary sees").tolist() == [[0, 1, 2]]
    assert to_tokens(WORDS, "<bos> Mary").tolist() == [[0, 1]]
    assert to_tokens(WORDS, ["Mary", "John"], prepend_bos=False).tolist() == [[1], [3]]
    assert to_tokens(BARE, "Mary sees").tolist() == [[0, 1]]


def test_texts_of_several_lengths_are_padded_on_the_left():
    batch = to_tokens(WORDS, ["Mary sees John", "John"])
    assert isinstance(batch, Batch)
    assert ids_of(batch)[:, -1].tolist() == [3, 3]
    assert mask_of(batch).tolist() == [[True] * 4, [False, False, True, True]]


def test_rows_of_inputs_keep_their_mask():
    batch = to_tokens(WORDS, ["Mary sees John", "John"])
    chosen = rows_of(batch, torch.tensor([1, 1, 0]))
    assert chosen.mask.tolist() == batch.mask[[1, 1, 0]].tolist()
    assert rows_of(ids_of(batch), slice(1)).shape == (1, 4)
    assert mask_of(ids_of(batch)) is None


def test_an_answer_of_several_tokens_is_shown():
    assert single_token(WORDS, " John") == 3
    assert single_token(WORDS, "John sees", first=True) == 3
    with pytest.raises(BadPrompt, match=r"makes 2 of it: John \| sees"):
        single_token(WORDS, "John sees")


@pytest.mark.parametrize(
    ("ask", "why"),
    [
        (lambda: to_tokens(None, "Mary"), "no tokenizer"),
        (lambda: to_tokens(BARE, "Mary", prepend_bos=True), "has none"),
        (lambda: to_tokens(BARE, ""), "has no token"),
        (lambda: to_tokens(BARE, ["Mary", ""]), "has no token"),
        (lambda: to_tokens(BARE, []), "has no token"),
        (lambda: mask_of(Batch(IDS, torch.tensor([[True, True, False]]))), "on the left"),
        (lambda: mask_of(Batch(IDS, torch.tensor([[True, False, True]]))), "on the left"),
        (lambda: mask_of(Batch(IDS, torch.tensor([[False, False, False]]))), "on the left"),
        (lambda: mask_of(Batch(IDS, torch.tensor([[True, True]]))), r"shape \(1, 2\)"),
    ],
)
def test_what_cannot_be_read_is_said(ask, why):
    with pytest.raises(UserError, match=why):
        ask()


def test_prompts_are_laid_side_by_side():
    shown = aligned(WORDS, WORDS.encode("Mary sees John"), WORDS.encode("Mary sees"))
    assert shown.splitlines()[2].split() == ["2", "'John'", "-", "<"]
    assert to_str_tokens(WORDS, torch.tensor([1, 3])) == ["Mary", "John"]


def test_a_text_or_list_where_ids_belong_says_how_to_make_them(unchecked):
    for inputs in ("Mary sees", [[1, 2]]):
        with pytest.raises(UserError, match="to_tokens"):
            ids_of(inputs)
