"""Cases: a behaviour as prompt pairs of one wording, so that positions mean the same in every pair, with their names.

Each case has two sets of pairs that were drawn apart: scores are taken on the first, and the circuits that they choose
are judged on the second. All prompts hold a pair of words that training never showed together.
"""

from collections import Counter
from typing import NamedTuple

import torch
from torch import Generator, Tensor

from micrographia.core.prompts import Pairs
from micrographia.labs.ioi.grammar import WORDS, tokenizer
from micrographia.labs.ioi.task import PromptPairs, prompt_pairs
from micrographia.labs.ioi.templates import PROMPT_SPAN, Behaviour
from micrographia.labs.ioi.words import CLASSES

FRAME: dict[Behaviour, int] = {"ioi": 0, "induction": PROMPT_SPAN, "pronoun": 0, "greater": 0}
"""The wording of each behaviour: its first one; induction has one alone."""
KIND_OF = {word: kind for kind, members in CLASSES.items() for word in members}


class Case(NamedTuple):
    """`positions` names each position: the word that stands there in every pair, or what kind of word does."""

    behaviour: Behaviour
    pairs: Pairs
    """Effects and estimates are taken on these."""
    others: Pairs
    """Circuits are judged on these."""
    positions: tuple[str, ...]


def case_of(behaviour: Behaviour, n: int, generator: Generator, device: torch.device) -> Case:
    """n pairs to score on and as many to judge on."""
    drawn = prompt_pairs(behaviour, 2 * n, generator, frame=FRAME[behaviour])
    whole = as_pairs(drawn, device)
    return Case(behaviour, whole.rows(slice(0, n)), whole.rows(slice(n, None)), positions_of(drawn.clean))


def as_pairs(drawn: PromptPairs, device: torch.device) -> Pairs:
    """Prompt pairs of the grammar as every method takes them."""
    read = tokenizer().decode
    texts = tuple((read(clean), read(corrupt)) for clean, corrupt in zip(drawn.clean.tolist(), drawn.corrupt.tolist()))
    tensors = (drawn.clean, drawn.corrupt, drawn.answer, drawn.wrong)
    return Pairs(*(x.to(device) for x in tensors), texts)


def positions_of(tokens: Tensor) -> tuple[str, ...]:
    """Names of the positions of prompts of one wording; of several words of a kind, each with its number.

    >>> positions_of(torch.tensor([[1, 2], [1, 4]]))
    ('0 Mary', '1 name')
    """
    columns = [sorted({WORDS[i] for i in column}) for column in tokens.T.tolist()]
    names = [column[0] if len(column) == 1 else _kind(column) for column in columns]
    varied = Counter(name for name, column in zip(names, columns) if len(column) > 1)
    seen: Counter[str] = Counter()
    found = []
    for i, (name, column) in enumerate(zip(names, columns)):
        seen[name] += 1
        numbered = len(column) > 1 and varied[name] > 1
        found.append(f"{i} {name} {seen[name]}" if numbered else f"{i} {name}")
    return tuple(found)


def _kind(column: list[str]) -> str:
    kinds = {KIND_OF.get(word, "word") for word in column}
    return kinds.pop() if len(kinds) == 1 else "word"
