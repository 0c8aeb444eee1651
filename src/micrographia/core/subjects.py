"""Where a subject stands in a prompt: its tokens, found by letters, not by tokenizing it again.

A subject of several tokens may be tokenized otherwise at the start of a text than within it, and a token may hold
letters beside its own. What is found is checked: the tokens of the span spell the subject, and nothing else but spaces.
"""

import re
from typing import NamedTuple

import torch
from jaxtyping import Int
from torch import Tensor

from micrographia.core.errors import BadPrompt
from micrographia.core.tokens import Inputs, Tokenizer, ids_of, mask_of, spans_of, to_str_tokens


class SubjectSpan(NamedTuple):
    """First and last position of a subject, counted in the padded batch."""

    first: int
    last: int


def place_of_subject(text: str, subject: str) -> int:
    """Where the subject stands in a text for the last time: as words of its own, else, as in scripts without spaces, at
    all; -1 where it does not.

    >>> place_of_subject("Mary was Maryland's", "Mary")
    0
    """
    whole = list(re.finditer(rf"(?<!\w){re.escape(subject)}(?!\w)", text))
    return whole[-1].start() if whole else text.rfind(subject)


def subject_span(tokenizer: Tokenizer | None, prompt: str, ids: list[int], subject: str) -> SubjectSpan:
    """The tokens of the last occurrence of the subject in the prompt.

    Raises BadPrompt where the prompt does not name it, and where a token at its ends holds other letters too.
    """
    begin = place_of_subject(prompt, subject)
    if begin < 0 or not subject:
        raise BadPrompt(f"The subject {subject!r} does not occur in the prompt {prompt!r:.80}. Name it there.")
    end = begin + len(subject)
    spans = spans_of(tokenizer, prompt, ids)
    inside = [i for i, (a, b) in enumerate(spans) if a < end and b > begin]
    beyond = [i for i in inside if prompt[spans[i][0] : begin].strip() or prompt[end : spans[i][1]].strip()]
    if not inside or beyond:
        shown = " | ".join(to_str_tokens(tokenizer, [ids[i] for i in inside])) or "nothing"
        raise BadPrompt(
            f"The subject {subject!r} is tokenized in {prompt!r:.80} as {shown}, which holds other letters or none. "
            "Put spaces around it, or leave it out."
        )
    return SubjectSpan(inside[0], inside[-1])


def subject_spans(
    tokenizer: Tokenizer | None, prompts: list[str], inputs: Inputs, subjects: list[str]
) -> Int[Tensor, "prompt 2"]:
    """First and last position of each subject in the batch, padding counted. Raises as `subject_span`."""
    ids, mask = ids_of(inputs), mask_of(inputs)
    found = []
    for i, (prompt, subject) in enumerate(zip(prompts, subjects, strict=True)):
        pad = 0 if mask is None else int((~mask[i]).sum())
        span = subject_span(tokenizer, prompt, ids[i, pad:].tolist(), subject)
        found.append([span.first + pad, span.last + pad])
    return torch.tensor(found)
