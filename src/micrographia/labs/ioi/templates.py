"""The sentences of the synthetic language, as templates: text whose words in braces are slots to be filled.

Four behaviours occur. `ioi`: two names, then one of them again (or a third name, the `abc` form), then the other, as in
Wang et al. (2022), "Interpretability in the wild". `pronoun`: a name, then the pronoun of its gender. `greater`: a year
and a later one of the same century, as in Hanna et al. (2023), "How does GPT-2 compute greater-than?". `induction`: a
span of random words, then again two pieces of it, after Olsson et al. (2022), "In-context learning and induction
heads". The prompts of a behaviour, up to its answer, have one length. No tensor library is imported here.
"""

import re
from dataclasses import dataclass, field
from itertools import product
from typing import Literal

from micrographia.labs.ioi.words import BOS, CLASSES, PRONOUNS, STOP

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
