"""Cues: what a token's place shows without the model, and which sets of them tell that a latent fires.

A cue is the token itself, the one before, both, the two before, or the one that follows; each is a number (a pair as
first * vocab + second), -1 where the row does not reach. A set of cues predicts that a latent fires where one of them
is seen. Of counted cues the set with the best F1 is a prefix of their order by precision.
Axes: row pos latent.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

Keys = Int[Tensor, "row pos"]


def _shifted(ids: Tensor, by: int) -> Tensor:
    """The id `by` places before (after where negative); -1 where the row does not reach."""
    found = torch.full_like(ids, -1)
    if abs(by) >= ids.shape[1]:
        return found
    if by > 0:
        found[:, by:] = ids[:, :-by]
    elif by < 0:
        found[:, :by] = ids[:, -by:]
    else:
        found = ids.clone()
    return found


def _pair(first: Tensor, second: Tensor, n_vocab: int) -> Tensor:
    return torch.where((first >= 0) & (second >= 0), first * n_vocab + second, -1)


CUES: Mapping[str, Callable[[Tensor, int], Tensor]] = {
    "token": lambda ids, n: _shifted(ids, 0),
    "token before": lambda ids, n: _shifted(ids, 1),
    "token and the one before": lambda ids, n: _pair(_shifted(ids, 1), ids, n),
    "two tokens before": lambda ids, n: _pair(_shifted(ids, 2), _shifted(ids, 1), n),
    "token that follows": lambda ids, n: _shifted(ids, -1),
}
"""Kind of cue -> its numbers at every place, from ids (row, pos) and the size of the vocabulary."""


def tokens_of(kind: str, key: int, n_vocab: int) -> list[int]:
    """The token or tokens of a cue."""
    return [key // n_vocab, key % n_vocab] if kind in ("token and the one before", "two tokens before") else [key]


@dataclass(slots=True)
class PairCounts:
    """How often each latent fires at each cue: sorted distinct pairs latent * span + key, and their counts."""

    span: int
    pairs: Int[Tensor, "pair"] = field(default_factory=lambda: torch.zeros(0, dtype=torch.int64))
    counts: Int[Tensor, "pair"] = field(default_factory=lambda: torch.zeros(0, dtype=torch.int64))

    def add(self, latents: Int[Tensor, "n"], keys: Int[Tensor, "n"]) -> None:
        """Firings: the latent, and the cue at its place (-1: none)."""
        known = keys >= 0
        new = latents[known] * self.span + keys[known]
        both = torch.cat([self.pairs, new])
        weight = torch.cat([self.counts, torch.ones_like(new)])
        self.pairs, where = both.unique(return_inverse=True)
        self.counts = torch.zeros_like(self.pairs).index_add(0, where, weight)

    @property
    def keys(self) -> Int[Tensor, "pair"]:
        return self.pairs % self.span

    @property
    def latents(self) -> Int[Tensor, "pair"]:
        return self.pairs // self.span

    def of(self, latents: Int[Tensor, "*n"], keys: Int[Tensor, "*n"]) -> Int[Tensor, "*n"]:
        """The counts of these pairs; 0 of those that were never seen."""
        at, there = found_in(self.pairs, latents * self.span + keys)
        return torch.where(there, self.counts[at], 0) if len(self.pairs) else torch.zeros_like(keys)


@dataclass(slots=True)
class KeyCounts:
    """How often each of some cues is seen at a token that counts."""

    keys: Int[Tensor, "key"]
    """Sorted."""
    counts: Int[Tensor, "key"] = field(default_factory=lambda: torch.zeros(0, dtype=torch.int64))

    def __post_init__(self) -> None:
        self.counts = torch.zeros(len(self.keys), dtype=torch.int64)

    def add(self, keys: Int[Tensor, "n"]) -> None:
        if len(self.keys):
            at, there = found_in(self.keys, keys)
            self.counts += at[there].bincount(minlength=len(self.keys))

    def __call__(self, keys: Int[Tensor, "*n"]) -> Int[Tensor, "*n"]:
        """0 for keys that were not asked for."""
        at, there = found_in(self.keys, keys)
        return torch.where(there, self.counts[at], 0) if len(self.keys) else torch.zeros_like(keys)


def found_in(ordered: Tensor, values: Tensor) -> tuple[Tensor, Bool[Tensor, "*n"]]:
    """Where each value stands among sorted ones, and whether it is there."""
    if not len(ordered):
        return torch.zeros_like(values), torch.zeros_like(values, dtype=torch.bool)
    at = torch.searchsorted(ordered, values.contiguous()).clamp(max=len(ordered) - 1)
    return at, ordered[at] == values


class CueSet(NamedTuple):
    """Cues that are said to make a latent fire, and their F1 on the text they were chosen on."""

    kind: str
    keys: tuple[int, ...]
    f1: float


def best_prefixes(
    both: Int[Tensor, "latent cue"], seen: Int[Tensor, "latent cue"], n_fires: Int[Tensor, "latent"]
) -> tuple[Int[Tensor, "latent"], Float[Tensor, "latent"]]:
    """How many of each latent's cues, in their order, give the largest F1, and that; 0 where none is ever right.

    Where a latent has fewer cues than another the rest are zeros. A prefix is the shortest of equals.
    """
    if not both.shape[1]:
        return torch.zeros_like(n_fires), torch.zeros(len(n_fires), dtype=torch.float64)
    f1 = 2 * both.cumsum(1).double() / (seen.cumsum(1) + n_fires[:, None]).clamp(min=1)
    best = f1.max(1)
    return torch.where(best.values > 0, best.indices + 1, 0), best.values


@dataclass(slots=True)
class Predictor:
    """Of cue sets of one kind, one for each latent (or none): which latents each cue predicts."""

    keys: Int[Tensor, "key"]
    """Sorted and distinct."""
    starts: Int[Tensor, "key_and_end"]
    latents: Int[Tensor, "entry"]

    @classmethod
    def of(cls, sets: Mapping[int, CueSet]) -> "Predictor":
        """`sets`: latent -> its cues."""
        entries = [(key, latent) for latent, each in sets.items() for key in each.keys]
        flat = torch.tensor(sorted(entries), dtype=torch.int64).reshape(-1, 2)
        keys, counts = flat[:, 0].unique(return_counts=True)
        return cls(keys, torch.cat([torch.zeros(1, dtype=torch.int64), counts.cumsum(0)]), flat[:, 1])

    def predictions(self, keys: Int[Tensor, "token"]) -> tuple[Int[Tensor, "hit"], Int[Tensor, "hit"]]:
        """(token, latent) of every prediction."""
        at, there = found_in(self.keys, keys)
        token = there.nonzero()[:, 0]
        if not len(token):
            return token, token
        first = self.starts[at[token]]
        n = self.starts[at[token] + 1] - first
        hit = token.repeat_interleave(n)
        offset = torch.arange(len(hit)) - (n.cumsum(0) - n).repeat_interleave(n)
        return hit, self.latents[first.repeat_interleave(n) + offset]
