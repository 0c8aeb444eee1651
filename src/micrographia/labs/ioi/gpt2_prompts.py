"""The prompts of Wang et al. (2022) for a model that reads text: their templates, with names and nouns of our own.

Fifteen sentences in which [A], the indirect object, is named once and [B], the subject, twice (BABA); the mirrored form
(ABBA) exchanges the names of the first clause. Words are used only where the model's tokenizer makes one token of them,
so that all prompts of one template and order line up, whoever they are about.
Source: Wang et al. (2022), appendix on the dataset.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Generator

from micrographia.core.errors import BadPrompt
from micrographia.core.framing import PLAIN, Framing
from micrographia.core.prompts import LanguageModel, Pairs, PairText, from_texts
from micrographia.core.tokens import Batch, ids_of, single_token

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


class Filled(NamedTuple):
    """A template with its words. `swap`: S2 becomes IO; `abc`: S2 becomes a third name."""

    clean: str
    swap: str
    abc: str
    io: str
    subject: str

    def pair(self, corruption: str) -> PairText:
        return PairText(self.clean, getattr(self, corruption), f" {self.io}", f" {self.subject}")


class Group(NamedTuple):
    """Prompts of one template and order, beside those of either corruption."""

    template: int
    order: str
    swap: Pairs
    abc: Pairs
    roles: dict[str, int]
    """IO, S1, S1+1, S2 and END -> position, the same in every prompt."""


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
        return model.tokenizer.decode([single_token(model.tokenizer, f" {word}")]).strip() == word
    except BadPrompt:
        return False


def filled(template: int, order: str, n: int, words: Words, draw: Generator) -> list[Filled]:
    """n prompts of one template and order, names, places and objects drawn evenly."""

    def one(among: Sequence[str]) -> str:
        return among[int(torch.randint(len(among), (1,), generator=draw))]

    found = []
    for _ in range(n):
        io, subject, third = (words.names[i] for i in torch.randperm(len(words.names), generator=draw)[:3].tolist())
        text = TEMPLATES[template].replace("[PLACE]", one(words.places)).replace("[OBJECT]", one(words.objects))
        if order == "ABBA":
            text = text.replace("[B] and [A]", "[A] and [B]", 1)
        begin, _, end = text.removesuffix(" [A]").rpartition("[B]")
        text = f"{begin}{{}}{end}".replace("[A]", io).replace("[B]", subject)
        found.append(Filled(text.format(subject), text.format(io), text.format(third), io, subject))
    return found


def lined_up(model: LanguageModel, rows: Sequence[PairText], framing: Framing = PLAIN) -> Pairs:
    """Pairs that all have one length. Raises BadPrompt where the tokenizer makes several: padding would be read."""
    pairs = from_texts(model, rows, framing=framing)
    if isinstance(pairs.clean, Batch):
        raise BadPrompt(
            f"Prompts that stand together should have one length; {rows[0].clean!r} and others do not. Use a tokenizer "
            "that makes one token of each common word."
        )
    return pairs


def group(model: LanguageModel, template: int, order: str, n: int, words: Words, draw: Generator) -> Group:
    """n prompts of one template and order."""
    rows = filled(template, order, n, words, draw)
    swap, abc = (lined_up(model, [row.pair(corruption) for row in rows]) for corruption in ("swap", "abc"))
    return Group(template, order, swap, abc, roles_of(abc))


def roles_of(pairs: Pairs) -> dict[str, int]:
    """Where the names stand, by their ids. Raises BadPrompt unless they stand alike in every prompt."""
    clean, wrong = ids_of(pairs.clean), pairs.wrong
    assert wrong is not None
    subject, last = (clean == wrong[:, None]).int(), clean.shape[1] - 1
    io = (clean == pairs.answer[:, None]).int().argmax(1)
    s1, s2 = subject.argmax(1), last - subject.flip(1).argmax(1)
    if any(len(at.unique()) > 1 for at in (io, s1, s2)) or (s1 == s2).any():
        raise BadPrompt("The names do not stand alike in all prompts of a template. Use a tokenizer that parts words.")
    return {"IO": int(io[0]), "S1": int(s1[0]), "S1+1": int(s1[0]) + 1, "S2": int(s2[0]), "END": last}


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
            rows.append(PairText(clean, corrupt, f" {other}", f" {subject}"))
    return lined_up(model, rows, Framing(bos=True))
