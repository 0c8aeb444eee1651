"""All firings of a dictionary on some rows, from one pass of the model, kept on disk sorted by latent.

The pass goes through active latents alone, and writes a shard whenever it has `SHARD` firings: 8 bytes each, 4 a token
and 4 a latent. A pass that was killed goes on from the last shard. Reading a range of latents takes their slice of
every shard, so that everything about a latent is later computed exactly and in bounded memory.
Axes: row pos d_in latent; `place` is row * n_ctx + pos.
"""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy.typing import NDArray
from torch import Tensor

from micrographia.core.dictionaries.dictionary import Dictionary
from micrographia.core.errors import NonFiniteActivations, UserError
from micrographia.core.events import Event, Progress, Watch, silent
from micrographia.core.model import Model
from micrographia.core.sites import Site
from micrographia.core.store.formats import tensors_bytes
from micrographia.core.store.shards import Shards, ShardWriter, mapped
from micrographia.core.stream.rows import TokenRows
from micrographia.core.tokens import ids_of, mask_of
from micrographia.methods.dictionaries.evaluation.reading import Block, Counted, n_rows, read_blocks, rows_between
from micrographia.methods.dictionaries.sparse.active import offsets
from micrographia.methods.dictionaries.sparse.encode import encode_sparse

KIND = "firings"
SHARD = 2**22
"""Firings after which a shard is written: about 0.3 GB while it is sorted."""
DENSE = 2**25
"""Latents of a block of tokens, were they all to fire."""


class LatentFirings(NamedTuple):
    """Firings of a range of latents, sorted by latent and then by place."""

    latent: Int[Tensor, "firing"]
    """From 0 on."""
    place: Int[Tensor, "firing"]
    value: Float[Tensor, "firing"]
    """Not 0; below it where the dictionary has latents of both signs."""

    def counts(self, n: int) -> Int[Tensor, "latent"]:
        return self.latent.bincount(minlength=n)


@dataclass(frozen=True, slots=True)
class _Shard:
    """A mapped shard: where each latent begins; places; values; the ids of its tokens, ~id where one does not count."""

    starts: NDArray[np.int32]
    places: NDArray[np.int32]
    values: NDArray[np.float32]
    ids: NDArray[np.int32]
    rows: range


class FiringStore:
    """The firings that `record_firings` wrote."""

    def __init__(self, path: Path | str) -> None:
        """Raises RunNotFound, Corrupt."""
        shards = Shards(path, kind=KIND)
        self.n_ctx: int = shards.about["n_ctx"]
        self.n_latents: int = shards.about["n_latents"]
        self.n_rows: int = shards.about["n_rows"]
        firsts = [0, *(each["row"] for each in shards.places)]
        each = zip(shards.names, shards.places, pairwise(firsts))
        self._shards = [self._opened(shards.file(name), int(at["firings"]), range(*span)) for name, at, span in each]

    @cached_property
    def signed_ids(self) -> Int[Tensor, "place"]:
        """The ids of all tokens, ~id (negative) at those that do not count. 4 bytes a token."""
        return torch.from_numpy(np.concatenate([each.ids for each in self._shards]))

    @property
    def ids(self) -> Int[Tensor, "place"]:
        return torch.where(self.signed_ids < 0, ~self.signed_ids, self.signed_ids)

    @property
    def n_tokens(self) -> int:
        """Those that count."""
        return int((self.signed_ids >= 0).sum())

    @cached_property
    def counts(self) -> Int[Tensor, "latent"]:
        """How often each latent fires."""
        return torch.from_numpy(sum((np.diff(each.starts).astype(np.int64) for each in self._shards), np.int64(0)))  # pyright: ignore[reportArgumentType]

    def between(self, start: int, stop: int) -> LatentFirings:
        """The firings of the latents from `start` to before `stop`. About 60 bytes a firing while they are merged."""
        parts = []
        for shard in self._shards:
            here = slice(shard.starts[start], shard.starts[stop])
            latent = np.repeat(np.arange(stop - start), np.diff(shard.starts[start : stop + 1]))
            parts.append((latent, shard.places[here].astype(np.int64), shard.values[here]))
        latent, place, value = (torch.from_numpy(np.concatenate(each)) for each in zip(*parts))
        order = latent.to(torch.int16 if stop - start < 2**15 else torch.int32).sort(stable=True).indices
        return LatentFirings(latent[order], place[order], value[order])

    def some_rows(self, rows: Bool[Tensor, "row"]) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Of each shard the firings in these rows: latents, places, values."""
        chosen = rows.numpy()
        for shard in self._shards:
            kept = chosen[shard.places // self.n_ctx]
            latents = np.repeat(np.arange(self.n_latents), np.diff(shard.starts))[kept]
            yield tuple(torch.from_numpy(each) for each in (latents, shard.places[kept], shard.values[kept]))  # pyright: ignore[reportReturnType]

    def ranges(self, firings: int, most: int) -> list[range]:
        """All latents in ranges of at most so many firings (a single one may have more) and latents."""
        found, first, held = list[range](), 0, 0
        for latent, n in enumerate(self.counts.tolist()):
            if latent > first and (held + n > firings or latent - first == most):
                found.append(range(first, latent))
                first, held = latent, 0
            held += n
        return [*found, range(first, self.n_latents)]

    def _opened(self, file: Path, firings: int, rows: range) -> _Shard:
        n = self.n_latents + 1
        raw = mapped(file, np.int32, (n + 2 * firings + len(rows) * self.n_ctx,))
        starts, places, values, ids = np.split(raw, [n, n + firings, n + 2 * firings])
        return _Shard(np.asarray(starts), places, values.view(np.float32), ids, rows)


def record_firings(
    dictionary: Dictionary,
    model: Model,
    site: Site,
    rows: Any,
    counted: Counted,
    path: Path,
    *,
    watch: Watch = silent,
) -> FiringStore:
    """Run the rows once up to the Site and keep all firings in the folder `path`; goes on where it was stopped.

    Cost: the run, 2 d_in latents FLOPs a token, and 8 bytes of disk a firing. Raises UserError where no token counts or
    there are 2^31 and more, BadShape for a dictionary of another width, NonFiniteActivations, BadConfig where `path`
    holds firings of others.
    """
    n_ctx = ids_of(rows_between(rows, 0, 1)).shape[1]
    if n_rows(rows) * n_ctx >= 2**31:
        raise UserError(
            f"Firings were asked for on {n_rows(rows):,} rows of {n_ctx} tokens. Places are kept in 32 bits: give "
            f"{(2**31 - 1) // n_ctx:,} rows at most."
        )
    about = {
        "n_ctx": n_ctx,
        "n_latents": dictionary.n_latents,
        "n_rows": n_rows(rows),
        "site": str(site),
        "counted": str(counted),
        "tokens": _tokens_hash(rows),
        "dictionary": weights_hash(dictionary),
        "activations": _activations_hash(dictionary, model, site, rows),
    }
    with ShardWriter.open(path, kind=KIND, about=about) as writer:
        if not writer.finished:
            _record(dictionary, model, site, rows, counted, writer, watch)
            writer.finish({})
    return FiringStore(path)


def weights_hash(dictionary: Dictionary) -> str:
    """SHA-256 of the dictionary's tensors and Form."""
    return _sha(tensors_bytes(dictionary.weights.named()), repr(dictionary.form).encode())


def _record(
    dictionary: Dictionary, model: Model, site: Site, rows: Any, counted: Counted, writer: ShardWriter, watch: Watch
) -> None:
    first, total = int(writer.place.get("row", 0)), n_rows(rows)
    if first == total:
        return

    def told(event: Event) -> None:
        watch(replace(event, done=event.done + first, total=total) if isinstance(event, Progress) else event)

    rest = rows.between(first) if isinstance(rows, TokenRows) else rows_between(rows, first, total)
    held: list[_Piece] = []
    for block in read_blocks(
        model, [site], rest, counted, tokens_at_once=max(1, min(4096, DENSE // dictionary.n_latents)), watch=told,
        stage="firings of latents",
    ):  # fmt: skip
        held.append(_piece(dictionary, block, site, first))
        row = first + block.first + len(block.counted)
        if row == total or sum(len(each.values) for each in held) >= SHARD:
            writer.add(*_shard(held, dictionary.n_latents, row), suffix=".firings")
            held = []


class _Piece(NamedTuple):
    latents: Tensor
    places: Tensor
    values: Tensor
    ids: Tensor


def _piece(dictionary: Dictionary, block: Block, site: Site, first: int) -> _Piece:
    x = block.at(site)
    counted, ids = block.counted.cpu(), ids_of(block.inputs).cpu()
    if not bool(x.isfinite().all()):
        raise NonFiniteActivations(
            f"Activations at {site} in rows {first + block.first} to {first + block.first + len(ids) - 1} are NaN or "
            "infinite. Look at the model and its dtype, or leave these rows out."
        )
    own = dictionary.reading(x)
    with torch.no_grad():
        active = encode_sparse(own, x.to(own.weights.W_dec.device))
    values = active.values.float().cpu()
    places = counted.flatten().nonzero()[:, 0] + (first + block.first) * ids.shape[1]
    signed = torch.where(counted, ids, ~ids).flatten().int()
    on = values != 0
    return _Piece(active.latents.cpu()[on], places[active.rows().cpu()[on]].int(), values[on], signed)


def _shard(held: list[_Piece], n_latents: int, row: int) -> tuple[bytes, Mapping[str, Any]]:
    latents, places, values, ids = (torch.cat(each) for each in zip(*held))
    order = latents.to(torch.int16 if n_latents <= 2**15 else torch.int32).sort(stable=True).indices
    whole = torch.cat([offsets(latents, n_latents).int(), places[order], values[order].view(torch.int32), ids])
    return whole.numpy().tobytes(), {"row": row, "firings": len(values)}


def _sha(*parts: bytes) -> str:
    digest = hashlib.sha256()
    for each in parts:
        digest.update(each)
    return digest.hexdigest()


def _tokens_hash(rows: Any) -> str:
    if isinstance(rows, TokenRows):
        return rows.identity
    given = rows_between(rows, 0, n_rows(rows))
    mask = mask_of(given)
    return _sha(ids_of(given).cpu().numpy().tobytes(), b"" if mask is None else mask.cpu().numpy().tobytes())


def _activations_hash(dictionary: Dictionary, model: Model, site: Site, rows: Any) -> str:
    """Of the first row: another model's, or those of a model that was trained on, differ. Raises BadShape."""
    (block,) = read_blocks(model, [site], rows_between(rows, 0, 1), Counted(skip_first=0))
    x = block.at(site)
    dictionary.reading(x).encode(x[:1].to(dictionary.weights.W_dec.device))
    return _sha(x.float().cpu().numpy().tobytes())
