"""Answers: one or several, as text or as ids, in tokenizers that write the space before a word in their own way."""

import pytest
import torch

from micrographia.core.answers import TokenId, answer_tokens, choices, shown, stacked
from micrographia.core.errors import BadPrompt
from micrographia.core.prompts import PairText, from_texts
from micrographia.core.small.transformer import Transformer
from micrographia.core.tokens import Vocabulary, single_token, spelling
from small import A_FEW, small_model

WORDS = Vocabulary(("<bos>", "Mary", "sees", "John", "Anna", "|"), bos=0)
PIECES = ["<unk>", "▁", "▁Paris", "▁Rome", "▁Const", "antin", "ople", "Paris", "▁a", "P", "a", "r", "i", "s", "C", "R"]


@pytest.fixture(scope="module")
def llama():
    """A tokenizer that puts a space before a text, as Llama 2's does: "Paris" is one token, " Paris" is two."""
    from tokenizers import Tokenizer, decoders, models, normalizers
    from transformers import PreTrainedTokenizerFast

    from micrographia.core.pretrained.tokenizer import HubTokenizer

    inner = Tokenizer(models.Unigram([(piece, -1.0 if len(piece) > 1 else -9.0) for piece in PIECES], 0))
    inner.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    inner.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    return HubTokenizer(PreTrainedTokenizerFast(tokenizer_object=inner, unk_token="<unk>"))


@pytest.fixture(scope="module")
def gpt2():
    """A tokenizer in which the space belongs to the word, and is written by the user."""
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    from micrographia.core.pretrained.tokenizer import HubTokenizer

    inner = Tokenizer(models.WordLevel({w: i for i, w in enumerate(["<unk>", " Paris", "Par", "is", "a"])}, "<unk>"))
    inner.pre_tokenizer = pre_tokenizers.Split(Regex(" Paris|Par|is|a"), "isolated")
    return HubTokenizer(PreTrainedTokenizerFast(tokenizer_object=inner, unk_token="<unk>"))


@pytest.mark.parametrize(
    ("given", "found"),
    [
        (" Mary", (" Mary",)),
        ("5|6|7", ("5", "6", "7")),
        (r"\|", ("|",)),
        (r"a\|b| c", ("a|b", " c")),
        (["a|b"], ("a|b",)),
        (TokenId(3), (TokenId(3),)),
    ],
)
def test_a_text_is_split_and_a_list_is_taken_as_it_stands(given, found):
    assert choices(given) == found
    assert choices(shown(given)) == found or isinstance(given, TokenId)


@pytest.mark.parametrize("given", ["|", "a||b", "", [], [""]])
def test_an_empty_choice_is_refused(given):
    with pytest.raises(BadPrompt, match="empty choice"):
        choices(given)


def test_each_token_of_a_set_comes_once():
    assert answer_tokens(WORDS, "Mary|John| Mary") == [1, 3]
    assert stacked([[1], [3]]).tolist() == [1, 3]
    assert stacked([[1, 2], [3]]).tolist() == [[1, 2], [3, -1]]


def test_where_the_tokenizer_writes_the_space_one_that_is_typed_means_the_same(llama):
    assert llama.encode(" Paris") == [1, 2], "or this test shows nothing"
    assert single_token(llama, "Paris") == single_token(llama, " Paris") == 2
    assert single_token(llama, " Constantinople", first=True) == single_token(llama, "Constantinople", first=True) == 4
    assert spelling(llama, 2) == "Paris"
    assert spelling(llama, 7) is None, "the same letters inside a word; no text by itself is this token"


def test_the_advice_on_spaces_fits_the_tokenizer(gpt2, llama):
    with pytest.raises(BadPrompt, match=r"makes 2 of it: Par \| is\. Write ' Paris', which is one"):
        single_token(gpt2, "Paris")
    assert single_token(gpt2, " Paris") == 1
    assert spelling(gpt2, 1) == " Paris"
    with pytest.raises(BadPrompt, match=r"Choose another answer, or score its first token"):
        single_token(llama, " Constantinople")


def test_an_id_is_held_against_the_words_that_it_must_be():
    assert answer_tokens(WORDS, TokenId(3, ("John", "Mary"))) == [3]
    assert answer_tokens(WORDS, (TokenId(3), TokenId(1))) == [3, 1]
    with pytest.raises(BadPrompt, match=r"token 2, which this model's tokenizer reads as 'sees', .*none of John, Mary"):
        answer_tokens(WORDS, TokenId(2, ("John", "Mary")))
    for beyond in (50256, -1):
        with pytest.raises(BadPrompt, match=r"reads as no token\. Such ids belong to the tokenizer"):
            answer_tokens(WORDS, TokenId(beyond))


def test_pairs_hold_sets_with_less_than_the_longest_filled_up():
    plain = small_model(A_FEW["biased"])
    model = Transformer(plain.arch, plain.state, WORDS)
    texts = "Mary sees", "John sees"
    pairs = from_texts(model, [PairText(*texts, "Mary|Anna", "John"), PairText(*texts, "Mary", ["John"])])
    assert pairs.answer.tolist() == [[1, 4], [1, -1]]
    assert pairs.wrong is not None
    assert pairs.wrong.tolist() == [3, 3]
    assert pairs.rows(torch.tensor([1])).answer.tolist() == [[1, -1]]
    with pytest.raises(BadPrompt, match="pair 0, 'Mary' is both a right and a wrong answer"):
        from_texts(model, [PairText(*texts, "Mary|Anna", "John|Mary")])
