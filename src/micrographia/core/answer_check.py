"""Whether a model gives the answers that it is asked about: their probability and rank, and its own first choice.

Measured on both prompts of every pair, before anything is patched: a picture of how a model finds a token that it would
never say is of no use, however clear.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from micrographia.core.errors import UserError
from micrographia.core.metrics import Metric, prob, prompts, rank
from micrographia.core.model import Model
from micrographia.core.prompts import Pairs
from micrographia.core.tokens import Inputs, Tokenizer, ids_of, rows_of, spelling, to_str_tokens

ROWS = 32
"""Prompts whose logits over the vocabulary are held at once."""


class Standing(NamedTuple):
    """A set of answers in the model's own prediction. `rank`: how many tokens are likelier than its best."""

    prob: Float[Tensor, "prompt"]
    rank: Float[Tensor, "prompt"]


class SideCheck(NamedTuple):
    """The predictions on the clean, or on the corrupt, prompts."""

    answer: Standing
    wrong: Standing | None
    first: Int[Tensor, "prompt"]
    """The likeliest token."""
    first_prob: Float[Tensor, "prompt"]


class AnswerCheck(NamedTuple):
    """Answers and wrong answers under the model, on the prompts of both sides."""

    clean: SideCheck
    corrupt: SideCheck

    def __len__(self) -> int:
        return len(self.clean.first)

    def __repr__(self) -> str:
        likely = float(self.clean.answer.prob.quantile(0.5))
        return f"AnswerCheck(first on {int(self.came_first.sum())} of {len(self)} clean prompts, median p {likely:.3g})"

    @property
    def chosen(self) -> Bool[Tensor, "prompt"] | None:
        """Closed choice: whether the likeliest of all answers, right and wrong, is a right one on the clean prompt."""
        own, other = self.clean.answer, self.clean.wrong
        return None if other is None else own.rank < other.rank

    @property
    def came_first(self) -> Bool[Tensor, "prompt"]:
        """Whether the clean prompt's likeliest token is an answer."""
        return self.clean.answer.rank == 0


def check_answers(model: Model, pairs: Pairs) -> AnswerCheck:
    """Probability and rank of the answers on both sides. A forward pass of every prompt; 32 are held at a time.

    Raises UserError for logits that are NaN.
    """
    return AnswerCheck(*(_side(model, pairs, inputs) for inputs in (pairs.clean, pairs.corrupt)))


def _side(model: Model, pairs: Pairs, inputs: Inputs) -> SideCheck:
    found = [_rows(model, pairs, inputs, slice(i, i + ROWS)) for i in range(0, len(ids_of(inputs)), ROWS)]
    answers, wrongs, first, first_prob = zip(*found)
    wrong = None if pairs.wrong is None else Standing(*map(torch.cat, zip(*wrongs)))
    return SideCheck(Standing(*map(torch.cat, zip(*answers))), wrong, torch.cat(first), torch.cat(first_prob))


def _rows(model: Model, pairs: Pairs, inputs: Inputs, rows: slice) -> tuple[Any, ...]:
    logits = model.run(rows_of(inputs, rows), logits=[pairs.pos]).logits
    which = prompts(len(logits), logits.device)
    if logits.isnan().any():
        raise UserError(
            "Asked how likely the answers are; the model's own logits are no numbers (NaN). A weight is NaN or "
            f"infinite, or values overflow {str(logits.dtype).removeprefix('torch.')}: load another file of it, or in "
            "float32."
        )

    def standing(tokens: Tensor | None) -> tuple[Tensor, ...]:
        metrics: Sequence[Metric] = (
            [] if tokens is None else [make(tokens[rows], pos=pairs.pos) for make in (prob, rank)]
        )
        return tuple(metric(logits, which).double().cpu() for metric in metrics)

    first = logits[:, 0].argmax(-1)
    likely = prob(first, pos=pairs.pos)(logits, which)
    return standing(pairs.answer), standing(pairs.wrong), first.cpu(), likely.double().cpu()


def same_word(tokenizer: Tokenizer, one: int, other: int) -> bool:
    """Whether two tokens are one word, written with and without a space, or in capitals."""
    text, another = (each.strip().casefold() for each in to_str_tokens(tokenizer, [one, other]))
    return one != other and text == another != ""


def written(tokenizer: Tokenizer, token: int) -> str:
    """A token as a user types it as an answer, in quotation marks."""
    return repr(spelling(tokenizer, token) or tokenizer.decode([token]))
