"""calibrate: some estimates checked by exact patching, and a plain sentence on how far to trust the others.

The largest estimates and a random sample of the rest are patched exactly. That gives, per kind of Site, the correlation
of estimate and effect, a bound on how many large effects are left unseen, and `flags` where estimate and effect part
ways for a reason. One run more for each Site, all its places at once, shows what single places hide, drawn or not.
Source: Kramar et al., "AtP*" (2024), on diagnostics.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Generator, Tensor

from micrographia.core.edits import Edit
from micrographia.core.events import Watch, silent
from micrographia.core.metrics import Metric
from micrographia.core.model import Model
from micrographia.core.prompts import Pairs, first_difference
from micrographia.core.sweep import Patch, Place, sweep
from micrographia.core.tokens import ids_of
from micrographia.methods.attribution.agreement import agreement, missed, slope
from micrographia.methods.attribution.estimate import Attribution, sides_of
from micrographia.methods.attribution.flags import Checked, Flag, Whole, flags_of, in_series, joint
from micrographia.methods.attribution.passes import prompts_of
from micrographia.methods.attribution.spots import Spots, kind_of, spots

LARGE = 0.1
"""An effect counts as large from this share of the largest that was measured. Our choice."""
CLOSE, ROUGH = 0.9, 0.6
"""Pearson's correlation from which estimates are called close, and rough. Our choice."""
SCALE = 1.25
"""Where estimates are rough at least, it is said when effects are this many times what is estimated or more, or this
part of it or less (1 in 1.25): a correlation does not see that. Our choice."""


@dataclass(frozen=True, eq=False, slots=True)
class Calibration:
    """What the check found. `n_patches` is how many patched runs it took.

    `n_idle` places cannot have an effect (before the prompts differ, or where a query would look ahead); they were
    neither drawn nor counted.
    """

    kinds: dict[str, Checked]
    flags: tuple[Flag, ...]
    unit: str
    n_prompts: int
    n_patches: int
    n_idle: int

    def __str__(self) -> str:
        return " ".join([*(sentence(each, self.unit) for each in self.kinds.values()), *self._warning()])

    def _warning(self) -> list[str]:
        if not self.flags:
            return []
        several = len(self.flags) > 1
        return [f"{len(self.flags)} flag{'s' * several}; the first: {self.flags[0]}."]


def calibrate(
    model: Model,
    pairs: Pairs,
    metric: Metric,
    attribution: Attribution,
    *,
    budget: int,
    top: int,
    generator: Generator,
    draws: int = 1000,
    threshold: float | None = None,
    edits: Sequence[Edit] = (),
    watch: Watch = silent,
) -> Calibration:
    """Patches `budget` places exactly, the `top` largest estimates and the others by lot, evenly over kinds of Site.

    In a model that looks back alone, places that cannot have an effect are left out (`Calibration.n_idle`).
    `threshold`: the effect, in the metric's unit, that must not be missed; by default a tenth of the largest measured
    of its kind. Cost: `budget` patched runs; for each kind one more with all of those and one with every place; one for
    each Site patched whole; all restarted where they differ (`core.sweep`); and one run that keeps all Sites that were
    attributed. `generator` draws places and the bootstrap's prompts. Errors: BadConfig for a budget below the number of
    kinds.
    """
    chosen = spots(attribution, budget=budget, top=top, generator=generator, begin=_begin(model, pairs))
    groups = [wholes(each.kind, attribution) for each in chosen]
    asked = [[*each.patches, joint(each.patches), *whole] for each, whole in zip(chosen, groups)]
    patches = [patch for some in asked for patch in some]
    sides, prompt = sides_of(pairs, attribution.mode), prompts_of(pairs.clean)
    sites = list(dict.fromkeys(place.site for patch in patches for place in patch))
    donor = model.run(sides.donor, keep=sites, edits=edits, logits=metric.readout(prompt)).cache
    values = sweep(model, sides.base, patches, donor, [metric], edits=edits, watch=watch)[..., 0]
    effects = (values - attribution.base.to(values)).cpu().double().split(list(map(len, asked)))
    kinds: dict[str, Checked] = {}
    for each, whole, effect in zip(chosen, groups, effects):
        n = len(each.patches)
        found = _checked(each, effect[: n + 1], attribution.gives, threshold, generator, draws)
        told = [_whole(some, attribution, each, effect[:n], at_once) for some, at_once in zip(whole, effect[n + 1 :])]
        kinds[each.kind] = found._replace(wholes=tuple(told))
    flags = [flag for each in kinds.values() for flag in flags_of(each, attribution.mode, attribution.gives)]
    n_idle = sum(each.n_idle for each in chosen)
    return Calibration(kinds, tuple(flags), metric.unit, len(pairs), len(patches), n_idle)


def _begin(model: Model, pairs: Pairs) -> int | None:
    """The first position with an effect, of a model that looks back alone; None where no place is ruled out."""
    begin = first_difference(pairs)
    return begin if model.shape.causal and begin < ids_of(pairs.clean).shape[1] else None


def wholes(kind: str, attribution: Attribution) -> list[Patch]:
    """Each Site of a kind that has several places, whole; and all Sites together."""
    if attribution.gives == "size" or in_series(kind):
        return []
    sites = [site for site in attribution.scores if kind_of(site) == kind]
    single: list[Patch] = [(Place(site),) for site in sites if attribution.scores[site][0].numel() > 1]
    return [*single, tuple(map(Place, sites))] if len(sites) > 1 else single


def _whole(patch: Patch, attribution: Attribution, each: Spots, exact: Tensor, at_once: Tensor) -> Whole:
    """The sum of all estimates, with what was measured in place of what was estimated."""
    sites = [place.site for place in patch]
    scores = [attribution.scores[site].double().flatten(1) for site in sites]
    measured = [i for i, (place,) in enumerate(each.patches) if place.site in sites]
    known = float((exact[measured] - each.estimate[measured]).mean(1).sum())
    alone = sum(float(score.sum(1).mean()) for score in scores) + known
    return Whole(patch, alone, float(at_once.mean()), len(measured) == sum(each.able[site] for site in sites))


def _checked(
    each: Spots, effect: Tensor, gives: str, threshold: float | None, generator: Generator, draws: int
) -> Checked:
    exact, together = effect[:-1], float(effect[-1].mean())
    pair = [x.abs() if gives == "size" else x for x in (each.estimate, exact)]
    estimate, measured = (x.numpy() for x in pair)
    weight = each.weight.numpy()
    pearson, spearman = agreement(estimate, measured, weight, generator=generator, draws=draws)
    ratio = math.nan if gives == "size" else slope(estimate, measured, weight)
    sizes = exact.mean(1).abs()
    limit = LARGE * float(sizes.max()) if threshold is None else threshold
    drawn = sizes[each.n_top :]
    bound = missed(int((drawn > limit).sum()), len(drawn), each.n_rest, limit)
    return Checked(each.kind, each.patches, each.estimate, exact, each.n_top, pearson, spearman, ratio, bound, together)


def sentence(each: Checked, unit: str) -> str:
    """How far to trust the estimates of this kind, in plain words."""
    n_drawn = len(each.patches) - each.n_top
    words = (
        f"{each.kind}: the estimates {trust(each.pearson.value, each.slope)} (Pearson {each.pearson}; of ranks "
        f"{each.spearman.value:.2f}; {len(each.patches)} places patched)."
    )
    if not each.missed.of:
        return f"{words} Every place was patched."
    if not n_drawn:
        return f"{words} None of the other {each.missed.of} places was patched, so nothing is known about them."
    return (
        f"{words} Of the other {each.missed.of} places {n_drawn} were drawn and {each.missed.hits} had an effect above "
        f"{each.missed.threshold:.3g} {unit}; with 95 % confidence at most {each.missed.most} have."
    )


def trust(pearson: float, ratio: float = math.nan) -> str:
    """What may be made of estimates, in words. `ratio`: effect per estimate, said where it is far from 1 (`SCALE`)."""
    if math.isnan(pearson):
        return "cannot be judged, for nothing varied"
    if pearson < ROUGH:
        return "are not to be trusted"
    close = "follow the exact effects closely" if pearson >= CLOSE else "say roughly what to patch, no more"
    if math.isnan(ratio) or 1 / SCALE < ratio < SCALE:
        return close
    return f"{close}, though effects are about {ratio:.2g} times what is estimated"
