"""AtP*: the QK-fix and GradDrop together.

A place whose direct effect cancels against its effect through later layers gets an estimate near zero, and a small
error of the gradient decides its rank. GradDrop repeats the estimate with the gradient through one layer's attention
and MLP blocked (the residual stream stays open), for each layer in turn, and averages the absolute values: effects that
cancel in one pass show in another. Only the backward pass is repeated.
Source: Kramar et al., "AtP*" (2024), GradDrop: c(n) = 1 / (L - 1) sum_l |score with layer l's gradient dropped|, where
the term of a place's own layer is zero.
"""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from micrographia.core.edits import Edit, observe
from micrographia.core.effects import Effects
from micrographia.core.metrics import Metric
from micrographia.core.model import Model
from micrographia.core.prompts import Pairs
from micrographia.core.sites import Site, SiteLike
from micrographia.core.titles import Mode
from micrographia.core.tokens import mask_of
from micrographia.methods.attribution.estimate import chosen_sites, estimated, sides_of
from micrographia.methods.attribution.passes import Passes, plain
from micrographia.methods.attribution.qk import fixed_readers
from micrographia.methods.attribution.readers import Positions, ScoreOptions

BRANCHES = ("attn_out", "mlp_out")


def atp_star(
    model: Model,
    pairs: Pairs,
    metric: Metric,
    sites: SiteLike | Iterable[SiteLike],
    *,
    mode: Mode = "denoise",
    positions: Positions = "each",
    edits: Sequence[Edit] = (),
) -> Effects:
    """AtP* scores: the mean absolute estimate of each place over dropped layers.

    In the metric's unit. The size is the paper's; the sign is that of the estimate with nothing dropped, so a score
    ranks places as in the paper, per prompt, but does not estimate the exact effect. Two forwards and n_layers + 1
    backwards, all of one graph, which is kept throughout with one tensor per Site.
    Source: Kramar et al. (2024).
    """
    wanted = chosen_sites(model, sites)
    size: dict[Site, Tensor] = {}
    sign: dict[Site, Tensor] = {}
    dropped: list[int] = []

    def add(site: Site, score: Tensor) -> None:
        if dropped:
            size[site] = score.abs() + size[site] if site in size else score.abs()
        else:
            sign.setdefault(site, torch.where(score < 0, -1.0, 1.0).to(score))

    def each_layer(scalar: Tensor, leaves: list[Tensor]) -> None:
        torch.autograd.grad(scalar, leaves, retain_graph=True)
        for layer in range(model.shape.n_layers):
            dropped[:] = [layer]
            torch.autograd.grad(scalar, leaves, retain_graph=layer < model.shape.n_layers - 1)

    readers = fixed_readers(model, wanted, ScoreOptions(add, positions, mask_of(pairs.clean), again=True))
    sides = sides_of(pairs, mode)
    rules = blocks(model, dropped)
    values = plain(model, sides, metric, readers, edits=edits, rules=rules, backward=each_layer)
    others = max(1, model.shape.n_layers - 1)
    scores = {site: size[site] * sign.get(site, torch.ones(())).to(size[site]) / others for site in wanted}
    note = "Sizes are means over dropped layers and rank places; they do not estimate the exact effect."
    cost = Passes(2, model.shape.n_layers + 1)
    given = {"summed": positions == "sum", "notes": (note,), "gives": "size"}
    return estimated(model, pairs, metric, mode, "atp-star", scores, values, cost, **given)


def blocks(model: Model, dropped: list[int]) -> list[Edit]:
    """Edits that stop the gradient through each layer's attention and MLP outputs while that layer is in `dropped`."""
    return [_block(site, dropped) for site in model.sites if site.kind in BRANCHES]


def _block(site: Site, dropped: list[int]) -> Edit:
    def stop(gradient: Tensor) -> Tensor | None:
        return torch.zeros_like(gradient) if site.layer in dropped else None

    def on_base(value: Tensor) -> None:
        if value.requires_grad:  # only where the graph has begun
            value.register_hook(stop)

    return observe(site, on_base)
