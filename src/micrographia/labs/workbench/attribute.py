"""Attribute: the effect of every place, or edge, estimated at once, from gradients, and the estimate checked exactly.

Estimates are checked by default: a share of the budget goes to the largest, a share to places drawn from the rest, so
that what was missed is bounded. See `estimates` for the ways.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Generator

from micrographia.core.events import Watch
from micrographia.core.lab import Findings
from micrographia.core.prompts import Baselines, LanguageModel, metric_of
from micrographia.core.questions import names
from micrographia.core.sites import select
from micrographia.core.spoken import place_name
from micrographia.core.titles import METHODS, MODES, Mode
from micrographia.labs.workbench import words
from micrographia.labs.workbench.config import Attribute, modes_of
from micrographia.labs.workbench.estimates import Asked, of_edges, of_places, of_strongest
from micrographia.labs.workbench.findings import MOST_PLACES, Compute, Rows, baselines_with_gap, findings
from micrographia.labs.workbench.prompts import read_prompts
from micrographia.methods.attribution.calibrate import Calibration, figures_of_checks
from micrographia.methods.explain import PairEffects, explain

MOST_EXPLAINED = 4


def prepare_attribute(question: Attribute, model: LanguageModel) -> Compute:
    """Read everything that the question names; what remains is to estimate, and to check."""
    prompts = read_prompts(question.prompts, model, [question.metric], "--metric")
    metric = metric_of(question.metric, prompts.pairs, model)
    edges, modes, title = question.method.startswith("edges"), modes_of(question), METHODS[question.method]
    sites = [] if edges else select(model.sites, names(question.sites))
    way = of_edges if edges else of_strongest if question.strongest else of_places

    def work(generator: Generator, watch: Watch) -> Findings:
        found = way(Asked(question, model, prompts, metric, sites, generator, watch))
        baseline, checks = baselines_with_gap(metric, found.first.clean, found.first.corrupt), found.checks
        sizes, gap = not edges and found.first.gives == "size", baseline.gap or 1.0
        exact = found.exact or {mode: each.shares(gap) for mode, each in checks.items() if not sizes}
        beside = {"gives": "size"} if sizes else {}
        rows, telltale = (_beside_exact(some, exact, beside) for some in (found.rows, found.telling))
        results = {
            "method": {"name": title, **found.passes, "places": found.n_places},
            "notes": list(dict.fromkeys(found.notes)),
            "explanation": [*words.explanation(modes), *([] if sizes or edges else explain_exactly(checks, baseline))],
            "top": rows[: question.top],
            "calibration": [row for each in checks.values() for row in each.table()],
            "wholes": [row for each in checks.values() for row in each.wholes()],
            "flags": [sentence for each in checks.values() for sentence in each.sentences()],
            "places": rows[:MOST_PLACES],
        }
        verified = [*found.verified, *(each.summary() for each in checks.values())] or [words.UNCHECKED]
        summary = [f"By {title}, {found.opening}", *words.strongest_estimates(telltale), *found.numberless, *verified]
        if question.strongest:
            results["strongest"] = question.strongest
            summary.append("Effects that a gradient does not see are not among the largest, and were not looked for.")
        shown = [*figures_of_checks([*checks.values()]), *found.figures]
        about: dict[str, Any] = {"prompts": prompts, "baselines": [baseline], "metrics": found.table or _table(rows)}
        return findings(question, model, results, summary=summary, figures=shown, **about)

    return work


def _beside_exact(rows: Rows, exact: Mapping[Mode, Mapping[str, float]], more: Mapping[str, str]) -> Rows:
    """The rows with the exact share of the gap beside each estimate, by place; None where it was not measured."""
    found = {f"{MODES[mode].verb}_exactly": shares for mode, shares in exact.items()}
    return [{**row, **{name: of.get(row["place"]) for name, of in found.items()}, **more} for row in rows]


def _table(rows: Rows) -> dict[str, list[Any]]:
    numbers = [name for name in rows[0] if name not in ("place", "part", "token")] if rows else []
    table: dict[str, list[Any]] = {"place": [row["place"] for row in rows]}
    return table | {name: [np.nan if row[name] is None else row[name] for row in rows] for name in numbers}


def explain_exactly(checks: Mapping[Mode, Calibration], baseline: Baselines) -> list[str]:
    """The role of the largest places that were patched exactly in both directions, and where the estimated loss is
    larger than the exact one, as where a backup takes over. Nothing where the gap is none or means little.
    """
    if len(checks) < len(MODES) or baseline.gap is None or words.doubts(baseline):
        return []
    denoise, noise = (checks[mode].shares(baseline.gap) for mode in MODES)
    sides = (denoise, noise, checks["noise"].shares(baseline.gap, "estimate"))
    both = [name for name in denoise if name in noise]
    chosen = sorted(both, key=lambda name: -max(abs(share[name]) for share in sides))[:MOST_EXPLAINED]
    columns = [torch.tensor([share[name] for name in chosen]) for share in sides]
    places = (place for each in checks["denoise"].kinds.values() for (place, *_) in each.patches)
    called = {str(place): place_name(place.site, place.where) for place in places}
    effects = PairEffects([called[name] for name in chosen], columns[0], columns[1], estimate=columns[2])
    alone = [word.sentence for word in explain(effects) if len(word.parts) == 1]  # no two were patched at once
    first = f"Of the places that were patched exactly in both directions, the {len(alone)} largest:"
    return [first, *alone] if alone else []
