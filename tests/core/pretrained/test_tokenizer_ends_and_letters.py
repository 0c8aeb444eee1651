"""Special tokens at either end do not move the position that is read; tokens of half a letter belong to the letter."""

import pytest
import torch
import transformers
import zoo
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors

from micrographia.core.errors import BadPrompt
from micrographia.core.pretrained import Pretrained
from micrographia.core.pretrained.tokenizer import HubTokenizer
from micrographia.core.prompts import PairText, from_texts
from micrographia.core.tokens import Vocabulary, single_token, spans_of
from micrographia.methods.tracing import positions_of

WORDS = ("<pad>", "<s>", "</s>", "Mary", "John", "sees", "the", "dog")
ENDS = {"none": "$A", "first": "<s> $A", "last": "$A </s>", "both": "<s> $A </s>"}


def words(habit: str) -> HubTokenizer:
    inner = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<pad>"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    inner.post_processor = processors.TemplateProcessing(single=ENDS[habit], special_tokens=[("<s>", 1), ("</s>", 2)])
    return HubTokenizer(
        transformers.PreTrainedTokenizerFast(
            tokenizer_object=inner, bos_token="<s>", eos_token="</s>", pad_token="<pad>"
        )
    )


def in_bytes(*, prefix: bool = False) -> HubTokenizer:
    """A token a byte, but for two that stand for several."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {letter: i for i, letter in enumerate([*letters, "Zo", "ĠZ"])}
    inner = Tokenizer(models.BPE(vocabulary, [("Z", "o"), ("Ġ", "Z")]))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix)
    inner.decoder = decoders.ByteLevel()
    return HubTokenizer(transformers.PreTrainedTokenizerFast(tokenizer_object=inner))


@pytest.mark.parametrize("habit", ENDS)
def test_a_model_that_goes_on_with_a_text_reads_its_last_token(habit):
    model = Pretrained(zoo.bare("llama"), words(habit))
    first = [1] * ENDS[habit].startswith("<s>")
    assert model.to_tokens("Mary sees").tolist() == [[*first, 3, 5]]
    assert model.to_tokens("<s> Mary </s>").tolist() == [[1, 3, 2]]  # what the text itself says stays
    pairs = from_texts(model, [PairText("Mary sees", "John sees", "dog", "the"), PairText("dog", "Mary", "dog", "the")])
    assert pairs.clean.ids[:, -1].tolist() == [5, 7]
    assert spans_of(model.tokenizer, "Mary sees", model.to_tokens("Mary sees")[0])[-2:] == [(0, 4), (5, 9)]


def test_an_encoder_keeps_its_tokens_at_both_ends():
    assert Pretrained(zoo.bare("bert"), words("both")).to_tokens("Mary sees").tolist() == [[1, 3, 5, 2]]


@pytest.mark.parametrize("told", [True, False], ids=["told", "read off"])
@pytest.mark.parametrize(
    ("text", "subject", "wanted"),
    [
        ("Zoé plays", "Zoé", [0, 1, 2]),
        ("Zoé plays", "oé", [0, 1, 2]),
        ("in 東京 now", "東京", list(range(3, 9))),
        ("in 東京 now", "京", [6, 7, 8]),
        ("naïve é", "é", [7, 8]),
        ("ab ab", "b", [1]),
        ("🙂", "🙂", [0, 1, 2, 3]),
    ],
)
def test_every_token_that_touches_the_subject_is_found(text, subject, wanted, told, monkeypatch):
    tokenizer = in_bytes()
    if not told:
        monkeypatch.setattr(HubTokenizer, "spans", lambda self, text, ids: None)
    ids = torch.tensor(tokenizer.encode(text))
    assert positions_of(subject, text, spans_of(tokenizer, text, ids)) == wanted


def test_subjects_of_whole_words_and_parts_of_words_and_of_none():
    tokens = Vocabulary(("<s>", "The", " Sp", "ace", " Need", "le", " is"))
    text = "The Space Needle is"
    assert positions_of("Space Needle", text, spans_of(tokens, text, range(7))) == [2, 3, 4, 5]
    for missing in ("Tower", "", " "):
        with pytest.raises(BadPrompt, match="not found in the prompt"):
            positions_of(missing, text, spans_of(tokens, text, range(7)))


def test_a_chat_template_that_fails_is_told_so():
    tokenizer = words("none")
    assert tokenizer.chat("Mary") is None
    tokenizer.inner.chat_template = "{{ raise_exception('a system turn comes first') }}"
    with pytest.raises(BadPrompt, match="fails on a single turn of the user: a system turn comes first"):
        tokenizer.chat("Mary")


def test_the_token_for_unknown_words_need_not_be_declared():
    tokenizer = words("none")
    assert tokenizer.inner.unk_token_id is None
    with pytest.raises(BadPrompt, match="not in this tokenizer's vocabulary"):
        single_token(tokenizer, "zebra")
    assert single_token(tokenizer, "dog") == 7
    assert in_bytes().unk is None


@pytest.mark.parametrize(("habit", "puts"), [("none", False), ("first", True), ("last", False), ("both", True)])
def test_a_tokenizer_tells_whether_it_begins_a_text_itself(habit, puts):
    assert words(habit).puts_bos is puts


def test_special_tokens_are_the_named_and_the_declared_ones():
    known = words("none")
    assert (known.eos, known.special) == (2, {0, 1, 2})
    known.inner.add_special_tokens({"additional_special_tokens": ["dog"]})
    assert known.special == {0, 1, 2, known.encode("dog")[0]}


def test_the_token_for_unknown_words_counts_where_the_rules_give_it():
    known = words("none")
    known.inner.unk_token = "sees"
    assert WORDS.index("sees") not in known.special
    never = in_bytes()
    never.inner.add_special_tokens({"unk_token": "<none>"})
    assert never.special == {never.inner.unk_token_id}
