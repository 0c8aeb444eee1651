"""Integrated gradients: the gradient averaged along a path from the base to the donor, instead of at the base alone.

Two paths. "input" interpolates the embeddings and scores all Sites at once; the scores of the embedding sum to the
total change of the metric as the number of steps grows (completeness). "activation" interpolates each Site's own
activation, with everything before it as in the base; there the scores of a Site sum to the effect of patching it whole.
Which is better depends on the kind of Site: the input path is known to be worse for neurons, keys and patterns.
Source: Sundararajan et al., "Axiomatic attribution for deep networks" (2017); Hanna et al., "Have faith in
faithfulness" (2024), EAP-IG, whose rule is the right endpoint; the midpoint converges faster and is the default here.
"""

from collections.abc import Iterable
from numbers import Integral
from typing import Literal

import torch
from torch import Tensor

from micrographia.core.edits import Edit, add, apply, leaf, observe
from micrographia.core.errors import UserError
from micrographia.core.model import Start
from micrographia.core.sites import Site
from micrographia.methods.attribution.estimation import (
    Estimation,
    Passes,
    RunMetrics,
    Scored,
    detached_copy,
    hook,
    tapped_at,
)
from micrographia.methods.attribution.passes import layer_at, residual_streams, scalar_of

Rule = Literal["midpoint", "right"]
EMBED = Site("embed")


def integrated_gradients(estimation: Estimation, *, steps: int = 5, rule: Rule = "midpoint") -> Scored:
    """(donor - base) times the mean gradient along the input path.

    `steps` + 2 forwards and `steps` backwards; holds one tensor per Site.
    Source: Hanna et al. (2024), EAP-IG.
    """
    wanted, edits = estimation.sites, estimation.edits
    metrics, deltas = _differences(estimation, [EMBED, *wanted])
    scores: dict[Site, Tensor] = {}

    def read(site: Site, at: Site) -> Edit:
        def score(gradient: Tensor) -> None:
            part = estimation.score(at, deltas[at] * gradient) / steps
            scores[site] = scores[site] + part if site in scores else part

        return observe(at, lambda value: hook(site, value, score))

    first_edits, later_edits = ([edit for edit in edits if (edit.site == EMBED) is first] for first in (True, False))
    for place in along(steps, rule):
        leaves: list[Tensor] = []
        walk = apply(EMBED, lambda x, place=place: x + place * deltas[EMBED])  # from the edited base
        begin = [*first_edits, walk, leaf(EMBED, leaves.append)]
        if Site("pos_embed") in wanted:
            begin.append(leaf("pos_embed", leaves.append))
        looks = [read(site, tapped_at(site)) for site in wanted]
        value = estimation.measure(estimation.base, [*begin, *later_edits, *looks], grad=True)
        torch.autograd.grad(scalar_of(estimation.metric, value), leaves)
    for site in wanted:  # without a gradient, because the metric does not depend on the Site
        if site not in scores:
            scores[site] = estimation.score(tapped_at(site), torch.zeros_like(deltas[tapped_at(site)]))
    return Scored({site: scores[site] for site in wanted}, metrics, Passes(steps + 2, steps))


def activation_gradients(estimation: Estimation, *, steps: int = 5, rule: Rule = "midpoint") -> Scored:
    """(donor - base) times the mean gradient along each Site's own path, with all its places interpolated together.

    Three forwards, and for each Site `steps` times a forward and backward from its layer on; `n_passes` counts these as
    whole. Holds one tensor per Site and one residual stream per layer.
    Source: Hanna et al. (2024), the variant on activations; Marks et al., "Sparse feature circuits" (2024).
    """
    model, edits = estimation.model, estimation.edits
    metrics, deltas = _differences(estimation, estimation.sites)
    last, streams = model.shape.n_layers, residual_streams(model, estimation.base, edits)
    scores: dict[Site, Tensor] = {}
    for site in estimation.sites:
        at = tapped_at(site)
        layer = layer_at(at, last)
        start = Start(layer, streams[layer]) if layer else None
        inside = [edit for edit in edits if layer_at(edit.site, last) >= layer]
        total = torch.zeros_like(deltas[at])
        for place in along(steps, rule):
            leaves: list[Tensor] = []
            walk = [*inside, add(at, place * deltas[at]), leaf(at, leaves.append)]
            value = estimation.measure(estimation.base, walk, start=start, grad=True)
            total += torch.autograd.grad(scalar_of(estimation.metric, value), leaves)[0] / steps
        scores[site] = estimation.score(at, deltas[at] * total)
    n = steps * len(scores)
    return Scored(scores, metrics, Passes(3 + n, n))


def along(steps: int, rule: Rule) -> list[float]:
    """The points on the path from 0 to 1 at which gradients are taken. Neither rule includes the base itself."""
    if not isinstance(steps, Integral) or steps < 1:
        raise UserError(f"Asked for {steps} steps on the path of integrated gradients. Take 1 at least, such as 5.")
    return [(k + (0.5 if rule == "midpoint" else 1.0)) / steps for k in range(steps)]


def _differences(estimation: Estimation, sites: Iterable[Site]) -> tuple[RunMetrics, dict[Site, Tensor]]:
    """donor - base at every Site, from two forwards without gradient."""
    held: dict[Site, Tensor] = {}

    def remember(at: Site) -> Edit:
        return observe(at, lambda value: held.__setitem__(at, detached_copy(value)))

    def subtract(at: Site) -> Edit:
        return observe(at, lambda value: held.__setitem__(at, estimation.difference(at, held[at], value)))

    tapped = list(dict.fromkeys(map(tapped_at, sites)))
    donor = estimation.measure(estimation.donor, [*estimation.edits, *map(remember, tapped)])
    base = estimation.measure(estimation.base, [*estimation.edits, *map(subtract, tapped)])
    return RunMetrics(donor, base), held
