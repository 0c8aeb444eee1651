"""Answers: one token or a set of them, as text or as ids of the model's own tokenizer.

A text is split at "|", as in "5|6|7"; `\\|` is the character itself. The entries of a list are taken as they stand.
"""

import re
from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Int
from torch import Tensor

from micrographia.core.errors import BadPrompt
from micrographia.core.tokens import Tokenizer, single_token


class TokenId(NamedTuple):
    """An answer that a file gives as the id of a token. `among`: the words of which it must then be one, if known."""

    id: int
    among: tuple[str, ...] = ()


Answers = str | TokenId | Sequence[str | TokenId]
"""One answer, several in a text with "|" between, or a list."""


def choices(answers: Answers) -> tuple[str | TokenId, ...]:
    r"""The answers one by one. Raises BadPrompt for none and for an empty one.

    >>> choices(" Paris| Rome"), choices([" a|b"]), choices(r"\|")
    ((' Paris', ' Rome'), (' a|b',), ('|',))
    """
    if isinstance(answers, TokenId):
        return (answers,)
    found = tuple(answers) if isinstance(answers, Sequence) else (answers,)
    if isinstance(answers, str):
        found = tuple(part.replace(r"\|", "|") for part in re.split(r"(?<!\\)\|", answers))
    if odd := [each for each in found if not isinstance(each, str | TokenId)]:
        raise BadPrompt(
            f"Found {odd[0]!r} as an answer. Give a text, or a list of texts; a token's id as `TokenId(id)`."
        )
    if not found or "" in found:
        raise BadPrompt(
            rf"The answer {answers!r} holds an empty choice. Write one text between two |, and \| for that character."
        )
    return found


def shown(answers: Answers) -> str:
    """Answers as one text that `choices` reads: "5|6|7"."""
    return "|".join(
        f"token {each.id}" if isinstance(each, TokenId) else each.replace("|", r"\|") for each in choices(answers)
    )


def answer_tokens(tokenizer: Tokenizer | None, answers: Answers, *, first: bool = False) -> list[int]:
    """The token of each answer, each once. Raises BadPrompt for one that is several tokens, unless `first` will do."""
    found = [
        _checked(tokenizer, each) if isinstance(each, TokenId) else single_token(tokenizer, each, first=first)
        for each in choices(answers)
    ]
    return list(dict.fromkeys(found))


def _checked(tokenizer: Tokenizer | None, given: TokenId) -> int:
    """An id that was made by this tokenizer: it has such a token, which is one of the words that it must be."""
    text = None
    if tokenizer is not None:
        try:
            text = tokenizer.decode([given.id]) if given.id >= 0 else ""
        except (IndexError, OverflowError, TypeError):  # beyond the vocabulary
            text = ""
    if text == "" or (text is not None and given.among and text.strip() not in given.among):
        means = "no token" if not text else f"{text!r}, which is none of {', '.join(given.among[:16])}"
        raise BadPrompt(
            f"The file gives the answer as token {given.id}, which this model's tokenizer reads as {means}. Such ids "
            "belong to the tokenizer that they were made with: give answers as text (columns, --columns)."
        )
    return given.id


def stacked(rows: Sequence[Sequence[int]], device: torch.device | str | None = None) -> Int[Tensor, "prompt *option"]:
    """The tokens of each prompt's answers: (prompt,) where all have one, else (prompt, option) with -1 for no more."""
    width = max(map(len, rows))
    if width == 1:
        return torch.tensor([row[0] for row in rows], device=device)
    return torch.tensor([[*row, *[-1] * (width - len(row))] for row in rows], device=device)
