"""How a network answers: exact matches, log-probabilities of the right and of other answers, ranks, echoes.

Other answers are those of the other questions with the same relation, of which none was taught under it if this one was
not: what training taught of the relation alone helps none of them. Axes: question, candidate, width.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from numpy import ndarray
from torch import Generator, Tensor

from micrographia.core.errors import BadConfig
from micrographia.core.intervals import Interval, share
from micrographia.core.model import Model
from micrographia.core.paired_tests import PairedTests, paired_tests
from micrographia.labs.reversal.lessons import Questions
from micrographia.labs.reversal.task import Spelling

Asker = Callable[[Tensor, int], Tensor]
"""(tokens (row, pos), position) -> logits there (row, vocab)."""
MARGIN = 0.1
"""Nats within which two log-probabilities count as equal."""


def asker_of(model: Model) -> Asker:
    """One forward pass a call."""

    def asker(tokens: Tensor, at: int) -> Tensor:
        where = at % tokens.shape[1]
        return model.run(tokens, logits=[where]).logits[:, 0]

    return asker


class Replies(NamedTuple):
    """What was answered to questions."""

    exact: Bool[Tensor, "question"]
    right: Float[Tensor, "question"]
    """Log-probability of the right answer, nats."""
    echo: Bool[Tensor, "question"]
    """The entity of the question came first."""


def ask(asker: Asker, asked: Questions, spelt: Spelling) -> Replies:
    """Greedy answers, a forward pass a token of the name. A name counts as answered when each of its tokens is the
    most likely one after those before it."""
    exact = echo = torch.ones(len(asked.tokens), dtype=torch.bool)
    right = torch.zeros(len(asked.tokens))
    names, own = spelt.names[asked.answers], spelt.names[asked.asked]
    tokens = asked.tokens
    for i in range(spelt.width):
        logits = asker(tokens, asked.at)
        best = logits.argmax(-1)
        right = right + logits.log_softmax(-1).gather(1, names[:, i : i + 1])[:, 0]
        exact, echo = exact & (best == names[:, i]), echo & (best == own[:, i])
        tokens = torch.cat([tokens, names[:, i : i + 1]], 1)
    return Replies(exact, right, echo)


def among(asker: Asker, asked: Questions, spelt: Spelling) -> list[Float[Tensor, "question candidate"]]:
    """For each relation: the log-probability of each of its answers after each of its questions; the right ones on
    the diagonal. A relation with one question is left out. A pass, and one over all pairs for each further token."""
    tables = []
    for relation in asked.relation.unique().tolist():
        group = asked.relation == relation
        if int(group.sum()) < 2:  # nobody to confuse it with
            continue
        tokens, names = asked.tokens[group], spelt.names[asked.answers[group]]
        n = len(names)
        scores = asker(tokens, asked.at).log_softmax(-1)[:, names[:, 0]]
        for i in range(1, spelt.width):
            rows = torch.cat([tokens.repeat_interleave(n, 0), names[:, :i].repeat(n, 1)], 1)
            next_token = names[:, i].repeat(n)[:, None]
            scores = scores + asker(rows, -1).log_softmax(-1).gather(1, next_token).view(n, n)
        tables.append(scores)
    return tables


class Score(NamedTuple):
    """The answers of one network to one kind of questions."""

    asked: int
    right: int
    exact: Interval
    """Share answered exactly, of all tokens that there are."""
    shuffled: float
    """The same where questions are given each other's answers."""
    chosen: Interval
    """Share in which the right one is the likeliest of the candidates."""
    chance: float
    """What choosing among them at random would give."""
    mrr: float
    """Mean reciprocal rank among them."""
    random_mrr: float
    echo: float
    nats: float
    """Mean log-probability of the right answer."""
    tests: PairedTests
    """Against a random other candidate."""
    steadier: PairedTests
    """Against the mean over all other candidates: the same difference on average, with less noise."""
    values: Float[ndarray, "question 3"]
    """Log-probability of the right answer, of the random other and of the mean over the others."""


def score(asker: Asker, asked: Questions, spelt: Spelling, generator: Generator) -> Score:
    answered = ask(asker, asked, spelt)
    tables = among(asker, asked, spelt)
    if not tables:
        raise BadConfig("No relation has two held-out questions to compare in one arm. Take more entities.")
    right = torch.cat([table.diagonal() for table in tables])
    other = torch.cat([_others(table, generator) for table in tables])
    mean = torch.cat([(table.sum(1) - table.diagonal()) / (len(table) - 1) for table in tables])
    rank = torch.cat([_ranks(table) for table in tables])
    values = torch.stack([right, other, mean], 1).double().numpy()
    n = len(right)
    moved = asked._replace(answers=_shuffled(asked, generator))
    return Score(
        asked=len(answered.exact),
        right=int(answered.exact.sum()),
        exact=share(int(answered.exact.sum()), len(answered.exact)),
        shuffled=float(ask(asker, moved, spelt).exact.double().mean()),
        chosen=share(int((rank == 1).sum()), n),
        chance=len(tables) / n,
        mrr=float((1 / rank).mean()),
        random_mrr=sum(sum(1 / k for k in range(1, len(table) + 1)) for table in tables) / n,
        echo=float(answered.echo.double().mean()),
        nats=float(answered.right.mean()),
        tests=paired_tests(values[:, 0], values[:, 1], MARGIN),
        steadier=paired_tests(values[:, 0], values[:, 2], MARGIN),
        values=values,
    )


def _others(table: Tensor, generator: Generator) -> Tensor:
    """Of each row, a random column off the diagonal."""
    n = len(table)
    step = torch.randint(1, n, (n,), generator=generator)
    return table.gather(1, ((torch.arange(n) + step) % n)[:, None])[:, 0]


def _ranks(table: Tensor) -> Float[Tensor, "question"]:
    """Of the diagonal in its row, 1 the likeliest; ties count half."""
    own = table.diagonal()[:, None]
    return 1 + (table > own).sum(1) + ((table == own).sum(1) - 1) / 2


def _shuffled(asked: Questions, generator: Generator) -> Int[Tensor, "question"]:
    """The answers within each relation, nobody's his own."""
    answers = asked.answers.clone()
    for relation in asked.relation.unique().tolist():
        places = (asked.relation == relation).nonzero()[:, 0]
        order = places[torch.randperm(len(places), generator=generator)]
        answers[order] = asked.answers[order.roll(1)]
    return answers
