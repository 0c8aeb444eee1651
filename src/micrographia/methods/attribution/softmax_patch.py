"""What patching one query or one key does to an attention pattern, and so to the metric, in closed form.

Everything behind the pattern is linearised by its gradient g; the softmax is not. A query patched at position i changes
row i alone, so one product of all new queries with the keys serves all. A key patched at position t moves one score of
each row, by x_it: then p'_it = p e^x / (1 - p + p e^x), and every other entry of the row shrinks by
(1 - p'_it) / (1 - p_it). With r = p (e^x - 1) / (1 - p + p e^x) the effect of key t is
    sum_i r_it ((1 - p_it) g_it - sum_{j != t} p_ij g_ij).
Where p is close to 1, 1 - p and the sum over the others are taken by leaving the largest entry out, not by subtracting.
Source of the idea: Kramar et al., "AtP*" (2024), section 3.1.1; the closed form is our own derivation.
Suffixes: B prompt, Q query, K key, H head, G head of keys, E d_head.
"""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor


class Scoring(NamedTuple):
    """How a layer compares: `scale` q . k, capped to `cap` tanh(score / cap) where there is a cap."""

    scale: float
    cap: float | None = None


class QueryFix(NamedTuple):
    """`change` of the pattern, row by row, if that row's query were patched."""

    change: Float[Tensor, "prompt head query key"]

    def effect(self, gradient: Float[Tensor, "prompt head query key"]) -> Float[Tensor, "prompt query head"]:
        """The metric's change for each query alone, from its gradient by the pattern."""
        return (self.change * gradient).sum(-1).transpose(1, 2)


class KeyFix(NamedTuple):
    """What the closed form needs of the base's pattern: itself, 1 - pattern, and r; `group` heads share a key."""

    pattern: Float[Tensor, "prompt head query key"]
    rest: Float[Tensor, "prompt head query key"]
    ratio: Float[Tensor, "prompt head query key"]
    group: int

    def effect(self, gradient: Float[Tensor, "prompt head query key"]) -> Float[Tensor, "prompt key kv_head"]:
        """The metric's change for each key alone, from its gradient by the pattern."""
        others = sum_of_others(self.pattern * gradient, self.pattern.argmax(-1, keepdim=True))
        each = (self.ratio * (self.rest * gradient - others)).sum(-2)
        return each.unflatten(1, (-1, self.group)).sum(2).transpose(1, 2)


def query_fix(q: Tensor, k: Tensor, new_q: Tensor, allowed: Tensor, scoring: Scoring) -> QueryFix:
    """For queries (prompt, pos, head, d_head), keys (prompt, pos, kv head, d_head); `allowed` says who may attend."""
    old, new = (pattern_scores(queries, k, allowed, scoring) for queries in (q, new_q))
    return QueryFix(new.softmax(-1) - old.softmax(-1))


def key_fix(q: Tensor, k: Tensor, new_k: Tensor, allowed: Tensor, scoring: Scoring) -> KeyFix:
    """As `query_fix`, for the keys."""
    old, new = (pattern_scores(q, keys, allowed, scoring) for keys in (k, new_k))
    p, x = old.softmax(-1), new - old
    rest = sum_of_others(p, p.argmax(-1, keepdim=True))
    up, shrunk = x > 0, (-x.abs()).exp()
    top = p * torch.expm1(-x.abs()) * torch.where(up, -1.0, 1.0)
    bottom = torch.where(up, rest * shrunk + p, rest + p * shrunk)
    ratio = torch.where(rest > 0, top / bottom, 0.0)  # a key that is attended to alone stays so
    return KeyFix(p, rest, ratio, q.shape[2] // k.shape[2])


def pattern_scores(
    q_BQHE: Float[Tensor, "prompt query head d_head"],
    k_BKGE: Float[Tensor, "prompt key kv_head d_head"],
    allowed: Bool[Tensor, "prompt one query key"],
    scoring: Scoring,
) -> Float[Tensor, "prompt head query key"]:
    """Scores before the softmax, in float32 at least; the dtype's lowest number for a pair that may not attend."""
    wide = torch.promote_types(q_BQHE.dtype, torch.float32)
    keys = k_BKGE.to(wide).repeat_interleave(q_BQHE.shape[2] // k_BKGE.shape[2], 2)
    scores = torch.einsum("bqhe,bkhe->bhqk", q_BQHE.to(wide), keys) * scoring.scale
    if scoring.cap is not None:
        scores = scoring.cap * torch.tanh(scores / scoring.cap)
    return scores.masked_fill(~allowed, torch.finfo(wide).min)


def may_attend(scores: Float[Tensor, "prompt head query key"]) -> Bool[Tensor, "prompt one query key"]:
    """Which pairs may attend, read off the scores of any run: the same for all heads."""
    return scores[:, :1] > torch.finfo(scores.dtype).min


def sum_of_others(terms: Float[Tensor, "*row key"], largest: Tensor) -> Float[Tensor, "*row key"]:
    """For each entry of a row the sum of the others, to rounding even where the entry at `largest` is nearly all."""
    without = terms.scatter(-1, largest, 0.0).sum(-1, keepdim=True)
    return (terms.sum(-1, keepdim=True) - terms).scatter(-1, largest, without)
