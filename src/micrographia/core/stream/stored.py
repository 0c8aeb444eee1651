"""Activation shards: a harvest on disk, of several Sites at once, that is read many times.

A shard is a safetensors file with a tensor (token, d) for each Site and how many tokens each row has, which the last
file has of all rows; a manifest holds their hashes. A shard is mapped: only what is read comes into memory. Rows lie in
their order; shuffling is done when they are read, as with a model (`ActivationStream.of`). A harvest that was stopped,
also by a full disk, goes on with the same call.
Axes: row token d.
"""

import shutil
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from micrographia.core.errors import BadConfig, UserError
from micrographia.core.events import Note, Progress, Watch, silent
from micrographia.core.model import Model
from micrographia.core.runtime import torch_dtype
from micrographia.core.sites import Site, SiteLike, as_site
from micrographia.core.store.formats import read_tensors, tensors_bytes
from micrographia.core.store.shards import Shards, ShardWriter, complete
from micrographia.core.stream.harvest import Bad, Harvested, Harvester, Kept, harvester, left_out
from micrographia.core.stream.rows import TokenRows

KIND = "activations"
COUNTS = "counts"
STORED = ("float32", "bfloat16", "float16")
SHARD = 2**26
"""Bytes of a shard, about. Four times as many are in memory while one is written."""
ROWS_AT_ONCE = 64
SAME = 1e-2
"""How far the first activations of a model may differ from those of a harvest that goes on."""


@dataclass(frozen=True, slots=True, eq=False)
class StoredActivations:
    """A finished harvest, as a supply of batches."""

    n_bytes: int
    about: Mapping[str, Any]
    _kinds: Mapping[Site, Kept]
    _counts: Int[Tensor, "row"]
    _shards: Shards
    _first_row: Tensor
    """Of each shard."""
    _first_token: Tensor
    """Of each row, within its shard."""
    _opened: Any

    def count(self) -> Int[Tensor, "row"]:
        """How many tokens of each row there are."""
        return self._counts

    def kinds(self) -> Mapping[Site, Kept]:
        """What there is of each token."""
        return self._kinds

    def passes(self, which: Int[Tensor, "row"], sites: Collection[Site] | None = None) -> Iterator[Harvested]:
        """The activations of these rows, in this order, at these Sites; None: at all. Raises Corrupt."""
        for at in range(0, len(which), ROWS_AT_ONCE):
            rows = which[at : at + ROWS_AT_ONCE]
            places = [self._place(int(row)) for row in rows]
            values = {
                site: torch.cat([self._opened(shard)[str(site)][first:last] for shard, first, last in places])
                for site in (self._kinds if sites is None else sites)
            }
            yield Harvested(values, rows.repeat_interleave(self._counts[rows]), None)

    def check(self) -> None:
        """Hash every shard now, instead of before it is first read. Raises Corrupt."""
        self._shards.check()

    def _place(self, row: int) -> tuple[int, int, int]:
        shard = int(torch.searchsorted(self._first_row, row, right=True)) - 1
        first = int(self._first_token[row])
        return shard, first, first + int(self._counts[row])


def store_activations(
    model: Model,
    sites: SiteLike | Iterable[SiteLike],
    rows: TokenRows | Int[Tensor, "row pos"],
    folder: Path | str,
    *,
    name: str = "",
    dtype: str = "float32",
    sink: bool = True,
    bad: Bad = "stop",
    rows_a_pass: int | None = None,
    shard_bytes: int = SHARD,
    watch: Watch = silent,
) -> StoredActivations:
    """Harvest these rows at these Sites into a folder, or go on with the harvest there, and open it.

    `name` of the model, to be found again; `dtype`: float32, bfloat16 or float16. The size is said before anything is
    written. With bad="skip", tokens with NaN or infinite activations are left out of the files.
    One forward pass over the rows, to the last Site. Errors: see `harvester`; NonFiniteActivations also for activations
    that are too large for `dtype`; BadConfig for a folder of another harvest; RunLocked; CannotWrite (a full disk):
    what is written stays, and the same call goes on.
    """
    if dtype not in STORED:
        raise BadConfig(f"Asked to store activations as {dtype!r}. Choose {', '.join(STORED)}.")
    reading = harvester(model, sites, rows, rows_a_pass=rows_a_pass, sink=sink, bad=bad, watch=watch)
    kept = {site: Kept(each.width, torch_dtype(dtype), torch.device("cpu")) for site, each in reading.kinds().items()}
    about = {
        "model": name,
        "sites": {str(site): each.width for site, each in kept.items()},
        "dtype": dtype,
        "n_ctx": reading.rows.n_ctx,
        "n_rows": len(reading.rows),
        "tokens": reading.rows.identity,
        "special": reading.rows.special,
        "sink": sink,
        "bad": bad,
    }
    if (there := complete(folder, kind=KIND, about=about)) is not None:
        return _stored_in(there)
    with ShardWriter.open(folder, kind=KIND, about=about) as writer:
        if writer.dropped:
            watch(Note(f"Damaged shards of {writer.path} are made again: {', '.join(writer.dropped[:5])}.", "warning"))
        if not writer.finished:
            _say_size(writer, reading, kept, watch)
            _write(writer, reading, kept, shard_bytes, watch)
    return open_activations(folder)


def open_activations(folder: Path | str) -> StoredActivations:
    """A harvest on disk. Sizes are checked now, hashes before a shard is first read.

    Raises RunNotFound, Corrupt.
    """
    return _stored_in(Shards(folder, kind=KIND))


def _stored_in(shards: Shards) -> StoredActivations:
    about, found = shards.about, shards.found
    dtype = torch_dtype(about["dtype"])
    kept = {as_site(site): Kept(width, dtype, torch.device("cpu")) for site, width in about["sites"].items()}
    ends = torch.tensor([place["n_rows"] for place in shards.places[:-1]], dtype=torch.long)

    @cache
    def opened(i: int) -> dict[str, Tensor]:
        return read_tensors(shards.file(shards.names[i]))

    counts = opened(len(ends))[COUNTS]
    starts = torch.cat([torch.zeros(1, dtype=torch.long), ends])[:-1]
    first = torch.cat([part.cumsum(0) - part for part in counts.tensor_split(starts[1:])])
    return StoredActivations(shards.n_bytes, {**about, **found}, kept, counts, shards, starts, first, opened)


def _write(writer: ShardWriter, reading: Harvester, kept: Mapping[Site, Kept], shard_bytes: int, watch: Watch) -> None:
    """The rows that are not there yet, a shard at a time. Passes are the same however often it is stopped."""
    each = sum(one.n_bytes for one in kept.values()) * reading.rows.n_ctx
    rows_each = max(1, shard_bytes // each // reading.rows_a_pass) * reading.rows_a_pass
    probe = {str(site): float(x.double().norm(dim=-1).mean()) for site, x in reading.first().items()}
    place = writer.place
    if place:
        _refuse_another_model(writer, place["probe"], probe)
        rows_each = place["rows_each"]
    done, n_rows = place["n_rows"] if place else 0, len(reading.rows)
    while done < n_rows:
        which = torch.arange(done, min(done + rows_each, n_rows))
        data = _shard(reading, which, kept, watch, n_rows)
        done += len(which)
        writer.add(data, {"n_rows": done, "rows_each": rows_each, "probe": probe}, suffix=".safetensors")
    if not (place and place.get("counted")):
        counts = torch.cat([read_tensors(file)[COUNTS] for file in writer.files])
        writer.add(tensors_bytes({COUNTS: counts}), {**writer.place, "counted": True}, suffix=".safetensors")
    writer.finish({"n_tokens": int(read_tensors(writer.files[-1])[COUNTS].sum())})


def _shard(reading: Harvester, which: Tensor, kept: Mapping[Site, Kept], watch: Watch, n_rows: int) -> bytes:
    found: dict[Site, list[Tensor]] = {site: [] for site in kept}
    counts = torch.zeros(len(which), dtype=torch.long)
    done = 0
    for each in reading.passes(which):
        good = slice(None) if each.bad is None else ~each.bad
        row = each.row[good]
        counts += torch.bincount(row - which[0], minlength=len(which))
        for site, one in kept.items():
            value = each.values[site].cpu()[good]
            found[site].append(_narrowed(value, one.dtype, site, row))
        done = min(done + reading.rows_a_pass, len(which))
        watch(Progress("harvest", int(which[0]) + done, n_rows, "row"))
    return tensors_bytes({COUNTS: counts, **{str(site): torch.cat(parts) for site, parts in found.items()}})


def _narrowed(value: Tensor, dtype: torch.dtype, site: Site, row: Tensor) -> Tensor:
    stored = value.to(dtype)
    if value.numel() and not bool(torch.isfinite(stored).all()):
        largest = float(value.abs().max())
        raise UserError(
            f"Asked to store the activations at {site} as {dtype}; those of rows {int(row.min())} to {int(row.max())} "
            f"reach {largest:.3g}, which it does not hold. Store bfloat16 or float32."
        )
    return stored


def _refuse_another_model(writer: ShardWriter, stored: Mapping[str, float], now: Mapping[str, float]) -> None:
    off = [name for name, value in now.items() if abs(value - stored[name]) > SAME * abs(stored[name])]
    if off:
        raise BadConfig(
            f"Asked to go on with the harvest in {writer.path}, but this model's first activations at {', '.join(off)} "
            "are others than those there. Take the same model, or give another folder."
        )


def _say_size(writer: ShardWriter, reading: Harvester, kept: Mapping[Site, Kept], watch: Watch) -> None:
    n_tokens = int(reading.count().sum())
    needed, free = n_tokens * sum(each.n_bytes for each in kept.values()), shutil.disk_usage(writer.path).free
    watch(Note(left_out(reading.rows, sink=reading.sink)))
    watch(
        Note(
            f"Activations of {n_tokens:,} tokens in {len(reading.rows):,} rows at {len(kept)} sites take "
            f"{needed:,} bytes in {writer.path}, where {free:,} are free."
        )
    )
    if needed > free:
        watch(Note("The disk will be full before the end; the harvest then stops, and goes on when asked.", "warning"))
