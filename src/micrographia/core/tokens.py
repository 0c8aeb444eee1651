"""Text and token ids: padded batches, the Tokenizer protocol, and the small word-level `Vocabulary`.

A `Tokenizer` is anything that encodes and decodes; `Vocabulary` is the word-level one of our own labs.
`core/pretrained` wraps those of Hugging Face. Prompts of different lengths are padded on the left, so that the last
position of every row is its last token. Errors show the tokens of the text.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from itertools import zip_longest
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from micrographia.core.errors import BadPrompt, UserError


class Batch(NamedTuple):
    """Token ids with their padding: `mask` is False where a row was padded on the left; None when nothing was."""

    ids: Int[Tensor, "batch pos"]
    mask: Bool[Tensor, "batch pos"] | None = None


Inputs = Tensor | Batch
"""What a Model runs on: token ids (batch, pos), or a Batch of them."""


def ids_of(inputs: Inputs) -> Int[Tensor, "batch pos"]:
    """The ids without the mask. Raises UserError for anything but a tensor of ids, such as a text or probabilities."""
    ids = inputs.ids if isinstance(inputs, Batch) else inputs
    if not isinstance(ids, Tensor):
        raise UserError(
            f"A model runs on token ids (batch, pos), as a tensor. Found a {type(ids).__name__}. "
            "`model.to_tokens(text)` makes them of text, `torch.tensor(...)` of lists."
        )
    if ids.is_floating_point() or ids.is_complex() or ids.dtype == torch.bool:
        raise UserError(f"Token ids are whole numbers (batch, pos). Found {ids.dtype}. Give them as `ids.long()`.")
    return ids


def mask_of(inputs: Inputs) -> Bool[Tensor, "batch pos"] | None:
    """True at tokens; None when nothing is padded. Raises BadPrompt for padding that is not on the left."""
    if not isinstance(inputs, Batch) or inputs.mask is None:
        return None
    mask = inputs.mask.bool()
    if mask.shape != inputs.ids.shape or not mask[:, -1].all() or (mask[:, :-1] & ~mask[:, 1:]).any():
        raise BadPrompt(
            f"A mask of shape {tuple(mask.shape)} was given for ids of shape {tuple(inputs.ids.shape)}. It should be "
            "False for padding on the left of each row and True for its tokens, of which the last comes last."
        )
    return mask


def lengths_of(ids: Int[Tensor, "batch pos"], mask: Bool[Tensor, "batch pos"] | None) -> Int[Tensor, "batch"]:
    """How many tokens each row has, less its padding."""
    return torch.full((len(ids),), ids.shape[1]) if mask is None else mask.sum(1)


def read_inputs(given: Inputs | str | Sequence[str], to_tokens: Callable[[str | Sequence[str]], Inputs]) -> Inputs:
    """Inputs as they are, a text or several as their tokens. Raises UserError for texts without a tokenizer."""
    if isinstance(given, Tensor | Batch):
        return given
    texts = [given] if isinstance(given, str) else given
    is_text = isinstance(texts, list | tuple) and bool(texts) and all(isinstance(text, str) for text in texts)
    return to_tokens(texts) if is_text else ids_of(given)  # pyright: ignore[reportArgumentType] (which refuses it)


def rows_of(inputs: Inputs, rows: Int[Tensor, "row"] | slice) -> Inputs:
    """Some rows of the inputs, in this order."""
    if isinstance(inputs, Batch):
        return Batch(inputs.ids[rows], None if inputs.mask is None else inputs.mask[rows])
    return inputs[rows]


@runtime_checkable
class Tokenizer(Protocol):
    """Text to ids and back. `bos` and `pad` are ids, None where there is none."""

    @property
    def bos(self) -> int | None: ...

    @property
    def pad(self) -> int | None: ...

    def encode(self, text: str) -> list[int]:
        """The ids of a text, without special tokens."""
        ...

    def decode(self, ids: Sequence[int]) -> str: ...


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """A word-level tokenizer: ids are indices into `words`, text is split at white space.

    >>> small = Vocabulary(("<bos>", "Mary", "sees", "John"), bos=0)
    >>> small.encode(" John sees Mary")
    [3, 2, 1]
    """

    words: tuple[str, ...]
    bos: int | None = None
    pad: int | None = None
    _ids: dict[str, int] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if len(set(self.words)) != len(self.words):
            twice = sorted({word for word in self.words if self.words.count(word) > 1})
            raise UserError(f"A vocabulary was given in which {', '.join(twice[:5])} stand twice. Name each once.")
        object.__setattr__(self, "_ids", {word: i for i, word in enumerate(self.words)})

    def encode(self, text: str) -> list[int]:
        """Raises BadPrompt for an unknown word, naming the nearest."""
        words = text.split()
        if unknown := [word for word in words if word not in self._ids]:
            near = [match for word in unknown for match in get_close_matches(word, self.words, n=2)]
            hint = f"Nearest: {', '.join(near)}." if near else f"It has {', '.join(self.words[:12])} ..."
            raise BadPrompt(f"The vocabulary of this model lacks {', '.join(map(repr, unknown[:5]))}. {hint}")
        return [self._ids[word] for word in words]

    def decode(self, ids: Sequence[int]) -> str:
        return " ".join(self.words[i] for i in ids)


def to_tokens(
    tokenizer: Tokenizer | None, texts: str | Sequence[str], *, prepend_bos: bool | None = None
) -> Tensor | Batch:
    """Ids (batch, pos) of one or several texts; a Batch, padded on the left, where their lengths differ.

    `prepend_bos`: None puts the beginning-of-sequence token first where the tokenizer has one; never twice.
    """
    listed = [texts] if isinstance(texts, str) or not isinstance(texts, Iterable) else list(texts)
    if odd := [text for text in listed if not isinstance(text, str)]:
        raise BadPrompt(
            f"Asked to run on {odd[0]!r:.80}, where a text was expected. Give texts, or a tensor of token ids."
        )
    rows = [_row(_needed(tokenizer), text, prepend_bos) for text in listed]
    longest = max(map(len, rows), default=0)
    if not longest or not all(rows):
        raise BadPrompt(f"Asked to run on {texts!r}, at least one of which has no token. Give texts.")
    if all(len(row) == longest for row in rows):
        return torch.tensor(rows)
    pad = _needed(tokenizer).pad
    ids = torch.tensor([[pad or 0] * (longest - len(row)) + row for row in rows])
    mask = torch.tensor([[False] * (longest - len(row)) + [True] * len(row) for row in rows])
    return Batch(ids, mask)


def _row(tokenizer: Tokenizer, text: str, prepend_bos: bool | None) -> list[int]:
    ids, bos = tokenizer.encode(text), tokenizer.bos
    if prepend_bos and bos is None:
        raise BadPrompt("Asked for a beginning-of-sequence token, but this model's tokenizer has none. Leave it out.")
    wanted = bos is not None if prepend_bos is None else prepend_bos
    return [bos, *ids] if wanted and bos is not None and ids[:1] != [bos] else ids


def to_str_tokens(tokenizer: Tokenizer | None, ids: Sequence[int] | Int[Tensor, "pos"]) -> list[str]:
    """Each token as text."""
    listed = ids.tolist() if isinstance(ids, Tensor) else list(ids)
    return [_needed(tokenizer).decode([i]) for i in listed]


def spans_of(tokenizer: Tokenizer | None, text: str, ids: Sequence[int] | Int[Tensor, "pos"]) -> list[tuple[int, int]]:
    """Which letters of the text each token holds, as (first, end); of a token with part of a letter, that letter.

    As the tokenizer tells (`spans`), or read off the tokens' own texts. A special token holds none.
    """
    listed = ids.tolist() if isinstance(ids, Tensor) else list(ids)
    told = getattr(tokenizer, "spans", lambda text, ids: None)(text, listed)
    return _read_spans(_needed(tokenizer), text, listed) if told is None else told


HALF = "\ufffd"
"""What decoding makes of bytes that are no whole letter."""


def _read_spans(tokenizer: Tokenizer, text: str, ids: Sequence[int]) -> list[tuple[int, int]]:
    """Each token's text, searched where the one before ended; tokens that make a letter together are read together."""
    found, at, first = list[tuple[int, int]](), 0, 0
    for end in range(1, len(ids) + 1):
        word = tokenizer.decode(ids[first:end]).strip()
        if HALF in word and word not in text and end < len(ids):
            continue
        start = text.find(word, at) if word else -1
        span = (start, start + len(word)) if start >= 0 else (at, at)
        found += [span] * (end - first)
        at, first = span[1], end
    return found


def single_token(tokenizer: Tokenizer | None, text: str, *, first: bool = False) -> int:
    """The id of a text that is one token; with `first`, of its first one. Raises BadPrompt, showing the tokens."""
    found = continuation(_needed(tokenizer), text)
    if not found or (len(found) > 1 and not first):
        shown = " | ".join(to_str_tokens(tokenizer, found)) or "nothing"
        raise BadPrompt(
            f"The answer {text!r} should be one token; this tokenizer makes {len(found)} of it: {shown}. "
            + _other_spelling(_needed(tokenizer), text)
            + (", or score its first token (first_token, --first-token)." if found else ".")
        )
    if found[0] == getattr(tokenizer, "unk", None) and text.strip() != to_str_tokens(tokenizer, found[:1])[0].strip():
        raise BadPrompt(
            f"The answer {text!r} is not in this tokenizer's vocabulary, which reads it as "
            f"{to_str_tokens(tokenizer, found[:1])[0]!r}. Choose a word of its vocabulary."
        )
    return found[0]


def continuation(tokenizer: Tokenizer, text: str) -> list[int]:
    """The ids of a text that goes on after another word.

    SentencePiece (Llama 2) itself puts a space before a text, so that one that was typed would be a token alone.
    """
    ids = tokenizer.encode(text)
    if len(ids) < 2 or not text[:1].isspace() or tokenizer.decode(ids[:1]).strip():
        return ids
    before, whole = tokenizer.encode("a"), tokenizer.encode(f"a{text}")
    return whole[len(before) :] if whole[: len(before)] == before else ids


def spelling(tokenizer: Tokenizer, token: int) -> str | None:
    """How an answer is written so that it is this token; None where no text is, as for half a letter."""
    text = tokenizer.decode([token])
    wordless = not text.strip()
    candidates = [text] if wordless else [text, f" {text.strip()}", text.strip()]
    return next((each for each in candidates if each and _encoded(tokenizer, each) == [token]), None)


def _other_spelling(tokenizer: Tokenizer, text: str) -> str:
    """What to do about an answer of several tokens: the same with or without a space may be one."""
    other = text.lstrip() if text[:1].isspace() else f" {text}"
    one = _encoded(tokenizer, other) if other.strip() else []
    if len(one) == 1 and one[0] != getattr(tokenizer, "unk", None):
        return f"Write {other!r}, which is one"
    return "Choose another answer"


def _encoded(tokenizer: Tokenizer, text: str) -> list[int]:
    try:
        return continuation(tokenizer, text)
    except BadPrompt:  # a vocabulary that lacks the word
        return []


def aligned(tokenizer: Tokenizer, clean: Sequence[int], corrupt: Sequence[int]) -> str:
    """Two token lists side by side, for an error about prompts that do not line up."""
    left, right = (to_str_tokens(tokenizer, ids) for ids in (clean, corrupt))
    width = max(map(len, map(repr, left)), default=0)
    rows = zip_longest(map(repr, left), map(repr, right), fillvalue="-")
    return "\n".join(f"  {i:>3}  {a:<{width}}  {b}{'' if a == b else '  <'}" for i, (a, b) in enumerate(rows))


def _needed(tokenizer: Tokenizer | None) -> Tokenizer:
    if tokenizer is None:
        raise UserError("Asked to tokenize text, but this model has no tokenizer. Pass token ids, or a tokenizer.")
    return tokenizer
