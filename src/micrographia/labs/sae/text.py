"""The text of a training or an evaluation, as rows of tokens of the model at hand."""

from collections.abc import Iterator
from typing import Any

from micrographia.core.errors import UserError
from micrographia.core.events import Watch
from micrographia.core.model import Model
from micrographia.core.stream.packing import layout_for
from micrographia.core.stream.rows import TokenRows
from micrographia.core.stream.texts import Piece, Tally, Texts, open_texts
from micrographia.core.stream.tokenise import token_rows
from micrographia.labs.sae.config import TextSource

CHARACTERS_A_TOKEN = 6
"""More than common tokenizers have on average, on text or code: what is read to have enough tokens."""


def rows_for(reading: TextSource, model: Model, n_tokens: int, watch: Watch) -> TokenRows:
    """So many tokens of the text's beginning, or all that it has; in memory (8 bytes each).

    Raises UserError for a model without a tokenizer, and for a context longer than it reads.
    """
    if model.tokenizer is None:
        raise UserError("Text was to be read with a model that has no tokenizer. Give a model with one.")
    if reading.context > model.shape.n_ctx:
        raise UserError(
            f"Rows of {reading.context} tokens were asked for; this model reads {model.shape.n_ctx}. Lower --context."
        )
    texts = beginning(open_texts(reading.text, field=reading.field), CHARACTERS_A_TOKEN * n_tokens)
    layout = layout_for(model.tokenizer, reading.context, bos=reading.bos)
    rows = token_rows(texts, model.tokenizer, layout, watch=watch)
    return rows.between(0, rows_holding(reading, n_tokens))


def beginning(texts: Texts, n_characters: int) -> Texts:
    """The documents of a text until so many characters are read."""

    def read(tally: Tally) -> Iterator[Piece]:
        left = n_characters
        for piece in texts.read(tally):
            yield piece
            left -= len(piece.text)
            if left <= 0:
                return

    return Texts(texts.source, read)


def rows_holding(reading: TextSource, n_tokens: int) -> int:
    """How many rows hold so many tokens that count."""
    each = reading.context - (not reading.keep_first)
    return -(-n_tokens // each)


def as_read(rows: TokenRows) -> dict[str, Any]:
    """What the results say of the text."""
    return {**rows.about, "rows": len(rows), "context": rows.n_ctx}
