"""Byte pairs trained on a text: any text goes there and back."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from micrographia.core.byte_pairs import BOS, read_byte_pairs, train_byte_pairs
from micrographia.core.errors import BadConfig, Corrupt
from micrographia.core.tokens import Tokenizer

TEXTS = ["the cat sat on the mat", "the dog sat on the log"] * 5


@pytest.fixture(scope="module")
def small():
    return train_byte_pairs(TEXTS, 270)


@given(text=st.text(alphabet=st.characters(blacklist_categories=("Cs",))))
def test_any_text_goes_there_and_back(small, text):
    assert small.decode(small.encode(text)) == text


def test_it_is_a_tokenizer_whose_text_never_has_the_special_token(small):
    assert isinstance(small, Tokenizer)
    assert small.decode([small.bos]) == BOS
    assert small.bos not in small.encode("the cat")
    assert len(small.encode(" the")) == 1  # frequent, so one token


def test_it_has_as_many_tokens_as_asked_for_or_as_the_text_gives(small):
    assert small.size == 270
    assert train_byte_pairs(["ab"], 1000).size < 300


def test_the_same_texts_give_the_same_tokenizer_and_its_file_is_it(small, tmp_path):
    assert train_byte_pairs(TEXTS, 270).to_bytes() == small.to_bytes()
    (tmp_path / "tokenizer.json").write_bytes(small.to_bytes())
    assert read_byte_pairs(tmp_path / "tokenizer.json").encode("the log") == small.encode("the log")


def test_too_few_tokens_and_a_damaged_file_are_refused(tmp_path):
    with pytest.raises(BadConfig, match="256 bytes"):
        train_byte_pairs(TEXTS, 256)
    (tmp_path / "t.json").write_text("{")
    with pytest.raises(Corrupt, match="Restore"):
        read_byte_pairs(tmp_path / "t.json")
