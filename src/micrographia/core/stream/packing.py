"""Packing: documents, tokenised, one behind the other in rows of n_ctx tokens without padding.

A document goes on in the next row, and what attends across documents in a row is not masked, as in the training of most
language models. The end of the text that fills no row is left out.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from micrographia.core.errors import BadConfig
from micrographia.core.stream.texts import Piece
from micrographia.core.tokens import Tokenizer

Separator = str | int | None


@dataclass(frozen=True, kw_only=True, slots=True)
class RowLayout:
    """How documents become rows."""

    n_ctx: int
    bos: int | None = None
    """The token at the start of every row, if any."""
    separator: int | None = None
    """The token behind every document, if any."""

    @property
    def n_text(self) -> int:
        """Tokens of a row that are of the text."""
        return self.n_ctx - (self.bos is not None)

    def __post_init__(self) -> None:
        if self.n_ctx <= (self.bos is not None):
            raise BadConfig(f"Asked for rows of {self.n_ctx} tokens, in which no text has room. Give 2 or more.")


def layout_for(tokenizer: Tokenizer, n_ctx: int, *, bos: bool | None = None, separator: Separator = "eos") -> RowLayout:
    """The layout for a tokenizer.

    `bos`: whether each row begins with the tokenizer's beginning-of-sequence token; None: as the tokenizer does of
    itself. `separator`: "eos", "bos", a token's id or None, stands behind every document; "eos" is "bos" where there is
    no other. Raises BadConfig for a token that the tokenizer does not have.
    """
    wanted = getattr(tokenizer, "puts_bos", tokenizer.bos is not None) if bos is None else bos
    if wanted and tokenizer.bos is None:
        raise BadConfig("Rows that begin with BOS were asked for, but this tokenizer has none. Leave it out.")
    ends = {"eos": getattr(tokenizer, "eos", None), "bos": tokenizer.bos}
    if isinstance(separator, str) and separator not in ends:
        raise BadConfig(f"Asked for the separator {separator!r}. There are eos, bos, the id of a token, and None.")
    behind = ends[separator] if isinstance(separator, str) else separator
    if separator == "eos" and behind is None:
        behind = tokenizer.bos
    if separator == "bos" and behind is None:
        raise BadConfig("Documents separated by BOS were asked for, but this tokenizer has none. Choose eos or None.")
    return RowLayout(n_ctx=n_ctx, bos=tokenizer.bos if wanted else None, separator=behind)


@dataclass(slots=True)
class SourceRuns:
    """What source the tokens of rows are from, in order: (name, tokens), without those that begin rows."""

    runs: list[tuple[str, int]] = field(default_factory=list)

    def add(self, source: str, n: int) -> None:
        if self.runs and self.runs[-1][0] == source:
            n += self.runs.pop()[1]
        self.runs.append((source, n))

    def first(self, n: int) -> list[tuple[str, int]]:
        """The runs of the first `n` tokens, which are then forgotten."""
        found = SourceRuns()
        while n:
            source, length = self.runs.pop(0)
            if length > n:
                self.runs.insert(0, (source, length - n))
            found.add(source, min(n, length))
            n -= min(n, length)
        return found.runs


class ReadTo(NamedTuple):
    """How far the text is in rows: `used` tokens of the piece with this number."""

    piece: int = 0
    used: int = 0


BEGINNING = ReadTo()


def packed(
    pieces: Iterator[Piece],
    tokenizer: Tokenizer,
    layout: RowLayout,
    start: ReadTo = BEGINNING,
    sources: SourceRuns | None = None,
) -> Iterator[tuple[NDArray[Any], ReadTo]]:
    """Each full row (n_ctx,) with how far the text is read. From `start`, where a row ended, it goes on as it went.

    A row is overwritten by the next. What is before `start` is read, not tokenised. `sources` is told what is put into
    rows.
    """
    row = np.empty(layout.n_ctx, dtype=np.int64)
    filled = begin = _begin(row, layout)
    for number, piece in enumerate(pieces):
        if number < start.piece:
            continue
        ids, used = _tokens(piece, tokenizer, layout), start.used if number == start.piece else 0
        while used < len(ids):
            if filled == begin and ids[used] == layout.bos:  # never twice
                used += 1
                continue
            fits = min(layout.n_ctx - filled, len(ids) - used)
            row[filled : filled + fits] = ids[used : used + fits]
            if sources is not None:
                sources.add(piece.source, fits)
            filled, used = filled + fits, used + fits
            if filled == layout.n_ctx:
                yield row, ReadTo(number, used)
                filled = _begin(row, layout)


def _begin(row: NDArray[Any], layout: RowLayout) -> int:
    if layout.bos is None:
        return 0
    row[0] = layout.bos
    return 1


def _tokens(piece: Piece, tokenizer: Tokenizer, layout: RowLayout) -> NDArray[Any]:
    end = [layout.separator] if piece.ends and layout.separator is not None else []
    return np.asarray([*tokenizer.encode(piece.text), *end], dtype=np.int64)
