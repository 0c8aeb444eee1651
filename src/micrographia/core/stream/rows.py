"""TokenRows: rows of n_ctx tokens, in memory or on disk, and which of their tokens count.

Rows are read where they are used: a row on disk costs no memory. Special tokens and the first position of a row, where
attention has its sink, are left out of what dictionaries learn: their activations are far larger than all others and
say nothing of the text (Gemma Scope, arXiv 2408.05147, section 3: trained without BOS, EOS and padding).
Axes: row pos.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Int
from numpy.typing import NDArray
from torch import Tensor

from micrographia.core.errors import BadShape
from micrographia.core.tokens import Tokenizer, ids_of

COUNTED_AT_ONCE = 4096  # rows


@dataclass(frozen=True, slots=True, eq=False)
class TokenRows:
    """`len(rows)` rows of `n_ctx` tokens: `rows[3:5]` or `rows[tensor]` is (n, n_ctx), `rows[3]` is (n_ctx,).

    >>> rows = as_rows(torch.arange(12).reshape(3, 4), special=[8])
    >>> rows[1:]
    tensor([[ 4,  5,  6,  7],
            [ 8,  9, 10, 11]])
    >>> rows.counts(sink=False)
    tensor([4, 4, 3])
    """

    n_ctx: int
    lengths: tuple[int, ...]
    """Rows in each part."""
    part: Callable[[int], NDArray[Any]]
    """Part i as an array (rows, n_ctx)."""
    special: tuple[int, ...] = ()
    """Tokens that stand for no text."""
    about: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    """How they were made: the text, its characters and documents, the layout."""
    n_bytes: int = 0
    """On disk."""
    chosen: range | NDArray[Any] | None = None
    """Which rows of the parts these are; None: all."""
    runs: tuple[tuple[str, int], ...] = ()
    """Of the text, as far as it is known: (source, tokens) in order, without the token that begins a row."""

    def __len__(self) -> int:
        return sum(self.lengths) if self.chosen is None else len(self.chosen)

    def __getitem__(self, which: int | slice | Sequence[int] | Tensor) -> Int[Tensor, "*at n_ctx"]:
        """Raises IndexError for rows that there are not."""
        if isinstance(which, int):
            return self[torch.tensor([which])][0]
        if isinstance(which, slice):
            which = torch.arange(*which.indices(len(self)))
        at = torch.as_tensor(which, dtype=torch.long)
        if at.numel() and not -len(self) <= int(at.min()) <= int(at.max()) < len(self):
            raise IndexError(f"Asked for rows {int(at.min())} to {int(at.max())}; there are {len(self)}.")
        return torch.from_numpy(self._read(self._places((at % max(len(self), 1)).numpy())))

    def __iter__(self) -> Iterator[Tensor]:
        return (self[i] for i in range(len(self)))

    @property
    def identity(self) -> str:
        """A hash of the tokens: of shards, of the folder's manifest."""
        known = self.about.get("sha256_of_tokens")
        digest = hashlib.sha256(str(known).encode())
        for i in range(0 if known else len(self.lengths)):
            digest.update(np.ascontiguousarray(self.part(i)).tobytes())
        if self.chosen is not None:
            digest.update(np.asarray(self.chosen, dtype=np.int64).tobytes())
        return f"{len(self)} rows of {self.n_ctx}, SHA-256 {digest.hexdigest()}"

    def between(self, first: int, last: int | None = None) -> "TokenRows":
        """The rows from `first` to before `last`, as of a slice: to hold some out, or to share them among processes."""
        every = range(len(self)) if self.chosen is None else self.chosen
        return replace(self, chosen=every[first:last])

    def take(self, which: Int[Tensor, "row"]) -> "TokenRows":
        """These rows, in this order; 8 bytes a row. Raises IndexError."""
        if which.numel() and not 0 <= int(which.min()) <= int(which.max()) < len(self):
            raise IndexError(f"Asked for rows {int(which.min())} to {int(which.max())}; there are {len(self)}.")
        return replace(self, chosen=self._places(which.numpy()))

    def kept(self, ids: Int[Tensor, "row pos"], *, sink: bool = True) -> Bool[Tensor, "row pos"]:
        """Which tokens count: not special ones and, with `sink`, not the first position."""
        found = ~torch.isin(ids, torch.tensor(self.special, dtype=ids.dtype, device=ids.device))
        if sink:
            found[:, :1] = False
        return found

    def sources(self) -> "TokenSources | None":
        """What source each token is from; None where no two sources are known. 8 bytes a token."""
        names = sorted({name for name, _ in self.runs if name})
        if len(names) < 2:
            return None
        numbers = np.array([names.index(name) if name else -1 for name, _ in self.runs] + [-1])
        n_text = self.n_ctx - (self.about["layout"]["bos"] is not None)
        at = self._places(np.arange(len(self)))[:, None] * n_text + np.arange(n_text)
        run = np.searchsorted(np.cumsum([n for _, n in self.runs]), at, side="right")
        found = np.full((len(self), self.n_ctx), -1)
        found[:, self.n_ctx - n_text :] = numbers[run]
        return TokenSources(names, torch.from_numpy(found))

    def counts(self, *, sink: bool = True) -> Int[Tensor, "row"]:
        """How many tokens of each row count. Reads every row once."""
        starts = range(0, len(self), COUNTED_AT_ONCE)
        found = [self.kept(self[at : at + COUNTED_AT_ONCE], sink=sink).sum(1) for at in starts]
        return torch.cat(found) if found else torch.zeros(0, dtype=torch.long)

    def _places(self, at: NDArray[Any]) -> NDArray[Any]:
        """Where in the parts the rows of these numbers are."""
        if isinstance(self.chosen, range):
            return at * self.chosen.step + self.chosen.start
        return at if self.chosen is None else self.chosen[at]

    def _read(self, at: NDArray[Any]) -> NDArray[Any]:
        ends = np.cumsum(self.lengths)
        found = np.empty((len(at), self.n_ctx), dtype=np.int64)
        parts = np.searchsorted(ends, at, side="right")
        for i in np.unique(parts):
            here = parts == i
            found[here] = self.part(int(i))[at[here] - (ends[i] - self.lengths[i])]
        return found


class TokenSources(NamedTuple):
    """Where the tokens of rows are from."""

    names: list[str]
    of: Int[Tensor, "row pos"]
    """The number of each token's source; -1: of none that is known."""


def as_rows(
    rows: "TokenRows | Int[Tensor, 'row pos']", *, special: Sequence[int] = (), about: Mapping[str, Any] | None = None
) -> TokenRows:
    """Rows in memory from ids (row, pos); TokenRows as they are. `special`: tokens that do not count."""
    if isinstance(rows, TokenRows):
        return rows
    ids = ids_of(rows)
    if ids.ndim != 2 or not ids.numel():
        raise BadShape(f"Rows of tokens have shape (row, pos), with one at least. Found {tuple(ids.shape)}.")
    held = ids.cpu().numpy()
    return TokenRows(
        ids.shape[1], (len(held),), lambda i: held, tuple(sorted({*special})), MappingProxyType({**(about or {})})
    )


def special_tokens(tokenizer: Tokenizer) -> tuple[int, ...]:
    """The ids of a tokenizer that stand for no text: as it says (`special`), else `bos`, `eos` and `pad`."""
    known = getattr(tokenizer, "special", None)
    named = [tokenizer.bos, tokenizer.pad, getattr(tokenizer, "eos", None)]
    return tuple(sorted({i for i in (named if known is None else [*known, *named]) if i is not None}))
