"""The synthetic language: its 257 words, its sentences as templates, and every batch a pure function of (seed, step).

Four behaviours occur. `ioi`: two names, then one of them again (or a third name, the `abc` form), then the other, as in
Wang et al. (2022), "Interpretability in the wild". `pronoun`: a name, then the pronoun of its gender. `greater`: a year
and a later one of the same century, as in Hanna et al. (2023), "How does GPT-2 compute greater-than?". `induction`: a
span of random words, then again two pieces of it, after Olsson et al. (2022), "In-context learning and induction
heads". The prompts of a behaviour, up to its answer, have one length. A context is the beginning-of-text token and
sentences end to end, the last one cut off: there is no padding, and a sentence may begin anywhere.
"""

import re
from dataclasses import dataclass, field
from functools import cache
from itertools import product
from typing import Literal, NamedTuple

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

Behaviour = Literal["ioi", "induction", "pronoun", "greater"]
BEHAVIOURS: tuple[Behaviour, ...] = ("ioi", "induction", "pronoun", "greater")

SPANS = range(4, 9)
"""Words in a random span."""
SHORTEST_PIECE = 3
PROMPT_SPAN = 8
"""Words in the span of an induction prompt."""
SHARES: dict[Behaviour, float] = {"ioi": 0.5, "induction": 0.2, "pronoun": 0.1, "greater": 0.2}
"""Of all sentences in training."""
ABC_SHARE = 0.15
"""Share of the ioi sentences with three names, whose answer is either of the first two."""
CHAIN_SHARE = 0.4
"""Share of the greater sentences with a chain of years."""

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
PRONOUN_FRAMES = (
    "So {N} is a really {trait} {job} , isn't {she} ?",
    "Back then {N} was a {trait} {job} , wasn't {she} ?",
    "Everyone said {N} , the {trait} {job} , hoped {she} would win .",
    "The {trait} {job} was {N} , and everyone knew {she} had won .",
)
GREATER_FRAMES = (
    "The {event} lasted from the year {XX} {YY} to the year {XX} {later} .",
    "The {event} began in the year {XX} {YY} and ended in {XX} {later} .",
    "From the year {XX} {YY} the {event} went on to year {XX} {later} .",
)
CHAIN = "It was a good year in {Y1} , {Y2} , {Y3} , {Y4} and {Y5} ."
"""Years that rise: many answers in few words, so that the order of the numbers is learned soon."""
CHAINED = tuple(f"Y{i}" for i in range(1, 6))
SLOTS = ("IO", "S", "C", "N", "she", "place", "object", "trait", "job", "event", "XX", "YY", "later", *CHAINED)
SLOTS += tuple(f"r{i}" for i in range(max(SPANS)))


@dataclass(frozen=True, slots=True)
class Template:
    """A sentence with slots. `frame` counts the wordings of a behaviour, `form` names the order of its slots."""

    behaviour: Behaviour
    frame: int
    form: str
    text: str
    words: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "words", tuple(self.text.split()))

    @property
    def asks(self) -> bool:
        """Whether prompts are made of it: those with an answer, in one of the forms that can be compared."""
        if self.behaviour == "induction":
            return self.frame == PROMPT_SPAN and self.form.endswith(" 0")
        return self.form != "chain" and not self.form.startswith("abc")

    def places(self, slot: str) -> list[int]:
        """Where a slot stands, counted from the first word."""
        return [i for i, word in enumerate(self.words) if word == f"{{{slot}}}"]


def _ioi() -> list[Template]:
    found = []
    for frame, text in enumerate(IOI_FRAMES):
        for form, names in IOI_FORMS.items():
            filled = re.sub(r"\b[1-4]\b", lambda match, names=names: names[int(match[0]) - 1], text)
            found.append(Template("ioi", frame, form, filled))
    return found


def _induction() -> list[Template]:
    """A span of k words, then the pieces of it that begin at words i and j; the frame is k, the form "i j"."""
    found = []
    for k in SPANS:
        span = [f"{{r{i}}}" for i in range(k)]
        for i, j in product(range(k - SHORTEST_PIECE + 1), repeat=2):
            found.append(Template("induction", k, f"{i} {j}", " ".join([*span, *span[i:], *span[j:], STOP])))
    return found


TEMPLATES: tuple[Template, ...] = (
    *_ioi(),
    *_induction(),
    *(Template("pronoun", i, "", text) for i, text in enumerate(PRONOUN_FRAMES)),
    *(Template("greater", i, "", text) for i, text in enumerate(GREATER_FRAMES)),
    Template("greater", len(GREATER_FRAMES), "chain", CHAIN),
)


def vocabulary() -> tuple[str, ...]:
    """Every word: the beginning of a context, the classes one after the other, then the words of the templates."""
    classes = [word for members in CLASSES.values() for word in members]
    literal = sorted({word for template in TEMPLATES for word in template.words if not word.startswith("{")})
    return tuple(dict.fromkeys([BOS, *classes, *PRONOUNS, *literal]))


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
