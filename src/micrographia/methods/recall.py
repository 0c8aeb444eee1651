"""How well a model recalls a relation: accuracy with examples and without, over all words and among the answers.

A question is a template with its subject, after `shots` sentences of other facts that share neither subject nor answer
with it. An answer is scored by its first token. Two numbers are told apart: *top-1*, where the most likely of all
tokens begins a right answer, and *among the answers*, where a right one is the likeliest of the relation's answers. A
bare prompt often fails the first by its form alone (" the" where a name was wanted); the commonest miss is counted.
What can be asked the other way round (`WrittenRelation.turned`) is scored by the same function.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Generator, Tensor

from micrographia.core.errors import BadPrompt
from micrographia.core.events import Progress, Watch, silent
from micrographia.core.intervals import Interval, share
from micrographia.core.prompts import LanguageModel, onto
from micrographia.core.relations import SLOT, Fact, WrittenRelation
from micrographia.core.tokens import Inputs, single_token

FEWEST = 8
"""Questions that an accuracy needs at least. Our choice."""
ROWS = 32
"""Prompts of a run of the model."""


class Question(NamedTuple):
    """A prompt, and every answer that is right."""

    subject: str
    answers: tuple[str, ...]
    prompt: str


@dataclass(frozen=True, eq=False, slots=True)
class Recall:
    """What a model answered. Axes: one row a question."""

    relation: WrittenRelation
    shots: int
    questions: tuple[Question, ...]
    said: tuple[str, ...]
    """The most likely token, as text."""
    right: Bool[Tensor, "question"]
    """It begins a right answer."""
    among: Bool[Tensor, "question"]
    """A right answer is the likeliest of the relation's."""
    probability: Float[Tensor, "question"]
    """Of the first tokens of the right answers together."""
    left_out: tuple[str, ...]
    """Subjects that were not asked about: their answer shares its first token with another."""

    @property
    def top1(self) -> Interval:
        return share(int(self.right.sum()), len(self.right))

    @property
    def closed(self) -> Interval:
        """Accuracy among the answers."""
        return share(int(self.among.sum()), len(self.among))

    @property
    def commonest(self) -> float:
        """The share of the questions that one answer, always given, gets right at best."""
        given = Counter(answer for each in self.questions for answer in set(each.answers))
        return max(given.values()) / len(self.questions)

    @property
    def commonest_miss(self) -> tuple[str, float]:
        """The token said most often where top-1 was wrong, and its share of these; ("", 0) without a miss."""
        missed = Counter(said for said, right in zip(self.said, self.right.tolist()) if not right)
        if not missed:
            return "", 0.0
        token, count = missed.most_common(1)[0]
        return token, count / missed.total()

    def row(self) -> dict[str, float | int | str]:
        """Its numbers for a table."""
        token, times = self.commonest_miss
        return {
            "relation": self.relation.name,
            "shots": self.shots,
            "questions": len(self.questions),
            "answers": len(self.relation.answers),
            "top1": self.top1.estimate,
            "top1_low": self.top1.low,
            "top1_high": self.top1.high,
            "among": self.closed.estimate,
            "among_low": self.closed.low,
            "among_high": self.closed.high,
            "commonest": self.commonest,
            "miss": token,
            "miss_share": times,
            "left_out": len(self.left_out),
        }


def recall(
    model: LanguageModel, relation: WrittenRelation, *, shots: int, generator: Generator, watch: Watch = silent
) -> Recall:
    """Ask a model for every answer of a relation, by the first template.

    One pass of every prompt, logits at the last position alone. `generator` draws the examples. Raises BadPrompt for
    too few facts to draw examples from, and for fewer than `FEWEST` questions whose answers can be told apart.
    """
    token = {answer: single_token(model.tokenizer, f" {answer}", first=True) for answer in relation.answers}
    asked = questions(relation, shots=shots, generator=generator)
    shared = {answer for answer in token for other in token if other != answer and token[other] == token[answer]}
    clear = [each for each in asked if not _ambiguous(each, token, shared)]
    if len(clear) < FEWEST:
        raise BadPrompt(
            f"{relation.name!r} has {len(asked)} questions, of which {len(clear)} have an answer whose first token is "
            f"no other answer's; {FEWEST} are needed. Give more facts, or another tokenizer's model."
        )
    logits = last_logits(model, [each.prompt for each in clear], watch=watch, task=f"ask for {relation.name}")
    options = torch.tensor(sorted(set(token.values())))
    right = torch.zeros(len(clear), logits.shape[1], dtype=torch.bool)
    for i, each in enumerate(clear):
        right[i, [token[answer] for answer in each.answers]] = True
    best, best_option = logits.argmax(-1), options[logits[:, options].argmax(-1)]
    rows = torch.arange(len(clear))
    return Recall(
        relation=relation,
        shots=shots,
        questions=tuple(clear),
        said=tuple(model.tokenizer.decode([i]) if model.tokenizer else str(i) for i in best.tolist()),
        right=right[rows, best],
        among=right[rows, best_option],
        probability=(logits.softmax(-1) * right).sum(-1),
        left_out=tuple(each.subject for each in asked if _ambiguous(each, token, shared)),
    )


def questions(relation: WrittenRelation, *, shots: int, generator: Generator) -> list[Question]:
    """A question for every subject; examples share neither subject nor answer with it, nor name what is asked for.

    Raises BadPrompt where there are too few of them.
    """
    template, found = relation.templates[0], list[Question]()
    for subject in dict.fromkeys(fact.subject for fact in relation.facts):
        right = tuple(fact.answer for fact in relation.facts if fact.subject == subject)
        others = [fact for fact in relation.facts if fact.subject != subject and fact.answer not in (*right, subject)]
        drawn = list[Fact]()
        for i in torch.randperm(len(others), generator=generator).tolist():
            told = {part for fact in drawn for part in fact}
            if len(drawn) < shots and not told & {*others[i]} and others[i].subject not in right:
                drawn.append(others[i])
        if len(drawn) < shots:
            raise BadPrompt(
                f"{shots} examples were asked for before {subject!r} in {relation.name!r}, which has {len(drawn)} that "
                "share no subject or answer with it or each other. Ask for fewer, or give more facts."
            )
        told = [f"{template.replace(SLOT, fact.subject)} {fact.answer}.\n" for fact in drawn]
        found.append(Question(subject, right, "".join(told) + template.replace(SLOT, subject)))
    return found


def last_logits(
    model: LanguageModel, prompts: Sequence[str], *, watch: Watch = silent, task: str = "ask"
) -> Float[Tensor, "prompt vocab"]:
    """The logits after each prompt, as float32 on the CPU. One pass of each; prompts of like length together."""
    inputs: list[Inputs] = [model.to_tokens(prompt) for prompt in prompts]
    lengths = torch.tensor([_length(each) for each in inputs])
    found: list[Tensor] = [torch.empty(0)] * len(prompts)
    for done, rows in enumerate(order := list(lengths.argsort(stable=True).split(ROWS)), start=1):
        texts = [str(prompts[i]) for i in rows.tolist()]
        logits = model.run(onto(model.weights.W_E.device, model.to_tokens(texts)), logits="last").logits[:, -1]
        for i, row in zip(rows.tolist(), logits.float().cpu()):
            found[i] = row
        watch(Progress(task, done, len(order), "batch"))
    return torch.stack(found)


def _length(inputs: Inputs) -> int:
    return (inputs if isinstance(inputs, Tensor) else inputs.ids).shape[1]


def _ambiguous(question: Question, token: dict[str, int], shared: set[str]) -> bool:
    """Whether a right answer's first token is also a wrong one's."""
    wrong = {token[answer] for answer in shared if answer not in question.answers}
    return any(token[answer] in wrong for answer in question.answers)
