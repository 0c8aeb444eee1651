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
from micrographia.core.figures import Figure, table
from micrographia.core.metrics import Metric, prob, prompts, rank
from micrographia.core.model import Model
from micrographia.core.prompts import Pairs
from micrographia.core.tokens import Inputs, Tokenizer, ids_of, rows_of, spelling

ROWS = 32
"""Prompts whose logits over the vocabulary are held at once."""
TITLE, WORST = "The answers", 5
"""Of the tables; and how many pairs are listed, those with the least probable answers."""
TOO = "Warning: on the corrupt prompt the model gives the same answer first, so what changed hardly matters to it."
RANKED = (
    "Rank 0 is the model's first choice. Of several answers: their probabilities together, and the rank of the best."
)


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
    """Answers and wrong answers under the model, on the prompts of both sides. Print it, or show it in a notebook."""

    clean: SideCheck
    corrupt: SideCheck
    pairs: Pairs
    tokenizer: Tokenizer | None

    def __len__(self) -> int:
        return len(self.clean.first)

    def __repr__(self) -> str:
        likely = float(self.clean.answer.prob.quantile(0.5))
        return f"AnswerCheck(first on {int(self.came_first.sum())} of {len(self)} clean prompts, median p {likely:.3g})"

    def __str__(self) -> str:
        return "\n".join([repr(self), *self.sentences()])

    @property
    def chosen(self) -> Bool[Tensor, "prompt"] | None:
        """Closed choice: whether the likeliest of all answers, right and wrong, is a right one on the clean prompt."""
        own, other = self.clean.answer, self.clean.wrong
        return None if other is None else own.rank < other.rank

    @property
    def came_first(self) -> Bool[Tensor, "prompt"]:
        """Whether the clean prompt's likeliest token is an answer."""
        return self.clean.answer.rank == 0

    @property
    def alone(self) -> bool:
        """Whether there is one prompt and nothing to compare it with."""
        return len(self) == 1 and torch.equal(ids_of(self.pairs.clean), ids_of(self.pairs.corrupt))

    def as_json(self) -> dict[str, Any]:
        """By side the probability and rank of both answers, and the first choice, a list over pairs."""
        sides = {name: self._side(side) for name, side in (("clean", self.clean), ("corrupt", self.corrupt))}
        counts = {"n": len(self), "n_first": int(self.came_first.sum())}
        return {**counts, "n_chosen": None if self.chosen is None else int(self.chosen.sum()), **sides}

    def _side(self, side: SideCheck) -> dict[str, Any]:
        first = [_text(self.tokenizer, token) for token in side.first.tolist()]
        found: dict[str, Any] = {"first": first, "first_prob": side.first_prob.tolist()}
        for name, standing in (("answer", side.answer), ("wrong", side.wrong)):
            if standing is not None:
                found |= {f"{name}_prob": standing.prob.tolist(), f"{name}_rank": standing.rank.int().tolist()}
        return found

    def figures(self) -> list[Figure]:
        """One small table; of several pairs what they have in common, and those whose answer is least probable."""
        return [self._of_one()] if len(self) == 1 else [self._of_all(), self._worst()]

    def _of_one(self) -> Figure:
        sides = {"clean": self.clean, "corrupt": self.corrupt}
        best = " / ".join(dict.fromkeys(written(self.tokenizer, int(side.first[0])) for side in sides.values()))
        rows = [("answer", repr(self._named(0)), {name: side.answer for name, side in sides.items()})]
        wrong = {name: side.wrong for name, side in sides.items() if side.wrong is not None}
        if self.pairs.wrong is not None:
            rows.append(("wrong answer", repr(self._named(0, wrong=True)), wrong))
        rows.append(("first choice", best, {k: Standing(side.first_prob, torch.zeros(1)) for k, side in sides.items()}))
        cells = [
            [
                which,
                token,
                *(cell for found in standings.values() for cell in (float(found.prob[0]), int(found.rank[0]))),
            ]
            for which, token, standings in rows
        ]
        columns = ["", "token", "probability" if self.alone else "clean p", "rank", "corrupt p", "rank"]
        columns = columns[:4] if self.alone else columns
        rows = [row[: len(columns)] for row in cells]
        return table("answers", TITLE, rows, columns=columns, caption=RANKED, group=TITLE)

    def _of_all(self) -> Figure:
        cells = [
            [
                side,
                which,
                f"{int((found.rank == 0).sum())} of {len(self)}",
                float(found.prob.quantile(0.5)),
                float(found.prob.min()),
            ]
            for side, of in (("clean", self.clean), ("corrupt", self.corrupt))
            for which, found in (("answer", of.answer), ("wrong answer", of.wrong))
            if found is not None
        ]
        caption = f"Probability of the answers before anything is patched. {RANKED}"
        columns = ["prompts", "of the", "comes first", "median p", "least p"]
        return table("answers", TITLE, cells, columns=columns, caption=caption, group=TITLE)

    def _worst(self) -> Figure:
        clean = self.clean
        found = zip(
            clean.answer.prob.tolist(),
            clean.answer.rank.int().tolist(),
            clean.first.tolist(),
            clean.first_prob.tolist(),
        )
        every = [
            [i, self._named(i), prob, rank, written(self.tokenizer, first), first_prob]
            for i, (prob, rank, first, first_prob) in enumerate(found)
        ]
        cells = [every[i] for i in clean.answer.prob.argsort()[:WORST].tolist()]
        columns = ["pair", "answer", "probability", "rank", "first choice", "its probability"]
        about: dict[str, Any] = {
            "group": TITLE,
            "essential": False,
            "caption": "On the clean prompts; pairs count from 0.",
        }
        return table("answers-worst", "Pairs whose answer is least probable", cells, columns=columns, **about)

    def _options(self, i: int, *, wrong: bool = False) -> list[int]:
        tokens = self.pairs.wrong if wrong else self.pairs.answer
        assert tokens is not None
        return [token for token in tokens[i].reshape(-1).tolist() if token >= 0]

    def _named(self, i: int, *, wrong: bool = False) -> str:
        return "|".join(_spelt(self.tokenizer, token) for token in self._options(i, wrong=wrong))

    def sentences(self) -> list[str]:
        """How often the answer comes first; a warning where it does not, with its right spelling where that is why."""
        missed, n = [i for i, first in enumerate(self.came_first.tolist()) if not first], len(self)
        first = self.clean.first.tolist()
        spelt = [i for i in missed if any(same_word(self.tokenizer, first[i], own) for own in self._options(i))]
        both = int((self.came_first & (self.corrupt.answer.rank == 0)).sum())
        if n == 1:
            return [self._warning(bool(spelt))] if missed else [TOO] if both and not self.alone else []
        chosen = "" if self.chosen is None else f", and before the wrong answer on {int(self.chosen.sum())}"
        sentences = [
            f"The answer is the model's first choice on {n - len(missed)} of {n} clean prompts{chosen}; its median "
            f"probability there is {float(self.clean.answer.prob.quantile(0.5)):.3g}."
        ]
        if spelt:
            own, best = (written(self.tokenizer, x) for x in (self._options(spelt[0])[0], first[spelt[0]]))
            sentences.append(
                f"Warning: on {len(spelt)} of them the first choice is the same word written otherwise, as {best} for "
                f"{own} in pair {spelt[0]}. Write the answers as the model does."
            )
        elif 2 * len(missed) > n:
            sentences.append("Warning: on most prompts the model would say something else.")
        return [
            *sentences,
            *([f"On {both} of the pairs the corrupt prompt has the same first choice."] if both else []),
        ]

    def _warning(self, spelt: bool) -> str:
        """Of one pair whose answer does not come first."""
        first, text = written(self.tokenizer, int(self.clean.first[0])), next(iter(self.pairs.texts), ("", ""))[0]
        own, best = float(self.clean.answer.prob[0]), float(self.clean.first_prob[0])
        prompt = "prompt" if self.alone else "clean prompt"
        found = f"n the {prompt} the model's first choice is {first} (probability {best:.3g}), "
        if len(self._options(0)) > 1:
            found += f"none of the answers, which have {own:.2g} together."
        else:
            found += f"not the answer ({own:.2g}, rank {int(self.clean.answer.rank[0])})."
        found = f"O{found}" if own > best else f"Warning: o{found}"  # the answers together are likelier
        if spelt:
            alike = "" if self.pairs.wrong is None else ", and the wrong answer alike"
            return f"{found} It is the same word written otherwise: write --answer {first}{alike}."
        if text != text.rstrip():
            return f"{found} The prompt ends in white space, which belongs to the token after it: leave it out there."
        return found


def check_answers(model: Model, pairs: Pairs) -> AnswerCheck:
    """Probability and rank of the answers on both sides. A forward pass of every prompt; 32 are held at a time.

    Raises UserError for logits that are NaN.
    """
    clean, corrupt = (_side(model, pairs, inputs) for inputs in (pairs.clean, pairs.corrupt))
    return AnswerCheck(clean, corrupt, pairs, model.tokenizer)


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


def same_word(tokenizer: Tokenizer | None, one: int, other: int) -> bool:
    """Whether two tokens are one word, written with and without a space, or in capitals."""
    text, another = (_text(tokenizer, token).strip().casefold() for token in (one, other))
    return one != other and text == another != ""


def written(tokenizer: Tokenizer | None, token: int) -> str:
    """A token as a user types it as an answer, in quotation marks."""
    return repr(_spelt(tokenizer, token))


def _spelt(tokenizer: Tokenizer | None, token: int) -> str:
    return (spelling(tokenizer, token) if tokenizer else None) or _text(tokenizer, token)


def _text(tokenizer: Tokenizer | None, token: int) -> str:
    return tokenizer.decode([token]) if tokenizer else f"token {token}"
