"""The QK-fix: queries and keys scored with the softmax recomputed instead of linearised.

A saturated softmax has almost no gradient, so attribution patching misses queries and keys that matter. Here the effect
of patching one query or one key on the pattern, and so on the metric, is computed in closed form from both runs'
queries and keys. The extra cost is two products Q K^T per layer and no pass; Hugging Face models use eager attention
for it.

Everything after the pattern is linearised by its gradient g; the softmax is not. A query patched at position i changes
only row i, so one product of all new queries with the keys gives all of them. A key patched at position t moves one
score of each row, by x: then p' = sigmoid(logit p + x), and the others of the row keep their proportions, so that key t
has the effect sum_i (p'_it - p_it) (g_it - mean of the others' g, weighted by p). Where an entry is nearly all of its
row, the others are computed by leaving it out of the softmax, not by subtraction: no precision is lost however
saturated the row is. A learned sink (gpt-oss) is one more key of every row, which no patch moves and whose value is
zero. Source: Kramar et al., "AtP*: an efficient and scalable method for localizing LLM behaviour to
components" (2024), on attention saturation; the closed form is our own derivation.
Suffixes: B prompt, Q query, K key, H head, G head of keys, E d_head.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from micrographia.core.edits import may_attend, observe, wide
from micrographia.core.sites import Site
from micrographia.methods.attribution.estimation import Estimation, OnScore, ScoreHook, detached_copy, hook

COMPARED = {"q": "q", "rot_q": "q", "k": "k", "rot_k": "k"}
"""Rotary is the same rotation for all queries of a position, so patching before or after it is equivalent."""


def qk_reader(sites: Sequence[Site], estimation: Estimation, on_score: OnScore, *, again: bool = False) -> ScoreHook:
    """Scores the queries and keys of one layer. Under grouped queries a key's score sums over the heads that share it.

    Holds, from the base run until the backward pass, one tensor of the pattern's size for queries, three for keys.
    """
    model, layer = estimation.model, sites[0].layer
    prefix = "rot_" if Site("rot_q", layer) in model.sites else ""
    weights = model.weights
    scoring = Scoring(weights.score_scale[layer], weights.score_cap[layer], sinks=weights.score_sinks[layer])
    donor: dict[str, Tensor] = {}
    base: dict[str, Tensor] = {}
    fixes: dict[str, QueryFix | KeyFix] = {}

    def on_base(pattern: Tensor) -> None:
        allowed = donor.pop("allowed")
        own = _with_shift(scoring, base, allowed)
        for name in list(donor):
            fixes[name] = FIX[name](base["q"], base["k"], donor.pop(name), allowed, own)
        base.clear()
        hook(Site("pattern", layer), pattern, score)

    def score(gradient: Tensor) -> None:
        effects = {name: fix.effect(wide(gradient)) for name, fix in fixes.items()}
        for site in sites:
            on_score(site, estimation.placed(effects[COMPARED[site.kind]]))
        if not again:
            fixes.clear()

    def finish() -> None:
        if fixes:
            change = next(iter(fixes.values())).change
            score(change.new_zeros(*change.shape[:3], change.shape[2]))

    look = [observe(Site(prefix + name, layer), _hold(donor, name)) for name in {COMPARED[s.kind] for s in sites}]
    look.append(observe(Site("scores", layer), lambda value: donor.__setitem__("allowed", may_attend(value[:, :1]))))
    base_hooks = [observe(Site(prefix + name, layer), _hold(base, name)) for name in "qk"]
    if not prefix and Site("pos_embed") not in model.sites:  # then positions are told by what is added to the scores
        base_hooks.append(observe(Site("scores", layer), _hold(base, "scores")))
    return ScoreHook(tuple(sites), look, [*base_hooks, observe(Site("pattern", layer), on_base)], finish)


def _hold(side: dict[str, Tensor], name: str) -> Callable[[Tensor], None]:
    return lambda value: side.__setitem__(name, detached_copy(value))


class Scoring(NamedTuple):
    """A layer's attention scores: `scale` q . k, capped to `cap` tanh(score / cap) where there is a cap."""

    scale: float
    cap: float | None = None
    shift: Tensor | None = None
    """What is added to them: ALiBi's distances (Press et al., "Train short, test long", 2022)."""
    sinks: Float[Tensor, "head"] | None = None
    """A learned score a head of no key, in the softmax beside those of the keys."""


def _with_shift(scoring: Scoring, base: dict[str, Tensor], allowed: Tensor) -> Scoring:
    """With what the base run's scores have beyond queries and keys, where they were kept."""
    kept = base.get("scores")
    if kept is None:
        return scoring
    beyond = kept - pattern_scores(base["q"], base["k"], allowed, scoring._replace(sinks=None))
    return scoring._replace(shift=beyond.masked_fill(~allowed, 0))


class QueryFix(NamedTuple):
    """`change` of the pattern, row by row, if that row's query were patched; sinks stand behind the keys."""

    change: Float[Tensor, "prompt head query entry"]

    def effect(self, gradient: Float[Tensor, "prompt head query key"]) -> Float[Tensor, "prompt query head"]:
        """The metric's change for each query alone, from the gradient with respect to the pattern."""
        return (self.change * _with_sinks(gradient, self.change)).sum(-1).transpose(1, 2)


class KeyFix(NamedTuple):
    """`change` of each entry if its key were patched; the pattern; and each row's pattern without its largest entry.
    Sinks stand behind the keys."""

    change: Float[Tensor, "prompt head query entry"]
    pattern: Float[Tensor, "prompt head query entry"]
    without: Float[Tensor, "prompt head query entry"]
    group: int
    """The number of heads that share a key."""

    def effect(self, gradient: Float[Tensor, "prompt head query key"]) -> Float[Tensor, "prompt key kv_head"]:
        """The metric's change for each key alone, from the gradient with respect to the pattern."""
        n_keys, gradient = gradient.shape[-1], _with_sinks(gradient, self.change)
        terms, largest = self.pattern * gradient, self.pattern.argmax(-1, keepdim=True)
        others = (terms.sum(-1, keepdim=True) - terms) / (1 - self.pattern)
        others = others.scatter(-1, largest, (self.without * gradient).sum(-1, keepdim=True))
        each = (self.change * (gradient - others)).sum(-2)[..., :n_keys]
        return each.unflatten(1, (-1, self.group)).sum(2).transpose(1, 2)


def _with_sinks(gradient: Tensor, change: Tensor) -> Tensor:
    """The gradient with respect to every entry of `change`: zero at a sink, which has no value."""
    return torch.nn.functional.pad(gradient, (0, change.shape[-1] - gradient.shape[-1]))


def query_fix(q: Tensor, k: Tensor, new_q: Tensor, allowed: Tensor, scoring: Scoring) -> QueryFix:
    """For queries (prompt, pos, head, d_head), keys (prompt, pos, kv head, d_head); `allowed` is the attention mask."""
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
    sign = torch.where(logit > 0, -1.0, 1.0)  # the difference of small numbers keeps its digits
    change = sign * (torch.sigmoid(sign * (logit + (new - old))) - torch.sigmoid(sign * logit))
    return KeyFix(change, p, left.softmax(-1), q.shape[2] // k.shape[2])


def pattern_scores(
    q_BQHE: Float[Tensor, "prompt query head d_head"],
    k_BKGE: Float[Tensor, "prompt key kv_head d_head"],
    allowed: Bool[Tensor, "prompt one query key"],
    scoring: Scoring,
) -> Float[Tensor, "prompt head query entry"]:
    """Scores before the softmax, in float32 at least; the dtype's lowest number for a masked pair. Sinks come last."""
    keys = wide(k_BKGE).repeat_interleave(q_BQHE.shape[2] // k_BKGE.shape[2], 2)
    scores = torch.einsum("bqhe,bkhe->bhqk", wide(q_BQHE), keys) * scoring.scale
    if scoring.cap is not None:
        scores = scoring.cap * torch.tanh(scores / scoring.cap)
    if scoring.shift is not None:
        scores = scores + scoring.shift
    scores = scores.masked_fill(~allowed, torch.finfo(scores.dtype).min)
    if scoring.sinks is None:
        return scores
    beside = scoring.sinks.detach().to(scores).reshape(-1, 1, 1).expand(*scores.shape[:-1], 1)
    return torch.cat([scores, beside], -1)


FIX = {"q": query_fix, "k": key_fix}
