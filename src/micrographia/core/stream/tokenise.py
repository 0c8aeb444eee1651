"""Tokenise a text once: rows of tokens in memory, or a folder of shards that any number of runs read.

A folder goes on where it was stopped, refuses another text, tokenizer or layout, and says when it is complete. Its
shards are raw little-endian whole numbers of 2 or 4 bytes, (rows, n_ctx), under a manifest of hashes.
"""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from functools import cache
from itertools import islice, takewhile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from micrographia.core.errors import BadConfig, UserError
from micrographia.core.events import Note, Progress, Watch, silent
from micrographia.core.spoken import number_of
from micrographia.core.store.shards import Shards, ShardWriter, complete, mapped
from micrographia.core.stream.packing import BEGINNING, ReadTo, RowLayout, SourceRuns, packed
from micrographia.core.stream.rows import TokenRows, as_rows, special_tokens
from micrographia.core.stream.texts import Piece, Tally, Texts
from micrographia.core.tokens import Tokenizer

KIND = "tokens"
SHARD = 2**22
"""Tokens in a shard: what is tokenised again, at most, after a stop."""
SHOWN_EVERY = 64  # rows
SOURCES, SOURCED = "sources", 16
"""What the manifest calls the sources of a shard's tokens, and of how many shards it tells them."""
_FIRST = 2000  # characters by which texts and tokenizers are told apart


def token_rows(
    texts: Texts, tokenizer: Tokenizer, layout: RowLayout, *, n_tokens: int | None = None, watch: Watch = silent
) -> TokenRows:
    """The text as rows in memory, 8 bytes a token; `n_tokens` ends it there.

    Raises UserError for a text that is too short, with how much is needed.
    """
    tally, sources = Tally(), SourceRuns()
    wanted = _rows_wanted(layout, n_tokens)
    rows = packed(texts.pieces(tally), tokenizer, layout, sources=sources)
    found = [row.copy() for row, _ in _watched(rows, wanted, layout, watch)]
    _check_enough(len(found), wanted, layout, texts, tally)
    known = _found(len(found), tally)
    watch(Note(_said(known, layout, texts)))
    about = {**_about(texts, layout), **known}
    held = as_rows(torch.from_numpy(np.stack(found)), special=special_tokens(tokenizer), about=about)
    return replace(held, runs=tuple(sources.first(len(held) * layout.n_text)))


def tokenise(
    texts: Texts,
    tokenizer: Tokenizer,
    layout: RowLayout,
    folder: Path | str,
    *,
    n_tokens: int | None = None,
    d_vocab: int | None = None,
    shard_tokens: int = SHARD,
    watch: Watch = silent,
) -> TokenRows:
    """The text as rows in a folder of shards; what is there already is not made again.

    One shard is in memory. `n_tokens` ends the text there; `d_vocab` up to 65,536 halves the folder (2 bytes a token
    instead of 4). Of a folder that is complete only the shards are
    read, once, to check them.
    Raises UserError for a text that is too short, with how much is needed; BadConfig for a folder of another text,
    tokenizer or layout; RunLocked; CannotWrite, after which the same call goes on.
    """
    width = 2 if d_vocab is not None and d_vocab <= 2**16 else 4
    rows_each = max(1, shard_tokens // layout.n_ctx)
    about = {
        **_about(texts, layout),
        "first": _identity(texts, tokenizer),
        "special": special_tokens(tokenizer),
        "bytes_a_token": width,
        "rows_a_shard": rows_each,
        "n_tokens": n_tokens,
    }
    if (there := complete(folder, kind=KIND, about=about)) is not None:
        return _rows_in(there)
    with ShardWriter.open(folder, kind=KIND, about=about) as writer:
        if writer.dropped:
            watch(
                Note(f"Damaged shards of {writer.path} are written again: {', '.join(writer.dropped[:5])}.", "warning")
            )
        if not writer.finished:
            _write(writer, texts, tokenizer, layout, _Shape(width, rows_each, _rows_wanted(layout, n_tokens)), watch)
    return open_tokens(folder)


def open_tokens(folder: Path | str) -> TokenRows:
    """The rows in a folder of `tokenise`. Sizes are checked now, hashes before a shard is first read.

    Raises RunNotFound, Corrupt.
    """
    return _rows_in(Shards(folder, kind=KIND))


def _rows_in(shards: Shards) -> TokenRows:
    about, n_ctx = shards.about, shards.about["layout"]["n_ctx"]
    n_rows, each = shards.found["n_rows"], about["rows_a_shard"]
    lengths = tuple(min(each, n_rows - at) for at in range(0, n_rows, each))
    dtype = _dtype(about["bytes_a_token"])

    @cache
    def part(i: int) -> NDArray[Any]:
        return mapped(shards.file(shards.names[i]), dtype, (lengths[i], n_ctx))

    known = {**about, **shards.found, "sha256_of_tokens": shards.identity}
    rows = TokenRows(n_ctx, lengths, part, tuple(about["special"]), known, shards.n_bytes)
    told = takewhile(lambda place: SOURCES in place, shards.places)
    return replace(rows, runs=tuple((name, n) for place in told for name, n in place[SOURCES]))


class _Shape(NamedTuple):
    """Of a folder: bytes a token, rows a shard, and rows in all where their number is given."""

    width: int
    rows_each: int
    wanted: int | None


def _write(
    writer: ShardWriter, texts: Texts, tokenizer: Tokenizer, layout: RowLayout, shape: _Shape, watch: Watch
) -> None:
    place = writer.place
    done, start = (place["n_rows"], ReadTo(place["piece"], place["used"])) if place else (0, BEGINNING)
    tally, sources = Tally(), SourceRuns()
    pieces = _unchanged(texts.pieces(tally), place, tally, writer)
    rows = _watched(packed(pieces, tokenizer, layout, start, sources), shape.wanted, layout, watch, done)
    held = np.empty((shape.rows_each, layout.n_ctx), dtype=_dtype(shape.width))
    n, at = 0, start
    for row, at in rows:
        if int(row.max()) >= 256**shape.width:
            raise BadConfig(f"Token {int(row.max())} has no room in {shape.width} bytes. Check `d_vocab`.")
        held[n] = row
        n += 1
        if n == len(held):
            done, n = done + n, 0
            known = {**at._asdict(), **_found(done, tally), **_told(sources, len(held), layout, writer)}
            writer.add(held.tobytes(), known, suffix=".tokens")
    _check_enough(done + n, shape.wanted, layout, texts, tally)
    if n:
        done += n
        known = {**at._asdict(), **_found(done, tally), **_told(sources, n, layout, writer)}
        writer.add(held[:n].tobytes(), known, suffix=".tokens")
    found = {name: writer.place[name] for name in _found(done, tally)}
    writer.finish(found)
    watch(Note(_said(found, layout, texts)))


def _told(sources: SourceRuns, n_rows: int, layout: RowLayout, writer: ShardWriter) -> dict[str, Any]:
    """The sources of the rows of a shard; of no more than the first shards, since the manifest holds them."""
    runs = sources.first(n_rows * layout.n_text)
    return {SOURCES: runs} if writer.n_shards < SOURCED else {}


def _unchanged(pieces: Iterator[Piece], place: Mapping[str, Any], tally: Tally, writer: ShardWriter) -> Iterator[Piece]:
    """The pieces; raises BadConfig where those up to `place` are not those of before."""
    for number, piece in enumerate(pieces):
        if place and number == place["piece"] and tally.sha256 != place["sha256_of_text"]:
            raise BadConfig(
                f"Asked to go on with {writer.path}, but the text has changed since it was begun. Delete the folder, "
                "or give another."
            )
        yield piece


def _watched(
    rows: Iterator[tuple[NDArray[Any], ReadTo]], wanted: int | None, layout: RowLayout, watch: Watch, done: int = 0
) -> Iterator[tuple[NDArray[Any], ReadTo]]:
    """The rows that are wanted beyond the `done` ones, with progress; of a whole text the end is not known."""
    left, number = None if wanted is None else max(0, wanted - done), done
    for number, each in enumerate(islice(rows, left), done + 1):
        yield each
        if number % SHOWN_EVERY == 0 and number != wanted:
            total = number + SHOWN_EVERY if wanted is None else wanted
            watch(Progress("tokenise", number * layout.n_ctx, total * layout.n_ctx, "token"))
    if number > done:
        watch(Progress("tokenise", number * layout.n_ctx, number * layout.n_ctx, "token"))


def _rows_wanted(layout: RowLayout, n_tokens: int | None) -> int | None:
    if n_tokens is not None and n_tokens < 1:
        raise BadConfig(f"Asked for {n_tokens} tokens. Give 1 or more, or leave it out to read the whole text.")
    return None if n_tokens is None else -(-n_tokens // layout.n_ctx)


def _check_enough(n_rows: int, wanted: int | None, layout: RowLayout, texts: Texts, tally: Tally) -> None:
    """Raise UserError for a text that gives fewer rows than are wanted, or none."""
    if n_rows >= (wanted or 1):
        return
    needed, found = (wanted or 1) * layout.n_ctx, n_rows * layout.n_ctx
    each = tally.n_characters / found if found else 4.0  # about what English has
    raise UserError(
        f"Asked for {needed:,} tokens in rows of {layout.n_ctx}; {texts.source} gives {found:,} in whole rows, from "
        f"{tally}. Give about {needed * each:,.0f} characters, or ask for fewer tokens or shorter rows."
    )


def _said(found: Mapping[str, Any], layout: RowLayout, texts: Texts) -> str:
    n_rows, skipped = found["n_rows"], found["n_skipped"]
    left = f", {number_of(skipped, 'file')} without text left out" if skipped else ""
    return (
        f"Read {texts.source}: {number_of(found['n_documents'], 'document')} of "
        f"{number_of(found['n_characters'], 'character')}{left}; "
        f"{number_of(n_rows * layout.n_ctx, 'token')} in {number_of(n_rows, 'row')} of {layout.n_ctx} "
        f"(SHA-256 of the text {found['sha256_of_text'][:16]})."
    )


def _about(texts: Texts, layout: RowLayout) -> dict[str, Any]:
    return {"source": texts.source, "layout": asdict(layout)}


def _found(n_rows: int, tally: Tally) -> dict[str, Any]:
    return {
        "n_rows": n_rows,
        "n_documents": tally.n_documents,
        "n_characters": tally.n_characters,
        "n_skipped": len(tally.skipped),
        "sha256_of_text": tally.sha256,
    }


def _identity(texts: Texts, tokenizer: Tokenizer) -> str:
    """A hash of how the text begins, and of its tokens."""
    first = next(texts.pieces(), None)
    text = first.text[:_FIRST].rpartition(" ")[0] if first else ""
    return hashlib.sha256(repr((text, list(tokenizer.encode(text)))).encode()).hexdigest()


def _dtype(width: int) -> str:
    return f"<u{width}"
