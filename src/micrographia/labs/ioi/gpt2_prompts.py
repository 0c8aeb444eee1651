"""The prompts of Wang et al. (2022) for a model that reads text: their templates, with names and nouns of our own.

Fifteen sentences in which [A], the indirect object, is named once and [B], the subject, twice (BABA); the mirrored form
(ABBA) exchanges the names of the first clause. Words are used only where the model's tokenizer makes one token of them,
so that all prompts of one template and order line up, whoever they are about.
Source: Wang et al. (2022), appendix on the dataset.
"""

import re
from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Int
from torch import Generator, Tensor

from micrographia.core.errors import BadPrompt
from micrographia.core.prompts import LanguageModel, Pairs
from micrographia.core.tokens import ids_of, single_token

TEMPLATES = (
    "Then, [B] and [A] went to the [PLACE]. [B] gave a [OBJECT] to [A]",
    "Then, [B] and [A] had a lot of fun at the [PLACE]. [B] gave a [OBJECT] to [A]",
    "Then, [B] and [A] were working at the [PLACE]. [B] decided to give a [OBJECT] to [A]",
    "Then, [B] and [A] were thinking about going to the [PLACE]. [B] wanted to give a [OBJECT] to [A]",
    "Then, [B] and [A] had a long argument, and afterwards [B] said to [A]",
    "After [B] and [A] went to the [PLACE], [B] gave a [OBJECT] to [A]",
    "When [B] and [A] got a [OBJECT] at the [PLACE], [B] decided to give it to [A]",
    "When [B] and [A] got a [OBJECT] at the [PLACE], [B] decided to give the [OBJECT] to [A]",
    "While [B] and [A] were working at the [PLACE], [B] gave a [OBJECT] to [A]",
    "While [B] and [A] were commuting to the [PLACE], [B] gave a [OBJECT] to [A]",
    "After the lunch, [B] and [A] went to the [PLACE]. [B] gave a [OBJECT] to [A]",
    "Afterwards, [B] and [A] went to the [PLACE]. [B] gave a [OBJECT] to [A]",
    "Then, [B] and [A] had a long argument. Afterwards [B] said to [A]",
    "The [PLACE] [B] and [A] went to had a [OBJECT]. [B] gave it to [A]",
    "Friends [B] and [A] found a [OBJECT] at the [PLACE]. [B] gave it to [A]",
)
ORDERS = ("BABA", "ABBA")
_NAMES = (
    "James John Robert Michael David Richard Joseph Thomas Charles Mark Paul Steven Andrew George Kevin Brian Edward "
    "Jason Jeffrey Ryan Jacob Gary Eric Scott Justin Frank Adam Henry Peter Simon Tom Jack Luke Mary Linda Elizabeth "
    "Susan Jessica Sarah Karen Nancy Lisa Emily Amy Laura Anna Rachel Kate Jane Alice Lucy Emma Julia Helen Claire "
    "Maria Rose Grace Victoria Christina"
)
NAMES = tuple(_NAMES.split())
PLACES = ("store", "garden", "restaurant", "school", "hospital", "office", "house", "station", "park", "market")
OBJECTS = ("ring", "kiss", "bone", "basketball", "computer", "necklace", "drink", "book", "ticket", "letter")
EIGHT = (  # sentence, and its two names in the order of the first clause; each is asked with either as the subject
    ("When {0} and {1} went to the shops, {S} gave the bag to", ("John", "Mary")),
    ("When {0} and {1} went to the park, {S} gave the ball to", ("Tom", "James")),
    ("When {0} and {1} went to the shops, {S} gave an apple to", ("Dan", "Sid")),
    ("After {0} and {1} went to the park, {S} gave a drink to", ("Martin", "Amy")),
)
"""The prompts of TransformerLens' exploratory demo, which begin with the beginning-of-text token."""


class Group(NamedTuple):
    """Prompts of one template and order. `swap`: S2 becomes IO; `abc`: S2 becomes a third name."""

    template: int
    order: str
    clean: Int[Tensor, "n pos"]
    swap: Int[Tensor, "n pos"]
    abc: Int[Tensor, "n pos"]
    answer: Int[Tensor, "n"]
    wrong: Int[Tensor, "n"]
    roles: dict[str, int]
    """IO, S1, S1+1, S2 and END -> position, the same in every prompt."""

    def pairs(self, corruption: str) -> Pairs:
        return Pairs(self.clean, getattr(self, corruption), self.answer, self.wrong)


class Words(NamedTuple):
    names: tuple[str, ...]
    places: tuple[str, ...]
    objects: tuple[str, ...]


def usable(model: LanguageModel) -> Words:
    """The words that are one token after a space. Raises BadPrompt where too few are, or there is no tokenizer."""
    found = Words(*(tuple(w for w in words if _is_single(model, w)) for words in (NAMES, PLACES, OBJECTS)))
    if len(found.names) < 3 or not found.places or not found.objects:
        raise BadPrompt(
            f"The prompts need three names, a place and an object of one token each. Of {len(NAMES)} names "
            f"{len(found.names)} are, of {len(PLACES)} places {len(found.places)}, of {len(OBJECTS)} objects "
            f"{len(found.objects)}. Choose a model whose tokenizer knows common English words, such as gpt2."
        )
    return found


def _is_single(model: LanguageModel, word: str) -> bool:
    """One token, and its own: an unknown word may be one token too."""
    assert model.tokenizer is not None
    try:
        found = single_token(model.tokenizer, f" {word}")
    except BadPrompt:
        return False
    return model.tokenizer.decode([found]).strip() == word


def group(model: LanguageModel, template: int, order: str, n: int, words: Words, draw: Generator) -> Group:
    """n prompts of one template and order, names, places and objects drawn evenly."""
    drawn = [_filled(template, order, words, draw) for _ in range(n)]
    columns = list(zip(*drawn))
    clean, swap, abc = (_tokens(model, texts) for texts in columns[:3])
    right, wrong = (_ids(model, names, clean.device) for names in columns[3:])
    return Group(template, order, clean, swap, abc, right, wrong, roles_of(clean, right, wrong))


def roles_of(clean: Tensor, right: Tensor, wrong: Tensor) -> dict[str, int]:
    """Where the names stand, by their ids. Raises BadPrompt unless they stand alike in every prompt."""
    io = (clean == right[:, None]).int().argmax(1)
    subject = clean == wrong[:, None]
    first, last = subject.int().argmax(1), clean.shape[1] - 1 - subject.flip(1).int().argmax(1)
    if any(len(at.unique()) > 1 for at in (io, first, last)) or (first == last).any():
        raise BadPrompt("The names do not stand alike in all prompts of a template. Use a tokenizer that parts words.")
    s1, s2 = int(first[0]), int(last[0])
    return {"IO": int(io[0]), "S1": s1, "S1+1": s1 + 1, "S2": s2, "END": clean.shape[1] - 1}


def eight_prompts(model: LanguageModel) -> Pairs:
    """The demo's eight prompts, each beside the one with the other subject.

    Raises BadPrompt where they differ in length, or a name is not one token.
    """
    if unknown := sorted({name for _, names in EIGHT for name in names if not _is_single(model, name)}):
        raise BadPrompt(
            f"Asked for the demo's prompts, but the tokenizer does not make one token of {', '.join(unknown)}. Use "
            "gpt2's, or leave them out."
        )
    rows = []
    for text, names in EIGHT:
        for subject, other in (names, names[::-1]):
            clean, corrupt = (text.format(*names, S=who) for who in (subject, other))
            rows.append((clean, corrupt, other, subject))
    columns = list(zip(*rows))
    clean, corrupt = (_tokens(model, texts, prepend_bos=True) for texts in columns[:2])
    answer, wrong = (_ids(model, names, clean.device) for names in columns[2:])
    return Pairs(clean, corrupt, answer, wrong)


def _filled(template: int, order: str, words: Words, draw: Generator) -> tuple[str, str, str, str, str]:
    """Clean, swapped and ABC prompt, IO and S."""

    def one(among: Sequence[str]) -> str:
        return among[int(torch.randint(len(among), (1,), generator=draw))]

    io, subject, third = (words.names[i] for i in torch.randperm(len(words.names), generator=draw)[:3].tolist())
    text = TEMPLATES[template].replace("[PLACE]", one(words.places)).replace("[OBJECT]", one(words.objects))
    text = text.removesuffix(" [A]")
    if order == "ABBA":
        text = re.sub(r"\[B\] and \[A\]", "[A] and [B]", text, count=1)
    begin, _, end = text.rpartition("[B]")
    prompts = [f"{begin}{who}{end}".replace("[A]", io).replace("[B]", subject) for who in (subject, io, third)]
    return prompts[0], prompts[1], prompts[2], io, subject


def _tokens(model: LanguageModel, texts: Sequence[str], *, prepend_bos: bool | None = None) -> Int[Tensor, "n pos"]:
    found = model.to_tokens(list(texts), prepend_bos=prepend_bos)
    ids = ids_of(found)
    if not isinstance(found, Tensor):
        lengths = sorted({len(model.tokenizer.encode(text)) for text in texts}) if model.tokenizer else []
        raise BadPrompt(
            f"Prompts that stand together should have one length; {texts[0]!r} and others have {lengths} tokens. "
            "Use a tokenizer that makes one token of each common word."
        )
    return ids


def _ids(model: LanguageModel, words: Sequence[str], device: torch.device) -> Int[Tensor, "n"]:
    return torch.tensor([single_token(model.tokenizer, f" {word}") for word in words], device=device)
