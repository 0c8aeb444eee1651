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
from micrographia.core.metrics import Metric, prompts
from micrographia.core.model import Model, Output, Start
from micrographia.core.sites import Site
from micrographia.core.tokens import Inputs, ids_of
from micrographia.methods.attribution.readers import ScoreHook, detached_copy

BEFORE_LAYERS = ("embed", "pos_embed")


class Passes(NamedTuple):
    """The cost of a method, in passes over the model and its inputs."""

    forward: int
    backward: int

    def __str__(self) -> str:
        return f"{self.forward} forward, {self.backward} backward"


class Sides(NamedTuple):
    """The two runs of an attribution: values come from `donor` and would be patched into `base`."""

    donor: Inputs
    base: Inputs


class RunMetrics(NamedTuple):
    """The metric in the two runs (the baselines)."""

    donor: Float[Tensor, "prompt"]
    base: Float[Tensor, "prompt"]


Backward = Callable[[Tensor, list[Tensor]], None]
"""Runs the backward pass from a scalar to these leaves, once or several times."""


def once(scalar: Tensor, leaves: list[Tensor]) -> None:
    torch.autograd.grad(scalar, leaves)


def plain(
    model: Model,
    sides: Sides,
    metric: Metric,
    readers: Sequence[ScoreHook],
    *,
    edits: Sequence[Edit] = (),
    rules: Sequence[Edit] = (),
    backward: Backward = once,
) -> RunMetrics:
    """Two forwards and one backward. Before the readers come `edits` of both runs, then `rules` of the base run.

    Holds one tensor per Site that is read, besides the graph of the base run.
    """
    prompt = prompts_of(sides.base)
    readout = metric.readout(prompt)
    donor = value_of(
        metric, model.run(sides.donor, edits=[*edits, *looks(readers, "in_donor")], logits=readout), prompt
    )
    leaves: list[Tensor] = []
    begin = [leaf(site, leaves.append) for site in first_sites(model, readers)]
    edits = [*begin, *edits, *rules, *looks(readers, "in_base")]
    base = value_of(metric, model.run(sides.base, edits=edits, logits=readout, grad=True), prompt)
    backward(scalar_of(metric, base), leaves)
    finish(readers)
    return RunMetrics(donor, base.detach())


def checkpointed(
    model: Model,
    sides: Sides,
    metric: Metric,
    readers: Sequence[ScoreHook],
    *,
    edits: Sequence[Edit] = (),
    rules: Sequence[Edit] = (),
) -> RunMetrics:
    """Equal to `plain` up to rounding, in four forwards and one backward: for long contexts.

    Holds two residual streams per layer and the activations of one layer. Readers and rules must stay within a layer.
    """
    prompt, last = prompts_of(sides.base), model.shape.n_layers
    parts = [_layer_edits(layer, last, readers, edits, rules) for layer in range(last + 1)]
    donors, bases = residual_streams(model, sides.donor, edits), residual_streams(model, sides.base, edits)
    readout = metric.readout(prompt)
    run = model.run(sides.donor, edits=parts[last].in_donor, logits=readout, start=Start(last, donors.pop()))
    donor = value_of(metric, run, prompt)
    begun = bases.pop().requires_grad_()
    run = model.run(sides.base, edits=parts[last].in_base, logits=readout, start=Start(last, begun), grad=True)
    base = value_of(metric, run, prompt)
    (gradient,) = torch.autograd.grad(scalar_of(metric, base), [begun])
    base = base.detach()
    del run, begun
    for layer in reversed(range(min((layer_of(reader, last) for reader in readers), default=last), last)):
        entering = Entering(donors.pop(), bases.pop())
        gradient = _through_layer(model, sides, entering, layer, gradient, parts[layer])
    finish(readers)
    return RunMetrics(donor, base)


class Entering(NamedTuple):
    """The residual streams that enter a layer."""

    donor: Tensor
    base: Tensor


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
    model: Model, sides: Sides, entering: Entering, layer: int, gradient: Tensor, layer_edits: LayerEdits
) -> Tensor:
    """Read one layer of both runs, and backpropagate the gradient from its output to its input.

    Layer 0 runs from the tokens, so that it includes the embeddings' Sites.
    """
    after = Site("resid_post", layer)
    donor = Start(layer, entering.donor) if layer else None
    if layer_edits.in_donor:
        model.run(sides.donor, edits=layer_edits.in_donor, start=donor, stop=layer + 1)
    leaves = [entering.base.requires_grad_()] if layer else []
    base = Start(layer, leaves[0]) if layer else None
    begin = [] if layer else [leaf(site, leaves.append) for site in layer_edits.first]
    run = model.run(sides.base, edits=[*begin, *layer_edits.in_base], start=base, stop=layer + 1, keep=after, grad=True)
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


def prompts_of(inputs: Inputs) -> Tensor:
    ids = ids_of(inputs)
    return prompts(len(ids), ids.device)


def value_of(metric: Metric, run: Output, prompt: Tensor) -> Float[Tensor, "prompt"]:
    return metric(run.logits, prompt.to(run.logits.device))


def scalar_of(metric: Metric, values: Float[Tensor, "prompt"]) -> Float[Tensor, ""]:
    """The sum over prompts: rows are independent, so each prompt gets its own gradient. Raises UserError."""
    if not values.requires_grad:
        raise UserError(
            f"Attribution by {metric.name} was asked for, which has no gradient. Take a metric that can be "
            "differentiated, such as the logit difference, or patch exactly."
        )
    return values.sum()
