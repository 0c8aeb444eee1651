"""A subject is found by its letters, in padded batches too, and not where it is not."""

import pytest
import torch

from letters import Letters
from micrographia.core.errors import BadPrompt
from micrographia.core.subjects import SubjectSpan, place_of_subject, subject_span, subject_spans
from micrographia.core.tokens import Vocabulary, to_tokens

WORDS = Vocabulary(("<bos>", "the", "capital", "of", "South", "Korea", "is", "France", "Koreas"), bos=0, pad=0)


def test_the_last_occurrence_counts():
    prompt = "South Korea is South Korea is"
    assert subject_span(WORDS, prompt, WORDS.encode(prompt), "South Korea") == SubjectSpan(3, 4)


def test_positions_count_the_padding():
    prompts = ["the capital of South Korea is", "the capital of France is"]
    inputs = to_tokens(WORDS, prompts)
    spans = subject_spans(WORDS, prompts, inputs, ["South Korea", "France"])
    assert spans.tolist() == [[4, 5], [5, 5]]
    assert torch.equal(inputs.ids[1, 5], torch.tensor(WORDS.encode("France")[0]))


def test_a_subject_that_is_not_there_or_shares_a_token_is_refused():
    with pytest.raises(BadPrompt, match="does not occur"):
        subject_span(WORDS, "France is", WORDS.encode("France is"), "Korea")
    with pytest.raises(BadPrompt, match="other letters"):
        subject_span(WORDS, "Koreas is", WORDS.encode("Koreas is"), "Korea")


def test_a_token_a_letter_gives_every_letter():
    assert subject_span(Letters(), "abcd", Letters().encode("abcd"), "bc") == SubjectSpan(1, 2)


def test_a_subject_is_words_of_its_own_where_it_can_be():
    assert place_of_subject("Mary was Maryland's", "Mary") == 0
    assert place_of_subject("USA and US: the", "US") == 8
    assert place_of_subject("Tokyo", "Kyoto") == -1
    assert place_of_subject("ab東京cd", "東京") == 2
