"""How well a model does each behaviour on prompts, beside what it would score by form alone.

The null judges each prompt's logits by another prompt's answers: what a model gets that knows what kind of word
comes, and how common each is, and nothing of this prompt.
"""

from collections.abc import Sequence
from typing import NamedTuple

from jaxtyping import Float
from torch import Generator, Tensor

from micrographia.core.model import Model
from micrographia.labs.ioi.grammar import word_ids
from micrographia.labs.ioi.task import PromptPairs, prompt_pairs
from micrographia.labs.ioi.templates import BEHAVIOURS, Behaviour


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
    """Judged by another prompt's answers, as the two below."""
    null_preferred: float
    null_logit_difference: float
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
"""How far from its null to 1 an accuracy must come to be a rule of this prompt, not of form alone. Our choice."""


def is_learned(accuracy: float, null: float, least: float) -> bool:
    """Whether a behaviour counts as learned: `least` is reached, and half of what form alone leaves. With 0 all do.

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
    null = _difference(clean, _another(pairs))
    return Performance(
        accuracy=_hits(clean, pairs.answers),
        preferred=(difference > 0).double().mean().item(),
        logit_difference=difference.mean().item(),
        corrupt_logit_difference=_difference(corrupt, pairs).mean().item(),
        null_accuracy=_hits(clean, _another(pairs).answers),
        null_preferred=(null > 0).double().mean().item(),
        null_logit_difference=null.mean().item(),
        prompts=len(pairs.clean),
    )


def years(model: Model, pairs: PromptPairs) -> Years:
    """How sharply the model tells later years from earlier ones, on pairs of `greater`. One forward pass."""
    probabilities = last_logits(model, pairs.clean).double().softmax(-1)
    return Years(*_years(probabilities, pairs), *_years(probabilities, _another(pairs)))


def last_logits(model: Model, tokens: Tensor) -> Float[Tensor, "n word"]:
    """What the model says comes next, on the CPU."""
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
