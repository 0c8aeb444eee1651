"""The ways to estimate effects: of every place, of the strongest places alone, of every edge; each with its check.

Of the strongest places scores are seen as the backward pass makes them, and only the largest are held; these are
patched exactly, the largest first. Nothing is known of the others, nor of effects that a gradient does not see.
"""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Generator

from micrographia.core import figures
from micrographia.core.effect_figures import GROUP, MOST_BARS, figures_of_maps
from micrographia.core.effect_stories import telling
from micrographia.core.effects import Effects, columns, effect_cells, effect_maps, largest, numberless, record
from micrographia.core.events import Progress, Watch, renamed
from micrographia.core.figures import Figure
from micrographia.core.metrics import Metric
from micrographia.core.prompts import LanguageModel
from micrographia.core.sites import Site
from micrographia.core.spoken import component_name, node_name
from micrographia.core.titles import MODES, Mode
from micrographia.labs.workbench.config import Attribute, modes_of
from micrographia.labs.workbench.findings import MOST_PLACES, Rows
from micrographia.labs.workbench.prompts import PromptSet
from micrographia.methods.attribution.attribute import METHODS as ESTIMATES
from micrographia.methods.attribution.attribute import Best, attribute
from micrographia.methods.attribution.calibrate import Calibration, calibrate, calibrate_edges
from micrographia.methods.attribution.edges import EdgeAttribution, edge_attribution
from micrographia.methods.edge_patching import edge_patch
from micrographia.methods.explain import percent
from micrographia.methods.patching import patch

BY_DEFAULT = 256
"""Edges, or strongest places, that are patched exactly where no number was asked for."""


T = TypeVar("T")


class Asked(NamedTuple):
    """The question, with all that it names read."""

    question: Attribute
    model: LanguageModel
    prompts: PromptSet
    metric: Metric
    sites: Sequence[Site]
    generator: Generator
    watch: Watch

    def each_mode(self, estimate: Callable[[Mode], T]) -> list[T]:
        """An estimate for each direction."""
        modes, found = modes_of(self.question), list[T]()
        for i, mode in enumerate(modes):
            self.watch(Progress("attribution", i, len(modes), "direction"))
            found.append(estimate(mode))
        self.watch(Progress("attribution", len(modes), len(modes), "direction"))
        return found


class Estimated(NamedTuple):
    """The estimates of one way, in one direction or both. `rows`: the largest places first."""

    first: Any
    """The estimate of the first direction, which knows the metric of both prompts."""
    opening: str
    n_places: int
    rows: Rows
    telling: Rows
    """Those that could have been otherwise."""
    figures: list[Figure]
    table: Mapping[str, Any] = MappingProxyType({})
    """Of the Run; by default of the rows."""
    checks: Mapping[Mode, Calibration] = MappingProxyType({})
    notes: Sequence[str] = ()
    numberless: Sequence[str] = ()
    passes: Mapping[str, str] = MappingProxyType({})
    exact: Mapping[Mode, Mapping[str, float]] = MappingProxyType({})
    """By place the exact share of the gap, and a sentence on it, where these are not those of the checks."""
    verified: Sequence[str] = ()


def of_places(asked: Asked) -> Estimated:
    """Every place of the Sites."""
    question, model, prompts, metric, sites, generator, watch = asked
    how: dict[str, Any] = {"method": question.method, "positions": question.positions}
    how |= {"steps": question.steps} if question.method.startswith("ig") else {}
    found = asked.each_mode(lambda mode: attribute(model, prompts.pairs, metric, sites, mode=mode, **how))
    asked_for = question.verify
    budget = max(asked_for, len({site.kind for site in sites})) if asked_for else asked_for
    sample: dict[str, Any] = {"budget": budget, "generator": generator, "whole": True}
    checks: dict[Mode, Calibration] = {
        each.mode: calibrate(
            model, prompts.pairs, metric, each, **sample, watch=renamed(watch, f"check by patching, {each.mode}")
        )
        for each in found
        if budget != 0
    }
    maps = effect_maps(found)
    n_places = sum(each.size for each in maps)
    return Estimated(
        found[0],
        f"the effects of {n_places:,} places are estimated at once.",
        n_places,
        [record(*at, prompts.positions) for at in largest(maps, MOST_PLACES)],
        telling(maps, prompts.positions, question.top, *prompts.ends(model)),
        figures_of_maps(maps, prompts.positions, metric=metric.name, done="estimated"),
        columns(maps),
        checks,
        [note for each in found for note in each.notes],
        numberless(maps),
        {"passes": str(found[0].n_passes)},
    )


def of_edges(asked: Asked) -> Estimated:
    """Every edge between components: of a large model millions, of which the strongest of any direction are rows."""
    question, model, prompts, metric, _, generator, watch = asked
    how: dict[str, Any] = {"method": question.method.replace("edges", "eap"), "steps": question.steps}
    found: list[EdgeAttribution] = asked.each_mode(
        lambda mode: edge_attribution(
            model, prompts.pairs, metric, mode=mode, watch=renamed(watch, f"edge attribution, {mode}"), **how
        )
    )

    n_checked = BY_DEFAULT if question.verify is None else question.verify

    def checked(each: EdgeAttribution) -> Calibration:
        told = renamed(watch, f"check edges, {each.mode}")
        measure = lambda edges: edge_patch(  # noqa: E731
            model, prompts.pairs, [metric], edges, mode=each.mode, watch=told
        ).effects()[..., 0]
        return calibrate_edges(each, metric, measure, budget=n_checked, generator=generator)

    rows, n_edges = _edge_rows(found), len(found[0].graph.edges)
    return Estimated(
        found[0],
        f"the effects of all {n_edges:,} edges are estimated at once.",
        n_edges,
        rows,
        rows,
        [figure for each in found for figure in each.figures()],
        {name: column for each in found for name, column in each.table().items()},
        {each.mode: checked(each) for each in found if n_checked},
    )


def _edge_rows(found: Sequence[EdgeAttribution]) -> Rows:
    graph, rows = found[0].graph, Rows()
    sizes = [each.mean()[graph.legal].abs().cpu() for each in found]
    best = torch.cat([size.argsort(descending=True, stable=True)[:MOST_PLACES] for size in sizes]).unique()
    values: dict[Mode, Any] = {each.mode: each.values.double().cpu().numpy() for each in found}
    for edge in (graph.edges[i] for i in best.tolist()):
        called = " -> ".join(node_name(node, graph.n_heads // graph.n_kv_heads) for node in edge)
        row: dict[str, Any] = {"place": str(edge), "part": called, "token": None}
        for mode, scores in values.items():
            changes = scores[(slice(None), *graph.place(edge))]
            row |= effect_cells(mode, changes, MODES[mode].sign * changes.mean() / (found[0].gap or torch.nan))
        rows.append(row)
    return sorted(rows, key=lambda row: -max(abs(row[f"{mode}_change"]) for mode in values))


def of_strongest(asked: Asked) -> Estimated:
    """The few places of largest estimate, for models with too many for a table, and their exact effects."""
    question, model, prompts, metric, sites, _, watch = asked
    how: dict[str, Any] = {"method": question.method, "positions": question.positions}
    held: list[Held] = []

    def hold(mode: Mode) -> Effects:
        best = Best(question.strongest)
        found = attribute(model, prompts.pairs, metric, sites, mode=mode, on_score=best, **how)
        tried, exact = best.found[: BY_DEFAULT if question.verify is None else question.verify], {}
        if tried:
            told, patches = renamed(watch, f"check, {mode}"), [(place,) for place, _ in tried]
            done = patch(model, prompts.pairs, [metric], patches, mode=mode, watch=told).effects()[..., 0]
            exact = dict(zip((str(place) for place, _ in tried), done.double().mean(1).cpu().tolist()))
        held.append(Held(mode, best, exact))
        return found

    found = asked.each_mode(hold)
    n_scored, gap = held[0].best.n_scored, found[0].gap or np.nan
    rows = _strongest_rows(held, gap, prompts.positions, found[0].group)
    missing = [(each.best.n_without_number, each.mode) for each in held]
    return Estimated(
        found[0],
        f"{n_scored:,} places were scored in the backward pass, and only the {len(held[0].best.found)} largest were "
        "held.",
        n_scored,
        rows,
        rows,
        [_bars(each, gap, metric.name) for each in held],
        notes=[note for each in found for note in each.notes],
        numberless=[f"{n:,} scores ({mode}) are NaN or infinite, and not ranked." for n, mode in missing if n],
        passes={"passes": ESTIMATES[question.method].passes},
        exact={each.mode: {name: MODES[each.mode].sign * x / gap for name, x in each.exact.items()} for each in held},
        verified=[_verified(each) for each in held if each.exact],
    )


class Held(NamedTuple):
    """The largest scores of one direction, and by place the exact effects of the first of them; means over prompts."""

    mode: Mode
    best: Best
    exact: Mapping[str, float]


def _verified(held: Held) -> str:
    """How much of what was estimated the exact patches did."""
    tried = [(estimate, held.exact[str(place)]) for place, estimate in held.best.found if str(place) in held.exact]
    kept = sum(exact * (1 if estimate > 0 else -1) for estimate, exact in tried)
    half = sum(2 * exact * estimate >= estimate * estimate for estimate, exact in tried)
    total = sum(abs(estimate) for estimate, _ in tried) or 1.0
    return (
        f"The {len(tried)} largest were patched exactly ({held.mode}): {half} of them have at least half of the "
        f"estimated effect, and their sum is {percent(kept / total)} of it."
    )


def _strongest_rows(held: Sequence[Held], gap: float, positions: Sequence[str], group: int) -> Rows:
    """A row a place among the largest of any direction, the largest first; None for a direction that lacks it."""
    rows = dict[str, dict[str, Any]]()
    fields = [name for each in held for name in (MODES[each.mode].verb, f"{each.mode}_change", f"{each.mode}_exact")]
    for mode, best, exact in held:
        for place, change in best.found:
            inside = {axis: i for axis, i in place.where.items() if axis not in ("pos", "query")}
            where = place.where.get("pos", place.where.get("query"))
            token = positions[where] if isinstance(where, int) else None
            about = {"place": str(place), "part": component_name(place.site, inside, group), "token": token}
            row = rows.setdefault(str(place), {**about, **dict.fromkeys(fields)})
            row[MODES[mode].verb], row[f"{mode}_change"] = MODES[mode].sign * change / gap, change
            row[f"{mode}_exact"] = exact.get(str(place))
    return sorted(rows.values(), key=lambda row: -max(abs(row[f"{each.mode}_change"] or 0.0) for each in held))


def _bars(held: Held, gap: float, metric: str) -> Figure:
    """The largest estimates, each beside the exact effect where it was patched."""
    found = held.best.found[:MOST_BARS]
    series = {"estimated": [change for _, change in found]}
    series |= {"exact": [held.exact.get(str(place), np.nan) for place, _ in found]} if held.exact else {}
    return figures.bars(
        f"strongest-{held.mode}",
        f"The largest estimates: {MODES[held.mode].panel}",
        np.array([*series.values()]) * MODES[held.mode].sign / gap,
        names=[str(place) for place, _ in found],
        series=[*series],
        x_label="place",
        y_label=f"share of the gap in {metric}",
        caption="The estimate and, where the place was patched, the exact effect. "
        f"The {len(found)} largest of {held.best.n_scored:,} places.",
        group=GROUP,
    )
