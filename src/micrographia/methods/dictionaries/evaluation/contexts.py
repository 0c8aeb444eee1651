"""Where latents fire: top examples, a uniform sample, and texts without, each in its context, from one pass.

For each latent a bounded number of examples is kept, at most one from each row: those with the largest activation; a
uniform sample of the tokens at which it fires (the largest of random keys), which sorted by value gives quantiles; and
random places in rows where it never fires. Activations of the whole window are kept, tokens are read from the rows
again. Memory: latents x examples x window numbers, whatever the number of tokens. Axes: row pos latent example window.
"""

from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor

from micrographia.core.dictionaries.dictionary import Dictionary
from micrographia.core.errors import UserError
from micrographia.core.events import Watch, silent
from micrographia.core.model import Model
from micrographia.core.sites import SiteLike
from micrographia.core.tokens import ids_of
from micrographia.methods.dictionaries.evaluation.reading import (
    Block,
    Counted,
    coded,
    counted_by,
    place_for,
    read_blocks,
    rows_between,
)

BLOCK_BYTES = 2**26
"""Dense latents of one block of rows."""


class Windows(NamedTuple):
    """Examples of each latent, the largest key first; row -1 where there are fewer."""

    key: Float[Tensor, "example latent"]
    row: Int[Tensor, "example latent"]
    pos: Int[Tensor, "example latent"]
    values: Float[Tensor, "example window latent"]
    """Activations around `pos`; NaN outside the row and at tokens that do not count."""


class Passage(NamedTuple):
    """One example: tokens, the latent's activation at each (NaN where it does not count), and the token it is for."""

    tokens: tuple[int, ...]
    values: tuple[float, ...]
    at: int
    row: int
    pos: int


@dataclass(slots=True)
class Contexts:
    """The examples of some latents."""

    latents: Int[Tensor, "latent"]
    before: int
    after: int
    top: Windows
    sample: Windows
    silent: Windows
    counts: Int[Tensor, "latent"]
    """Tokens at which each fires."""
    n_tokens: int = 0
    rows: Any = field(default=None, repr=False)

    def passages(self, latent: int, kind: str = "top") -> list[Passage]:
        """The examples of a latent (its number in the dictionary): "top", "sample" (by value, falling) or "silent"."""
        at = (self.latents == latent).nonzero()
        if not len(at):
            raise UserError(f"Examples of latent {latent} were asked for; they were gathered of others. Gather again.")
        column, windows = int(at[0, 0]), {"top": self.top, "sample": self.sample, "silent": self.silent}[kind]
        there = (windows.row[:, column] >= 0).nonzero()[:, 0].tolist()
        found = [self._passage(windows, i, column) for i in there]
        return sorted(found, key=lambda each: -each.values[each.at]) if kind == "sample" else found

    def quantiles(self, latent: int, n: int) -> list[list[Passage]]:
        """The sample in n groups of equal size, by value, the largest first."""
        found = self.passages(latent, "sample")
        edges = [round(i * len(found) / n) for i in range(n + 1)]
        return [found[a:b] for a, b in pairwise(edges)]

    def _passage(self, windows: Windows, i: int, column: int) -> Passage:
        row, pos = int(windows.row[i, column]), int(windows.pos[i, column])
        ids = ids_of(rows_between(self.rows, row, row + 1))[0]
        start, stop = max(0, pos - self.before), min(len(ids), pos + self.after + 1)
        first = start - (pos - self.before)
        values = windows.values[i, first : first + stop - start, column]
        return Passage(tuple(ids[start:stop].tolist()), tuple(values.tolist()), pos - start, row, pos)


def gather_contexts(
    dictionary: Dictionary,
    model: Model,
    rows: Any,
    site: SiteLike | None = None,
    *,
    generator: Generator,
    latents: Tensor | None = None,
    top: int = 10,
    sample: int = 20,
    silent_ones: int = 10,
    before: int = 16,
    after: int = 8,
    counted: Counted | None = None,
    watch: Watch = silent,
) -> Contexts:
    """Examples of these latents (None: all), from one run of the rows up to the Site.

    Cost: beside the run, encoding, and for each row a window of each latent. Raises UserError where nothing counts.
    """
    chosen = torch.arange(dictionary.n_latents) if latents is None else latents.long()
    place = place_for(dictionary, model, site)
    counted = counted_by(model, rows) if counted is None else counted
    shape = (before + after + 1, len(chosen))
    found = Contexts(
        chosen, before, after, _empty(top, shape), _empty(sample, shape), _empty(silent_ones, shape),
        torch.zeros(len(chosen), dtype=torch.int64), rows=rows,
    )  # fmt: skip
    at_once = max(1, BLOCK_BYTES // (4 * len(chosen)))
    for block in read_blocks(
        model, [place.read], rows, counted, tokens_at_once=at_once, watch=watch, stage="examples of latents"
    ):
        values = latents_at(dictionary, block, place.read, chosen)
        padded = _padded(values, before, after)
        numbers = torch.arange(len(values)) + block.first
        for name, keys in _keys(values, block, generator).items():
            setattr(found, name, _merged(getattr(found, name), keys, numbers, padded))
        found.counts += (values > 0).sum((0, 1))
        found.n_tokens += int(block.counted.sum())
    return found


def latents_at(dictionary: Dictionary, block: Block, site: Any, chosen: Tensor) -> Float[Tensor, "row pos latent"]:
    """The size of some latents at every token of a block; NaN at tokens that do not count. On the CPU."""
    x = block.at(site)
    found = torch.full((*block.counted.shape, len(chosen)), torch.nan)
    pieces = [piece.latents[:, chosen.to(piece.latents.device)].abs().float().cpu() for piece in coded(dictionary, x)]
    if pieces:
        found[block.counted.cpu()] = torch.cat(pieces)
    return found


def _empty(n: int, shape: tuple[int, int]) -> Windows:
    none = torch.full((n, shape[1]), -1)
    return Windows(torch.full((n, shape[1]), -torch.inf), none, none.clone(), torch.full((n, *shape), torch.nan))


class _Keys(NamedTuple):
    """What each row offers of each latent: the place, and the key by which it is kept (-inf: nothing)."""

    key: Float[Tensor, "row latent"]
    pos: Int[Tensor, "row latent"]


def _keys(values: Float[Tensor, "row pos latent"], block: Block, generator: Generator) -> dict[str, _Keys]:
    known = values.nan_to_num(0.0)
    largest = known.max(1)
    fires = largest.values > 0
    top = _Keys(torch.where(fires, largest.values, -torch.inf), largest.indices)
    row, pos, latent = (known > 0).nonzero(as_tuple=True)
    drawn = torch.rand(len(row), generator=generator)
    best = torch.full_like(largest.values, -torch.inf)
    flat = row * known.shape[2] + latent
    best.view(-1).scatter_reduce_(0, flat, drawn, "amax")
    where = torch.zeros_like(largest.indices)
    won = drawn == best.view(-1)[flat]
    where.view(-1)[flat[won]] = pos[won]
    counted = block.counted.cpu()
    order = (torch.rand(tuple(counted.shape), generator=generator) * counted).argmax(1)  # a random token that counts
    anywhere = order[:, None].expand(fires.shape)
    quiet = torch.where(
        ~fires & counted.any(1)[:, None], torch.rand(tuple(fires.shape), generator=generator), -torch.inf
    )
    return {"top": top, "sample": _Keys(best, where), "silent": _Keys(quiet, anywhere)}


def _padded(values: Tensor, before: int, after: int) -> Tensor:
    return torch.nn.functional.pad(values, (0, 0, before, after), value=torch.nan)


def _merged(old: Windows, offered: _Keys, numbers: Int[Tensor, "row"], padded: Tensor) -> Windows:
    """The examples with the largest keys, of those kept and those offered."""
    n = len(old.key)
    if not n:
        return old
    width = old.values.shape[1]
    places = offered.pos[:, None] + torch.arange(width)[None, :, None]
    windows = padded.gather(1, places)
    row = torch.where(offered.key > -torch.inf, numbers[:, None], -1)
    keys = torch.cat([old.key, offered.key])
    chosen = keys.topk(n, dim=0).indices
    return Windows(
        keys.gather(0, chosen),
        torch.cat([old.row, row]).gather(0, chosen),
        torch.cat([old.pos, offered.pos]).gather(0, chosen),
        torch.cat([old.values, windows]).gather(0, chosen[:, None].expand(-1, width, -1)),
    )
