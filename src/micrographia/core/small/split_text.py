"""Text to rows of tokens: what is trained on, and what is held out of all training.

The tokenizer is trained on the text itself; the rows stand in a folder of the Run, tokenised once. Rows drawn at random
are held out, so that held-out text is like the other, though it may be of the same documents. Axes: row pos.
"""

from collections.abc import Iterator
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Int
from torch import Tensor

from micrographia.core.byte_pairs import FILE, BytePairs, read_byte_pairs, train_byte_pairs
from micrographia.core.errors import UserError
from micrographia.core.events import Progress, Watch
from micrographia.core.runtime import generator
from micrographia.core.store import RunFolder
from micrographia.core.stream.packing import layout_for
from micrographia.core.stream.rows import TokenRows, TokenSources, as_rows
from micrographia.core.stream.texts import Texts, open_texts
from micrographia.core.stream.tokenise import tokenise
from micrographia.core.tokens import Tokenizer

TOKENS = "tokens"
LEAST_ROWS = 32
LETTERS = 2**24
"""Of the text, from its beginning, that the tokenizer is trained on."""
A_TOKEN = 4  # letters, about


@runtime_checkable
class ReadsText(Protocol):
    """The choices of a config that say what text is read, and how it is split."""

    @property
    def text(self) -> str:
        """A file, a folder, a JSONL file, hf:NAME; empty: the Python standard library's own sources."""
        ...

    @property
    def tokens(self) -> int | None:
        """Read from its beginning; None: all."""
        ...

    @property
    def model(self) -> str:
        """Whose tokenizer reads it; empty: one is trained on the text."""
        ...

    @property
    def n_vocab(self) -> int: ...

    @property
    def n_ctx(self) -> int: ...

    @property
    def held_out(self) -> int:
        """Tokens."""
        ...

    @property
    def seed(self) -> int: ...


class SplitText(NamedTuple):
    """The tokens of a Run, and what made them."""

    tokenizer: Tokenizer
    train: TokenRows
    held_out: Int[Tensor, "row pos"]
    sources: TokenSources | None = None
    """Of what is held out, where the text has several."""

    @property
    def byte_pairs(self) -> BytePairs:
        """The tokenizer, where it was trained here."""
        assert isinstance(self.tokenizer, BytePairs)
        return self.tokenizer


def read_text(config: ReadsText, folder: RunFolder, watch: Watch, tokenizer: Tokenizer | None = None) -> SplitText:
    """The tokens of this Run, made unless they are there; `tokenizer`: that of a model that is not trained here.

    Raises UserError for too little text, and what reading it raises.
    """
    texts = open_texts(config.text or None)
    if config.model and tokenizer is None:
        raise UserError(f"Asked to read text with {config.model}, which has no tokenizer. Give a model that has one.")
    own = _tokenizer(config, texts, folder, watch) if tokenizer is None else tokenizer
    layout = layout_for(own, config.n_ctx, bos=own.bos is not None)
    place, n = folder.path / TOKENS, config.tokens
    return split_rows(config, tokenise(texts, own, layout, place, n_tokens=n, watch=watch), own, texts.source)


def split_rows(config: ReadsText, rows: TokenRows, tokenizer: Tokenizer, source: str = "the text") -> SplitText:
    """Rows in two parts, as the config asks: of a Run whose tokens are made, read by another process.

    Raises UserError for too little text.
    """
    order = torch.randperm(len(rows), generator=generator(config.seed))
    n_held_out = -(-config.held_out // config.n_ctx)
    if len(rows) < n_held_out + LEAST_ROWS:
        raise UserError(
            f"Asked to hold {config.held_out:,} tokens out and to train on others. Found "
            f"{len(rows) * config.n_ctx:,} in {source}. Give more text, or a smaller held_out."
        )
    out = order[:n_held_out]
    return SplitText(tokenizer, _held(rows, order[n_held_out:]), rows[out], rows.take(out).sources())


def _held(rows: TokenRows, which: Int[Tensor, "row"]) -> TokenRows:
    """These rows in memory, 8 bytes a token."""
    return as_rows(rows[which], special=rows.special, about=rows.about)


def _tokenizer(config: ReadsText, texts: Texts, folder: RunFolder, watch: Watch) -> BytePairs:
    place = folder.path / FILE
    if not place.is_file():
        watch(Progress("train the tokenizer", 0, 1, "tokenizer"))
        n = min(LETTERS, A_TOKEN * config.tokens) if config.tokens else LETTERS
        folder.add_file(FILE, train_byte_pairs(_beginning(texts, n), config.n_vocab).to_bytes())
        watch(Progress("train the tokenizer", 1, 1, "tokenizer"))
    return read_byte_pairs(place)


def _beginning(texts: Texts, n_letters: int) -> Iterator[str]:
    """The pieces of the text up to so many letters."""
    for piece in texts.pieces():
        if n_letters <= 0:
            return
        yield piece.text
        n_letters -= len(piece.text)
