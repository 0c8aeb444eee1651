"""`calibrate`: check a sample of attribution scores by exact patching, and summarise how far to trust the rest.

The largest estimates and a random sample of the rest are patched exactly. That gives, per kind of Site, the correlation
of estimate and effect, a bound on the number of missed large effects, and a `Flag` for each disagreement that suggests
a mechanism. One more run per Site, with all its places patched jointly, shows effects that single places hide, sampled
or not. Source: Kramar et al., "AtP*" (2024), on diagnostics.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Generator, Tensor

from micrographia.core import figures
from micrographia.core.edits import Edit
from micrographia.core.effects import Effects, kind_of
from micrographia.core.errors import BadConfig, UserError
from micrographia.core.events import Watch, silent
from micrographia.core.figures import Figure
from micrographia.core.graph import Edge
from micrographia.core.metrics import Metric, prompts
from micrographia.core.model import Model
from micrographia.core.prompts import Pairs, first_difference
from micrographia.core.sites import Site
from micrographia.core.sweep import Patch, Place, sweep
from micrographia.core.titles import MODES, Mode
from micrographia.core.tokens import ids_of
from micrographia.methods.attribution.agreement import (
    USEFUL,
    Checked,
    Estimate,
    Flag,
    Whole,
    agreement,
    flags_of,
    in_series,
    joint,
    missed,
    slope,
)
from micrographia.methods.attribution.check_cost import Work, affordable, same_run, since, within, work_of
from micrographia.methods.attribution.check_figures import (
    FLAGS,
    calibration_row,
    calibration_table,
    points,
    whole_row,
    whole_tables,
)
from micrographia.methods.attribution.edges import EdgeAttribution
from micrographia.methods.attribution.estimation import cell_axes, place

LARGE = 0.1
"""An effect counts as large from this fraction of the largest measured one. Our choice."""
CLOSE, ROUGH = 0.9, 0.6
"""Correlations from which estimates are called close, and rough: Pearson's in size, Spearman's in order. Our choice."""
UNSURE = 0.5
"""A rank correlation whose interval is wider than this says nothing of the order. Our choice."""
SCALE = 1.25
"""Where estimates are at least rough, a ratio of effects to estimates of this much or more (or its inverse or less) is
reported: a correlation does not show it. Our choice."""
LEAST = 16
"""Places that a kind of Site is left at least, where others are patched whole."""
MOST_FLAGS, DRAWS = 8, 1000
EDGES = "edges"
EXCLUDED = (
    "{n:,} places cannot have an effect, before the prompts differ or where a query would attend to a later key; they "
    "were neither sampled nor counted."
)


class Sample(NamedTuple):
    """The sample of places of one kind to measure: the `n_top` largest estimates, and others at random from `n_rest`.

    Places are numbered within the kind, Site after Site, in the order of their scores. Those that cannot have an
    effect, in a causal model, are excluded: they are uninformative and would inflate the agreement.
    """

    kind: str
    patches: Sequence[Any]
    """Patches of one place each; of edges, tuples of one."""
    estimate: Float[Tensor, "place prompt"]
    n_top: int
    n_rest: int
    n_able: Mapping[Site, int] = MappingProxyType({})
    """The number of places of each Site that can have an effect."""
    n_excluded: int = 0
    """The number of places of the kind that cannot have an effect."""

    @property
    def weight(self) -> Float[Tensor, "place"]:
        """The number of places of the kind that each represents."""
        weight = torch.ones(len(self.patches), dtype=torch.float64)
        weight[self.n_top :] = self.n_rest / max(1, len(self.patches) - self.n_top)
        return weight


@dataclass(frozen=True, eq=False, slots=True)
class Calibration:
    """The result of the check, in `n_patches` patched runs. `n_excluded` places cannot have an effect (`EXCLUDED`)."""

    kinds: dict[str, Checked]
    flags: tuple[Flag, ...]
    unit: str
    n_prompts: int
    n_patches: int
    n_excluded: int
    mode: Mode = "denoise"
    metric: str = "metric"

    def __repr__(self) -> str:
        checked = ", ".join(f"{len(each.patches)} of {kind}" for kind, each in self.kinds.items())
        return f"Calibration({self.mode}, {self.metric}; places patched: {checked})"

    def __str__(self) -> str:
        n, sentences = len(self.flags), [sentence(each, self.unit) for each in self.kinds.values()]
        return "\n".join([*sentences, *([f"{n} flag{'s' * (n > 1)}; the first: {self.flags[0]}."] if n else [])])

    def table(self) -> list[dict[str, Any]]:
        """The agreement of estimate and exact effect, one record per kind of Site."""
        return [calibration_row(each, self.mode) for each in self.kinds.values()]

    def wholes(self) -> list[dict[str, Any]]:
        """Joint effects of whole Sites, and of all Sites of a kind, with the sums of single effects."""
        return [whole_row(some, each, self.flags, self.mode) for each in self.kinds.values() for some in each.wholes]

    def sentences(self) -> list[str]:
        """How far to trust each kind of Site; then the disagreements, the largest gap first."""
        kinds = [sentence(each, self.unit) for each in self.kinds.values()]
        flags = [f"{str(flag)[:1].upper()}{str(flag)[1:]}." for flag in self.flags[:MOST_FLAGS]]
        return [
            f"{MODES[self.mode].panel.capitalize()}.",
            *kinds,
            *([EXCLUDED.format(n=self.n_excluded)] * bool(self.n_excluded)),
            *flags,
        ]

    def shares(self, gap: float, side: Literal["exact", "estimate"] = "exact") -> dict[str, float]:
        """By the name of each place that was patched its share of the gap."""
        sign = MODES[self.mode].sign / gap
        return {
            str(where): sign * x
            for each in self.kinds.values()
            for (where, *_), x in zip(each.patches, getattr(each, side).mean(1).tolist())
        }

    def summary(self) -> str:
        """The verdicts on all kinds of Site, or on edges, in one sentence."""
        kinds: dict[str, list[str]] = {}
        for each in self.kinds.values():
            kinds.setdefault(verdict(each), []).append(each.kind)
        verdicts = "; ".join(f"those of {', '.join(names)} {told}" for told, names in kinds.items())
        what = "edges by exact path patches" if EDGES in self.kinds else "places by exact patches"
        n = sum(len(each.patches) for each in self.kinds.values())
        return f"Checked on {n} {what} ({self.mode}), the estimates rate as follows: {verdicts}."

    def figures(self) -> list[Figure]:
        """The tables of correlations and of whole Sites, a scatter of estimate and effect, and the sentences."""
        return figures_of_checks([self])


def figures_of_checks(checks: Sequence[Calibration]) -> list[Figure]:
    """The figures of one direction, or of both side by side; none of no check."""
    if not checks:
        return []
    rows, wholes = ([row for each in checks for row in some(each)] for some in (Calibration.table, Calibration.wholes))
    told = [sentence for each in checks for sentence in each.sentences()]
    scatters = [points(list(each.kinds.values()), each.mode, each.metric) for each in checks]
    flags = figures.text("flags", FLAGS, told, group=FLAGS, essential=False)
    return [calibration_table(rows), *scatters, *whole_tables(wholes, checks[0].unit), flags]


def calibrate(
    model: Model,
    pairs: Pairs,
    metric: Metric,
    attribution: Effects,
    *,
    budget: int | None = None,
    top: int | None = None,
    generator: Generator,
    draws: int = DRAWS,
    threshold: float | None = None,
    whole: bool = False,
    edits: Sequence[Edit] = (),
    watch: Watch = silent,
) -> Calibration:
    """Patch `budget` places exactly: the `top` largest estimates and others at random, evenly over kinds of Site; with
    `whole`, kinds of few places are patched whole first (`shared_out`). Half of them are the largest by default.
    Without a budget as many as take about twice the time of the estimates, and the joint patches that this allows.

    In a causal model, places that cannot have an effect are left out (`Calibration.n_excluded`). `threshold`: the
    effect, in the metric's unit, that must not be missed; by default a tenth of the largest measured of its kind. Cost:
    `budget` patched runs; for each kind one more with all of those and one with every place; one for each Site patched
    whole, and one for two that decide the same, such as neurons and mlp_out; all restarted where they and the prompts
    differ (`core.sweep`); and one run that keeps all attributed Sites. `generator` samples places and the bootstrap's
    prompts. Errors: BadConfig for a budget below the number of kinds.
    """
    if not bool(attribution.base.isfinite().all()):
        raise UserError(
            f"Asked to check estimates of {metric.name}, which is not a finite number on every prompt. Choose a metric "
            "that is."
        )
    begin, n_pos = _begin(model, pairs), ids_of(pairs.clean).shape[1]
    work = work_of(model, pairs, attribution, begin)
    n = affordable(work, able_places(attribution, begin)) if budget is None else budget
    half = n // 2 if top is None else top
    chosen = samples(attribution, budget=n, top=half, generator=generator, begin=begin, whole=whole)
    groups = [wholes(each.kind, attribution) for each in chosen]
    together = [joint(each.patches) for each in chosen]
    if budget is None:
        groups, together = _worth(work, groups, together, attribution)
    requested = [
        [*each.patches, *several, *([at_once] if at_once else [])]
        for each, several, at_once in zip(chosen, groups, together)
    ]
    mode, rows = attribution.mode, prompts(len(pairs), ids_of(pairs.clean).device)
    sites = list(dict.fromkeys(place.site for some in requested for patch in some for place in patch))
    donor = model.run(pairs.donor(mode), keep=sites, edits=edits, logits=metric.readout(rows)).cache
    named = {str(patch if edits else same_run(patch)): patch for some in requested for patch in some}
    patches = [since(patch, begin or 0, n_pos) for patch in named.values()]
    found = sweep(model, pairs.base(mode), patches, donor, [metric], edits=edits, watch=watch)[..., 0]
    numbers = {name: i for i, name in enumerate(named)}
    order = [numbers[str(patch if edits else same_run(patch))] for some in requested for patch in some]
    effects = (found - attribution.base.to(found))[order].cpu().double().split(list(map(len, requested)))
    kinds: dict[str, Checked] = {}
    for each, sites_whole, effect in zip(chosen, groups, effects):
        n = len(each.patches)
        behind = effect[n + len(sites_whole) :]  # the places together, where they were patched so
        at_once = float(behind[0].mean()) if len(behind) else None
        measured = _checked(each, effect[:n], attribution.gives, threshold, generator, draws, at_once)
        joint_effects = [_whole(some, attribution, each, effect[:n], x) for some, x in zip(sites_whole, effect[n:])]
        kinds[each.kind] = measured._replace(wholes=tuple(joint_effects))
    flags = [flag for each in kinds.values() for flag in flags_of(each, mode, attribution.gives)]
    n_excluded = sum(each.n_excluded for each in chosen)
    return Calibration(kinds, tuple(flags), metric.unit, len(pairs), len(patches), n_excluded, mode, metric.name)


def _worth(
    work: Work, groups: Sequence[list[Patch]], together: Sequence[Patch], attribution: Effects
) -> tuple[list[list[Patch]], list[Patch]]:
    """Of the joint patches those that the default check can pay for: kinds, the places that were drawn, then single
    Sites, those with the largest sums of estimates first. An empty patch stands for one that is not run.
    """
    several = [patch for group in groups for patch in group if len(patch) > 1]
    single = [patch for group in groups for patch in group if len(patch) == 1]
    single.sort(key=lambda patch: -abs(float(attribution.scores[patch[0].site].double().flatten(1).sum(1).mean())))
    kept = set(map(str, within(work, [*several, *together, *single])))
    return [[patch for patch in group if str(patch) in kept] for group in groups], [
        patch if str(patch) in kept else () for patch in together
    ]


def _begin(model: Model, pairs: Pairs) -> int | None:
    """The first position that can have an effect in a causal model; None where no place is excluded."""
    begin = first_difference(pairs)
    return begin if model.shape.causal and begin < ids_of(pairs.clean).shape[1] else None


def wholes(kind: str, attribution: Effects) -> list[Patch]:
    """Each Site of a kind with several places, patched whole; and all Sites together."""
    if attribution.gives == "size" or in_series(kind):
        return []
    sites = [site for site in attribution.scores if kind_of(site) == kind]
    single: list[Patch] = [(Place(site),) for site in sites if attribution.scores[site][0].numel() > 1]
    return [*single, tuple(map(Place, sites))] if len(sites) > 1 else single


def _whole(patch: Patch, attribution: Effects, each: Sample, exact: Tensor, at_once: Tensor) -> Whole:
    """The joint effect, and the sum of all single effects: measured where known, else estimated."""
    sites = [place.site for place in patch]
    scores = [attribution.scores[site].double().reshape(len(exact[0]), -1) for site in sites]
    measured = [i for i, (place,) in enumerate(each.patches) if place.site in sites]
    known = float((exact[measured] - each.estimate[measured]).mean(1).sum())
    alone = sum(float(score.sum(1).mean()) for score in scores) + known
    return Whole(patch, alone, float(at_once.mean()), len(measured) == sum(each.n_able[site] for site in sites))


def calibrate_edges(
    found: EdgeAttribution,
    metric: Metric,
    measure: Callable[[list[Edge]], Float[Tensor, "edge prompt"]],
    *,
    budget: int,
    generator: Generator,
) -> Calibration:
    """The same of edges: half of `budget` among the largest, half at random, each patched by itself with `measure`."""
    scores = found.values.double().cpu()[:, found.graph.legal].T
    order = found.mean().cpu()[found.graph.legal].abs().argsort(descending=True)
    n_top = min(budget - budget // 2, len(order))
    drawn = torch.randperm(len(order) - n_top, generator=generator)[: budget - n_top] + n_top
    chosen = order[torch.cat([torch.arange(n_top), drawn])]
    edges = [found.graph.edges[i] for i in chosen.tolist()]
    sample = Sample(EDGES, [(edge,) for edge in edges], scores[chosen], n_top, len(order) - n_top)
    each = _checked(sample, measure(edges).double().cpu(), "effect", None, generator, DRAWS)
    flags = tuple(flags_of(each, found.mode))
    return Calibration({EDGES: each}, flags, metric.unit, len(found.clean), len(edges), 0, found.mode, metric.name)


def _checked(
    each: Sample,
    exact: Tensor,
    gives: str,
    threshold: float | None,
    generator: Generator,
    draws: int,
    together: float | None = None,
) -> Checked:
    pair = [x.abs() if gives == "size" else x for x in (each.estimate, exact)]
    estimate, measured = (x.numpy() for x in pair)
    weight = each.weight.numpy()
    pearson, spearman = agreement(estimate, measured, weight, generator=generator, draws=draws)
    ratio = math.nan if gives == "size" else slope(estimate, measured, weight)
    sizes = exact.mean(1).abs()
    limit = LARGE * float(sizes.max()) if threshold is None else threshold
    drawn = sizes[each.n_top :]
    bound = missed(int((drawn > limit).sum()), len(drawn), each.n_rest, limit)
    found = Checked(
        each.kind, each.patches, each.estimate, exact, each.n_top, pearson, spearman, ratio, bound, together
    )
    return found._replace(gives_size=gives == "size")


def sentence(each: Checked, unit: str) -> str:
    """A sentence on how far to trust the estimates of this kind."""
    bound, n_drawn = each.missed, len(each.patches) - each.n_top
    words = (
        f"{each.kind}: the estimates {verdict(each)} (Pearson {each.pearson}; Spearman "
        f"{each.spearman}; {len(each.patches)} places patched)."
    )
    if n_drawn == bound.of:
        return f"{words} Every place was patched."
    if not n_drawn:
        return f"{words} None of the other {bound.of} was patched, so nothing is known about them."
    found = f"{words} Of the other {bound.of} places {n_drawn} were sampled, and {bound.hits} had an effect above "
    found += f"{bound.threshold:.3g} {unit}; "
    if bound.needed is not None:
        return f"{found}to show that at most {USEFUL:.0%} have, {bound.needed} would have to be sampled."
    return f"{found}with 95 % confidence at most {bound.most} have."


def verdict(each: Checked) -> str:
    """`trust` of a kind of Site that was checked."""
    return trust(each.pearson.value, each.slope, each.spearman, sizes=not each.gives_size)


def trust(pearson: float, ratio: float = math.nan, spearman: Estimate | None = None, *, sizes: bool = True) -> str:
    """A verdict on the estimates: their order, by Spearman's correlation, and their sizes, by Pearson's and the `ratio`
    of effect to estimate, which is told where it is far from 1 (`SCALE`). Without `sizes` (AtP*) their order alone.
    """
    if math.isnan(pearson):
        return "cannot be judged, since nothing varied"
    order = None
    if spearman is not None and not math.isnan(spearman.value):
        order = UNRANKED if spearman.width > UNSURE else _graded(spearman.value, _ORDERS)
    if not sizes:
        return f"{order or UNRANKED}; they are no effects, and their sizes are not judged"
    size = _size(pearson, ratio)
    if order is None:
        return size
    apart = (order == _ORDERS[-1]) != (size == _SIZES[-1]) and order != UNRANKED
    return f"{size} but {order}" if apart else f"{order}, {size}"


_ORDERS = ("rank well", "rank roughly", "do not rank")
_SIZES = ("have the right size", "have roughly the right size", "do not have the right size")
UNRANKED = "cannot be ranked by so few places"


def _size(pearson: float, ratio: float) -> str:
    if pearson < ROUGH or math.isnan(ratio) or 1 / SCALE < ratio < SCALE or ratio <= 0:
        return _graded(pearson, _SIZES)
    off = f"underestimate by {ratio:.2g}x" if ratio > 1 else f"overestimate by {1 / ratio:.2g}x"
    return off if pearson >= CLOSE else f"{off}, roughly"


def _graded(value: float, words: Sequence[str]) -> str:
    return words[0] if value >= CLOSE else words[1] if value >= ROUGH else words[2]


def samples(
    attribution: Effects,
    *,
    budget: int,
    top: int,
    generator: Generator,
    begin: int | None = None,
    whole: bool = False,
) -> list[Sample]:
    """Distribute `budget` places, `top` of them the largest, evenly over the kinds of Site; an unused part of a kind is
    dropped, or with `whole` used for others (`shared_out`). Largest means largest absolute mean over prompts (of scores
    that are sizes: the mean of their sizes).
    `begin`: where prompts first differ, in a causal model; None excludes no place. Raises BadConfig.
    """
    kinds = able_places(attribution, begin)
    if not isinstance(budget, Integral) or not 0 <= top <= budget or budget < len(kinds):
        raise BadConfig(
            f"A check of {budget} places, {top} of them the largest, was asked for over {len(kinds)} kinds of Site. "
            f"Check {len(kinds)} at least, and at most that many of the largest."
        )
    counts = [(budget // len(kinds), top // len(kinds))] * len(kinds)
    if whole:
        able = [sum(int(mask.sum()) for mask in sites.values()) for sites in kinds.values()]
        counts = [(n, n * top // max(1, budget)) for n in shared_out(budget, able)]
    return [
        _of_kind(kind, {site: attribution.scores[site] for site in sites}, attribution.gives, *count, generator, begin)
        for (kind, sites), count in zip(kinds.items(), counts)
    ]


def able_places(attribution: Effects, begin: int | None) -> dict[str, dict[Site, Bool[Tensor, "..."]]]:
    """By kind and Site, which places can have an effect."""
    found: dict[str, dict[Site, Tensor]] = {}
    for site, score in attribution.scores.items():
        found.setdefault(kind_of(site), {})[site] = can_matter(site, score, begin)
    return found


def shared_out(budget: int, able: Sequence[int]) -> list[int]:
    """Places for each kind of Site, of which `able` can have an effect: kinds of few are patched whole, the smallest
    first, as long as every other is left `LEAST` of them or its even part; the others share the rest evenly.

    >>> shared_out(256, [60, 60, 5000])
    [60, 60, 136]
    >>> shared_out(64, [150, 150, 5000, 90000])
    [16, 16, 16, 16]
    """
    found = dict.fromkeys(range(len(able)), 0)
    order = sorted(found, key=lambda kind: able[kind])
    for i, kind in enumerate(order):
        behind = len(order) - i - 1
        even = budget // (behind + 1)
        if able[kind] > budget - behind * min(even, LEAST):  # nor is any larger one patched whole
            for j, each in enumerate(order[i:]):
                found[each] = min(able[each], budget // (len(order) - i - j))
                budget -= found[each]
            break
        found[kind] = able[kind]
        budget -= able[kind]
    return list(found.values())


def _of_kind(
    kind: str, scores: dict[Site, Tensor], gives: str, budget: int, top: int, generator: Generator, begin: int | None
) -> Sample:
    ranked = [score.abs() if gives == "size" else score for score in scores.values()]
    means = torch.cat([score.mean(0).flatten() for score in ranked]).cpu()
    masks = {site: can_matter(site, score, begin).flatten() for site, score in scores.items()}
    numbers = torch.cat(list(masks.values())).nonzero()[:, 0]
    n_top = min(top, len(numbers))
    largest = means[numbers].abs().topk(n_top).indices
    left = torch.ones(len(numbers), dtype=torch.bool)
    left[largest] = False
    rest = numbers[left]
    drawn = rest[torch.randperm(len(rest), generator=generator)[: budget - n_top]]
    chosen = [*numbers[largest].tolist(), *drawn.tolist()]
    found = [locate(scores, number) for number in chosen]
    estimate = torch.stack([scores[site][(slice(None), *cell)] for site, cell in found]).cpu().double()
    patches: list[Patch] = [(place(site, scores[site], cell),) for site, cell in found]
    counts = {site: int(mask.sum()) for site, mask in masks.items()}
    return Sample(kind, patches, estimate, n_top, len(rest), counts, len(means) - len(numbers))


def can_matter(site: Site, score: Float[Tensor, "prompt ..."], begin: int | None) -> Bool[Tensor, "..."]:
    """Which cells of a score can have an effect: none before `begin`, none of a query and a later key."""
    shape = score.shape[1:]
    found = torch.ones(shape, dtype=torch.bool)
    if begin is None or not shape:
        return found
    along = dict(zip(cell_axes(site, score), torch.meshgrid(*map(torch.arange, shape), indexing="ij")))
    for axis in along.keys() & {"pos", "query"}:
        found &= along[axis] >= begin
    return found & (along["key"] <= along["query"]) if {"query", "key"} <= along.keys() else found


def locate(scores: dict[Site, Tensor], number: int) -> tuple[Site, tuple[int, ...]]:
    """The Site and the cell of its score (without the prompt) that has this number."""
    for site, score in scores.items():
        size = score[0].numel()
        if number < size:
            return site, tuple(map(int, np.unravel_index(number, score.shape[1:])))
        number -= size
    raise AssertionError("a number beyond the last place")
