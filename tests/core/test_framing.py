"""What stands around a prompt: a first token, examples, a chat by the model's own template."""

import pytest
import torch

from micrographia.core.errors import BadPrompt
from micrographia.core.framing import Framing
from micrographia.core.load import load_any
from micrographia.core.prompts import PairText, first_difference, fitting, from_texts, position_names
from micrographia.core.small.trained import load_trained
from micrographia.core.tokens import ids_of
from miniature import CLEAN, CORRUPT, save_gpt2, save_run

TURN = "{% for turn in messages %}<bos>book {{ turn['content'] }} {% endfor %}"
CHAT = TURN + "{% if add_generation_prompt %}park{% endif %}"
PAIR = PairText(CLEAN, CORRUPT, "Mary", "John")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return load_any(str(save_gpt2(tmp_path_factory.mktemp("framed"))))


@pytest.fixture
def chatty(model, monkeypatch):
    monkeypatch.setattr(model.tokenizer.inner, "chat_template", CHAT)
    return model


def words(model, framing, prompt="Mary went to"):
    return model.to_str_tokens(ids_of(framing.tokens(model, [prompt]))[0])


def test_a_first_token_is_put_left_out_or_left_to_the_tokenizer(model):
    assert words(model, Framing()) == ["Mary", "went", "to"]
    assert words(model, Framing(bos=True)) == ["<bos>", "Mary", "went", "to"]
    assert words(model, Framing(bos=True), "<bos> Mary") == ["<bos>", "Mary"]
    assert words(model, Framing(bos=False)) == ["Mary", "went", "to"]
    assert Framing(bos=True).around(model, "Mary went to") == (["<bos>"], [], True)
    assert Framing().around(model, "Mary went to") == ([], [], False)


def test_a_small_transformer_of_ours_begins_as_it_was_trained_and_can_be_told_not_to(tmp_path):
    model = load_trained(save_run(tmp_path / "r"))
    assert words(model, Framing()) == ["<bos>", "Mary", "went", "to"]
    assert words(model, Framing(bos=False)) == ["Mary", "went", "to"]


def test_shots_stand_before_the_prompt_a_line_each(model):
    framing = Framing(bos=True, shots=("Anna went to the park", "Mary went to"))
    assert framing.text(None, "Tom") == "Anna went to the park\nMary went to\nTom"
    around = framing.around(model, "Mary went to")
    assert around.before == ["<bos>", "Anna", "went", "to", "the", "park", "Mary", "went", "to"]
    assert around.after == []


def test_a_chat_is_the_models_own_template_and_the_answer_the_assistants(chatty):
    framing = Framing(chat=True, chat_start=" the")
    assert words(chatty, framing) == ["<bos>", "book", "Mary", "went", "to", "park", "the"]
    assert framing.around(chatty, "Mary went to") == (["<bos>", "book"], ["park", "the"], True)
    assert words(chatty, Framing(chat=True, bos=True)) == words(chatty, Framing(chat=True)), "never twice"


def test_a_model_without_a_template_does_not_chat(model, tmp_path):
    for each in (model, load_trained(save_run(tmp_path / "r"))):
        with pytest.raises(BadPrompt, match="no chat template"):
            Framing(chat=True).tokens(each, ["Mary"])


def test_framed_pairs_line_up_and_are_read_at_their_last_token(chatty):
    plain, framed = (
        from_texts(chatty, [PAIR]),
        from_texts(chatty, [PAIR], framing=Framing(chat=True, chat_start=" the")),
    )
    assert first_difference(framed) == first_difference(plain) + 2
    assert position_names(framed, chatty.tokenizer)[-3:] == ["15 to", "16 park", "17 the"]
    assert torch.equal(ids_of(framed.clean)[:, 2:-2], ids_of(plain.clean))
    assert framed.pos == -1
    assert framed.texts == plain.texts == ((CLEAN, CORRUPT),)


def test_pairs_that_do_not_fit_the_tokenizer_can_be_left_out(model):
    long, several = PAIR._replace(corrupt=f"{CORRUPT} to"), PAIR._replace(answer="Mary went")
    assert fitting(model, [long, PAIR, several]) == [PAIR]
    assert fitting(model, [several, PAIR], first_token=True) == [several, PAIR]
    with pytest.raises(BadPrompt, match="as many tokens"):
        fitting(model, [long, several])
