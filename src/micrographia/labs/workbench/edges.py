"""Edges: the effect of each component on each later one, estimated at once, and checked by exact path patching."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator

from micrographia.core.events import Watch, renamed
from micrographia.core.graph import Edge
from micrographia.core.lab import Findings
from micrographia.core.metrics import Metric
from micrographia.core.model import Model
from micrographia.core.prompts import LanguageModel, Pairs, metric_of
from micrographia.core.spoken import node_name
from micrographia.core.titles import METHODS, MODES, Mode
from micrographia.labs.workbench import words
from micrographia.labs.workbench.config import Attribute, modes_of
from micrographia.labs.workbench.findings import MOST_PLACES, Compute, baselines_with_gap, beside_exact, findings
from micrographia.labs.workbench.prompts import read_prompts
from micrographia.methods.attribution.agreement import Estimate, agreement, slope
from micrographia.methods.attribution.calibrate import trust
from micrographia.methods.attribution.check_figures import against_exact, calibration_table
from micrographia.methods.attribution.edges import EdgeAttribution, edge_attribution
from micrographia.methods.edge_patching import edge_patch

DRAWS = 1000
"""Of the bootstrap."""


class EdgeCheck(NamedTuple):
    """Some edges measured by path patching, in the metric's unit; the first `n_top` are the largest estimates."""

    edges: list[Edge]
    estimate: NDArray[Any]
    exact: NDArray[Any]
    n_top: int
    pearson: Estimate
    spearman: Estimate
    slope: float
    """Exact effect per estimate, by means over prompts."""
    mode: Mode

    def shares(self, gap: float | None) -> dict[str, float]:
        """The exact share of the gap of each edge, by name."""
        sign = MODES[self.mode].sign / (gap or np.nan)
        return dict(zip(map(str, self.edges), (sign * self.exact.mean(1)).tolist()))


def prepare_edges(question: Attribute, model: LanguageModel) -> Compute:
    """Read the prompts; what remains is to score every edge, and to check some."""
    prompts = read_prompts(question.prompts, model, [question.metric], "--metric")
    pairs, modes = prompts.pairs, modes_of(question)
    metric = metric_of(question.metric, pairs, model)
    how: dict[str, Any] = {"method": question.method.replace("edges", "eap"), "steps": question.steps}

    def work(generator: Generator, watch: Watch) -> Findings:
        found = [
            edge_attribution(model, pairs, metric, mode=mode, watch=renamed(watch, f"edge attribution, {mode}"), **how)
            for mode in modes
        ]
        baseline = baselines_with_gap(metric, found[0].clean, found[0].corrupt)
        checks: dict[Mode, EdgeCheck] = {
            each.mode: check(model, pairs, metric, each, question.verify, generator, watch)
            for each in found
            if question.verify
        }
        title, n_edges = METHODS[question.method], len(found[0].graph.edges)
        rows = beside_exact(_rows(found), {mode: each.shares(baseline.gap) for mode, each in checks.items()})
        results = {
            "method": {"name": title, "places": n_edges},
            "explanation": words.explanation(modes),
            "top": rows[: question.top],
            "calibration": [_check_row(mode, each) for mode, each in checks.items()],
            "places": rows[:MOST_PLACES],
        }
        summary = [f"By {title}, the effects of all {n_edges:,} edges are estimated at once."]
        summary += [*words.strongest_estimates(rows), *(_agreement(mode, each) for mode, each in checks.items())]
        figures = [figure for each in found for figure in each.figures()]
        figures += [calibration_table(results["calibration"])] if checks else []
        figures += [
            against_exact(mode, each.exact, each.estimate, list(map(str, each.edges)), metric.name)
            for mode, each in checks.items()
        ]
        return findings(
            question,
            model,
            results,
            summary=summary if checks else [*summary, words.UNCHECKED],
            figures=figures,
            prompts=prompts,
            baselines=[baseline],
            metrics={name: column for each in found for name, column in each.table().items()},
        )

    return work


def check(
    model: Model, pairs: Pairs, metric: Metric, found: EdgeAttribution, budget: int, generator: Generator, watch: Watch
) -> EdgeCheck:
    """Patch half of `budget` among the largest edges and half at random, exactly, each by itself."""
    graph, score = found.graph, found.mean().cpu()
    order = score[graph.legal].abs().argsort(descending=True)
    n_top = min(budget - budget // 2, len(order))
    drawn = torch.randperm(len(order) - n_top, generator=generator)[: budget - n_top] + n_top
    chosen = [graph.edges[int(i)] for i in order[torch.cat([torch.arange(n_top), drawn])]]
    told = renamed(watch, f"check edges, {found.mode}")
    exact = edge_patch(model, pairs, [metric], chosen, mode=found.mode, watch=told).effects()[..., 0]
    values = found.values.double().cpu().numpy()
    estimate = np.stack([values[(slice(None), *graph.place(edge))] for edge in chosen])
    measured = exact.double().cpu().numpy()
    weight = np.ones(len(chosen))
    weight[n_top:] = (len(order) - n_top) / max(len(chosen) - n_top, 1)
    pearson, spearman = agreement(estimate, measured, weight, generator=generator, draws=DRAWS)
    ratio = slope(estimate, measured, weight)
    return EdgeCheck(chosen, estimate, measured, n_top, pearson, spearman, ratio, found.mode)


def _agreement(mode: Mode, each: EdgeCheck) -> str:
    told = trust(each.pearson.value, each.slope, each.spearman)
    return (
        f"Checked ({mode}) on {len(each.edges)} edges, {each.n_top} of them the largest, by exact path patching: the "
        f"estimates {told} (Pearson {each.pearson}, Spearman {each.spearman})."
    )


def _check_row(mode: Mode, each: EdgeCheck) -> dict[str, Any]:
    about = {"kind": "edges", "mode": mode, "checked": len(each.edges), "n_top": each.n_top, "slope": each.slope}
    return {**about, "pearson": each.pearson._asdict(), "spearman": each.spearman._asdict()}


def _rows(found: Sequence[EdgeAttribution]) -> list[dict[str, Any]]:
    """The strongest edges of any direction, the largest first, with both effects: a large model has millions."""
    graph = found[0].graph
    values = {each.mode: each.values.double().cpu().numpy() for each in found}
    sizes = [each.mean()[graph.legal].abs().cpu() for each in found]
    best = torch.cat([size.argsort(descending=True, stable=True)[:MOST_PLACES] for size in sizes]).unique()
    edges, group = [graph.edges[i] for i in best.tolist()], graph.n_heads // graph.n_kv_heads
    called = [" -> ".join(node_name(node, group) for node in edge) for edge in edges]
    rows = [_row(edge, name, graph.place(edge), values, found[0].gap) for edge, name in zip(edges, called)]
    return sorted(rows, key=lambda row: -max(abs(row[f"{mode}_change"]) for mode in values))


def _row(
    edge: Edge, named: str, at: tuple[int, int], values: Mapping[Any, NDArray[Any]], gap: float | None
) -> dict[str, Any]:
    row: dict[str, Any] = {"place": str(edge), "part": named, "token": None}
    for mode, scores in values.items():
        effect = scores[(slice(None), *at)]
        row[MODES[mode].verb] = MODES[mode].sign * float(effect.mean()) / gap if gap else None
        row[f"{mode}_change"] = float(effect.mean())
        row[f"{mode}_sd"] = float(effect.std(ddof=1)) if len(effect) > 1 else None
    return row
