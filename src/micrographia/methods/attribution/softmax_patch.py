"""What patching one query or one key does to an attention pattern, and so to the metric, in closed form.

Everything behind the pattern is linearised by its gradient g; the softmax is not. A query patched at position i changes
row i alone, so one product of all new queries with the keys serves all. A key patched at position t moves one score of
each row, by x: then p' = sigmoid(logit p + x), and the others of the row keep their proportions, so that key t has the
effect sum_i (p'_it - p_it) (g_it - mean of the others' g, weighted by p). Where an entry is nearly all of its row, the
others are taken by leaving it out of the softmax, not by subtracting: nothing is lost however saturated the row is.
Source of the idea: Kramar et al., "AtP*" (2024), the QK-fix; the closed form is our own derivation.
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
    """`change` of each entry if its key were patched; the pattern; and each row's pattern without its largest entry."""

    change: Float[Tensor, "prompt head query key"]
    pattern: Float[Tensor, "prompt head query key"]
    without: Float[Tensor, "prompt head query key"]
    group: int
    """How many heads share a key."""

    def effect(self, gradient: Float[Tensor, "prompt head query key"]) -> Float[Tensor, "prompt key kv_head"]:
        """The metric's change for each key alone, from its gradient by the pattern."""
        terms, largest = self.pattern * gradient, self.pattern.argmax(-1, keepdim=True)
        others = (terms.sum(-1, keepdim=True) - terms) / (1 - self.pattern)
        others = others.scatter(-1, largest, (self.without * gradient).sum(-1, keepdim=True))
        each = (self.change * (gradient - others)).sum(-2)
        return each.unflatten(1, (-1, self.group)).sum(2).transpose(1, 2)


def query_fix(q: Tensor, k: Tensor, new_q: Tensor, allowed: Tensor, scoring: Scoring) -> QueryFix:
    """For queries (prompt, pos, head, d_head), keys (prompt, pos, kv head, d_head); `allowed` says who may attend."""
    old, new = (pattern_scores(queries, k, allowed, scoring) for queries in (q, new_q))
    return QueryFix(new.softmax(-1) - old.softmax(-1))


def key_fix(q: Tensor, k: Tensor, new_k: Tensor, allowed: Tensor, scoring: Scoring) -> KeyFix:
    """As `query_fix`, for the keys."""
    old, new = (pattern_scores(q, keys, allowed, scoring) for keys in (k, new_k))
    log_p = old.log_softmax(-1)
    p, largest = log_p.exp(), log_p.argmax(-1, keepdim=True)
    left = old.scatter(-1, largest, torch.finfo(old.dtype).min)
    log_rest = left.logsumexp(-1, keepdim=True) - old.logsumexp(-1, keepdim=True)
    logit = log_p - torch.log1p(-p).scatter(-1, largest, log_rest)
    sign = torch.where(logit > 0, -1.0, 1.0)  # the difference of what is small keeps its digits
    change = sign * (torch.sigmoid(sign * (logit + (new - old))) - torch.sigmoid(sign * logit))
    return KeyFix(change, p, left.softmax(-1), q.shape[2] // k.shape[2])


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
