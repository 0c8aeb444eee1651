"""The task: prompt pairs from the grammar, their answers and roles, and how well a model does on them.

A corruption changes one thing and keeps the sentence one of the language (symmetric token replacement; Zhang and Nanda
2023, "Towards best practices of activation patching"):
ioi        swap: S2 becomes IO, so the answer turns round; abc: S2 becomes a third name, so there is no answer
induction  last: the last word becomes another of the span, so another word follows
pronoun    gender: the name becomes one of the other gender
greater    first: the year becomes 01, after which every answer is right (Hanna et al. 2023, section 3)
By default every prompt holds a pair of words that training never showed together.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from functools import cache
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Generator, Tensor

from micrographia.core.errors import BadConfig
from micrographia.core.model import Model
from micrographia.core.prompts import Pairs
from micrographia.labs.ioi.grammar import (
    BEHAVIOURS,
    BOS,
    CLASSES,
    IDS,
    NAMES,
    PARTS,
    PROMPT_SPAN,
    SLOTS,
    TEMPLATES,
    WORDS,
    YEARS,
    Behaviour,
    Template,
    draw_slots,
    fill,
    table,
    tokenizer,
    word_ids,
)


class PromptPairs(NamedTuple):
    """Prompts that begin with BOS and end before the answer. `roles`: name -> position in each clean prompt."""

    clean: Int[Tensor, "n pos"]
    corrupt: Int[Tensor, "n pos"]
    answer: Int[Tensor, "n"]
    """The clean prompt's answer; of several one, at random."""
    wrong: Int[Tensor, "n"]
    """The corrupt prompt's answer where it has another, else one that is wrong for the clean prompt."""
    answers: Bool[Tensor, "n word"]
    """Every right answer to the clean prompt."""
    roles: dict[str, Int[Tensor, "n"]]
    template: Int[Tensor, "n"]
    """Index into `TEMPLATES`."""


class Drawn(NamedTuple):
    """What a corruption changes."""

    template: Tensor
    slots: Tensor


def prompt_pairs(
    behaviour: Behaviour,
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
    name = corruption or next(iter(CORRUPTIONS[behaviour]))
    if name not in CORRUPTIONS[behaviour]:
        known = ", ".join(CORRUPTIONS[behaviour])
        raise BadConfig(f"Asked for the corruption {name!r} of {behaviour}; it has {known}. Choose one of these.")
    choices = _prompt_templates(behaviour, frame)
    template = choices[torch.randint(len(choices), (n,), generator=generator)]
    slots = draw_slots(table().frame[template], generator, held_out=held_out)
    clean = Drawn(template, _with_an_earlier_year(slots, generator) if behaviour == "greater" else slots)
    corrupt = CORRUPTIONS[behaviour][name](clean, generator)
    right, wrong = ANSWERS[behaviour](clean, corrupt, generator)
    answers = torch.zeros(n, len(WORDS), dtype=torch.bool).scatter_(1, right[:, None], True)
    if behaviour == "greater":
        numbers = word_ids("number")
        answers[:, numbers] = numbers > _slot(clean, "YY")[:, None]
    return PromptPairs(_prompts(clean), _prompts(corrupt), right, wrong, answers, _roles(behaviour, template), template)


def _prompt_templates(behaviour: Behaviour, frame: int | None) -> Tensor:
    asking = [
        (i, template) for i, template in enumerate(TEMPLATES) if template.behaviour == behaviour and template.asks
    ]
    found = [i for i, template in asking if frame in (None, template.frame)]
    if not found:
        raise BadConfig(f"Asked for prompts of {behaviour} in frame {frame}; there are none. Leave the frame open.")
    return torch.tensor(found)


def _answer_place(template: Template) -> int:
    """Where the answer stands, counted from the first word."""
    if template.behaviour == "induction":
        return template.frame + 1
    return template.places({"ioi": "IO", "pronoun": "she", "greater": "later"}[template.behaviour])[-1]


def _prompts(drawn: Drawn) -> Int[Tensor, "n pos"]:
    stop = _answer_place(TEMPLATES[int(drawn.template[0])])
    words = fill(drawn.template, drawn.slots)[:, :stop]
    return torch.cat([torch.full((len(words), 1), IDS[BOS]), words], 1)


def _slot(drawn: Drawn, name: str) -> Tensor:
    return drawn.slots[:, SLOTS.index(name)]


def _changed(drawn: Drawn, **values: Tensor) -> Drawn:
    slots = drawn.slots.clone()
    for name, value in values.items():
        slots[:, SLOTS.index(name)] = value
    return drawn._replace(slots=slots)


@cache
def _forms(old: tuple[str, ...], new: tuple[str, ...]) -> Tensor:
    """Template -> the template of the same frame whose form is the one of `new` in the place of `old`."""
    index = {(t.behaviour, t.frame, t.form): i for i, t in enumerate(TEMPLATES)}
    turned = dict(zip(old, new))
    return torch.tensor([index[t.behaviour, t.frame, turned.get(t.form, t.form)] for t in TEMPLATES])


def _swap(drawn: Drawn, generator: Generator) -> Drawn:
    """S and IO change their parts, and so does the first clause: all that differs is the second S."""
    turned = drawn._replace(template=_forms(("ABBA", "BABA"), ("BABA", "ABBA"))[drawn.template])
    return _changed(turned, IO=_slot(drawn, "S"), S=_slot(drawn, "IO"))


def _third_name(drawn: Drawn, generator: Generator) -> Drawn:
    return drawn._replace(template=_forms(("ABBA", "BABA"), ("abc-ABBA", "abc-BABA"))[drawn.template])


def _another_last(drawn: Drawn, generator: Generator) -> Drawn:
    """The piece begins at another word of the span."""
    starts = _prompt_templates("induction", None)
    step = torch.randint(1, len(starts), drawn.template.shape, generator=generator)
    return drawn._replace(template=starts[(torch.searchsorted(starts, drawn.template) + step) % len(starts)])


def _other_gender(drawn: Drawn, generator: Generator) -> Drawn:
    """An odd multiple of PARTS further on: of the other gender, and held out if the name was."""
    first = word_ids("name")[0]
    step = PARTS * (2 * torch.randint(len(NAMES) // (2 * PARTS), drawn.template.shape, generator=generator) + 1)
    other = (_slot(drawn, "N") - first + step) % len(NAMES)
    return _changed(drawn, N=first + other, she=IDS["she"] + other % 2)


def _first_year(drawn: Drawn, generator: Generator) -> Drawn:
    return _changed(drawn, YY=torch.full_like(drawn.template, IDS["01"]))


Corruption = Callable[[Drawn, Generator], Drawn]
CORRUPTIONS: dict[Behaviour, dict[str, Corruption]] = {
    "ioi": {"swap": _swap, "abc": _third_name},
    "induction": {"last": _another_last},
    "pronoun": {"gender": _other_gender},
    "greater": {"first": _first_year},
}


def _with_an_earlier_year(slots: Tensor, generator: Generator) -> Tensor:
    """Years of 02 to 97, so that there is an earlier one from 02 on: a wrong answer that 01 makes right."""
    years, at = slots[:, SLOTS.index("YY")] - IDS["00"], SLOTS.index("YY")
    years = torch.where(years < 2, years + YEARS // 2, years)  # of the same part
    slots = slots.clone()
    slots[:, at] = IDS["00"] + years
    return slots


def _names(clean: Drawn, corrupt: Drawn, generator: Generator) -> tuple[Tensor, Tensor]:
    return _slot(clean, "IO"), _slot(clean, "S")


def _pronouns(clean: Drawn, corrupt: Drawn, generator: Generator) -> tuple[Tensor, Tensor]:
    return _slot(clean, "she"), _slot(corrupt, "she")


def _followers(clean: Drawn, corrupt: Drawn, generator: Generator) -> tuple[Tensor, Tensor]:
    return (fill(drawn.template, drawn.slots)[:, PROMPT_SPAN + 1] for drawn in (clean, corrupt))  # type: ignore[return-value]


def _later_years(clean: Drawn, corrupt: Drawn, generator: Generator) -> tuple[Tensor, Tensor]:
    """A later year, and one from 02 to the year itself."""
    year = _slot(clean, "YY") - IDS["00"]
    u, v = torch.rand(2, len(year), generator=generator, dtype=torch.float64)
    return IDS["00"] + year + 1 + (u * (YEARS - 1 - year)).long(), IDS["00"] + 2 + (v * (year - 1)).long()


ANSWERS: dict[Behaviour, Callable[[Drawn, Drawn, Generator], tuple[Tensor, Tensor]]] = {
    "ioi": _names,
    "induction": _followers,
    "pronoun": _pronouns,
    "greater": _later_years,
}


def _roles(behaviour: Behaviour, template: Tensor) -> dict[str, Tensor]:
    found = [roles_of(TEMPLATES[i]) for i in template.unique().tolist()]
    rows = torch.searchsorted(template.unique(), template)
    return {role: torch.tensor([1 + places[role] for places in found])[rows] for role in found[0]}  # BOS comes first


ROLES: dict[Behaviour, dict[str, tuple[str, int, int]]] = {
    "ioi": {"IO": ("IO", 0, 0), "S1": ("S", 0, 0), "S1+1": ("S", 0, 1), "S2": ("S", 1, 0)},
    "induction": {},
    "pronoun": {"N": ("N", 0, 0)},
    "greater": {"XX": ("XX", 0, 0), "YY": ("YY", 0, 0)},
}
"""Role -> its slot, at which occurrence of it, and how many words on."""


def roles_of(template: Template) -> dict[str, int]:
    """Where the roles of a template are, counted from the first word; END is the last word of the prompt."""
    places = {role: template.places(slot)[n] + on for role, (slot, n, on) in ROLES[template.behaviour].items()}
    if template.behaviour == "induction":
        first = int(template.form.split()[0])
        places = {"A1": first, "A1+1": first + 1}
    return {**places, "END": _answer_place(template) - 1}


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
    clean, corrupt, answer, wrong = (x.to(device) for x in tensors)
    return Pairs(clean, corrupt, answer, wrong, texts)


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


class Performance(NamedTuple):
    """Means over prompts. Logit differences are of the right answer less the wrong one, in logits."""

    accuracy: float
    """Share of prompts whose largest logit, of all words, is a right answer's."""
    preferred: float
    """Share of prompts whose right answer has a larger logit than the wrong one; half is chance."""
    logit_difference: float
    corrupt_logit_difference: float
    """Of the same two answers after the corrupt prompt."""
    null_accuracy: float
    """Judged by another prompt's answers: what knowing the kind of word that comes, and nothing else, gives."""
    prompts: int


class Years(NamedTuple):
    """Greater-than has many right answers, so it is measured by probabilities too."""

    probability_difference: float
    """Probability of all later years less that of all others (Hanna et al. 2023, section 2)."""
    cutoff_sharpness: float
    """Probability of the next year less that of the year before (Hanna et al. 2023, section 2)."""
    null_probability_difference: float
    null_cutoff_sharpness: float


HALFWAY = 0.5
"""How far from the shuffled-answer baseline to 1 an accuracy must come to show a rule of this prompt. Our choice."""


def is_learned(accuracy: float, null: float, least: float) -> bool:
    """Whether a behaviour counts as learned: `least` is reached, and half of what the baseline leaves. With 0 all do.

    >>> [is_learned(accuracy, 0.7, 0.8) for accuracy in (0.75, 0.82, 0.9)]
    [False, False, True]
    """
    return least == 0 or accuracy >= max(least, null + HALFWAY * (1 - null))


def perform(
    model: Model, *, n: int, generator: Generator, held_out: bool = True, behaviours: Sequence[Behaviour] = BEHAVIOURS
) -> dict[Behaviour, Performance]:
    """Every behaviour on n prompts, held out of training or not. Two forward passes over n prompts each."""
    return {
        behaviour: performance(model, prompt_pairs(behaviour, n, generator, held_out=held_out))
        for behaviour in behaviours
    }


def performance(model: Model, pairs: PromptPairs) -> Performance:
    """One behaviour, on these pairs. Two forward passes."""
    clean, corrupt = last_logits(model, pairs.clean), last_logits(model, pairs.corrupt)
    difference = _difference(clean, pairs)
    return Performance(
        accuracy=_hits(clean, pairs.answers),
        preferred=(difference > 0).double().mean().item(),
        logit_difference=difference.mean().item(),
        corrupt_logit_difference=_difference(corrupt, pairs).mean().item(),
        null_accuracy=_hits(clean, _another(pairs).answers),
        prompts=len(pairs.clean),
    )


def years(model: Model, pairs: PromptPairs) -> Years:
    """How sharply the model tells later years from earlier ones, on pairs of `greater`. One forward pass."""
    probabilities = last_logits(model, pairs.clean).double().softmax(-1)
    return Years(*_years(probabilities, pairs), *_years(probabilities, _another(pairs)))


def last_logits(model: Model, tokens: Tensor) -> Float[Tensor, "n word"]:
    """Logits of the next word, on the CPU."""
    device = model.weights.W_E.device
    logits = model.run(tokens.to(device), logits="last").logits
    return logits[:, -1].cpu()


def _hits(logits: Tensor, answers: Tensor) -> float:
    return answers.gather(1, logits.argmax(1)[:, None]).double().mean().item()


def _difference(logits: Tensor, pairs: PromptPairs) -> Float[Tensor, "n"]:
    return (logits.gather(1, pairs.answer[:, None]) - logits.gather(1, pairs.wrong[:, None]))[:, 0]


def _another(pairs: PromptPairs) -> PromptPairs:
    """Every prompt moved by one row: what the logits of these rows are judged by in the null."""
    moved = {name: getattr(pairs, name).roll(1, 0) for name in ("clean", "answer", "wrong", "answers")}
    return pairs._replace(**moved, roles={role: at.roll(1, 0) for role, at in pairs.roles.items()})


def _years(probabilities: Tensor, pairs: PromptPairs) -> tuple[float, float]:
    numbers = word_ids("number")
    year = pairs.clean.gather(1, pairs.roles["YY"][:, None])
    later = (probabilities * pairs.answers).sum(1)
    others = probabilities[:, numbers].sum(1) - later
    sharp = probabilities.gather(1, year + 1) - probabilities.gather(1, year - 1)
    return (later - others).mean().item(), sharp.mean().item()
