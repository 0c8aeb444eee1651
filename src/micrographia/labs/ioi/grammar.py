"""Draw sentences of the synthetic language and pack them into contexts: every batch a pure function of (seed, step).

A drawn sentence is a template and the words of all slots, whether or not the template uses them, so that a batch is a
few table look-ups. A context is the beginning-of-text token and sentences end to end, the last one cut off: there is no
padding, and a sentence may begin anywhere. Pairs of words are held out of training by remainder (see `words.PARTS`).
"""

from functools import cache
from typing import NamedTuple

import torch
from jaxtyping import Bool, Int
from torch import Generator, Tensor

from micrographia.core.runtime import batch_generator
from micrographia.core.small.next_token import Text
from micrographia.core.tokens import Vocabulary
from micrographia.labs.ioi.templates import (
    ABC_SHARE,
    CHAIN_SHARE,
    CHAINED,
    SHARES,
    SLOTS,
    TEMPLATES,
    Template,
    vocabulary,
)
from micrographia.labs.ioi.words import BOS, CLASSES, NAMES, PARTS

WORDS = vocabulary()
IDS = {word: i for i, word in enumerate(WORDS)}
CENTURIES = range(11, 18)
YEARS = 100
UNREPEATED = (BOS, ".", "?", *CLASSES["number"])
"""Words that stand in no random span. Numbers do not, so that all they mean is their order."""


class Table(NamedTuple):
    """The templates as numbers: word ids, and -1 - i for slot i; 0 after the end."""

    codes: Int[Tensor, "template place"]
    scored: Bool[Tensor, "template place"]
    """Whether anything before it tells about the word: not so in a random span."""
    lengths: Int[Tensor, "template"]
    frame: Int[Tensor, "template"]
    share: Tensor
    """Of all sentences in training."""


class Sentences(NamedTuple):
    """Drawn sentences: what was drawn, and their words."""

    template: Int[Tensor, "n"]
    slots: Int[Tensor, "n slot"]
    tokens: Int[Tensor, "n place"]
    """0 after the end."""


@cache
def table() -> Table:
    longest = max(len(template.words) for template in TEMPLATES)
    codes = torch.zeros(len(TEMPLATES), longest, dtype=torch.long)
    scored = torch.ones_like(codes, dtype=torch.bool)
    for i, template in enumerate(TEMPLATES):
        codes[i, : len(template.words)] = torch.tensor([_code(word) for word in template.words])
        scored[i, : template.frame if template.behaviour == "induction" else 0] = False
    share = torch.tensor([_weight(template) for template in TEMPLATES])
    for behaviour, part in SHARES.items():
        own = torch.tensor([template.behaviour == behaviour for template in TEMPLATES])
        share[own] *= part / share[own].sum()
    lengths = torch.tensor([len(template.words) for template in TEMPLATES])
    return Table(codes, scored, lengths, torch.tensor([template.frame for template in TEMPLATES]), share)


def _weight(template: Template) -> float:
    """How common a template is beside the others of its behaviour."""
    if template.behaviour == "greater":
        frames = sum(each.behaviour == "greater" for each in TEMPLATES) - 1
        return CHAIN_SHARE if template.form == "chain" else (1 - CHAIN_SHARE) / frames
    return ABC_SHARE if template.form.startswith("abc") else 1 - ABC_SHARE


def _code(word: str) -> int:
    return -1 - SLOTS.index(word[1:-1]) if word.startswith("{") else IDS[word]


def tokenizer() -> Vocabulary:
    """Words in, words out; a text of its own begins with BOS."""
    return Vocabulary(WORDS, bos=IDS[BOS])


def word_ids(kind: str) -> Int[Tensor, "word"]:
    """Ids of a class of words, in its order: they follow one another."""
    first = IDS[CLASSES[kind][0]]
    return torch.arange(first, first + len(CLASSES[kind]))


@cache
def repeatable() -> Int[Tensor, "word"]:
    """Ids of the words that random spans are made of."""
    return torch.tensor([i for word, i in IDS.items() if word not in UNREPEATED])


def draw_slots(frame: Int[Tensor, "n"], generator: Generator, *, held_out: bool = False) -> Int[Tensor, "n slot"]:
    """Words for every slot of n sentences, as ids in the order of `SLOTS`.

    Held out together are pairs of names, objects by frame, names by job, and years by event: all of them when
    `held_out`, none of them else. The years run from 0 to 97, so that a later one is left.
    """
    n = len(frame)

    def below(bound: Tensor | int) -> Tensor:
        return (torch.rand(n, generator=generator, dtype=torch.float64) * bound).long()

    def partner(i: Tensor, size: int) -> Tensor:
        """An index whose pair with i is held out, or is not."""
        part = (torch.zeros_like(i) if held_out else 1 + below(PARTS - 1)) - i
        return PARTS * below(size // PARTS) + part % PARTS

    def class_of(kind: str) -> Tensor:
        return below(len(CLASSES[kind]))

    subject, named, event = class_of("name"), class_of("name"), class_of("event")
    recipient = partner(subject, len(NAMES))
    recipient = torch.where(recipient == subject, (recipient + PARTS) % len(NAMES), recipient)  # of the same part
    third = _apart(class_of("name"), subject, recipient)
    year = partner(event, YEARS)
    year = torch.where(year >= YEARS - 2, year - YEARS // 2, year)
    rising = torch.rand(n, len(CHAINED), generator=generator, dtype=torch.float64) * (YEARS - len(CHAINED) + 1)
    chain = rising.long().sort(1).values + torch.arange(len(CHAINED))
    span = torch.rand(n, len(repeatable()), generator=generator).topk(sum(slot[0] == "r" for slot in SLOTS)).indices
    ids = {kind: int(word_ids(kind)[0]) for kind in CLASSES}
    columns = [
        *(ids["name"] + x for x in (recipient, subject, third, named)),
        IDS["she"] + named % 2,
        ids["place"] + class_of("place"),
        ids["object"] + partner(frame, len(CLASSES["object"])),
        ids["trait"] + class_of("trait"),
        ids["job"] + partner(named, len(CLASSES["job"])),
        ids["event"] + event,
        ids["number"] + CENTURIES[0] + below(len(CENTURIES)),
        ids["number"] + year,
        ids["number"] + year + 1 + below(YEARS - 1 - year),
        *(ids["number"] + chain).unbind(1),
    ]
    return torch.cat([torch.stack(columns, 1), repeatable()[span]], 1)


def _apart(third: Tensor, *others: Tensor) -> Tensor:
    """The index itself, or the next that is none of the others."""
    for _ in others:
        taken = torch.stack([third == other for other in others]).any(0)
        third = torch.where(taken, (third + 1) % len(NAMES), third)
    return third


def fill(template: Int[Tensor, "n"], slots: Int[Tensor, "n slot"]) -> Int[Tensor, "n place"]:
    """The words of sentences; 0 after the end."""
    codes = table().codes[template]
    return torch.where(codes < 0, slots.gather(1, (-1 - codes).clamp_min(0)), codes)


def draw_sentences(n: int, generator: Generator) -> Sentences:
    """Sentences of all behaviours in their shares, none of them held out."""
    template = torch.multinomial(table().share, n, replacement=True, generator=generator)
    slots = draw_slots(table().frame[template], generator)
    return Sentences(template, slots, fill(template, slots))


def batch(seed: int, step: int, *, rows: int, n_ctx: int) -> Text:
    """The contexts of one step. Draws as many sentences a row as the shortest would need."""
    each = -(-(n_ctx - 1) // int(table().lengths.min()))
    drawn = draw_sentences(rows * each, batch_generator(seed, step))
    lengths, width = table().lengths[drawn.template].view(rows, each), drawn.tokens.shape[1]
    begin = 1 + lengths.cumsum(1) - lengths
    place = begin[:, :, None] + torch.arange(width)
    place[torch.arange(width) >= lengths[:, :, None]] = n_ctx
    place = place.clamp_max(n_ctx).flatten(1)  # what falls off the end meets in one column
    tokens = torch.full((rows, n_ctx + 1), IDS[BOS]).scatter_(1, place, drawn.tokens.view(rows, -1))
    scored = torch.zeros(rows, n_ctx + 1, dtype=torch.bool)
    scored.scatter_(1, place, table().scored[drawn.template].view(rows, -1))
    return Text(tokens[:, :n_ctx], scored[:, :n_ctx])
