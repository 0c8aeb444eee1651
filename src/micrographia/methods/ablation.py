"""Ablation: every head, MLP or other place removed by itself, and by how much the loss on texts rises.

"zero" writes zeros, which no later layer has ever seen; "mean" the mean over all tokens of the reference; "resample"
the value at a token drawn from it, for each token by itself, so that what is written is one that the model does write.
The mean and the drawn tokens are taken over positions too, so that one text will do; padding takes no part.
A place that costs little may have a backup elsewhere, and one that costs much need not know anything of the text.
Sources: Michel et al., "Are sixteen heads really better than one?" (2019), section 3, one head at a time; Wang et al.
(2022), section 2, on means; Chan et al., "Causal scrubbing" (2022), on resampling.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Generator, Tensor

from micrographia.core.edits import Edit
from micrographia.core.effects import Effects
from micrographia.core.errors import BadConfig, BadPrompt, UserError
from micrographia.core.events import Watch, silent
from micrographia.core.metrics import Metric, prompts
from micrographia.core.model import Model
from micrographia.core.sites import Site, SiteLike, select
from micrographia.core.sweep import Donor, PatchGrid, count_latents, grids
from micrographia.core.sweep.engine import runs
from micrographia.core.sweep.places import words_of
from micrographia.core.tokens import Inputs, ids_of, mask_of

Written = Literal["zero", "mean", "resample"]
SOURCES: Mapping[Written, str] = {
    "zero": "zeros",
    "mean": "the mean over the {} tokens of the {}",
    "resample": "the values at tokens drawn from the {} of the {}",
}


class Ablations(NamedTuple):
    """What each ablation changes. `effects`: of the loss, then of each metric. Changes are from the run as it is."""

    effects: list[Effects]
    tokens: dict[Site, Float[Tensor, "prompt *axes pos"]]
    """The change of the loss of each token, in nats; NaN at the first token of a text and at padding."""
    losses: Float[Tensor, "prompt pos"]
    """The loss of each token when nothing is removed."""


def ablate(
    model: Model,
    inputs: Inputs,
    sites: SiteLike | Iterable[SiteLike],
    *,
    by: Sequence[str] = ("head",),
    replace: Written = "mean",
    reference: Inputs | None = None,
    metrics: Sequence[Metric] = (),
    generator: Generator | None = None,
    edits: Sequence[Edit] = (),
    watch: Watch = silent,
) -> Ablations:
    """The change of the loss (nats a token, the mean over each text) and of `metrics` by each ablation alone.

    `by`: the axes along which places are separate ("head", "unit", "pos"); a Site without any of them is removed whole.
    `reference`: other texts to take means or tokens from. `edits` apply to every run.
    Cost: a run of the texts, one of the reference, and for each place one of its layer and those after it, with the
    logits of every token. Memory: the Sites once, and the change of every token's loss for every place.
    Errors: BadPrompt for texts without a token to predict; BadConfig for axes that no Site has; UserError for a draw
    without a generator, a reference that is not read, and attention, which has no value a token, but with zeros.
    """
    if reference is not None and replace == "zero":
        raise UserError("Zeros were asked for with reference texts, which only mean and resample read. Leave one out.")
    ids, source = ids_of(inputs), inputs if reference is None else reference
    predicted = _predicted(inputs)
    found = _grids(model, sites, by, ids.shape[1], replace, count_latents(model, sites, by, inputs, edits))
    patches = [patch for grid in found for patch in grid.patches]
    kept = list(dict.fromkeys(place.site for patch in patches for place in patch))
    cache = model.fused.run(source, keep=kept, edits=edits, logits="last").cache
    tokens = _tokens(source)
    donor = _donor(cache, tokens, replace, ids, generator)

    def measured(logits: Tensor, n_patches: int) -> tuple[Tensor, Tensor]:
        """The loss of each token (patch, prompt, pos), and each metric (patch, prompt, metric)."""
        rows = prompts(len(ids), logits.device).repeat(n_patches)
        losses = _losses(logits, ids.to(logits.device)[rows], predicted.to(logits.device)[rows])
        values = torch.stack([losses.nanmean(1), *(each.of_vocabulary(logits, rows) for each in metrics)], 1)
        return losses.unflatten(0, (n_patches, -1)), values.unflatten(0, (n_patches, -1))

    losses, base = (each[0] for each in measured(model.fused.run(inputs, edits=edits).logits, 1))
    changes, values = torch.empty(len(patches), *losses.shape), torch.empty(len(patches), *base.shape)
    for numbers, output in runs(model, inputs, patches, donor, logits=lambda prompt: "all", edits=edits, watch=watch):
        each, value = measured(output.logits, len(numbers))
        changes[numbers], values[numbers] = (each - losses).cpu().float(), (value - base).cpu().float()
    by_site, by_metric = dict[Site, Tensor](), [dict[Site, Tensor]() for _ in range(base.shape[1])]
    axes = dict[Site, tuple[str, ...]]()
    sizes = [len(grid.patches) for grid in found]
    for grid, own, value in zip(found, changes.split(sizes), values.split(sizes)):
        by_site |= dict(grid.by_site(own))
        axes |= dict.fromkeys(dict(grid.by_site(own)), grid.axes[1:])
        for i, scores in enumerate(by_metric):
            scores |= dict(grid.by_site(value[..., i]))
    about: dict[str, Any] = {"mode": "noise", "method": "exact", "replace": replace, "axes": axes}
    about["source"] = SOURCES[replace].format(int(tokens.sum()), "texts" if reference is None else "reference texts")
    about["group"] = model.shape.n_heads // (model.shape.n_kv_heads or 1)
    named = [("loss", "nats per token"), *((each.name, each.unit) for each in metrics)]
    effects = [
        Effects(scores=scores, clean=base[:, i].cpu(), corrupt=base[:, i].cpu(), metric=name, unit=unit, **about)
        for i, (scores, (name, unit)) in enumerate(zip(by_metric, named))
    ]
    return Ablations(effects, by_site, losses.cpu())


def _grids(
    model: Model,
    sites: SiteLike | Iterable[SiteLike],
    by: Sequence[str],
    n_pos: int,
    replace: Written,
    n_latents: Mapping[Site, int],
) -> list[PatchGrid]:
    """A grid for each kind of Site, along those axes of `by` that it has."""
    families: dict[str, list[Site]] = {}
    for site in select(model.sites, sites):
        if "pos" not in site.axes and replace != "zero":
            raise UserError(f"{site} has no value at each token to replace by {replace}. Take zero, or another Site.")
        families.setdefault(site.kind, []).append(site)
    known = {axis: None for family in families.values() for axis in words_of(family[0])[1:]}
    if unknown := [axis for axis in by if axis not in ("layer", *known)]:
        raise BadConfig(f"Ablation by {', '.join(unknown)} was asked for; these Sites have {', '.join(known)}.")
    own = {kind: ["layer", *(axis for axis in by if axis in words_of(f[0])[1:])] for kind, f in families.items()}
    return [
        grid
        for kind, family in families.items()
        for grid in grids(model, family, own[kind], n_pos, n_latents=n_latents)
    ]


def _tokens(inputs: Inputs) -> Bool[Tensor, "prompt pos"]:
    """True where there is a token, and no padding."""
    mask = mask_of(inputs)
    return torch.ones_like(ids_of(inputs), dtype=torch.bool) if mask is None else mask


def _predicted(inputs: Inputs) -> Bool[Tensor, "prompt pos"]:
    """True at tokens that have one before them. Raises BadPrompt for a text without any."""
    tokens = _tokens(inputs)
    found = torch.cat([torch.zeros_like(tokens[:, :1]), tokens[:, 1:] & tokens[:, :-1]], 1)
    if not bool(found.any(1).all()):
        raise BadPrompt(
            "Asked for the loss on texts, one of which is a single token. Give texts of two tokens or more."
        )
    return found


def _losses(
    logits: Float[Tensor, "row pos vocab"], ids: Int[Tensor, "row pos"], predicted: Bool[Tensor, "row pos"]
) -> Float[Tensor, "row pos"]:
    """The cross-entropy of each token given those before it, in nats; NaN where there is none."""
    wide = logits[:, :-1].to(torch.promote_types(logits.dtype, torch.float32))
    own = wide.logsumexp(-1) - wide.gather(-1, ids[:, 1:, None])[..., 0]
    whole = torch.cat([torch.full_like(own[:, :1], torch.nan), own], 1)
    return whole.masked_fill(~predicted, torch.nan)


def _donor(
    cache: Mapping[Site, Tensor],
    tokens: Bool[Tensor, "row at"],
    replace: Written,
    ids: Int[Tensor, "prompt pos"],
    generator: Generator | None,
) -> Donor:
    """What is written at each Site, (prompt or 1, pos, ...)."""
    if replace == "zero":  # of attention, which has two positions, as long as the texts
        return {site: torch.zeros_like(value[:1]) for site, value in cache.items()}
    if replace == "mean":
        means = {site: value[tokens.to(value.device)].double().mean(0).to(value.dtype) for site, value in cache.items()}
        return {site: mean.expand(1, ids.shape[1], *mean.shape) for site, mean in means.items()}
    if generator is None:
        raise UserError("resample draws at random and was given no generator. Pass one, such as torch.Generator().")
    drawn = torch.randint(int(tokens.sum()), tuple(ids.shape), generator=generator)
    return {site: value[tokens.to(value.device)][drawn.to(value.device)] for site, value in cache.items()}
