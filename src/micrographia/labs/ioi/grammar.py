"""The synthetic language: its 257 words, its sentences as templates, and every batch a pure function of (seed, step).

Four behaviours occur. `ioi`: two names, then one of them again (or a third name, the `abc` form), then the other, as in
Wang et al. (2022), "Interpretability in the wild". `pronoun`: a name, then the pronoun of its gender. `greater`: a year
and a later one of the same century, as in Hanna et al. (2023), "How does GPT-2 compute greater-than?". `induction`: a
span of random words, then again two pieces of it, after Olsson et al. (2022), "In-context learning and induction
heads". The prompts of a behaviour, up to its answer, have one length. A context is the beginning-of-text token and
sentences end to end, the last one cut off: there is no padding, and a sentence may begin anywhere.
"""

import re
from collections.abc import Iterator, Mapping
from functools import cache
from itertools import product
from typing import NamedTuple

import torch
from jaxtyping import Bool, Int
from torch import Generator, Tensor

from micrographia.core.runtime import batch_generator
from micrographia.core.small.next_token import Text
from micrographia.core.tokens import Vocabulary

PARTS = 5
"""A pair of words at places i and j of their classes is held out of training when (i + j) % PARTS is 0, so every class
of content words has a multiple of PARTS members."""

WOMEN = (
    "Mary Alice Emma Laura Sarah Anna Julia Kate Lucy Rachel Claire Helen Jane Nora Ruth Diana Irene Martha Olga Vera"
)
MEN = "John Tom James Dan Mark Paul Peter Simon David Adam Charles Henry George Frank Jack Oscar Victor Hugo Ivan Leo"
NAMES = tuple(name for pair in zip(WOMEN.split(), MEN.split(), strict=True) for name in pair)

CLASSES: dict[str, tuple[str, ...]] = {
    "name": NAMES,
    "place": ("shop", "school", "garden", "station", "office", "museum", "market", "park", "library", "harbour"),
    "object": ("drink", "book", "ring", "letter", "basket", "ticket", "lamp", "kite", "coin", "flower"),
    "job": ("friend", "doctor", "teacher", "cook", "painter", "singer", "farmer", "lawyer", "driver", "baker"),
    "trait": ("great", "kind", "brave", "clever", "humble", "patient", "gentle", "bright", "quiet", "strong"),
    "event": ("war", "siege", "strike", "voyage", "project", "drought", "trial", "plague", "reform", "feud"),
    "number": tuple(f"{n:02d}" for n in range(100)),
}
"""Content words by class. Numbers are the centuries and the years within them."""

BOS = "<bos>"
PRONOUNS = ("she", "he")
"""In the order of the names: she for even places, he for odd."""
STOP = "."

SHARES = {"ioi": 0.5, "induction": 0.2, "pronoun": 0.1, "greater": 0.2}
"""Of all sentences in training, by behaviour."""
SPANS, PROMPT_SPAN, SHORTEST_PIECE = range(4, 9), 8, 3
"""Words in a random span, in that of a prompt, and in a piece of it that is repeated."""
ABC_SHARE, CHAIN_SHARE = 0.15, 0.4
"""Of the ioi sentences those with three names, whose answer is either of the first two; of `greater` those with a chain
of years."""

Roles = Mapping[str, tuple[str, int, int]]
"""Role -> its slot, at which occurrence of it, and how many words on. END is the word before the answer."""
# 1 and 2 are the names of the first clause, 3 who acts, 4 the answer.
IOI_FRAMES = (
    "When 1 and 2 went to the {place} , 3 gave a {object} to 4 .",
    "After 1 and 2 met in the {place} , 3 handed a {object} to 4 .",
    "While 1 and 2 sat at the {place} , 3 sent the {object} to 4 .",
    "Then 1 and 2 left the {place} and 3 gave a small {object} to 4 .",
    "1 and 2 talked at the {place} , where 3 showed the {object} to 4 .",
    "Since 1 and 2 liked the {place} , 3 bought a {object} there for 4 .",
    "Last week 1 and 2 saw the {place} , 3 offered the {object} to 4 .",
    "Before 1 and 2 reached the old {place} , 3 lent a {object} to 4 .",
)
IOI_FORMS = {  # form -> what stands at 1, 2, 3, 4
    "ABBA": ("{IO}", "{S}", "{S}", "{IO}"),
    "BABA": ("{S}", "{IO}", "{S}", "{IO}"),
    "abc-ABBA": ("{IO}", "{S}", "{C}", "{IO}"),
    "abc-BABA": ("{S}", "{IO}", "{C}", "{IO}"),
}
IOI: Roles = {"IO": ("IO", 0, 0), "S1": ("S", 0, 0), "S1+1": ("S", 0, 1), "S2": ("S", 1, 0), "END": ("IO", 1, -1)}
PRONOUN_FRAMES = (
    "So {N} is a really {trait} {job} , isn't {she} ?",
    "Back then {N} was a {trait} {job} , wasn't {she} ?",
    "Everyone said {N} , the {trait} {job} , hoped {she} would win .",
    "The {trait} {job} was {N} , and everyone knew {she} had won .",
)
PRONOUN: Roles = {"N": ("N", 0, 0), "END": ("she", 0, -1)}
GREATER_FRAMES = (
    "The {event} lasted from the year {XX} {YY} to the year {XX} {later} .",
    "The {event} began in the year {XX} {YY} and ended in {XX} {later} .",
    "From the year {XX} {YY} the {event} went on to year {XX} {later} .",
)
GREATER: Roles = {"XX": ("XX", 0, 0), "YY": ("YY", 0, 0), "END": ("later", 0, -1)}
CHAIN = "It was a good year in {Y1} , {Y2} , {Y3} , {Y4} and {Y5} ."
"""Years that rise: many answers in few words, so that the order of the numbers is learned soon."""
CHAINED = tuple(f"Y{i}" for i in range(1, 6))
SLOTS = ("IO", "S", "C", "N", "she", "place", "object", "trait", "job", "event", "XX", "YY", "later", *CHAINED)
SLOTS += tuple(f"r{i}" for i in range(max(SPANS)))


class Template(NamedTuple):
    """A sentence with slots. `frame` counts the wordings of a behaviour, `form` names the order of its slots."""

    behaviour: str
    frame: int
    form: str
    words: tuple[str, ...]
    roles: Mapping[str, int]
    """Role -> its place, counted from the first word; empty where no prompt is made of it."""
    weight: float = 1 - ABC_SHARE
    """How common it is beside the others of its behaviour."""
    silent: int = 0
    """Words at its beginning of which nothing before them tells: a random span."""


def _worded(behaviour: str, frame: int, text: str, roles: Roles, form: str = "", **more: float) -> Template:
    words = tuple(text.split())
    at = {slot: [i for i, word in enumerate(words) if word == f"{{{slot}}}"] for slot in SLOTS}
    return Template(behaviour, frame, form, words, {role: at[s][n] + on for role, (s, n, on) in roles.items()}, **more)  # type: ignore[arg-type]  # weight alone


def _templates() -> Iterator[Template]:
    for frame, text in enumerate(IOI_FRAMES):
        for form, names in IOI_FORMS.items():
            filled = re.sub(r"\b[1-4]\b", lambda match, names=names: names[int(match[0]) - 1], text)
            abc = form.startswith("abc")
            yield _worded("ioi", frame, filled, {} if abc else IOI, form, weight=ABC_SHARE if abc else 1 - ABC_SHARE)
    for k in SPANS:  # a span of k words, then the pieces of it that begin at words i and j
        span = tuple(f"{{r{i}}}" for i in range(k))
        for i, j in product(range(k - SHORTEST_PIECE + 1), repeat=2):
            roles = {"A1": i, "A1+1": i + 1, "END": k} if k == PROMPT_SPAN and j == 0 else {}
            yield Template("induction", k, f"{i} {j}", (*span, *span[i:], *span[j:], STOP), roles, silent=k)
    yield from (_worded("pronoun", i, text, PRONOUN) for i, text in enumerate(PRONOUN_FRAMES))
    each = (1 - CHAIN_SHARE) / len(GREATER_FRAMES)
    yield from (_worded("greater", i, text, GREATER, weight=each) for i, text in enumerate(GREATER_FRAMES))
    yield _worded("greater", len(GREATER_FRAMES), CHAIN, {}, "chain", weight=CHAIN_SHARE)


TEMPLATES = tuple(_templates())


def vocabulary() -> tuple[str, ...]:
    """Every word: the beginning of a context, the classes one after the other, then the words of the templates."""
    classes = [word for members in CLASSES.values() for word in members]
    literal = sorted({word for template in TEMPLATES for word in template.words if not word.startswith("{")})
    return tuple(dict.fromkeys([BOS, *classes, *PRONOUNS, *literal]))


WORDS = vocabulary()
IDS = {word: i for i, word in enumerate(WORDS)}
FIRST = {kind: IDS[members[0]] for kind, members in CLASSES.items()}
"""The id of the first word of each class; the others follow it."""
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


@cache
def table() -> Table:
    lengths = torch.tensor([len(template.words) for template in TEMPLATES])
    codes = torch.zeros(len(TEMPLATES), int(lengths.max()), dtype=torch.long)
    for row, template in zip(codes, TEMPLATES):
        code = [-1 - SLOTS.index(word[1:-1]) if word.startswith("{") else IDS[word] for word in template.words]
        row[: len(code)] = torch.tensor(code)
    scored = torch.arange(codes.shape[1]) >= torch.tensor([template.silent for template in TEMPLATES])[:, None]
    share = torch.tensor([template.weight for template in TEMPLATES])
    for behaviour, part in SHARES.items():
        own = torch.tensor([template.behaviour == behaviour for template in TEMPLATES])
        share[own] *= part / share[own].sum()
    return Table(codes, scored, lengths, torch.tensor([template.frame for template in TEMPLATES]), share)


class Sentences(NamedTuple):
    """Drawn sentences: the template of each, and a word for every slot, as ids in the order of `SLOTS`."""

    template: Int[Tensor, "n"]
    slots: Int[Tensor, "n slot"]

    @property
    def tokens(self) -> Int[Tensor, "n place"]:
        """Their words; 0 after the end."""
        codes = table().codes[self.template]
        return torch.where(codes < 0, self.slots.gather(1, (-1 - codes).clamp_min(0)), codes)

    def slot(self, name: str) -> Int[Tensor, "n"]:
        return self.slots[:, SLOTS.index(name)]

    def changed(self, **values: Tensor) -> "Sentences":
        """With other words in some slots."""
        slots = self.slots.clone()
        for name, value in values.items():
            slots[:, SLOTS.index(name)] = value
        return self._replace(slots=slots)


def tokenizer() -> Vocabulary:
    """Words in, words out; a text of its own begins with BOS."""
    return Vocabulary(WORDS, bos=IDS[BOS])


def word_ids(kind: str) -> Int[Tensor, "word"]:
    """Ids of a class of words, in its order: they follow one another."""
    return FIRST[kind] + torch.arange(len(CLASSES[kind]))


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
    columns = [
        *(FIRST["name"] + x for x in (recipient, subject, third, named)),
        IDS["she"] + named % 2,
        FIRST["place"] + class_of("place"),
        FIRST["object"] + partner(frame, len(CLASSES["object"])),
        FIRST["trait"] + class_of("trait"),
        FIRST["job"] + partner(named, len(CLASSES["job"])),
        FIRST["event"] + event,
        FIRST["number"] + CENTURIES[0] + below(len(CENTURIES)),
        FIRST["number"] + year,
        FIRST["number"] + year + 1 + below(YEARS - 1 - year),
        *(FIRST["number"] + chain).unbind(1),
    ]
    return torch.cat([torch.stack(columns, 1), repeatable()[span]], 1)


def _apart(third: Tensor, *others: Tensor) -> Tensor:
    """The index itself, or the next that is none of the others."""
    for _ in others:
        taken = torch.stack([third == other for other in others]).any(0)
        third = torch.where(taken, (third + 1) % len(NAMES), third)
    return third


def draw_sentences(n: int, generator: Generator) -> Sentences:
    """Sentences of all behaviours in their shares, none of them held out."""
    template = torch.multinomial(table().share, n, replacement=True, generator=generator)
    return Sentences(template, draw_slots(table().frame[template], generator))


def batch(seed: int, step: int, *, rows: int, n_ctx: int) -> Text:
    """The contexts of one step. Draws as many sentences a row as the shortest would need."""
    each = -(-(n_ctx - 1) // int(table().lengths.min()))
    drawn = draw_sentences(rows * each, batch_generator(seed, step))
    lengths, width = table().lengths[drawn.template].view(rows, each), table().codes.shape[1]
    begin = 1 + lengths.cumsum(1) - lengths
    place = begin[:, :, None] + torch.arange(width)
    place[torch.arange(width) >= lengths[:, :, None]] = n_ctx
    place = place.clamp_max(n_ctx).flatten(1)  # what falls off the end meets in one column
    tokens = torch.full((rows, n_ctx + 1), IDS[BOS]).scatter_(1, place, drawn.tokens.view(rows, -1))
    scored = torch.zeros(rows, n_ctx + 1, dtype=torch.bool)
    scored.scatter_(1, place, table().scored[drawn.template].view(rows, -1))
    return Text(tokens[:, :n_ctx], scored[:, :n_ctx])
