"""Recall: questions leak no answer, right answers are counted as such, and ambiguous first tokens are left out."""

from collections import Counter

import pytest
import torch

from micrographia.core.errors import BadPrompt
from micrographia.core.model import Output
from micrographia.core.relations import Fact, WrittenRelation
from micrographia.core.runtime import generator
from micrographia.methods.recall import last_logits, questions, recall
from tiny_words import word_model

SUBJECTS = tuple(f"s{i}" for i in range(10))
ANSWERS = tuple(f"a{i}" for i in range(10))
WORDS = (*SUBJECTS, *ANSWERS, "the", "of", "is", ".", "twin")


def relation(**changed) -> WrittenRelation:
    facts = tuple(Fact(subject, answer) for subject, answer in zip(SUBJECTS, ANSWERS))
    return WrittenRelation(**{"name": "r", "templates": ("the r of {} is",), "facts": facts, **changed})


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return word_model(tmp_path_factory.mktemp("recall"), WORDS)


class Knowing:
    """The model, but that it says what a table has for the word before the last."""

    def __init__(self, model, table: dict[str, str]) -> None:
        self.inner, self.table = model, table
        self.tokenizer, self.weights, self.shape, self.sites = model.tokenizer, model.weights, model.shape, model.sites
        self.fused, self.unembed, self.generate = model, model.unembed, None
        self.to_tokens, self.to_str_tokens, self.single_token = model.to_tokens, model.to_str_tokens, model.single_token

    def run(self, inputs, **choices) -> Output:
        logits = self.inner.run(inputs, **choices).logits
        ids = inputs.ids if hasattr(inputs, "ids") else inputs
        for row, own in enumerate(ids.tolist()):
            subject = self.tokenizer.decode([own[-2]])
            logits[row, -1, self.single_token(self.table[subject])] += 100.0
        return Output(logits, {})


def test_examples_share_neither_subject_nor_answer_with_the_question():
    for each in questions(relation(), shots=4, generator=generator(0)):
        *shots, question = each.prompt.split("\n")
        assert len(shots) == 4
        assert question == f"the r of {each.subject} is"
        assert not {each.subject, *each.answers} & set(" ".join(shots).replace(".", " ").split())


def test_all_answers_of_a_subject_are_right_and_none_stands_in_its_examples():
    facts = (*relation().facts, Fact("s0", "a9"))
    (first, *_) = questions(relation(facts=facts), shots=8, generator=generator(0))
    assert first.answers == ("a0", "a9")
    assert "a9" not in first.prompt


def test_more_examples_than_there_are_is_refused_with_how_many_there_are():
    with pytest.raises(BadPrompt, match=r"10 examples.*has 9"):
        questions(relation(), shots=10, generator=generator(0))


def test_a_model_that_knows_all_is_right_and_one_that_knows_half_is_half_right(model):
    told = dict(zip(SUBJECTS, ANSWERS))
    found = recall(Knowing(model, told), relation(), shots=1, generator=generator(0))
    assert found.top1.estimate == found.closed.estimate == 1
    assert found.commonest_miss == ("", 0.0)
    half = {subject: answer if i < 5 else "the" for i, (subject, answer) in enumerate(told.items())}
    found = recall(Knowing(model, half), relation(), shots=1, generator=generator(0))
    assert found.top1.estimate == 0.5
    assert found.commonest_miss == ("the", 1.0)
    assert found.commonest == max(Counter(a for q in found.questions for a in q.answers).values()) / len(
        found.questions
    )
    assert found.closed.estimate >= 0.5  # " the" is no answer, so others are compared


def test_answers_with_one_first_token_are_left_out_and_too_few_are_refused(model):
    twins = {"a0": "twin a0", "a1": "twin a1"}
    facts = tuple(Fact(s, twins.get(a, a)) for s, a in relation().facts)
    found = recall(model, relation(facts=facts), shots=0, generator=generator(0))
    assert found.left_out == ("s0", "s1")
    assert len(found.questions) == 8
    facts = tuple(Fact(s, f"twin {a}") for s, a in relation().facts)
    with pytest.raises(BadPrompt, match="10 questions, of which 0"):
        recall(model, relation(facts=facts), shots=0, generator=generator(0))


def test_prompts_of_all_lengths_get_the_logits_that_they_have_alone(model):
    prompts = ["the r of s1 is", "is", "the of of the r of s2 is"]
    found = last_logits(model, prompts)
    alone = torch.stack([model.run(each, logits="last").logits[0, -1] for each in prompts])
    torch.testing.assert_close(found, alone, atol=1e-5, rtol=1e-5)
