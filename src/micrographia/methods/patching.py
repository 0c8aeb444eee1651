"""Activation patching, exact: write one run's activations into another and measure the change of the metric.

"denoise" writes clean activations into the corrupt run: what restores the answer is *sufficient*. "noise" writes
corrupt activations into the clean run: what loses the answer is *necessary*. The two are not symmetric.
Sources: Vig et al. (2020); Zhang and Nanda, "Towards best practices of activation patching" (2023, 2309.16042);
Heimersheim and Nanda, "How to use and interpret activation patching" (2024, 2404.15255).
"""

from collections.abc import Iterable, Sequence
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from micrographia.core.edits import Edit
from micrographia.core.effects import Effects
from micrographia.core.errors import UserError
from micrographia.core.events import Watch, silent
from micrographia.core.metrics import Metric, prompts
from micrographia.core.model import Cache, Model
from micrographia.core.prompts import Pairs, check_aligned, position_names
from micrographia.core.sites import Site, SiteLike
from micrographia.core.sweep import (
    Donor,
    MetricSet,
    Patch,
    Patched,
    Plan,
    Reference,
    count_latents,
    grids,
    replacement,
    sweep,
)
from micrographia.core.titles import Mode
from micrographia.core.tokens import Inputs, ids_of, mask_of

Replace = Literal["other", "zero", "noise", "mean", "resample"]


def patch_sites(
    model: Model,
    pairs: Pairs,
    sites: SiteLike | Iterable[SiteLike],
    metrics: Sequence[Metric],
    *,
    by: Sequence[str] = ("pos",),
    together: bool = False,
    mode: Mode = "denoise",
    replace: Replace = "other",
    **choices: Any,
) -> list[Effects]:
    """The effect of patching every place of these Sites by itself; Effects in each metric, from one sweep.

    `by` names the axes along which places are separate ("pos", "head", "unit", "query", "key"); other axes are patched
    whole. Each layer is patched by itself, or, with `together`, all layers of a kind at once. `choices` are those of
    `patch`, as are cost, memory and errors; BadConfig for an axis that a Site lacks.
    """
    axes = tuple(axis for axis in by if axis != "layer")
    n_latents = count_latents(model, sites, by, pairs.clean, choices.get("edits", ()))
    length = ids_of(pairs.clean).shape[1]
    found = grids(model, sites, axes if together else ("layer", *axes), length, n_latents=n_latents)
    patches = [each for grid in found for each in grid.patches]
    done = patch(model, pairs, metrics, patches, mode=mode, replace=replace, **choices)
    changes = done.effects().split([len(grid.patches) for grid in found])
    about: dict[str, Any] = {"mode": mode, "method": "exact", "replace": replace, "source": done.source}
    about |= {"together": together, "positions": tuple(position_names(pairs, model.tokenizer))}
    about |= {"group": model.shape.group}
    effects = []
    for i, metric in enumerate(metrics):
        scores = {site: own for grid, each in zip(found, changes) for site, own in grid.by_site(each[..., i])}
        kept = tuple(axis for axis in found[0].axes if axis != "layer")
        own = {"clean": done.clean[:, i], "corrupt": done.corrupt[:, i], "metric": metric.name, "unit": metric.unit}
        effects.append(Effects(scores=scores, axes=dict.fromkeys(scores, kept), **own, **about))
    return effects


def patch(
    model: Model,
    pairs: Pairs,
    metrics: Sequence[Metric],
    patches: Sequence[Patch],
    *,
    mode: Mode = "denoise",
    replace: Replace = "other",
    reference: Inputs | None = None,
    generator: Generator | None = None,
    edits: Sequence[Edit] = (),
    plan: Plan = "fast",
    tokens_at_once: int | None = None,
    watch: Watch = silent,
) -> Patched:
    """Each patch of `patches` by itself, over all pairs.

    The written values: "other", the other run of the pair; otherwise `core.sweep.donors.replacement` of the prompts of
    `reference`, by default of the clean and corrupt prompts of the pairs. `edits` apply to every run.
    Cost: two forward passes, a third over the reference, then that of `core.sweep`. Memory: the patched Sites, once
    (twice where the pairs are the reference).
    Errors: BadPrompt for pairs that do not line up; UserError for no patches or metrics, and for an unused reference;
    those of `sweep` and `replacement`.
    """
    check_aligned(pairs, model.tokenizer)
    if reference is not None and replace in ("other", "zero"):
        raise UserError(
            f"Replacement by {replace!r} was asked for with reference prompts, which only 'mean', 'resample' and "
            "'noise' read. Leave one out."
        )
    runs = model if plan == "strict" else model.fused  # baselines and donors as the sweep itself computes them
    sites = list(dict.fromkeys(place.site for patch in patches for place in patch))
    sides = {"clean": pairs.clean, "corrupt": pairs.corrupt}
    other = "clean" if mode == "denoise" else "corrupt"
    kept = {other} if replace in ("other", "zero") else set() if reference is not None else {"clean", "corrupt"}
    reading = MetricSet(metrics, ids_of(pairs.clean).shape[1])
    scores: dict[str, Tensor] = {}
    caches: dict[str, Cache] = {}
    for name, side in sides.items():
        scores[name], caches[name] = _measured(runs, side, sites if name in kept else (), edits, reading, plan)
    if replace == "other":
        donor, source = caches[other], f"the {other} run"
    else:
        donor, source = _replaced(runs, pairs, replace, reference, generator, caches, sites, edits)
    how: dict[str, Any] = {"plan": plan, "edits": edits, "tokens_at_once": tokens_at_once, "watch": watch}
    values = sweep(model, pairs.base(mode), patches, donor, metrics, **how)
    names = tuple(metric.name for metric in metrics)
    return Patched(mode, values, scores["clean"], scores["corrupt"], names, source)


def _measured(
    model: Model, inputs: Inputs, keep: Sequence[Site], edits: Sequence[Edit], reading: MetricSet, plan: Plan
) -> tuple[Float[Tensor, "prompt metric"], Cache]:
    """The metrics and the cache of an unpatched run; "strict" uses the full logits, as its sweep does."""
    rows = prompts(len(ids_of(inputs)), ids_of(inputs).device)
    whole = plan == "strict"
    run = model.run(inputs, keep=keep, edits=edits, logits="all" if whole else reading.logits(rows))
    return (reading.of_vocabulary if whole else reading)(run.logits, rows), run.cache


def _replaced(
    model: Model,
    pairs: Pairs,
    replace: Literal["zero", "noise", "mean", "resample"],
    reference: Inputs | None,
    generator: Generator | None,
    caches: dict[str, Cache],
    sites: Sequence[Site],
    edits: Sequence[Edit],
) -> tuple[Donor, str]:
    """The donor and its source."""
    n_prompts, n_pos = ids_of(pairs.clean).shape
    if replace == "zero":
        kept = next(cache for cache in caches.values() if len(cache))
        return replacement("zero", Reference(kept), n_prompts, n_pos), "zeros"
    if reference is not None:
        values: Donor = model.run(reference, keep=sites, edits=edits, logits="last").cache
        mask, source = mask_of(reference), f"{len(ids_of(reference))} reference prompts"
    else:
        values = {site: torch.cat([cache[site] for cache in caches.values()]) for site in sites}
        masks = [mask_of(side) for side in (pairs.clean, pairs.corrupt)]
        mask = torch.cat([mask for mask in masks if mask is not None]) if None not in masks else None
        source = f"the {2 * n_prompts} clean and corrupt prompts of the pairs"
    made = replacement(replace, Reference(values, mask), n_prompts, n_pos, generator, mask_of(pairs.clean))
    return made, f"{WORDS[replace]} {source}"


WORDS = {"mean": "the mean over", "resample": "a resample of", "noise": "noise like"}
