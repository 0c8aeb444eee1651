"""Attribute with `strongest`: the few places of largest estimate, of a model whose scores make too large a table.

Scores go by as the backward pass makes them and only the largest are held. These are then patched exactly, the largest
first, as far as `verify` allows; of what is not among them nothing is kept, and nothing is known of what the gradient
does not see.
"""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from torch import Generator, Tensor

from micrographia.core.events import Progress, Watch
from micrographia.core.figures import Figure
from micrographia.core.model import Model
from micrographia.core.prompts import metric_of
from micrographia.core.sites import Site, select
from micrographia.core.sweep import Place
from micrographia.core.titles import METHODS as METHOD_TITLES
from micrographia.labs.workbench import words
from micrographia.labs.workbench.answer import Answer, Work, head_of
from micrographia.labs.workbench.config import MODES, Attribute, names
from micrographia.labs.workbench.effects import SIGNS, VERBS
from micrographia.labs.workbench.figures import MOST_BARS, PANELS
from micrographia.labs.workbench.prompts import Ends, read_prompts, refuse_no_gap, refuse_no_wrong
from micrographia.methods.attribution.attribute import METHODS, Best, attribute
from micrographia.methods.patching import patch

Mode = Literal["denoise", "noise"]


class Held(NamedTuple):
    """The largest scores of one mode, and what exact patches of the first of them did; changes, means over prompts."""

    mode: Mode
    places: list[Place]
    estimate: list[float]
    exact: list[float]
    n_scored: int


def ask_strongest(question: Attribute, model: Model) -> Work:
    """Read everything that the question names; what remains is to estimate, to hold the largest, and to patch them."""
    asked = read_prompts(question.prompts, model)
    refuse_no_wrong(question.prompts, asked.pairs, [question.metric], "--metric")
    metric = metric_of(question.metric, asked.pairs, model)
    sites = select(model.sites, names(question.sites))
    method = METHODS[question.method]

    def work(generator: Generator, watch: Watch) -> Answer:
        modes, held, said = MODES[question.mode], list[Held](), list[str]()
        for i, mode in enumerate(modes):
            watch(Progress("attribution", i, len(modes), "direction"))
            best, n_scored = Best(question.strongest), 0

            def take(site: Site, score: Tensor, best: Best = best) -> None:
                nonlocal n_scored
                n_scored += score[0].numel()
                best(site, score)

            choices: dict[str, Any] = {"positions": question.positions, "give": take}
            found = attribute(model, asked.pairs, metric, sites, mode=mode, method=question.method, **choices)
            ends = Ends(metric, found.clean.cpu(), found.corrupt.cpu())
            refuse_no_gap(ends)
            places, estimate = ([each[side] for each in best.found] for side in (0, 1))
            exact = list[float]()
            if tried := [(place,) for place in places[: question.verify]]:
                done = patch(model, asked.pairs, [metric], tried, mode=mode, watch=watch)
                exact = done.effects()[..., 0].double().mean(1).cpu().tolist()
            held.append(Held(mode, places, estimate, exact, n_scored))
            said += [*found.notes]
        watch(Progress("attribution", len(modes), len(modes), "direction"))
        rows = _rows(held, ends, asked.positions)
        results = {
            "question": "attribute",
            "summary": words.of_strongest(METHOD_TITLES[question.method], ends, rows, held, len(asked.texts)),
            **head_of(asked, [ends], model, question.target.model),
            "method": {"name": METHOD_TITLES[question.method], "passes": method.passes, "places": held[0].n_scored},
            "strongest": question.strongest,
            "notes": list(dict.fromkeys(said)),
            "explanation": words.explanation(modes),
            "top": rows[: question.top],
            "places": rows,
        }
        return Answer(results, _figures(held, ends), _table(rows))

    return work


def _rows(held: Sequence[Held], ends: Ends, positions: Sequence[str]) -> list[dict[str, Any]]:
    """A row a place among the largest of any mode, the largest first; None for a mode that did not hold it."""
    rows: dict[str, dict[str, Any]] = {}
    for each in held:
        exact: list[float | None] = [*each.exact, *[None] * (len(each.places) - len(each.exact))]
        for place, estimate, measured in zip(each.places, each.estimate, exact):
            row = rows.setdefault(str(place), _named(place, positions, [one.mode for one in held]))
            row[VERBS[each.mode]] = _share(each.mode, estimate, ends)
            row[f"{each.mode}_change"] = estimate
            row[f"{each.mode}_exact"] = measured
            row[f"{VERBS[each.mode]}_exactly"] = None if measured is None else _share(each.mode, measured, ends)
    return sorted(rows.values(), key=lambda row: -max(abs(row[f"{each.mode}_change"] or 0.0) for each in held))


def _named(place: Place, positions: Sequence[str], modes: Sequence[Mode]) -> dict[str, Any]:
    where = place.where.get("pos", place.where.get("query"))
    inside = {axis: i for axis, i in place.where.items() if axis not in ("pos", "query")}
    (short,) = inside.values() if len(inside) == 1 else (None,)
    part = str(place._replace(where=inside)) if short is None else f"{place.site}[{short}]"
    columns = [name for mode in modes for name in (VERBS[mode], f"{mode}_change", f"{mode}_exact")]
    columns += [f"{VERBS[mode]}_exactly" for mode in modes]
    token = positions[where] if isinstance(where, int) else None
    return {"place": str(place), "part": part, "token": token, **dict.fromkeys(columns)}


def _share(mode: Mode, change: float, ends: Ends) -> float:
    return SIGNS[mode] * change / (ends.gap or np.nan)


def _figures(held: Sequence[Held], ends: Ends) -> list[Figure]:
    """The largest estimates, each beside the exact effect where it was patched; a picture a mode."""
    figures = []
    for each in held:
        n = min(len(each.places), MOST_BARS)
        exact = [*each.exact, *[np.nan] * n][:n]
        series = [each.estimate[:n], *([exact] if each.exact else [])]
        rest = f" The {n} largest of {each.n_scored:,} places."
        figures.append(
            Figure(
                name=f"strongest-{each.mode}",
                kind="bars",
                group="In pictures",
                title=f"The largest estimates: {PANELS[each.mode]}",
                caption="The estimate and, where the place was patched, what that did exactly." + rest,
                data={
                    "y": np.array([[_share(each.mode, x, ends) for x in row] for row in series]),
                    "names": [str(place) for place in each.places[:n]],
                    "series": ["estimated", "exact"][: len(series)],
                    "x_label": "place",
                    "y_label": f"share of the gap in {ends.metric.name}",
                },
            )
        )
    return figures


def _table(rows: Sequence[dict[str, Any]]) -> dict[str, list[Any]]:
    numbers = [name for name in rows[0] if name not in ("place", "part", "token")] if rows else []
    table: dict[str, list[Any]] = {"place": [row["place"] for row in rows]}
    return table | {name: [np.nan if row[name] is None else row[name] for row in rows] for name in numbers}
