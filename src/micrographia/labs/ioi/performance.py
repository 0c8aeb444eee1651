"""How well a model does on the four behaviours, each beside what knowing the kind of word alone would give."""

from typing import NamedTuple

from jaxtyping import Float
from torch import Generator, Tensor

from micrographia.core.model import Model
from micrographia.labs.ioi.grammar import word_ids
from micrographia.labs.ioi.task import BEHAVIOURS, PromptPairs, prompt_pairs


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
    """Greater-than has many right answers, so it is measured by probabilities too (Hanna et al. 2023, section 2)."""

    probability_difference: float
    """Probability of all later years less that of all others."""
    cutoff_sharpness: float
    """Probability of the next year less that of the year before."""
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


def perform(model: Model, *, n: int, generator: Generator) -> dict[str, Performance]:
    """Every behaviour on n prompts held out of training. Two forward passes over n prompts each."""
    return {behaviour: performance(model, prompt_pairs(behaviour, n, generator)) for behaviour in BEHAVIOURS}


def performance(model: Model, pairs: PromptPairs) -> Performance:
    """One behaviour, on these pairs. Two forward passes."""
    clean, corrupt = last_logits(model, pairs.clean), last_logits(model, pairs.corrupt)
    right, wrong = pairs.answer[:, None], pairs.wrong[:, None]
    difference, after = ((logits.gather(1, right) - logits.gather(1, wrong))[:, 0] for logits in (clean, corrupt))
    top = clean.argmax(1)[:, None]
    hits, null = (
        answers.gather(1, top).double().mean().item() for answers in (pairs.answers, pairs.answers.roll(1, 0))
    )
    preferred = (difference > 0).double().mean().item()
    return Performance(hits, preferred, difference.mean().item(), after.mean().item(), null, len(pairs.clean))


def years(model: Model, pairs: PromptPairs) -> Years:
    """How sharply the model tells later years from earlier ones, on pairs of `greater`. One forward pass."""
    probabilities = last_logits(model, pairs.clean).double().softmax(-1)
    year = pairs.clean.gather(1, pairs.roles["YY"][:, None])

    def told(year: Tensor, answers: Tensor) -> tuple[float, float]:
        later = (probabilities * answers).sum(1)
        others = probabilities[:, word_ids("number")].sum(1) - later
        sharp = probabilities.gather(1, year + 1) - probabilities.gather(1, year - 1)
        return (later - others).mean().item(), sharp.mean().item()

    return Years(*told(year, pairs.answers), *told(year.roll(1, 0), pairs.answers.roll(1, 0)))


def last_logits(model: Model, tokens: Tensor) -> Float[Tensor, "n word"]:
    """Logits of the next word, on the CPU."""
    return model.run(tokens.to(model.weights.W_E.device), logits="last").logits[:, -1].cpu()
