"""The task: the four behaviours, each a value with its answers and corruptions, and prompt pairs made of them.

A corruption changes one thing and keeps the sentence one of the language (symmetric token replacement; Zhang and Nanda
2023, "Towards best practices of activation patching"). By default every prompt holds a pair of words that training
never showed together.
"""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Bool, Int
from torch import Generator, Tensor

from micrographia.core.errors import BadConfig
from micrographia.core.prompts import Pairs
from micrographia.labs.ioi.grammar import (
    BOS,
    CLASSES,
    FIRST,
    IDS,
    NAMES,
    PARTS,
    PROMPT_SPAN,
    TEMPLATES,
    WORDS,
    YEARS,
    Sentences,
    draw_slots,
    table,
    tokenizer,
    word_ids,
)

Corruption = Callable[[Sentences, Generator], Sentences]


@dataclass(frozen=True, kw_only=True, slots=True)
class Behaviour:
    """What is asked of its templates. The first corruption is the one that is meant where none is named."""

    corruptions: Mapping[str, Corruption]
    answers: Callable[[Sentences, Sentences, Generator], tuple[Tensor, Tensor]]
    """(clean, corrupt) -> a right answer to the clean prompt, and a wrong one: the corrupt prompt's, if it has one."""
    all_right: Callable[[Sentences], Bool[Tensor, "n number"]] | None = None
    """Which numbers are right, where more than that one answer is."""
    begin: Corruption = lambda drawn, generator: drawn
    """What is done to the clean prompts first."""
    frame: int = 0
    """The wording that is taken apart."""


def _form(drawn: Sentences, turned: Mapping[str, str]) -> Sentences:
    """The same words in other forms of their frames."""
    index = {(t.behaviour, t.frame, t.form): i for i, t in enumerate(TEMPLATES)}
    old = [TEMPLATES[i] for i in drawn.template.tolist()]
    return drawn._replace(template=torch.tensor([index[t.behaviour, t.frame, turned[t.form]] for t in old]))


def _swap(drawn: Sentences, generator: Generator) -> Sentences:
    """S2 becomes IO: the names change their parts, and so does the first clause. The answer turns round."""
    turned = _form(drawn, {"ABBA": "BABA", "BABA": "ABBA"})
    return turned.changed(IO=drawn.slot("S"), S=drawn.slot("IO"))


def _third_name(drawn: Sentences, generator: Generator) -> Sentences:
    """S2 becomes a third name, so there is no answer."""
    return _form(drawn, {"ABBA": "abc-ABBA", "BABA": "abc-BABA"})


def _another_last(drawn: Sentences, generator: Generator) -> Sentences:
    """The last word becomes another of the span: the piece begins elsewhere."""
    starts = _prompt_templates("induction", None)
    step = torch.randint(1, len(starts), drawn.template.shape, generator=generator)
    return drawn._replace(template=starts[(torch.searchsorted(starts, drawn.template) + step) % len(starts)])


def _other_gender(drawn: Sentences, generator: Generator) -> Sentences:
    """An odd multiple of PARTS further on: of the other gender, and held out if the name was."""
    step = PARTS * (2 * torch.randint(len(NAMES) // (2 * PARTS), drawn.template.shape, generator=generator) + 1)
    other = (drawn.slot("N") - FIRST["name"] + step) % len(NAMES)
    return drawn.changed(N=FIRST["name"] + other, she=IDS["she"] + other % 2)


def _first_year(drawn: Sentences, generator: Generator) -> Sentences:
    """The year becomes 01, after which every answer is right (Hanna et al. 2023, section 3)."""
    return drawn.changed(YY=torch.full_like(drawn.template, IDS["01"]))


def _with_an_earlier_year(drawn: Sentences, generator: Generator) -> Sentences:
    """Years of 02 to 97, so that there is an earlier one from 02 on: a wrong answer that 01 makes right."""
    year = drawn.slot("YY")
    return drawn.changed(YY=torch.where(year < IDS["02"], year + YEARS // 2, year))  # of the same part


def _later_years(clean: Sentences, corrupt: Sentences, generator: Generator) -> tuple[Tensor, Tensor]:
    """A later year, and one from 02 to the year itself."""
    year = clean.slot("YY") - IDS["00"]
    u, v = torch.rand(2, len(year), generator=generator, dtype=torch.float64)
    return IDS["00"] + year + 1 + (u * (YEARS - 1 - year)).long(), IDS["00"] + 2 + (v * (year - 1)).long()


BEHAVIOURS: Mapping[str, Behaviour] = {
    "ioi": Behaviour(
        corruptions={"swap": _swap, "abc": _third_name},
        answers=lambda clean, corrupt, generator: (clean.slot("IO"), clean.slot("S")),
    ),
    "induction": Behaviour(
        corruptions={"last": _another_last},
        answers=lambda clean, corrupt, generator: (
            clean.tokens[:, PROMPT_SPAN + 1],
            corrupt.tokens[:, PROMPT_SPAN + 1],
        ),
        frame=PROMPT_SPAN,
    ),
    "pronoun": Behaviour(
        corruptions={"gender": _other_gender},
        answers=lambda clean, corrupt, generator: (clean.slot("she"), corrupt.slot("she")),
    ),
    "greater": Behaviour(
        corruptions={"first": _first_year},
        answers=_later_years,
        all_right=lambda clean: word_ids("number") > clean.slot("YY")[:, None],
        begin=_with_an_earlier_year,
    ),
}


class PromptPairs(NamedTuple):
    """Prompts that begin with BOS and end before the answer. `roles`: name -> position in each clean prompt."""

    clean: Int[Tensor, "n pos"]
    corrupt: Int[Tensor, "n pos"]
    answer: Int[Tensor, "n"]
    """The clean prompt's answer; of several one, at random."""
    wrong: Int[Tensor, "n"]
    answers: Bool[Tensor, "n word"]
    """Every right answer to the clean prompt."""
    roles: dict[str, Int[Tensor, "n"]]
    template: Int[Tensor, "n"]
    """Index into `TEMPLATES`."""


def prompt_pairs(
    behaviour: str,
    n: int,
    generator: Generator,
    *,
    corruption: str = "",
    held_out: bool = True,
    frame: int | None = None,
) -> PromptPairs:
    """n pairs of one behaviour, over all its wordings or those of one `frame`; by default its first corruption.

    Raises BadConfig for a corruption or frame that the behaviour does not have.
    """
    own = BEHAVIOURS[behaviour]
    name = corruption or next(iter(own.corruptions))
    if name not in own.corruptions:
        known = ", ".join(own.corruptions)
        raise BadConfig(f"Asked for the corruption {name!r} of {behaviour}; it has {known}. Choose one of these.")
    choices = _prompt_templates(behaviour, frame)
    template = choices[torch.randint(len(choices), (n,), generator=generator)]
    slots = draw_slots(table().frame[template], generator, held_out=held_out)
    clean = own.begin(Sentences(template, slots), generator)
    corrupt = own.corruptions[name](clean, generator)
    right, wrong = own.answers(clean, corrupt, generator)
    answers = torch.zeros(n, len(WORDS), dtype=torch.bool).scatter_(1, right[:, None], True)
    if own.all_right is not None:
        answers[:, word_ids("number")] = own.all_right(clean)
    places = [TEMPLATES[i].roles for i in template.tolist()]
    roles = {role: torch.tensor([1 + each[role] for each in places]) for role in places[0]}  # BOS comes first
    sides = [
        torch.cat([torch.full((n, 1), IDS[BOS]), x.tokens[:, : places[0]["END"] + 1]], 1) for x in (clean, corrupt)
    ]
    return PromptPairs(sides[0], sides[1], right, wrong, answers, roles, template)


def _prompt_templates(behaviour: str, frame: int | None) -> Tensor:
    own = [(i, each.frame) for i, each in enumerate(TEMPLATES) if each.behaviour == behaviour and each.roles]
    if not (found := [i for i, of in own if frame in (None, of)]):
        raise BadConfig(f"Asked for prompts of {behaviour} in frame {frame}; there are none. Leave the frame open.")
    return torch.tensor(found)


class Case(NamedTuple):
    """`positions` names each position: the word that stands there in every pair, or what kind of word does."""

    behaviour: str
    pairs: Pairs
    """Effects and estimates are taken on these."""
    others: Pairs
    """Circuits are judged on these."""
    positions: tuple[str, ...]


def case_of(behaviour: str, n: int, generator: Generator, device: torch.device) -> Case:
    """n pairs of one wording to score on and as many to judge on."""
    drawn = prompt_pairs(behaviour, 2 * n, generator, frame=BEHAVIOURS[behaviour].frame)
    read = tokenizer().decode
    texts = tuple((read(clean), read(corrupt)) for clean, corrupt in zip(drawn.clean.tolist(), drawn.corrupt.tolist()))
    clean, corrupt, answer, wrong = (x.to(device) for x in drawn[:4])
    whole = Pairs(clean, corrupt, answer, wrong, texts)
    return Case(behaviour, whole.rows(slice(0, n)), whole.rows(slice(n, None)), positions_of(drawn.clean))


KIND_OF = {word: kind for kind, members in CLASSES.items() for word in members}


def positions_of(tokens: Tensor) -> tuple[str, ...]:
    """Names of the positions of prompts of one wording; of several words of a kind, each with its number.

    >>> positions_of(torch.tensor([[1, 2], [1, 4]]))
    ('0 Mary', '1 name')
    """
    columns = [{WORDS[i] for i in column} for column in tokens.T.tolist()]
    kinds = [{KIND_OF.get(word, "word") for word in column} for column in columns]
    varied = [
        "" if len(column) == 1 else kind.pop() if len(kind) == 1 else "word" for column, kind in zip(columns, kinds)
    ]
    names, seen = [], Counter[str]()
    for column, kind in zip(columns, varied):
        seen[kind] += 1
        names.append(f"{kind} {seen[kind]}" if kind and varied.count(kind) > 1 else kind or column.pop())
    return tuple(f"{i} {name}" for i, name in enumerate(names))
