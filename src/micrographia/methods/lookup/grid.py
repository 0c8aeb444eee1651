"""Two-way decompositions over a full grid of first and last names: what a pair adds to its parts.

A value over the grid is a mean, an effect of the first name, one of the last, and their interaction, which is what no
sum of the parts gives. The non-linear excess of the study, E[A&B] - E[~A&B] - E[A&~B] + E[~A&~B] for each pair, is that
interaction times FL / ((F-1)(L-1)), the pair's own names left out of the means: one double centring gives all pairs.
Sources: Nanda, Rajamanoharan, Kramar and Shah, "Fact Finding" (2023), post 3; Searle, Casella and McCulloch, "Variance
Components" (1992), section 4.3, for the fractions.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor

from micrographia.core.edits import wide
from micrographia.core.errors import BadShape
from micrographia.core.model import Model
from micrographia.core.sites import Site
from micrographia.methods.lookup.facts import Facts, at_subjects, grid_of


class TwoWay(NamedTuple):
    """The parts of a value over the grid; they sum to it."""

    mean: Float[Tensor, "1 1 *d"]
    first: Float[Tensor, "first 1 *d"]
    last: Float[Tensor, "1 last *d"]
    interaction: Float[Tensor, "first last *d"]


def two_way(values: Float[Tensor, "first last *d"]) -> TwoWay:
    """The decomposition, in float32 at least. Raises BadShape for a grid of fewer than 2 x 2 names."""
    if values.ndim < 2 or min(values.shape[:2]) < 2:
        raise BadShape(f"A grid needs two first and two last names at least. Found {tuple(values.shape[:2])}.")
    values = wide(values)
    mean = values.mean((0, 1), keepdim=True)
    first, last = values.mean(1, keepdim=True) - mean, values.mean(0, keepdim=True) - mean
    return TwoWay(mean, first, last, values - first - last - mean)


def nonlinear_excess(values: Float[Tensor, "first last *d"]) -> Float[Tensor, "first last *d"]:
    """The non-linear excess of every pair; 0 for a sum of two parts."""
    F, L = values.shape[:2]
    return two_way(values).interaction * (F * L / ((F - 1) * (L - 1)))


def interaction_fraction(values: Float[Tensor, "first last *d"]) -> float:
    """The share of the variance that is interaction, all units together: 0 for sums of parts, 1 for a random table.

    Components by the method of moments, names as random draws, so that a random table has 1 in expectation and not
    (F-1)(L-1)/(FL-1); the share may fall a little outside 0 and 1.
    """
    F, L = values.shape[:2]
    parts = two_way(values)
    own = parts.interaction.square().sum() / ((F - 1) * (L - 1))
    of_first = parts.first.square().sum() / (F - 1) - own / L  # mean square of first names, over L, less the pairs' own
    of_last = parts.last.square().sum() / (L - 1) - own / F
    total = own + of_first + of_last
    return float(own / total) if total > 0 else 0.0


def linear_structure(fraction: float) -> float:
    """What the study's ratio of distances is for random names, sqrt of the fraction: 0 for linear, 1 for none."""
    return max(fraction, 0.0) ** 0.5


def swap_ratio(values: Float[Tensor, "first last *d"], generator: Generator, *, draws: int = 2000) -> float:
    """The study's own ratio: |mid(A, B) - mid(C, D)|, where C and D are A and B with surnames swapped, over the same
    with two random pairs for C and D. The mean of each over `draws`.
    """
    F, L = values.shape[:2]
    f, l = (torch.randint(n, (4, draws), generator=generator) for n in (F, L))
    f[1], l[1] = (f[0] + 1 + f[1] % (F - 1)) % F, (l[0] + 1 + l[1] % (L - 1)) % L
    x = wide(values).flatten(2) if values.ndim > 2 else wide(values)[..., None]
    middle = (x[f[0], l[0]] + x[f[1], l[1]]) / 2
    swapped, other = (x[f[0], l[1]] + x[f[1], l[0]]) / 2, (x[f[2], l[2]] + x[f[3], l[3]]) / 2
    return float((middle - swapped).norm(dim=-1).mean() / (middle - other).norm(dim=-1).mean())


def on_grid(model: Model, facts: Facts, sites: list[Site] | str) -> dict[Site, Float[Tensor, "first last d"]]:
    """Each Site at the subject's last token, over the grid. Raises UserError unless every pair is there once."""
    cells = grid_of(facts)
    return {site: values[cells] for site, values in at_subjects(model, facts, sites).items()}


def interaction_fractions(model: Model, facts: Facts, sites: list[Site] | str) -> dict[Site, float]:
    """`interaction_fraction` of each Site. One pass over the grid."""
    return {site: interaction_fraction(values) for site, values in on_grid(model, facts, sites).items()}


def and_fraction(
    model: Model,
    facts: Facts,
    directions: Float[Tensor, "option d_model"],
    *,
    layers: list[int],
    answer: Int[Tensor, "subject"] | None = None,
) -> Float[Tensor, "subject"]:
    """For each subject, how much of what its pair of names adds along its answer's direction single neurons made.

    A neuron's own share is the excess of its activation less that of its pre-activation where that is above 0, and is
    counted where it is above 0; it is weighted by the neuron's output along the direction. All is divided by the excess
    of the residual stream after the last layer. 1: neurons do it, each a conjunction of raw tokens; 0: none does; NaN
    where the pair adds nothing. `answer`: the option of each subject; None: those of the first relation. One pass over
    the grid. The study found a median of 0.23.
    """
    sites = [Site(kind, layer) for layer in layers for kind in ("mlp_pre", "neurons")]
    end = Site("resid_post", max(layers))
    excess = {site: nonlinear_excess(x) for site, x in on_grid(model, facts, [*sites, end]).items()}
    chosen = (facts.first.answer if answer is None else answer)[grid_of(facts)]
    centred = directions - directions.mean(0)
    along = centred[chosen]
    made = torch.zeros(chosen.shape)
    for layer in layers:
        own = (excess[Site("neurons", layer)] - excess[Site("mlp_pre", layer)].clamp(min=0)).clamp(min=0)
        weight = model.weights.W_out[layer] @ centred.T
        made += (own @ weight).gather(-1, chosen[..., None])[..., 0]
    share = made / (excess[end] * along).sum(-1)
    return share.new_empty(facts.n).index_put_((grid_of(facts).flatten(),), share.flatten())
