"""Edges: what each part of the model says to each later part, estimated at once, and checked by exact path patching."""

from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator

from micrographia.core.events import Progress, Watch, silent
from micrographia.core.figures import Figure
from micrographia.core.graph import Edge, Graph, Node
from micrographia.core.graph_figure import drawn, links_between_parts
from micrographia.core.metrics import Metric
from micrographia.core.model import Model
from micrographia.core.prompts import metric_of
from micrographia.core.sweep import Place
from micrographia.labs.workbench import words
from micrographia.labs.workbench.answer import MOST_PLACES, Answer, Work, head_of
from micrographia.labs.workbench.config import MODES, Attribute
from micrographia.labs.workbench.effects import SIGNS, VERBS
from micrographia.labs.workbench.figures import CHECKED, PANELS
from micrographia.labs.workbench.prompts import Asked, Ends, read_prompts, refuse_no_gap, refuse_no_wrong
from micrographia.methods.attribution.agreement import Estimate, agreement, slope
from micrographia.methods.attribution.edges import EdgeAttribution, edge_attribution
from micrographia.methods.paths import path_patch

METHODS = {"edges": ("eap", "edge attribution"), "edges-ig": ("eap-ig", "edge attribution with integrated gradients")}
DRAWN = 60  # edges in the picture
DRAWS = 1000  # of the bootstrap


class Check(NamedTuple):
    """Some edges measured by path patching: means over prompts are compared, in the metric's unit."""

    edges: list[Edge]
    estimate: NDArray[Any]
    exact: NDArray[Any]
    n_top: int
    pearson: Estimate
    spearman: Estimate
    slope: float
    """Effect per estimate."""


def ask_edges(question: Attribute, model: Model) -> Work:
    """Read the prompts; what remains is to score every edge, and to check some."""
    asked = read_prompts(question.prompts, model)
    refuse_no_wrong(question.prompts, asked.pairs, [question.metric], "--metric")
    metric = metric_of(question.metric, asked.pairs, model)
    method, title = METHODS[question.method]

    def work(generator: Generator, watch: Watch) -> Answer:
        found = [
            edge_attribution(model, asked.pairs, metric, mode=mode, method=method, steps=question.steps, watch=watch)  # type: ignore[arg-type]  # a name of METHODS
            for mode in MODES[question.mode]
        ]
        ends = Ends(metric, found[0].clean.cpu(), found[0].corrupt.cpu())
        refuse_no_gap(ends)
        checks = {
            each.mode: check(model, asked, metric, each, question.verify, generator, watch)
            for each in found
            if question.verify
        }
        rows = _rows(found, ends)
        results = {
            "question": "attribute",
            "summary": words.of_edges(ends, rows, title, len(found[0].graph.edges), len(asked.texts), checks),
            **head_of(asked, [ends], model, question.target.model),
            "method": {"name": title, "places": len(found[0].graph.edges)},
            "explanation": words.explanation(MODES[question.mode]),
            "top": rows[: question.top],
            "calibration": [_told(mode, each) for mode, each in checks.items()],
            "places": rows[:MOST_PLACES],
        }
        pictures = [*of_checks(checks, metric.name), *(graph_figure(each, ends.gap) for each in found)]
        return Answer(results, pictures, _table(found, ends))

    return work


def check(
    model: Model, asked: Asked, metric: Metric, found: EdgeAttribution, budget: int, generator: Generator, watch: Watch
) -> Check:
    """Patch half of `budget` among the largest edges and half by lot, exactly, each by itself."""
    graph, score = found.graph, found.mean().cpu()
    order = score[graph.legal].abs().argsort(descending=True)
    n_top = min(budget - budget // 2, len(order))
    drawn = torch.randperm(len(order) - n_top, generator=generator)[: budget - n_top] + n_top
    chosen = [graph.edges[int(i)] for i in order[torch.cat([torch.arange(n_top), drawn])]]
    exact: dict[Edge, NDArray[Any]] = {}
    readers = list(dict.fromkeys(edge.reader for edge in chosen))
    for i, reader in enumerate(readers):
        watch(Progress("check edges", i, len(readers), "reader"))
        here = [edge for edge in chosen if edge.reader == reader]
        senders = [(sender(edge.writer),) for edge in here]
        effects = path_patch(model, asked.pairs, [metric], senders, [reader], mode=found.mode, watch=silent).effects()
        exact |= dict(zip(here, effects[..., 0].double().cpu().numpy()))
    watch(Progress("check edges", len(readers), len(readers), "reader"))
    values = found.values.double().cpu().numpy()
    estimate = np.stack([values[(slice(None), *graph.place(edge))] for edge in chosen])
    measured = np.stack([exact[edge] for edge in chosen])
    weight = np.ones(len(chosen))
    weight[n_top:] = (len(order) - n_top) / max(len(chosen) - n_top, 1)
    pearson, spearman = agreement(estimate, measured, weight, generator=generator, draws=DRAWS)
    return Check(chosen, estimate, measured, n_top, pearson, spearman, slope(estimate, measured, weight))


def sender(node: Node) -> Place:
    """The place from which a writer speaks."""
    return Place(node.site, {} if node.head is None else {"head": node.head})


def _rows(found: Sequence[EdgeAttribution], ends: Ends) -> list[dict[str, Any]]:
    """The strongest edges of any mode, the strongest first, with their effects in each: a large model has millions."""
    graph = found[0].graph
    values = {each.mode: each.values.double().cpu().numpy() for each in found}
    sizes = [each.mean()[graph.legal].abs().cpu() for each in found]
    largest = torch.cat([size.argsort(descending=True, stable=True)[:MOST_PLACES] for size in sizes]).unique()
    rows = [_row(graph.edges[i], graph, values, ends) for i in largest.tolist()]
    return sorted(rows, key=lambda row: -max(abs(row[f"{mode}_change"]) for mode in values))


def _row(edge: Edge, graph: Graph, values: Mapping[str, NDArray[Any]], ends: Ends) -> dict[str, Any]:
    row: dict[str, Any] = {"place": str(edge), "part": str(edge), "token": None}
    for mode, scores in values.items():
        effect = scores[(slice(None), *graph.place(edge))]
        row[VERBS[mode]] = SIGNS[mode] * float(effect.mean()) / ends.gap if ends.gap else None
        row[f"{mode}_change"] = float(effect.mean())
        row[f"{mode}_sd"] = float(effect.std(ddof=1)) if len(effect) > 1 else None
    return row


def _table(found: Sequence[EdgeAttribution], ends: Ends) -> dict[str, Any]:
    graph = found[0].graph
    table: dict[str, Any] = {
        "writer": [str(edge.writer) for edge in graph.edges],
        "reader": [str(edge.reader) for edge in graph.edges],
    }
    for each in found:
        mean = each.mean()[graph.legal].double().cpu().numpy()
        table[f"{each.mode}_change"] = mean
        table[f"{each.mode}_share"] = SIGNS[each.mode] * mean / (ends.gap or np.nan)
    return table


def _told(mode: str, each: Check) -> dict[str, Any]:
    named = {name: getattr(each, name)._asdict() for name in ("pearson", "spearman")}
    counts = {"checked": len(each.edges), "n_top": each.n_top}
    return {"kind": "edges", "mode": mode, **counts, "slope": each.slope, **named}


def of_checks(checks: Mapping[str, Check], metric: str) -> list[Figure]:
    """The estimate beside the exact effect of every edge that was checked; a picture a mode."""
    return [
        Figure(
            name=f"calibration-{mode}",
            kind="scatter",
            group=CHECKED,
            title=f"The estimate beside the exact effect: {PANELS[mode]}",
            caption="Each point is an edge that was patched exactly. On the dashed line the estimate is the effect.",
            data={
                "x": each.exact.mean(1),
                "y": each.estimate.mean(1),
                "names": [str(edge) for edge in each.edges],
                "x_label": f"exact change of {metric}",
                "y_label": f"estimated change of {metric}",
                "diagonal": True,
            },
        )
        for mode, each in checks.items()
    ]


def graph_figure(found: EdgeAttribution, gap: float | None) -> Figure:
    """The strongest edges between parts, those into q, k and v of a head taken together."""
    links = links_between_parts(found.graph, found.mean() * SIGNS[found.mode] / (gap or 1.0))
    largest = dict(islice(links.items(), DRAWN))
    return Figure(
        name=f"edges-{found.mode}",
        kind="graph",
        group="In pictures",
        title=f"The {len(largest)} strongest edges: {PANELS[found.mode]}",
        caption=f"Orange edges would have {VERBS[found.mode]} part of the gap, blue ones work against it. Edges into a "
        "head's query, key and value are taken together; where heads share keys, each takes an equal part.",
        data=drawn(largest, "share of the gap" if gap else "change of the metric"),
    )
