"""The passes of every attribution method: a donor run, a base run, and its backward pass.

`plain` runs the donor without a gradient, then the base with one, and one backward pass: two forwards and one backward.
`checkpointed` stores only the residual stream entering each layer, of both runs, and recomputes a layer when the
backward pass reaches it: four forwards and one backward, with the memory of one layer instead of all. Both use the same
readers at the same Sites, and agree to rounding. Only the metric's logits are computed; parameters get no gradient,
only activations do.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from micrographia.core.edits import Edit, leaf
from micrographia.core.errors import UserError
from micrographia.core.metrics import Metric
from micrographia.core.model import Model, Start
from micrographia.core.sites import Site
from micrographia.core.tokens import Inputs
from micrographia.methods.attribution.estimation import (
    Estimation,
    OnScore,
    Passes,
    RunMetrics,
    Scored,
    ScoreHook,
    detached_copy,
)

BEFORE_LAYERS = ("embed", "pos_embed")

Backward = Callable[[Tensor, list[Tensor]], None]
"""Runs the backward pass from a scalar to these leaves, once or several times."""


def one_gradient(
    estimation: Estimation,
    readers: Callable[[Estimation, OnScore], list[ScoreHook]],
    *,
    rules: Sequence[Edit] = (),
    checkpoints: bool = False,
    on_score: OnScore | None = None,
    notes: tuple[str, ...] = (),
) -> Scored:
    """The scores that these readers make of one backward pass: `plain`, or `checkpointed` with `checkpoints`.

    `on_score` is called with each Site's scores instead of storing them (see `attribute.Best`).
    """
    scores: dict[Site, Tensor] = {}
    run = checkpointed if checkpoints else plain
    metrics = run(estimation, readers(estimation, on_score or scores.__setitem__), rules=rules)
    ordered = {site: scores[site] for site in estimation.sites if site in scores}
    return Scored(ordered, metrics, Passes(4 if checkpoints else 2, 1), notes)


def once(scalar: Tensor, leaves: list[Tensor]) -> None:
    torch.autograd.grad(scalar, leaves)


def plain(
    estimation: Estimation,
    readers: Sequence[ScoreHook],
    *,
    rules: Sequence[Edit] = (),
    backward: Backward = once,
) -> RunMetrics:
    """Two forwards and one backward. Before the readers come the edits of both runs, then `rules` of the base run.

    Holds one tensor per Site that is read, besides the graph of the base run.
    """
    donor = estimation.measure(estimation.donor, [*estimation.edits, *looks(readers, "in_donor")])
    leaves: list[Tensor] = []
    begin = [leaf(site, leaves.append) for site in first_sites(estimation.model, readers)]
    edits = [*begin, *estimation.edits, *rules, *looks(readers, "in_base")]
    base = estimation.measure(estimation.base, edits, grad=True)
    backward(scalar_of(estimation.metric, base), leaves)
    finish(readers)
    return RunMetrics(donor, base.detach())


def checkpointed(estimation: Estimation, readers: Sequence[ScoreHook], *, rules: Sequence[Edit] = ()) -> RunMetrics:
    """Equal to `plain` up to rounding, in four forwards and one backward: for long contexts.

    Holds two residual streams per layer and the activations of one layer. Readers and rules must stay within a layer.
    """
    model, edits, last = estimation.model, estimation.edits, estimation.model.shape.n_layers
    parts = [_layer_edits(layer, last, readers, edits, rules) for layer in range(last + 1)]
    donors, bases = (residual_streams(model, inputs, edits) for inputs in (estimation.donor, estimation.base))
    donor = estimation.measure(estimation.donor, parts[last].in_donor, start=Start(last, donors.pop()))
    begun = bases.pop().requires_grad_()
    base = estimation.measure(estimation.base, parts[last].in_base, start=Start(last, begun), grad=True)
    (gradient,) = torch.autograd.grad(scalar_of(estimation.metric, base), [begun])
    base = base.detach()
    del begun
    for layer in reversed(range(min((layer_of(reader, last) for reader in readers), default=last), last)):
        gradient = _through_layer(estimation, layer, donors.pop(), bases.pop(), gradient, parts[layer])
    finish(readers)
    return RunMetrics(donor, base)


class LayerEdits(NamedTuple):
    """The edits of one layer's runs; `first` are the Sites where layer 0's graph begins."""

    in_donor: list[Edit]
    in_base: list[Edit]
    first: list[Site]


def _layer_edits(
    layer: int, last: int, readers: Sequence[ScoreHook], edits: Sequence[Edit], rules: Sequence[Edit]
) -> LayerEdits:
    inside = [reader for reader in readers if layer_of(reader, last) == layer]
    both, base = ([edit for edit in some if layer_at(edit.site, last) == layer] for some in (edits, rules))
    first = embeddings(inside)
    return LayerEdits([*both, *looks(inside, "in_donor")], [*both, *base, *looks(inside, "in_base")], first)


def _through_layer(
    estimation: Estimation, layer: int, donor: Tensor, base: Tensor, gradient: Tensor, edits: LayerEdits
) -> Tensor:
    """Read one layer of both runs, and backpropagate the gradient from its output to its input.

    `donor` and `base` are the residual streams that enter it. Layer 0 runs from the tokens, so that it includes the
    embeddings' Sites.
    """
    model, after = estimation.model, Site("resid_post", layer)
    if edits.in_donor:
        start = Start(layer, donor) if layer else None
        model.run(estimation.donor, edits=edits.in_donor, start=start, stop=layer + 1)
    leaves = [base.requires_grad_()] if layer else []
    start = Start(layer, base) if layer else None
    begin = [] if layer else [leaf(site, leaves.append) for site in edits.first]
    run = model.run(estimation.base, edits=[*begin, *edits.in_base], start=start, stop=layer + 1, keep=after, grad=True)
    return torch.autograd.grad(run.cache[after], leaves, grad_outputs=gradient)[0]


def residual_streams(model: Model, inputs: Inputs, edits: Sequence[Edit] = ()) -> list[Tensor]:
    """The residual stream entering each layer, and the one leaving the last. One forward.

    It is taken at the output of the previous layer, so that edits of `resid_pre` act once, when a run starts from it.
    """
    n_layers = model.shape.n_layers
    sites = [Site("resid_pre", 0), *(Site("resid_post", layer) for layer in range(n_layers))]
    inside = [edit for edit in edits if layer_at(edit.site, n_layers) < n_layers]
    cache = model.run(inputs, keep=sites, edits=inside, stop=n_layers).cache
    return [detached_copy(cache[site]) for site in sites]


def first_sites(model: Model, readers: Sequence[ScoreHook]) -> list[Site]:
    """The Sites where the graph begins: as late as these readers allow, so that no unnecessary gradient is computed."""
    last = model.shape.n_layers
    first = min((layer_of(reader, last) for reader in readers), default=0)
    if first == last:
        return [Site("resid_post", last - 1)]
    if first:
        return [Site("resid_pre", first)]
    return embeddings(readers)


def embeddings(readers: Sequence[ScoreHook]) -> list[Site]:
    asked = any(Site("pos_embed") in reader.sites for reader in readers)
    return [Site("embed"), *([Site("pos_embed")] if asked else [])]


def layer_of(reader: ScoreHook, last: int) -> int:
    return min(layer_at(site, last) for site in reader.sites)


def layer_at(site: Site, last: int) -> int:
    """The layer whose run reaches this Site: 0 for the embeddings, `last` for Sites after the layers."""
    if site.layer is not None:
        return site.layer
    return 0 if site.kind in BEFORE_LAYERS else last


def looks(readers: Iterable[ScoreHook], side: Literal["in_donor", "in_base"]) -> list[Edit]:
    return [edit for reader in readers for edit in (reader.in_base if side == "in_base" else reader.in_donor)]


def finish(readers: Iterable[ScoreHook]) -> None:
    for reader in readers:
        reader.finish()


def scalar_of(metric: Metric, values: Float[Tensor, "prompt"]) -> Float[Tensor, ""]:
    """The sum over prompts: rows are independent, so each prompt gets its own gradient. Raises UserError."""
    if not values.requires_grad:
        raise UserError(
            f"Attribution by {metric.name} was asked for, which has no gradient. Take a metric that can be "
            "differentiated, such as the logit difference, or patch exactly."
        )
    return values.sum()
