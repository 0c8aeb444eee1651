"""Pairs: clean and corrupt prompts of the same shape, with their answers; metrics and baselines of the two runs.

Patching, attribution and circuits take `Pairs`. The two prompts of a pair must line up token by token, since
activations are patched position by position; pairs of different lengths are padded on the left together.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import NamedTuple, Protocol

import torch
from jaxtyping import Float, Int
from torch import Tensor

from micrographia.core.answers import Answers, answer_tokens, stacked
from micrographia.core.errors import BadPrompt, UserError
from micrographia.core.framing import PLAIN, Framing, Tokenizes
from micrographia.core.metrics import PAIRED, Metric
from micrographia.core.model import Model
from micrographia.core.titles import Mode, shown_token
from micrographia.core.tokens import (
    Batch,
    Inputs,
    Tokenizer,
    aligned,
    ids_of,
    mask_of,
    rows_of,
    to_str_tokens,
)


class LanguageModel(Model, Tokenizes, Protocol):
    """A Model that tokenizes text as usual, with its own special tokens."""


class PairText(NamedTuple):
    """One pair as text. `answer` belongs to the clean prompt; `wrong` is the answer to the corrupt prompt."""

    clean: str
    corrupt: str
    answer: Answers
    wrong: Answers | None = None


@dataclass(frozen=True, eq=False, slots=True)
class Pairs:
    """Prompt pairs as tokens; `answer` and `wrong` hold one token id per pair, read at position `pos`.

    Where any pair has a set of answers, they are (prompt, option), with -1 where a pair has fewer.
    """

    clean: Inputs
    corrupt: Inputs
    answer: Int[Tensor, "prompt *option"]
    wrong: Int[Tensor, "prompt *other"] | None = None
    texts: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    pos: int = -1

    def __len__(self) -> int:
        return len(ids_of(self.clean))

    def __repr__(self) -> str:
        wrong = "" if self.wrong is None else " and a wrong one"
        return f"Pairs({len(self)} of {ids_of(self.clean).shape[1]} tokens, each with an answer{wrong})"

    def base(self, mode: Mode) -> Inputs:
        """The prompts that are patched: the corrupt ones in denoising, the clean ones in noising."""
        return self.corrupt if mode == "denoise" else self.clean

    def donor(self, mode: Mode) -> Inputs:
        """The prompts whose activations are written into the base run."""
        return self.clean if mode == "denoise" else self.corrupt

    def rows(self, rows: Int[Tensor, "row"] | slice) -> "Pairs":
        """Some of the pairs, in this order."""
        chosen = range(len(self))[rows] if isinstance(rows, slice) else rows.tolist()
        return Pairs(
            rows_of(self.clean, rows),
            rows_of(self.corrupt, rows),
            self.answer[rows],
            None if self.wrong is None else self.wrong[rows],
            tuple(self.texts[i] for i in chosen) if self.texts else (),
            self.pos,
        )


def from_texts(
    model: LanguageModel, rows: Sequence[PairText], *, first_token: bool = False, framing: Framing = PLAIN
) -> Pairs:
    """Pairs of texts, tokenized with the model's own tokenizer, on the device of its weights.

    `first_token` scores the first token of an answer of several tokens; `framing` stands around every prompt. Pairs of
    different lengths give padded Batches.
    Answers are read at the last token, of a bidirectional model (BERT) at its mask token. Raises BadPrompt for no
    pairs, for a pair whose prompts do not line up (both shown, token by token), for an answer that is not one token or
    that is both right and wrong, where only some pairs have a wrong answer, and without a single common mask position.
    """
    rows = [PairText(*row) for row in rows]
    if not rows:
        raise BadPrompt("Asked to compare prompts, but no pair was given. Give at least one.")
    if not model.shape.d_vocab_out:
        raise BadPrompt("Asked for answers of a model without a head for words. Give one that predicts words.")
    tokenizer, device = model.tokenizer, model.weights.W_E.device
    for i, row in enumerate(rows):
        left, other = (ids_of(framing.tokens(model, [text]))[0].tolist() for text in (row.clean, row.corrupt))
        if len(left) != len(other):
            raise BadPrompt(_misaligned(i, left, other, tokenizer))
    without = [i for i, row in enumerate(rows) if row.wrong is None]
    if without and len(without) < len(rows):
        raise BadPrompt(f"Only some pairs name a wrong answer; those at {without[:5]} do not. Give all of them one.")
    right = [answer_tokens(tokenizer, row.answer, first=first_token) for row in rows]
    wrong = [[] if row.wrong is None else answer_tokens(tokenizer, row.wrong, first=first_token) for row in rows]
    for i, (own, other) in enumerate(zip(right, wrong)):
        check_apart(tokenizer, own, other, f"In pair {i}, ", first_token=first_token)
    clean, corrupt = (
        onto(device, framing.tokens(model, texts)) for texts in zip(*((row.clean, row.corrupt) for row in rows))
    )
    pos = -1 if model.shape.causal else _place_to_fill(tokenizer, ids_of(clean), ids_of(corrupt))
    texts = tuple((row.clean, row.corrupt) for row in rows)
    return Pairs(clean, corrupt, stacked(right, device), None if without else stacked(wrong, device), texts, pos)


def check_apart(
    tokenizer: Tokenizer | None,
    right: Sequence[int],
    wrong: Sequence[int],
    where: str = "",
    *,
    first_token: bool = False,
) -> None:
    """Raise BadPrompt for a token that is both a right and a wrong answer."""
    if both := [repr(text) for text in to_str_tokens(tokenizer, [token for token in right if token in wrong])]:
        raise BadPrompt(
            f"{where}{', '.join(both)} is both a right and a wrong answer. Give answers that differ"
            f"{' in their first tokens' * first_token}."
        )


def fitting(
    model: LanguageModel, rows: Sequence[PairText], *, first_token: bool = False, framing: Framing = PLAIN
) -> list[PairText]:
    """The pairs that `from_texts` can read with this tokenizer. Raises BadPrompt, that of the first, where none can."""
    kept, reasons = list[PairText](), list[BadPrompt]()
    for row in rows:
        try:
            from_texts(model, [row], first_token=first_token, framing=framing)
            kept.append(row)
        except BadPrompt as reason:
            reasons.append(reason)
    if reasons and not kept:
        raise reasons[0]
    return kept


def _place_to_fill(tokenizer: Tokenizer | None, *sides: Int[Tensor, "prompt pos"]) -> int:
    """The position of the mask token, the same in every prompt, counted from the end."""
    mask = getattr(tokenizer, "mask", None)
    if mask is None:
        raise BadPrompt(
            "This model fills a masked token, but its tokenizer has none. Load it with a tokenizer that names its mask."
        )
    found = [[i - len(row) for i, token in enumerate(row) if token == mask] for ids in sides for row in ids.tolist()]
    if any(len(places) != 1 or places != found[0] for places in found):
        shown = tokenizer.decode([mask]) if tokenizer is not None else mask
        raise BadPrompt(
            f"This model is bidirectional and fills a masked token, so its answer is read there. Found {shown!r} "
            f"at {found[:4]}, counted from the end. Write {shown} once in every prompt, as many tokens before the end."
        )
    return found[0][0]


def position_names(pairs: Pairs, tokenizer: Tokenizer | None) -> list[str]:
    """A name for each position: its number and token, both tokens where the sides differ, "…" where prompts differ.

    Without a tokenizer the numbers alone.
    """
    if tokenizer is None:
        return [str(i) for i in range(ids_of(pairs.clean).shape[1])]
    clean, corrupt = (_token_columns(side, tokenizer) for side in (pairs.clean, pairs.corrupt))
    return [f"{i} {_token_name(one, other)}" for i, (one, other) in enumerate(zip(clean, corrupt))]


def _token_columns(inputs: Inputs, tokenizer: Tokenizer | None) -> list[set[str]]:
    """The different tokens at each position; padding counts as a token."""
    ids, mask = ids_of(inputs), mask_of(inputs)
    rows = [to_str_tokens(tokenizer, row) for row in ids]
    if mask is not None:
        rows = [[text if there else "" for text, there in zip(row, seen)] for row, seen in zip(rows, mask.tolist())]
    return [set(column) for column in zip(*rows)]


def _token_name(clean: set[str], corrupt: set[str]) -> str:
    if len(clean) > 1 or len(corrupt) > 1:
        return "…"
    (one,), (other,) = clean, corrupt
    return shown_token(one) if one == other else f"{shown_token(one)} / {shown_token(other)}"


def check_aligned(pairs: Pairs, tokenizer: Tokenizer | None = None) -> None:
    """Raise BadPrompt unless both sides have the same shape and padding and there are as many answers as pairs.

    With a tokenizer, the tokens of the first misaligned pair are shown side by side.
    """
    clean, corrupt = ids_of(pairs.clean), ids_of(pairs.corrupt)
    if not len(clean):
        raise BadPrompt("Asked to compare prompts, but no pair was given. Give at least one.")
    if len(clean) != len(corrupt) or len(pairs.answer) != len(clean):
        raise BadPrompt(
            f"Found {len(clean)} clean prompts, {len(corrupt)} corrupt prompts and {len(pairs.answer)} answers. "
            "Give equally many."
        )
    if pairs.wrong is not None and len(pairs.wrong) != len(pairs.answer):
        raise BadPrompt(f"Found {len(pairs.answer)} answers and {len(pairs.wrong)} wrong answers. Give equally many.")
    left, right = (mask_of(side) for side in (pairs.clean, pairs.corrupt))
    lengths = [
        [ids.shape[1]] * len(ids) if mask is None else mask.sum(1).tolist()
        for ids, mask in ((clean, left), (corrupt, right))
    ]
    for i, (a, b) in enumerate(zip(*lengths)):
        if a != b or clean.shape[1] != corrupt.shape[1]:
            raise BadPrompt(_misaligned(i, clean[i, -a:].tolist(), corrupt[i, -b:].tolist(), tokenizer))


def changed_positions(pairs: Pairs) -> list[int]:
    """The positions, padding included, at which some pair's prompts differ."""
    differ = ids_of(pairs.clean) != ids_of(pairs.corrupt)
    for mask in (mask_of(pairs.clean), mask_of(pairs.corrupt)):
        differ = differ if mask is None else differ & mask
    return differ.any(0).nonzero()[:, 0].tolist()


def first_difference(pairs: Pairs) -> int:
    """The first position, padding included, at which some pair's prompts differ; the length where none do.

    In a causal model, nothing before it can have an effect.
    """
    return next(iter(changed_positions(pairs)), ids_of(pairs.clean).shape[1])


def _misaligned(i: int, clean: list[int], corrupt: list[int], tokenizer: Tokenizer | None) -> str:
    shown = f":\n{aligned(tokenizer, clean, corrupt)}\n" if tokenizer is not None else ". "
    return (
        f"Clean and corrupt prompt must have as many tokens; those of pair {i} have {len(clean)} and "
        f"{len(corrupt)}{shown}Reword one of them, so that the difference has the same number of tokens."
    )


def onto(device: torch.device, inputs: Inputs) -> Inputs:
    """The same on another device."""
    if isinstance(inputs, Batch):
        return Batch(inputs.ids.to(device), None if inputs.mask is None else inputs.mask.to(device))
    return inputs.to(device)


NEED_WRONG = frozenset({"logit-diff", "prob-diff"})
NEED_REFERENCE = frozenset({"kl"})


def metric_of(name: str, pairs: Pairs, model: Model) -> Metric:
    """The metric of this name (see `metrics.PAIRED`) for these pairs.

    Cost: none, except for "kl", which runs the clean prompts once for its reference.
    """
    if name not in PAIRED:
        near = ", ".join(get_close_matches(name, PAIRED)) or ", ".join(PAIRED)
        raise UserError(f"Asked for the metric {name!r}, which is not known. Nearest: {near}.")
    if name in NEED_WRONG and pairs.wrong is None:
        raise BadPrompt(f"The metric {name!r} compares two answers, but the pairs have no wrong one. Give one to each.")
    reference = pairs.answer
    if name in NEED_REFERENCE:
        logits = model.run(pairs.clean, logits=[pairs.pos]).logits
        reference = logits[:, 0]
    return PAIRED[name](pairs.answer, pairs.answer if pairs.wrong is None else pairs.wrong, reference, pairs.pos)


class Baselines(NamedTuple):
    """A metric in the clean and in the corrupt run."""

    metric: Metric
    clean: Float[Tensor, "prompt"]
    corrupt: Float[Tensor, "prompt"]

    @property
    def gap(self) -> float | None:
        """Clean minus corrupt, mean over prompts; None where they differ by rounding only."""
        return gap_of(self.clean, self.corrupt)


SAME = 1e-6
"""Baselines closer than this fraction of their size are equal in float32."""


def gap_of(clean: Float[Tensor, "prompt"], corrupt: Float[Tensor, "prompt"]) -> float | None:
    """Clean minus corrupt, mean over prompts; None where they differ by rounding only."""
    one, other = (float(values.double().mean()) for values in (clean, corrupt))
    return one - other if abs(one - other) > SAME * max(abs(one), abs(other)) else None


def baselines(model: Model, pairs: Pairs, metric: Metric) -> Baselines:
    """The metric of the clean and of the corrupt prompt of every pair. Two forward passes."""
    return Baselines(metric, metric.of(model, pairs.clean), metric.of(model, pairs.corrupt))


def metrics_of(names: Sequence[str], pairs: Pairs, model: Model) -> list[Metric]:
    return [metric_of(name, pairs, model) for name in names]
