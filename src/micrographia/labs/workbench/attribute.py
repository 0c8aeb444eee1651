"""Attribute: the effect of every place estimated at once, from gradients, and the estimate checked exactly.

For edges see `edges`. Estimates are checked by default: a share of the budget goes to the largest, a share to places
drawn from the rest, so that what was missed can be bounded.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Generator, Tensor

from micrographia.core.edits import UNIT_AXES
from micrographia.core.effects import Effects as Attribution
from micrographia.core.events import Progress, Watch
from micrographia.core.metrics import Metric
from micrographia.core.model import Model
from micrographia.core.prompts import metric_of
from micrographia.core.sites import Site, select
from micrographia.core.titles import METHODS as METHOD_TITLES
from micrographia.labs.workbench import words
from micrographia.labs.workbench.answer import MOST_PLACES, Answer, Work, head_of
from micrographia.labs.workbench.config import MODES, Attribute, names
from micrographia.labs.workbench.edges import ask_edges
from micrographia.labs.workbench.effects import SIGNS, Grid, columns, grid, record, strongest
from micrographia.labs.workbench.figures import PANELS, of_calibration, of_grids
from micrographia.labs.workbench.largest import ask_strongest
from micrographia.labs.workbench.prompts import Asked, Ends, read_prompts, refuse_no_gap, refuse_no_wrong
from micrographia.methods.attribution.agreement import APART, Whole
from micrographia.methods.attribution.attribute import attribute
from micrographia.methods.attribution.calibrate import Calibration, calibrate, sentence
from micrographia.methods.explain import PairEffects, explain

FEATURES = ("d_model", "d_head", "one")  # a place is whole along these axes
PLACED = ("pos", "query", "key")
TOP_SHARE = 2  # one in so many exact checks goes to the largest estimates


def ask_attribute(question: Attribute, model: Model) -> Work:
    """Read everything that the question names; what remains is to estimate, and to check."""
    if question.method in ("edges", "edges-ig"):
        return ask_edges(question, model)
    if question.strongest:
        return ask_strongest(question, model)
    asked = read_prompts(question.prompts, model)
    refuse_no_wrong(question.prompts, asked.pairs, [question.metric], "--metric")
    metric = metric_of(question.metric, asked.pairs, model)
    sites = select(model.sites, names(question.sites))
    n_kinds = len({site.kind for site in sites})
    choices: dict[str, Any] = {"positions": question.positions}
    choices |= {"steps": question.steps} if question.method.startswith("ig") else {}

    def work(generator: Generator, watch: Watch) -> Answer:
        found: list[Attribution] = []
        for i, mode in enumerate(MODES[question.mode]):
            watch(Progress("attribution", i, len(MODES[question.mode]), "direction"))
            found.append(attribute(model, asked.pairs, metric, sites, mode=mode, method=question.method, **choices))
        watch(Progress("attribution", len(found), len(found), "direction"))
        ends = Ends(metric, found[0].clean.cpu(), found[0].corrupt.cpu())
        refuse_no_gap(ends)
        budget = max(question.verify, n_kinds) if question.verify else 0
        checks = {each.mode: _checked(model, asked, metric, each, budget, generator, watch) for each in found if budget}
        return _answer(question, model, asked, ends, found, checks)

    return work


def _checked(
    model: Model,
    asked: Asked,
    metric: Metric,
    found: Attribution,
    budget: int,
    generator: Generator,
    watch: Watch,
) -> Calibration:
    return calibrate(
        model, asked.pairs, metric, found, budget=budget, top=budget // TOP_SHARE, generator=generator, watch=watch
    )


def _answer(
    question: Attribute,
    model: Model,
    asked: Asked,
    ends: Ends,
    found: Sequence[Attribution],
    checks: Mapping[str, Calibration],
) -> Answer:
    grids = grids_of_scores(found, ends.gap)
    places = [record(each, flat, asked.positions) for each, flat in strongest(grids, MOST_PLACES)]
    title = METHOD_TITLES[question.method]
    n_places = sum(each.size for each in grids)
    explained = exact_words(checks, ends) if found[0].gives == "effect" else []
    results = {
        "question": "attribute",
        "summary": words.of_attribution(
            question, METHOD_TITLES[question.method], ends, places, n_places, len(asked.texts), checks
        ),
        **head_of(asked, [ends], model, question.target.model),
        "method": {"name": title, "passes": str(found[0].n_passes), "places": n_places},
        "notes": list(dict.fromkeys(note for each in found for note in each.notes)),
        "explanation": [*words.explanation(MODES[question.mode]), *explained],
        "top": places[: question.top],
        "calibration": [row for mode, each in checks.items() for row in _calibration(mode, each)],
        "wholes": [row for mode, each in checks.items() for row in _wholes(mode, each)],
        "flags": [told for mode, each in checks.items() for told in _told(mode, each)],
        "places": places,
    }
    pictures = of_grids(grids, asked.positions, metric=ends.metric.name, done="estimated")
    return Answer(results, [*of_calibration(checks, ends.metric.name), *pictures], columns(grids))


SAID = 4  # places that are put into words


def exact_words(checks: Mapping[str, Calibration], ends: Ends) -> list[str]:
    """What the largest places that were patched exactly in both modes are to the answer, and where the estimate of a
    loss says more than is lost, as where a backup takes over. Nothing where the gap is none or means little.
    """
    if len(checks) < len(SIGNS) or ends.gap is None or words.doubts(ends):
        return []
    denoise = _shares(checks["denoise"], "denoise", "exact", ends.gap)
    noise, told = (_shares(checks["noise"], "noise", which, ends.gap) for which in ("exact", "estimate"))
    both = [name for name in denoise if name in noise]
    chosen = sorted(both, key=lambda name: -max(abs(share[name]) for share in (denoise, noise, told)))[:SAID]
    columns = (torch.tensor([share[name] for name in chosen]) for share in (denoise, noise))
    estimate = torch.tensor([told[name] for name in chosen])
    effects = PairEffects(chosen, *columns, estimate=estimate)
    alone = [word.sentence for word in explain(effects) if len(word.parts) == 1]  # no two were patched at once
    first = f"Of the places that were patched exactly in both directions, the {len(alone)} largest:"
    return [first, *alone] if alone else []


def _shares(check: Calibration, mode: str, which: str, gap: float) -> dict[str, float]:
    """The places that were patched, by name, each with its share of the gap: the exact one, or the estimate."""
    found: dict[str, float] = {}
    for each in check.kinds.values():
        means = getattr(each, which).mean(1).tolist()
        found |= {str(patch[0]): SIGNS[mode] * mean / gap for patch, mean in zip(each.patches, means)}
    return found


MOST_FLAGS = 8
IDLE = (
    "{n:,} places cannot have an effect, before the prompts differ or where a query would look ahead; they were "
    "neither drawn nor counted."
)


def _told(mode: str, check: Calibration) -> list[str]:
    """How far to trust each kind of Site, and where estimate and effect part ways."""
    idle = IDLE.format(n=check.n_idle)
    kinds = [sentence(each, check.unit) for each in check.kinds.values()]
    flags = [f"{str(flag)[:1].upper()}{str(flag)[1:]}." for flag in check.flags[:MOST_FLAGS]]
    return [f"{PANELS[mode].capitalize()}.", *kinds, *([idle] if check.n_idle else []), *flags]


def grids_of_scores(found: Sequence[Attribution], gap: float | None) -> list[Grid]:
    """Scores of one kind of Site put together over layers, both modes side by side."""
    families: dict[str, list[Site]] = {}
    for site in found[0].scores:
        families.setdefault(_kind(site), []).append(site)
    return [_grid(kind, sites, found, gap) for kind, sites in families.items()]


def _kind(site: Site) -> str:
    return str(site).partition(".")[2] if site.layer is not None else str(site)


def _grid(kind: str, sites: Sequence[Site], found: Sequence[Attribution], gap: float | None) -> Grid:
    sites = sorted(sites, key=lambda site: -1 if site.layer is None else site.layer)
    raw = {each.mode: np.stack([_array(each.scores[site]) for site in sites], axis=1) for each in found}
    first = next(iter(raw.values()))
    inner = [axis for axis in sites[0].axes[1:] if axis not in FEATURES]
    if len(inner) != first.ndim - 2:  # summed over positions
        inner = [axis for axis in inner if axis not in PLACED]
    axes = ("layer", *("unit" if axis in UNIT_AXES else axis for axis in inner))
    layers = [site.layer for site in sites if site.layer is not None]
    return grid(kind, axes, first.shape[1:], layers, raw, gap)


def _array(values: Tensor) -> np.ndarray:
    return values.double().cpu().numpy()


def _calibration(mode: str, check: Calibration) -> list[dict[str, Any]]:
    """How estimate and exact effect agree, a row a kind of Site."""
    rows = []
    for each in check.kinds.values():
        row: dict[str, Any] = {"kind": each.kind, "mode": mode, "checked": len(each.patches), "n_top": each.n_top}
        for name in ("pearson", "spearman"):
            value, low, high = getattr(each, name)
            row[name] = {"value": value, "low": low, "high": high}
        row["slope"] = each.slope
        row["missed"] = {**each.missed._asdict(), "most": each.missed.most}
        row["together"] = each.together
        rows.append(row)
    return rows


def _wholes(mode: str, check: Calibration) -> list[dict[str, Any]]:
    """What all places of a Site, and of a kind, do at once, beside the sum of what they do alone.

    `so` says in words how the two stand, and `meaning` what that suggests, where it suggests anything.
    """
    rows = []
    for each in check.kinds.values():
        for whole in each.wholes:
            so = _so(whole, each.missed.threshold)
            flag = next((flag for flag in check.flags if flag.patch == whole.patch), None)
            meaning = flag.meaning if flag else IN_SERIES if so == "less together" and len(whole.patch) > 1 else None
            row: dict[str, Any] = {"what": str(whole.patch[0]) if len(whole.patch) == 1 else f"all {each.kind}"}
            row |= {"kind": each.kind, "mode": mode, "alone": whole.alone, "at_once": whole.exact}
            rows.append(row | {"all_measured": whole.all_measured, "so": so, "meaning": meaning})
    return rows


IN_SERIES = "what lies behind each other in several layers does so as a matter of course"


def _so(whole: Whole, threshold: float) -> str:
    """Whether places do more or less together; neither, where that is within what flags call close, or both small."""
    larger = max(abs(whole.alone), abs(whole.exact))
    if abs(whole.alone - whole.exact) <= APART * larger:
        return f"alike, within {APART:.0%}"
    if larger <= threshold:
        return "too small to say"
    if whole.alone * whole.exact < 0:
        return "the other way together"
    return "more together" if abs(whole.exact) > abs(whole.alone) else "less together"
