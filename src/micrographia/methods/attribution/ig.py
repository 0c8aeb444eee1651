"""Integrated gradients: the gradient averaged along a path from the base to the donor, instead of at the base alone.

Two paths. "input" interpolates the embeddings and scores all Sites at once; the scores of the embedding sum to the
total change of the metric as the number of steps grows (completeness). "activation" interpolates each Site's own
activation, with everything before it as in the base; there the scores of a Site sum to the effect of patching it whole.
Which is better depends on the kind of Site: the input path is known to be worse for neurons, keys and patterns.
Source: Sundararajan et al., "Axiomatic attribution for deep networks" (2017); Hanna et al., "Have faith in
faithfulness" (2024), EAP-IG, whose rule is the right endpoint; the midpoint converges faster and is the default here.
"""

from collections.abc import Iterable, Sequence
from typing import Literal

import torch
from torch import Tensor

from micrographia.core.edits import Edit, add, apply, leaf, observe
from micrographia.core.effects import Effects
from micrographia.core.metrics import Metric
from micrographia.core.model import Model, Start
from micrographia.core.prompts import Pairs
from micrographia.core.sites import Site, SiteLike
from micrographia.core.titles import Mode
from micrographia.core.tokens import mask_of
from micrographia.methods.attribution.estimate import chosen_sites, estimated, sides_of
from micrographia.methods.attribution.passes import (
    Passes,
    RunMetrics,
    layer_at,
    prompts_of,
    residual_streams,
    scalar_of,
    value_of,
)
from micrographia.methods.attribution.readers import Positions, ScoreOptions, detached_copy, difference, hook, tapped_at

Rule = Literal["midpoint", "right"]
EMBED = Site("embed")


def integrated_gradients(
    model: Model,
    pairs: Pairs,
    metric: Metric,
    sites: SiteLike | Iterable[SiteLike],
    *,
    mode: Mode = "denoise",
    steps: int = 5,
    rule: Rule = "midpoint",
    positions: Positions = "each",
    edits: Sequence[Edit] = (),
) -> Effects:
    """(donor - base) times the mean gradient along the input path, for every place of these Sites.

    In the metric's unit. `steps` + 2 forwards and `steps` backwards; holds one tensor per Site.
    Source: Hanna et al. (2024), EAP-IG.
    """
    wanted = chosen_sites(model, sites)
    reading = ScoreOptions(lambda site, score: None, positions, mask_of(pairs.clean))
    values, deltas = _differences(model, pairs, metric, mode, [EMBED, *wanted], reading, edits)
    scores: dict[Site, Tensor] = {}
    prompt, base = prompts_of(sides_of(pairs, mode).base), sides_of(pairs, mode).base

    def read(site: Site, at: Site) -> Edit:
        def score(gradient: Tensor) -> None:
            part = reading.score(at, deltas[at] * gradient) / steps
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
        run = model.run(base, edits=[*begin, *later_edits, *looks], logits=metric.readout(prompt), grad=True)
        torch.autograd.grad(scalar_of(metric, value_of(metric, run, prompt)), leaves)
    found = {site: scores.get(site, _nothing(reading, site, deltas)) for site in wanted}
    cost = Passes(steps + 2, steps)
    return estimated(model, pairs, metric, mode, "ig", found, values, cost, summed=positions == "sum")


def activation_gradients(
    model: Model,
    pairs: Pairs,
    metric: Metric,
    sites: SiteLike | Iterable[SiteLike],
    *,
    mode: Mode = "denoise",
    steps: int = 5,
    rule: Rule = "midpoint",
    positions: Positions = "each",
    edits: Sequence[Edit] = (),
) -> Effects:
    """(donor - base) times the mean gradient along each Site's own path, with all its places interpolated together.

    In the metric's unit. Three forwards, and for each Site `steps` times a forward and backward from its layer on;
    `n_passes` counts these as whole. Holds one tensor per Site and one residual stream per layer.
    Source: Hanna et al. (2024), the variant on activations; Marks et al., "Sparse feature circuits" (2024).
    """
    wanted = chosen_sites(model, sites)
    reading = ScoreOptions(lambda site, score: None, positions, mask_of(pairs.clean))
    values, deltas = _differences(model, pairs, metric, mode, wanted, reading, edits)
    base, last = sides_of(pairs, mode).base, model.shape.n_layers
    prompt, streams = prompts_of(base), residual_streams(model, base, edits)
    found: dict[Site, Tensor] = {}
    for site in wanted:
        at = tapped_at(site)
        layer = layer_at(at, last)
        start = Start(layer, streams[layer]) if layer else None
        inside = [edit for edit in edits if layer_at(edit.site, last) >= layer]
        total = torch.zeros_like(deltas[at])
        for place in along(steps, rule):
            leaves: list[Tensor] = []
            walk = [*inside, add(at, place * deltas[at]), leaf(at, leaves.append)]
            run = model.run(base, edits=walk, logits=metric.readout(prompt), start=start, grad=True)
            total += torch.autograd.grad(scalar_of(metric, value_of(metric, run, prompt)), leaves)[0] / steps
        found[site] = reading.score(at, deltas[at] * total)
    n_passes = Passes(3 + steps * len(wanted), steps * len(wanted))
    return estimated(model, pairs, metric, mode, "ig-activation", found, values, n_passes, summed=positions == "sum")


def along(steps: int, rule: Rule) -> list[float]:
    """The points on the path from 0 to 1 at which gradients are taken. Neither rule includes the base itself."""
    return [(k + (0.5 if rule == "midpoint" else 1.0)) / steps for k in range(steps)]


def _differences(
    model: Model,
    pairs: Pairs,
    metric: Metric,
    mode: Mode,
    sites: Sequence[Site],
    reading: ScoreOptions,
    edits: Sequence[Edit],
) -> tuple[RunMetrics, dict[Site, Tensor]]:
    """donor - base at every Site, from two forwards without gradient."""
    sides = sides_of(pairs, mode)
    prompt = prompts_of(sides.base)
    held: dict[Site, Tensor] = {}

    def remember(at: Site) -> Edit:
        return observe(at, lambda value: held.__setitem__(at, detached_copy(value)))

    def subtract(at: Site) -> Edit:
        return observe(at, lambda value: held.__setitem__(at, reading.blank(at, difference(at, held[at], value))))

    tapped = dict.fromkeys(tapped_at(site) for site in sites)
    values = [
        value_of(metric, model.run(inputs, edits=[*edits, *map(look, tapped)], logits=metric.readout(prompt)), prompt)
        for inputs, look in ((sides.donor, remember), (sides.base, subtract))
    ]
    return RunMetrics(*values), held


def _nothing(reading: ScoreOptions, site: Site, deltas: dict[Site, Tensor]) -> Tensor:
    return reading.score(tapped_at(site), torch.zeros_like(deltas[tapped_at(site)]))
