"""Attribute with `strongest`: the few places of largest estimate, for models with too many places for a table.

Scores are seen as the backward pass makes them, and only the largest are held. These are then patched exactly, the
largest first, as far as `verify` allows. Nothing is known of the others, nor of effects that a gradient does not see.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from torch import Generator

from micrographia.core import figures
from micrographia.core.effect_figures import MOST_BARS
from micrographia.core.events import Progress, Watch, renamed
from micrographia.core.figures import Figure
from micrographia.core.lab import Findings
from micrographia.core.metrics import Metric
from micrographia.core.model import Model
from micrographia.core.prompts import Baselines
from micrographia.core.sites import Site
from micrographia.core.spoken import component_name
from micrographia.core.sweep import Place
from micrographia.core.titles import METHODS, MODES, Mode
from micrographia.labs.workbench import words
from micrographia.labs.workbench.config import Attribute, modes_of
from micrographia.labs.workbench.findings import Compute, baselines_with_gap, findings
from micrographia.labs.workbench.prompts import PromptSet
from micrographia.methods.attribution.attribute import METHODS as ESTIMATES
from micrographia.methods.attribution.attribute import Best, attribute
from micrographia.methods.explain import percent
from micrographia.methods.patching import patch


class TopK(NamedTuple):
    """The largest scores of one direction, and the exact effects of the first of them; means over prompts."""

    mode: Mode
    places: list[Place]
    estimate: list[float]
    exact: list[float]
    n_scored: int

    def share(self, change: float, gap: float | None) -> float:
        return MODES[self.mode].sign * change / (gap or np.nan)


def prepare_top_k(
    question: Attribute, model: Model, prompts: PromptSet, metric: Metric, sites: Sequence[Site]
) -> Compute:
    """What remains is to estimate, to hold the largest, and to patch them."""
    modes, pairs = modes_of(question), prompts.pairs
    title, passes = METHODS[question.method], ESTIMATES[question.method].passes

    def work(generator: Generator, watch: Watch) -> Findings:
        held, notes, missing, baselines = list[TopK](), list[str](), list[str](), list[Baselines]()
        for i, mode in enumerate(modes):
            watch(Progress("attribution", i, len(modes), "direction"))
            best = Best(question.strongest)
            choices: dict[str, Any] = {"method": question.method, "positions": question.positions, "on_score": best}
            found = attribute(model, pairs, metric, sites, mode=mode, **choices)
            baselines.append(baselines_with_gap(metric, found.clean, found.corrupt))
            places, estimate = [place for place, _ in best.found], [score for _, score in best.found]
            exact = list[float]()
            if tried := [(place,) for place in places[: question.verify]]:
                done = patch(model, pairs, [metric], tried, mode=mode, watch=renamed(watch, f"check, {mode}"))
                exact = done.effects()[..., 0].double().mean(1).cpu().tolist()
            held.append(TopK(mode, places, estimate, exact, best.n_scored))
            notes += found.notes
            if best.n_without_number:
                missing.append(f"{best.n_without_number:,} scores ({mode}) are NaN or infinite, and not ranked.")
        watch(Progress("attribution", len(modes), len(modes), "direction"))
        group = model.shape.n_heads // (model.shape.n_kv_heads or 1)
        rows = _rows(held, baselines[0].gap, prompts.positions, group)
        results = {
            "method": {"name": title, "passes": passes, "places": held[0].n_scored},
            "strongest": question.strongest,
            "notes": list(dict.fromkeys(notes)),
            "explanation": words.explanation(modes),
            "top": rows[: question.top],
            "places": rows,
        }
        summary = [
            f"By {title}, {held[0].n_scored:,} places were scored in the backward pass, and only the "
            f"{len(held[0].places)} largest were held.",
            *words.strongest_estimates(rows),
            *(_verified(each) for each in held if each.exact),
            *([] if held[0].exact else [words.UNCHECKED]),
            *missing,
            "Effects that a gradient does not see are not among the largest, and were not looked for.",
        ]
        about: dict[str, Any] = {"prompts": prompts, "baselines": baselines[:1], "metrics": _table(rows)}
        bars = [_bars(each, baselines[0]) for each in held]
        return findings(question, model, results, summary=summary, figures=bars, **about)

    return work


def _verified(held: TopK) -> str:
    """How much of what was estimated the exact patches did."""
    tried = list(zip(held.estimate, held.exact))
    kept = sum(exact * (1 if estimate > 0 else -1) for estimate, exact in tried)
    half = sum(2 * exact * estimate >= estimate * estimate for estimate, exact in tried)
    total = sum(abs(estimate) for estimate, _ in tried) or 1.0
    return (
        f"The {len(tried)} largest were patched exactly ({held.mode}): {half} of them have at least half of the "
        f"estimated effect, and their sum is {percent(kept / total)} of it."
    )


def _rows(held: Sequence[TopK], gap: float | None, positions: Sequence[str], group: int) -> list[dict[str, Any]]:
    """A row a place among the largest of any direction, the largest first; None for a direction that lacks it."""
    modes: list[Mode] = [each.mode for each in held]
    rows = dict[str, dict[str, Any]]()
    for each in held:
        verb = MODES[each.mode].verb
        exact: list[float | None] = [*each.exact, *[None] * (len(each.places) - len(each.exact))]
        for place, estimate, measured in zip(each.places, each.estimate, exact):
            row = rows.setdefault(str(place), _empty(place, positions, modes, group))
            row[verb], row[f"{each.mode}_change"] = each.share(estimate, gap), estimate
            row[f"{each.mode}_exact"] = measured
            row[f"{verb}_exactly"] = None if measured is None else each.share(measured, gap)
    return sorted(rows.values(), key=lambda row: -max(abs(row[f"{mode}_change"] or 0.0) for mode in modes))


def _empty(place: Place, positions: Sequence[str], modes: Sequence[Mode], group: int) -> dict[str, Any]:
    where = place.where.get("pos", place.where.get("query"))
    inside = {axis: i for axis, i in place.where.items() if axis not in ("pos", "query")}
    part = component_name(place.site, inside, group)
    fields = [name for mode in modes for name in (MODES[mode].verb, f"{mode}_change", f"{mode}_exact")]
    fields += [f"{MODES[mode].verb}_exactly" for mode in modes]
    token = positions[where] if isinstance(where, int) else None
    return {"place": str(place), "part": part, "token": token, **dict.fromkeys(fields)}


def _bars(held: TopK, baseline: Baselines) -> Figure:
    """The largest estimates, each beside the exact effect where it was patched."""
    n = min(len(held.places), MOST_BARS)
    exact = [*held.exact, *[np.nan] * n][:n]
    series = [held.estimate[:n], *([exact] if held.exact else [])]
    return figures.bars(
        f"strongest-{held.mode}",
        f"The largest estimates: {MODES[held.mode].panel}",
        np.array([[held.share(x, baseline.gap) for x in row] for row in series]),
        names=[str(place) for place in held.places[:n]],
        series=["estimated", "exact"][: len(series)],
        x_label="place",
        y_label=f"share of the gap in {baseline.metric.name}",
        caption="The estimate and, where the place was patched, the exact effect. "
        f"The {n} largest of {held.n_scored:,} places.",
        group="In pictures",
    )


def _table(rows: Sequence[dict[str, Any]]) -> dict[str, list[Any]]:
    numbers = [name for name in rows[0] if name not in ("place", "part", "token")] if rows else []
    table: dict[str, list[Any]] = {"place": [row["place"] for row in rows]}
    return table | {name: [np.nan if row[name] is None else row[name] for row in rows] for name in numbers}
