"""What the networks of an arm read: rows of tokens with their scored targets, and questions with their answers.

A row is scored on its last name, as in Zhu et al. 2024; of a masked row, on what is masked. Copies and bridges are
those of Golovneva et al. 2024, Kitouni et al. 2024 (arXiv 2406.05183) and Ma et al. 2026; how often each is drawn is
its weight. Axes: row, pos.
"""

from collections.abc import Callable, Mapping
from itertools import combinations
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Generator, Tensor

from micrographia.core.runtime import batch_generator
from micrographia.core.small.next_token import IGNORED
from micrographia.labs.reversal.task import DirectedFacts, Spelling, PairedWorld, joined


class LessonRows(NamedTuple):
    """`targets[row, pos]` is the token wanted at that position, or IGNORED."""

    tokens: Int[Tensor, "row pos"]
    targets: Int[Tensor, "row pos"]
    weights: Float[Tensor, "row"]


class Questions(NamedTuple):
    """Prompts, the entity that answers each, and where its first token is read."""

    tokens: Int[Tensor, "question pos"]
    asked: Int[Tensor, "question"]
    """The entity in the prompt."""
    answers: Int[Tensor, "question"]
    relation: Int[Tensor, "question"]
    """Questions with the same one have alike answers."""
    at: int = -1


def next_tokens(sequence: Int[Tensor, "row pos"], scored: int, weight: float = 1.0) -> LessonRows:
    """LessonRows of which the last `scored` tokens are to be predicted."""
    targets = torch.full_like(sequence[:, 1:], IGNORED)
    targets[:, -scored:] = sequence[:, -scored:]
    return LessonRows(sequence[:, :-1], targets, torch.full((len(sequence),), weight))


def stacked_rows(*parts: LessonRows) -> LessonRows:
    """All rows, those that are shorter filled up behind, where nothing attends to."""
    length = max(part.tokens.shape[1] for part in parts)
    fill = [(0, length - part.tokens.shape[1]) for part in parts]
    tokens = [F.pad(part.tokens, each) for part, each in zip(parts, fill)]
    targets = [F.pad(part.targets, each, value=IGNORED) for part, each in zip(parts, fill)]
    return LessonRows(torch.cat(tokens), torch.cat(targets), torch.cat([part.weights for part in parts]))


def said(facts: DirectedFacts, spelt: Spelling) -> Int[Tensor, "fact pos"]:
    """`e1 r e2`."""
    return torch.cat([spelt.names[facts.source], spelt.of(facts.relation), spelt.names[facts.target]], 1)


def plain(world: PairedWorld, spelt: Spelling, generator: Generator, weight: float) -> LessonRows:
    return next_tokens(said(world.lessons, spelt), spelt.width)


def both(world: PairedWorld, spelt: Spelling, generator: Generator, weight: float) -> LessonRows:
    """The positive control: what is held out elsewhere is taught."""
    return next_tokens(said(joined(world.lessons, world.held_out), spelt), spelt.width)


def token_copies(world: PairedWorld, spelt: Spelling, generator: Generator, weight: float) -> LessonRows:
    """And each fact with its tokens in reverse order."""
    return stacked_rows(
        plain(world, spelt, generator, weight), next_tokens(said(world.lessons, spelt).flip(1), spelt.width)
    )


def entity_copies(world: PairedWorld, spelt: Spelling, generator: Generator, weight: float) -> LessonRows:
    """And each fact in reverse order, the tokens of a name in theirs: `e2 r e1`."""
    source, relation, target = world.lessons
    turned = said(DirectedFacts(target, relation, source), spelt)
    return stacked_rows(plain(world, spelt, generator, weight), next_tokens(turned, spelt.width))


def identity(world: PairedWorld, spelt: Spelling, generator: Generator, weight: float) -> LessonRows:
    """And `e is e` of everybody (Ma et al. 2026)."""
    everyone = spelt.names
    bridge = torch.cat([everyone, torch.full((len(everyone), 1), spelt.identity), everyone], 1)
    return stacked_rows(plain(world, spelt, generator, weight), next_tokens(bridge, spelt.width, weight))


def composed(world: PairedWorld, spelt: Spelling, generator: Generator, weight: float) -> LessonRows:
    """And `e r r^-1 e` of every fact: the wife of Tom's husband is Tom (Ma et al. 2026, the form for language models).

    The other entity of the fact is not named.
    """
    facts = world.lessons
    own = spelt.names[facts.source]
    bridge = torch.cat([own, spelt.of(facts.relation), spelt.of(facts.relation ^ 1), own], 1)
    return stacked_rows(plain(world, spelt, generator, weight), next_tokens(bridge, spelt.width, weight))


def masked(world: PairedWorld, spelt: Spelling, generator: Generator, weight: float) -> LessonRows:
    """Every way to mask a fact's tokens, weighted as by a rate that is drawn evenly (MLM-U, Kitouni et al. 2024).

    All sizes of the masked set are then equally likely, and all sets of a size: the integral of u^k (1 - u)^(n - k).
    """
    sequence = said(world.lessons, spelt)
    n, parts = sequence.shape[1], []
    for k in range(1, n + 1):
        ways = list(combinations(range(n), k))
        for way in ways:
            hidden = torch.zeros(n, dtype=torch.bool)
            hidden[list(way)] = True
            tokens = sequence.masked_fill(hidden, spelt.mask)
            targets = sequence.masked_fill(~hidden, IGNORED)
            parts.append(LessonRows(tokens, targets, torch.full((len(sequence),), 1 / len(ways))))
    return stacked_rows(*parts)


def context(world: PairedWorld, spelt: Spelling, generator: Generator, weight: float) -> LessonRows:
    """And each shared fact twice beside its inverse, after a fact of others before or behind it in the context.

    `e1 r e2, e3 s e4, e2 r^-1 -> e1`: where the answer stands tells nothing.
    """
    shared = joined(world.shared, world.shared.inverse)
    parts = [plain(world, spelt, generator, weight)]
    for _ in range(2):
        before, question = in_context(shared, shared, spelt, generator)
        answer = spelt.names[question.source]
        parts.append(next_tokens(torch.cat([before, answer], 1), spelt.width))
    return stacked_rows(*parts)


def in_context(facts: DirectedFacts, others: DirectedFacts, spelt: Spelling, generator: Generator) -> tuple[Tensor, DirectedFacts]:
    """Each fact and another one, in either order, then the inverse question; and the facts in their order."""
    beside = others.some(torch.randint(len(others.source), (len(facts.source),), generator=generator))
    first, second = said(facts, spelt), said(beside, spelt)
    turn = torch.randint(2, (len(first), 1), generator=generator).bool()
    ask = torch.cat([spelt.names[facts.target], spelt.of(facts.relation ^ 1)], 1)
    return torch.cat([first.where(turn, second), second.where(turn, first), ask], 1), facts


Lesson = Callable[[PairedWorld, Spelling, Generator, float], LessonRows]
LESSONS: Mapping[str, Lesson] = {
    each.__name__: each
    for each in (plain, both, token_copies, entity_copies, identity, composed, masked, context)
}  # fmt: skip


def questions(facts: DirectedFacts, spelt: Spelling) -> Questions:
    """`e1 r ?`."""
    tokens = torch.cat([spelt.names[facts.source], spelt.of(facts.relation)], 1)
    return Questions(tokens, facts.source, facts.target, facts.relation)


def forward_and_reverse(lesson: str, world: PairedWorld, spelt: Spelling) -> dict[str, Questions]:
    """What is asked of an arm: the taught facts, the held-out ones, and these in the arm's own form where it has one.

    The own form of copies asks `e2 r ?` (the relation as it was taught), of the masked objective `[mask] r e2`, of
    facts in context the question behind them.
    """
    asked = {"forward": questions(world.taught, spelt), "reverse": questions(world.held_out, spelt)}
    if lesson == "masked":
        asked = {name: _filled_in(each, spelt) for name, each in asked.items()}
        source, relation, target = world.taught
        blank = torch.full((len(source), spelt.width), spelt.mask)
        tokens = torch.cat([blank, spelt.of(relation), spelt.names[target]], 1)
        asked["own form"] = Questions(tokens, target, source, relation, at=0)
    if lesson in ("token_copies", "entity_copies"):
        source, relation, target = world.taught
        asked["own form"] = questions(DirectedFacts(target, relation, source), spelt)
    if lesson == "context":
        draw = batch_generator(len(world.taught.source), 3)
        tokens, facts = in_context(world.taught, world.taught, spelt, draw)
        asked["own form"] = Questions(tokens, facts.target, facts.source, facts.relation ^ 1)
    return asked


def _filled_in(asked: Questions, spelt: Spelling) -> Questions:
    blank = torch.full((len(asked.tokens), spelt.width), spelt.mask)
    return asked._replace(tokens=torch.cat([asked.tokens, blank], 1), at=asked.tokens.shape[1])
