"""A question is checked before it is answered: how likely its answers are, and what stands around the prompts."""

import json

import pytest
import torch

from micrographia.core.answer_check import AnswerCheck, SideCheck, Standing
from micrographia.core.config import Target
from micrographia.core.errors import BadConfig, BadPrompt
from micrographia.core.framing import AroundTokens
from micrographia.core.prompts import Pairs
from micrographia.core.small.trained import load_trained
from micrographia.labs.workbench.config import Around, Lens, Patch, Prompts, Trace, read_question, stored
from micrographia.labs.workbench.run import run
from miniature import CLEAN, CORRUPT, pairs_file

PAIR = {"clean": CLEAN, "corrupt": CORRUPT, "answer": "Mary", "wrong": "John"}
ASKED = {
    "patch": {**PAIR, "sites": "L*.mlp_out"},
    "attribute": {**PAIR, "sites": "L*.mlp_out", "verify": 0},
    "strongest": {**PAIR, "question": "attribute", "sites": "L*.mlp_out", "strongest": 2, "verify": 0},
    "edges": {**PAIR, "question": "attribute", "method": "edges", "verify": 0},
    "circuit": {**PAIR, "n": 2, "null": 1, "minimal": False},
    "lens": {"prompt": CLEAN, "corrupt": CORRUPT, "answer": "Mary", "wrong": "John"},
    "trace": {"prompt": CLEAN, "subject": "Mary", "answer": "Mary", "samples": 1, "severed": False},
}


class Letters:
    """A tokenizer in which a word with its space and without are two tokens."""

    tokens = (" Paris", "Paris", " Rome", " the", "\n", " Lyon")
    bos, pad = None, None

    def encode(self, text):
        return [self.tokens.index(text)] if text in self.tokens else [3, 3]

    def decode(self, ids):
        return "".join(self.tokens[i] for i in ids)


def question(name, model, **changed):
    fields = {"question": name, "model": str(model), "device": "cpu", "threads": 1, **ASKED.get(name, {}), **changed}
    return read_question(fields)


@pytest.mark.parametrize("name", ASKED)
def test_every_question_has_its_answers_checked_and_shown(name, trained, tmp_path):
    done = run(question(name, trained), out=tmp_path / "r")
    model = load_trained(trained)
    chance = model.run(model.to_tokens(CLEAN)).logits[0, -1].softmax(0)
    found, token = done.results["answers"], model.single_token("Mary")
    assert found["clean"]["answer_prob"][0] == pytest.approx(chance[token].item(), rel=1e-4)
    assert found["clean"]["answer_rank"][0] == int((chance > chance[token]).sum())
    (table,) = [figure for figure in done.figures if figure.name == "answers"]
    assert table.data["rows"][0][1] == "'Mary'"
    assert done.results["around"] == {"before": ["<bos>"], "after": [], "bos": True}
    assert "BOS '<bos>'" in done.results["subtitle"]


def check_of(first, prob, rank, n=1, corrupt=900):
    def side(first, prob, rank):
        standing = Standing(torch.tensor([prob] * n), torch.tensor([float(rank)] * n))
        wrong = Standing(torch.tensor([0.001] * n), torch.tensor([50.0] * n))
        return SideCheck(standing, wrong, torch.tensor([first] * n), torch.tensor([0.77] * n))

    return [side(first, prob, rank), side(2, 1e-5, corrupt)]


def checked(sides, *, answer=(1,), wrong=(2,), clean="The capital of France is", alone=False):
    n = len(sides[0].first)
    right, other = ([[*each] if len(each) > 1 else each[0]] * n if each else None for each in (answer, wrong))
    corrupt = (torch.zeros(n, 1).long(), clean) if alone else (torch.ones(n, 1).long(), "The capital of Italy is")
    tokens = (torch.tensor(right), None if other is None else torch.tensor(other))
    return AnswerCheck(
        *sides, Pairs(torch.zeros(n, 1).long(), corrupt[0], *tokens, ((clean, corrupt[1]),) * n), Letters()
    )


def told(sides, **named):
    return checked(sides, **named).sentences()


def test_the_same_word_with_a_space_is_named_as_it_must_be_written():
    (warning,) = told(check_of(0, 5e-4, 43))
    assert warning.startswith("Warning: on the clean prompt the model's first choice is ' Paris' (probability 0.77)")
    assert "not the answer (0.0005, rank 43). It is the same word written otherwise: write --answer ' Paris'" in warning


def test_another_first_choice_is_told_and_white_space_at_the_end_is_named():
    (warning,) = told(check_of(3, 0.1, 1))
    assert "first choice is ' the'" in warning
    assert "written otherwise" not in warning
    (warning,) = told(check_of(3, 0.1, 1), clean="The capital of France is ")
    assert "ends in white space" in warning


def test_an_answer_that_comes_first_needs_no_words():
    assert told(check_of(0, 0.77, 0), answer=(0,)) == []


def test_several_answers_may_be_likelier_together_than_the_first_choice():
    (sentence,) = told(check_of(3, 0.9, 1), answer=(1, 5))
    assert sentence.startswith("On the clean prompt the model's first choice is ' the'")
    assert "none of the answers, which have 0.9 together" in sentence
    assert told(check_of(3, 0.5, 1), answer=(1, 5))[0].startswith("Warning: on the clean prompt")


def test_a_corrupt_prompt_with_the_same_answer_is_told():
    (warning,) = told(check_of(0, 0.77, 0, corrupt=0), answer=(0,))
    assert "on the corrupt prompt the model gives the same answer first" in warning
    assert told(check_of(0, 0.77, 0, corrupt=0), answer=(0,), alone=True) == [], "there is one prompt"
    assert "On 3 of the pairs the corrupt" in told(check_of(0, 0.77, 0, n=3, corrupt=0), answer=(0,))[1]


def test_of_many_pairs_it_is_told_how_many_have_the_answer_first():
    assert told(check_of(0, 0.77, 0, n=3), answer=(0,)) == [
        "The answer is the model's first choice on 3 of 3 clean prompts, and before the wrong answer on 3; its median "
        "probability there is 0.77."
    ]
    _, warning = told(check_of(0, 5e-4, 43, n=3))
    assert "on 3 of them the first choice is the same word written otherwise, as ' Paris' for 'Paris'" in warning
    _, warning = told(check_of(3, 0.1, 1, n=3))
    assert "on most prompts the model would say something else" in warning


def test_many_pairs_have_one_table_and_their_worst():
    check = checked(check_of(0, 0.25, 0, n=8))
    check.clean.answer.prob[3] = 0.125
    first, worst = check.figures()
    assert len(first.data["rows"]) == 4
    assert first.data["rows"][0][:3] == ["clean", "answer", "8 of 8"]
    assert worst.data["rows"][0][0] == 3
    assert len(worst.data["rows"]) == 5
    assert check.as_json()["n_first"] == 8


def test_one_prompt_without_another_has_no_columns_for_it():
    (table,) = checked(check_of(0, 0.25, 0), answer=(1, 5), wrong=(), alone=True).figures()
    assert table.data["columns"] == ["", "token", "probability", "rank"]
    assert table.data["rows"][0] == ["answer", "'Paris| Lyon'", 0.25, 0]


def test_what_stands_around_is_told_as_tokens():
    around = AroundTokens(["<s>", "user", "\n"], ["bot"], True)
    assert str(around) == "BOS '<s>'"
    assert str(AroundTokens([], [], False)) == "no BOS"
    assert around.sentences() == [
        r"Around each prompt stand these tokens: before it '<s>' 'user' '\n'; after it 'bot'."
    ]
    assert AroundTokens(["<s>"], [], True).sentences() == []
    (long,) = AroundTokens(["a"] * 100, [], False).sentences()
    assert long.count("'a'") == 60


def test_a_first_token_can_be_left_out_and_pictures_follow(trained, tmp_path):
    done = run(question("patch", trained, bos=False), out=tmp_path / "r")
    assert done.results["prompts"][0]["clean_tokens"][0] == "When"
    assert "no BOS" in done.results["subtitle"]
    (picture,) = [figure for figure in done.figures if figure.kind == "heatmap"]
    assert picture.data["x_names"][0] == "9 John / Mary"


def test_the_subject_is_blurred_in_the_prompt_and_not_in_the_shots(trained, tmp_path):
    (tmp_path / "shots.txt").write_text("Mary and Tom went to the park\n")
    asked = question("trace", trained, prompt="Mary gave a book to", answer=None, shots=str(tmp_path / "shots.txt"))
    done = run(asked, out=tmp_path / "r")
    assert done.results["tokens"][8] == "Mary"
    assert done.results["subject_positions"] == [8]
    assert done.results["around"]["before"] == ["<bos>", "Mary", "and", "Tom", "went", "to", "the", "park"]


def test_sets_of_answers_go_through_a_question(trained, tmp_path):
    done = run(
        question("patch", trained, answer="Mary|Anna", wrong="John|Tom|park", metrics="prob-diff,logit-diff"),
        out=tmp_path / "r",
    )
    model = load_trained(trained)
    chance = model.run(model.to_tokens(CLEAN)).logits[0, -1].softmax(0)
    right, wrong = (
        [model.single_token(word) for word in words] for words in (["Mary", "Anna"], ["John", "Tom", "park"])
    )
    assert done.results["baselines"][0]["clean"] == pytest.approx((chance[right].sum() - chance[wrong].sum()).item())
    assert done.results["prompts"][0]["answer"] == "Mary|Anna"
    assert done.results["answers"]["clean"]["answer_prob"] == [pytest.approx(chance[right].sum().item(), rel=1e-4)]


def test_pairs_that_do_not_fit_are_left_out_if_told_to_and_counted(trained, tmp_path):
    file = pairs_file(tmp_path / "pairs.jsonl")
    rows = [*file.read_text().splitlines(), json.dumps({**PAIR, "corrupt": f"{CORRUPT} to"})]
    file.write_text("\n".join(rows))
    alone = {"question": "patch", "model": str(trained), "device": "cpu", "threads": 1, "sites": "L0.mlp_out"}
    with pytest.raises(BadPrompt, match="as many tokens"):
        run(read_question({**alone, "prompts": str(file)}), out=tmp_path / "r")
    done = run(read_question({**alone, "prompts": str(file), "skip_misfits": True}), out=tmp_path / "r")
    assert done.results["n_prompts"] == 2
    assert "1 pair of the file was left out" in done.results["summary"][0]


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        (
            {"clean": "a"},
            r"give --clean, --corrupt and --answer, or a file with --prompts\. Missing: --corrupt, --answer",
        ),
        ({**PAIR, "columns": "answer=x"}, "no file of prompts is given"),
        ({"prompts": "x.csv", "columns": "answer"}, r"columns holds 'answer'\. Write clean="),
        ({"prompts": "x.csv", "columns": "right=x"}, "columns holds 'right=x'"),
        ({"prompts": "x.csv", "limit": 0}, "limit must be at least 1"),
        ({**PAIR, "around": Around(chat=True, bos=True)}, None),
    ],
)
def test_choices_about_prompts_that_do_not_go_together_are_refused(fields, says):
    if says is None:
        assert Prompts(**fields).around.chat
    else:
        with pytest.raises(BadConfig, match=says):
            Prompts(**fields)


def test_a_chat_begins_as_its_template_does():
    with pytest.raises(BadConfig, match="leave --no-bos out"):
        Around(chat=True, bos=False)
    with pytest.raises(BadConfig, match="--chat-start was given without --chat"):
        Around(chat_start="The answer is")


def test_what_stands_around_survives_the_way_through_json():
    around = Around(chat=True, chat_start="It is", shots="shots.txt")
    target = Target(model="gpt2")
    for each in (
        Patch(target=target, prompts=Prompts(**PAIR, around=around)),
        Lens(target=target, prompt="a", around=around),
        Trace(target=target, prompt="a b", subject="a", around=Around(bos=True)),
    ):
        assert read_question(json.loads(json.dumps(stored(each)))) == each


@pytest.mark.parametrize("name", ["lens", "patch"])
def test_template_tokens_stand_behind_what_was_found(name, trained, tmp_path, monkeypatch):
    told = "Around each prompt stand these tokens: before it 'user'."
    monkeypatch.setattr(AroundTokens, "sentences", lambda self: [told])
    summary = run(question(name, trained), out=tmp_path / "r").results["summary"]
    assert summary.index(told) > max(i for i, words in enumerate(summary) if "logit" in words or "stream" in words)
