"""Attribute: the effect of every place estimated at once, from gradients, and the estimate checked exactly.

For edges see `edges`; for `strongest`, which holds only the largest scores, `top_k`. Estimates are checked by default:
a share of the budget goes to the largest, a share to places drawn from the rest, so that what was missed is bounded.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Generator

from micrographia.core.effect_figures import figures_of_maps
from micrographia.core.effect_stories import telling
from micrographia.core.effects import columns, effect_maps, largest, numberless, record
from micrographia.core.events import Progress, Watch, renamed
from micrographia.core.lab import Findings
from micrographia.core.prompts import Baselines, LanguageModel, metric_of
from micrographia.core.sites import select
from micrographia.core.spoken import place_name
from micrographia.core.titles import METHODS, MODES, Mode
from micrographia.labs.workbench import words
from micrographia.labs.workbench.config import Attribute, modes_of, names
from micrographia.labs.workbench.edges import prepare_edges
from micrographia.labs.workbench.findings import MOST_PLACES, Compute, baselines_with_gap, beside_exact, findings
from micrographia.labs.workbench.prompts import read_prompts
from micrographia.labs.workbench.top_k import prepare_top_k
from micrographia.methods.attribution.attribute import attribute
from micrographia.methods.attribution.calibrate import Calibration, calibrate
from micrographia.methods.attribution.check_figures import calibration_table, flag_text, points, whole_tables
from micrographia.methods.explain import PairEffects, explain

TOP_SHARE = 2
"""One in this many exact checks goes to the largest estimates."""
MOST_EXPLAINED = 4


def prepare_attribute(question: Attribute, model: LanguageModel) -> Compute:
    """Read everything that the question names; what remains is to estimate, and to check."""
    if question.method.startswith("edges"):
        return prepare_edges(question, model)
    prompts = read_prompts(question.prompts, model, [question.metric], "--metric")
    pairs, modes = prompts.pairs, modes_of(question)
    metric = metric_of(question.metric, pairs, model)
    sites = select(model.sites, names(question.sites))
    if question.strongest:
        return prepare_top_k(question, model, prompts, metric, sites)
    choices: dict[str, Any] = {"method": question.method, "positions": question.positions}
    choices |= {"steps": question.steps} if question.method.startswith("ig") else {}

    def work(generator: Generator, watch: Watch) -> Findings:
        found = []
        for i, mode in enumerate(modes):
            watch(Progress("attribution", i, len(modes), "direction"))
            found.append(attribute(model, pairs, metric, sites, mode=mode, **choices))
        watch(Progress("attribution", len(modes), len(modes), "direction"))
        first = found[0]
        baseline = baselines_with_gap(metric, first.clean, first.corrupt)
        budget = max(question.verify, len({site.kind for site in sites})) if question.verify else 0
        sample: dict[str, Any] = {"budget": budget, "top": budget // TOP_SHARE, "generator": generator, "whole": True}
        checks = {
            each.mode: calibrate(
                model, pairs, metric, each, **sample, watch=renamed(watch, f"check by patching, {each.mode}")
            )
            for each in found
            if budget
        }
        maps = effect_maps(found)
        places = [record(*at, prompts.positions) for at in largest(maps, MOST_PLACES)]
        telltale = telling(maps, prompts.positions, question.top, *prompts.ends(model))
        if first.gives == "size":
            places, telltale = ([{**row, "gives": "size"} for row in rows] for rows in (places, telltale))
        elif (gap := baseline.gap) is not None:
            exact = {mode: _shares(each, "exact", gap) for mode, each in checks.items()}
            places, telltale = (beside_exact(rows, exact) for rows in (places, telltale))
        n_places, title = sum(each.size for each in maps), METHODS[question.method]
        exactly = explain_exactly(checks, baseline) if first.gives == "effect" else []
        results = {
            "method": {"name": title, "passes": str(first.n_passes), "places": n_places},
            "notes": list(dict.fromkeys(note for each in found for note in each.notes)),
            "explanation": [*words.explanation(modes), *exactly],
            "top": places[: question.top],
            "calibration": [row for each in checks.values() for row in each.table()],
            "wholes": [row for each in checks.values() for row in each.wholes()],
            "flags": [sentence for each in checks.values() for sentence in each.sentences()],
            "places": places,
        }
        summary = [f"By {title}, the effects of {n_places:,} places are estimated at once."]
        summary += [*words.strongest_estimates(telltale), *numberless(maps)]
        summary += [each.summary() for each in checks.values()] or [words.UNCHECKED]
        figures = [
            *([calibration_table(results["calibration"])] if checks else []),
            *(points(list(each.kinds.values()), mode, metric.name) for mode, each in checks.items()),
            *whole_tables(results["wholes"], metric.unit),
            *flag_text(results["flags"]),
            *figures_of_maps(maps, prompts.positions, metric=metric.name, done="estimated"),
        ]
        about: dict[str, Any] = {"prompts": prompts, "baselines": [baseline], "metrics": columns(maps)}
        return findings(question, model, results, summary=summary, figures=figures, **about)

    return work


def explain_exactly(checks: Mapping[Mode, Calibration], baseline: Baselines) -> list[str]:
    """The role of the largest places that were patched exactly in both directions, and where the estimated loss is
    larger than the exact one, as where a backup takes over. Nothing where the gap is none or means little.
    """
    if len(checks) < len(MODES) or baseline.gap is None or words.doubts(baseline):
        return []
    denoise = _shares(checks["denoise"], "exact", baseline.gap)
    noise, estimated = (_shares(checks["noise"], side, baseline.gap) for side in ("exact", "estimate"))
    both = [name for name in denoise if name in noise]
    sides = (denoise, noise, estimated)
    chosen = sorted(both, key=lambda name: -max(abs(share[name]) for share in sides))[:MOST_EXPLAINED]
    columns = [torch.tensor([share[name] for name in chosen]) for share in sides]
    places = (place for each in checks["denoise"].kinds.values() for (place, *_) in each.patches)
    called = {str(place): place_name(place.site, place.where) for place in places}
    effects = PairEffects([called[name] for name in chosen], columns[0], columns[1], estimate=columns[2])
    alone = [word.sentence for word in explain(effects) if len(word.parts) == 1]  # no two were patched at once
    first = f"Of the places that were patched exactly in both directions, the {len(alone)} largest:"
    return [first, *alone] if alone else []


def _shares(check: Calibration, side: str, gap: float) -> dict[str, float]:
    """The places that were patched, by name, each with its share of the gap: the exact one, or the estimate."""
    found: dict[str, float] = {}
    for each in check.kinds.values():
        means: Sequence[float] = getattr(each, side).mean(1).tolist()
        found |= {str(place): MODES[check.mode].sign * x / gap for (place, *_), x in zip(each.patches, means)}
    return found
