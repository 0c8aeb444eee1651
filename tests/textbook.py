"""Patching and its estimates as the textbook has them: one patch a run, whole caches, gradients of everything.

Slow, plain, by Edits alone and with nothing of `methods`: what the fast ones are held against. Scores are
Site -> (prompt, pos, head or neuron), the change of m = logit(right) - logit(wrong) at the last position.
Source of the estimates: Nanda, "Attribution patching" (2023); Kramar et al., "AtP*" (2024);
Hanna et al., "Have faith in faithfulness" (2024) for the path of the inputs, here by midpoints.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from micrographia.core.edits import Edit, apply, leaf, observe, put
from micrographia.core.model import Model
from micrographia.core.prompts import Pairs
from micrographia.core.sites import Site, as_site
from micrographia.core.tokens import Inputs

Scores = dict[Site, Tensor]
Values = Mapping[Site, Tensor]
EMBED = as_site("embed")


class Sides(NamedTuple):
    """The run that is patched, and the one that gives."""

    base: Inputs
    donor: Inputs


def sides(pairs: Pairs, mode: str) -> Sides:
    return Sides(pairs.corrupt, pairs.clean) if mode == "denoise" else Sides(pairs.clean, pairs.corrupt)


def metric(pairs: Pairs, logits: Tensor) -> Tensor:
    rows = torch.arange(len(pairs))
    return logits[rows, -1, pairs.answer] - logits[rows, -1, pairs.wrong]


def word(site: Site) -> str:
    """What the last axis of a score counts."""
    return "unit" if site.kind == "neurons" else "head"


def part(site: Site, values: Values, pos: int, i: int) -> Edit:
    """Write one head's or one neuron's value at one position."""
    return put(site, values[site][:, pos, i], **{"pos": pos, word(site): i})


def effect(model: Model, pairs: Pairs, mode: str, *parts: tuple[Site, int, int]) -> Tensor:
    """Exactly what it does to m to write these parts together, (prompt,)."""
    base, donor = sides(pairs, mode)
    values = model.run(donor, keep=[site for site, *_ in parts]).cache
    patched = model.run(base, edits=[part(site, values, pos, i) for site, pos, i in parts]).logits
    return metric(pairs, patched) - metric(pairs, model.run(base).logits)


def gradients(
    model: Model, pairs: Pairs, inputs: Inputs, sites: Sequence[Site], before: Sequence[Edit] = ()
) -> tuple[Scores, Scores]:
    """Values and gradients of m at each of the Sites, in a run with the edits `before`."""
    live: Scores = {}
    watch = [observe(site, partial(live.__setitem__, site)) for site in sites]
    logits = model.run(inputs, edits=[*before, leaf(EMBED), *watch], grad=True).logits
    found = torch.autograd.grad(metric(pairs, logits).sum(), [live[site] for site in sites], allow_unused=True)
    slopes = {site: torch.zeros_like(live[site]) if slope is None else slope for site, slope in zip(sites, found)}
    return {site: value.detach() for site, value in live.items()}, slopes


def product(site: Site, change: Tensor, slope: Tensor) -> Tensor:
    return change * slope if site.kind == "neurons" else (change * slope).sum(-1)


def atp(model: Model, pairs: Pairs, sites: Sequence[Site], mode: str, before: Sequence[Edit] = ()) -> Scores:
    base, donor = sides(pairs, mode)
    values, slopes = gradients(model, pairs, base, sites, before)
    given = model.run(donor, keep=sites).cache
    return {site: product(site, given[site] - values[site], slopes[site]) for site in sites}


def held(kind: str, layer: int | None) -> Edit:
    """Let no gradient through."""
    return apply(Site(kind, layer), lambda value: value.detach())


def relp(model: Model, pairs: Pairs, sites: Sequence[Site], mode: str) -> Scores:
    """Without norms and with ReLU, what is left of RelP's rules is that patterns are held still."""
    return atp(model, pairs, sites, mode, [held("pattern", layer) for layer in range(model.shape.n_layers)])


def ig(model: Model, pairs: Pairs, sites: Sequence[Site], mode: str, steps: int = 5) -> Scores:
    """The mean gradient along the straight path between the embeddings of both prompts."""
    base, donor = sides(pairs, mode)
    start, end = (model.run(inputs, keep=[EMBED, *sites]).cache for inputs in (base, donor))
    total = {site: torch.zeros_like(start[site]) for site in sites}
    for k in range(steps):
        here = put(EMBED, torch.lerp(start[EMBED], end[EMBED], (k + 0.5) / steps))
        slopes = gradients(model, pairs, base, sites, [here])[1]
        total = {site: total[site] + slopes[site] / steps for site in sites}
    return {site: product(site, end[site] - start[site], total[site]) for site in sites}


def atp_qk(model: Model, pairs: Pairs, sites: Sequence[Site], mode: str) -> Scores:
    """AtP, but q and k are scored by the softmax computed anew, times the pattern's gradient."""
    return with_fix(model, pairs, sites, mode, moved(model, pairs, sites, mode))


def atp_star(model: Model, pairs: Pairs, sites: Sequence[Site], mode: str) -> Scores:
    """QK-fix at q and k, then GradDrop: each layer but one's own left out of the backward pass, |score| averaged.

    A layer's own term is 0 for what acts through that layer's output alone, so that L terms are divided by L - 1.
    """
    n_layers, changes = model.shape.n_layers, moved(model, pairs, sites, mode)
    total = {site: torch.zeros(()) for site in sites}
    for layer in range(n_layers):
        drop = [held("attn_out", layer), held("mlp_out", layer)]
        scores = with_fix(model, pairs, sites, mode, changes, drop)
        total = {site: total[site] + scores[site].abs() / (n_layers - 1) for site in sites}
    return total


def with_fix(
    model: Model, pairs: Pairs, sites: Sequence[Site], mode: str, changes: Scores, before: Sequence[Edit] = ()
) -> Scores:
    scores = atp(model, pairs, sites, mode, before)
    patterns = [Site("pattern", site.layer) for site in changes]
    slopes = gradients(model, pairs, sides(pairs, mode).base, patterns, before)[1] if patterns else {}
    for site, change in changes.items():
        scores[site] = torch.einsum("bphqk,bhqk->bph", change, slopes[Site("pattern", site.layer)])
    return scores


def moved(model: Model, pairs: Pairs, sites: Sequence[Site], mode: str) -> Scores:
    return {site: pattern_changes(model, pairs, site, mode) for site in sites if site.kind in ("q", "k")}


def pattern_changes(model: Model, pairs: Pairs, site: Site, mode: str) -> Tensor:
    """What each patch of one q or k does to its head's pattern: (prompt, pos, head, query, key)."""
    base, donor = sides(pairs, mode)
    pattern = Site("pattern", site.layer)
    given, before = model.run(donor, keep=site).cache, model.run(base, keep=[site, pattern]).cache
    found = torch.zeros(*given[site].shape[:3], *before[pattern].shape[2:], dtype=before[pattern].dtype)
    for pos, head in (given[site] != before[site]).any(-1).any(0).nonzero().tolist():
        patched = model.run(base, keep=pattern, edits=[part(site, given, pos, head)]).cache[pattern]
        found[:, pos, head] = (patched - before[pattern])[:, head]
    return found


ESTIMATES: Mapping[str, Callable[[Model, Pairs, Sequence[Site], str], Scores]] = {
    "atp": atp,
    "atp-qk": atp_qk,
    "atp-star": atp_star,
    "ig": ig,
    "relp": relp,
}
