"""Patch: every place by itself, exactly, in both directions, with all metrics at once."""

from collections.abc import Sequence
from itertools import combinations
from typing import Any

import numpy as np
import torch
from torch import Generator

from micrographia.core import figures
from micrographia.core.effect_figures import figures_of_maps
from micrographia.core.effect_stories import apart, by_position, followed, rows_by_position, telling
from micrographia.core.effects import COORDINATES, EffectMap, Effects, columns, effect_maps, largest, numberless, record
from micrographia.core.events import Watch, renamed, silent
from micrographia.core.figures import Figure
from micrographia.core.lab import Findings
from micrographia.core.prompts import Baselines, LanguageModel, baselines, metrics_of
from micrographia.core.questions import names
from micrographia.core.sweep import Patched, grids
from micrographia.core.titles import MODES, WRITTEN
from micrographia.labs.workbench import words
from micrographia.labs.workbench.config import Patch, modes_of
from micrographia.labs.workbench.findings import MOST_PLACES, Compute, baselines_with_gap, findings, position_table
from micrographia.labs.workbench.prompts import read_prompts, reference_inputs
from micrographia.methods.explain import PairEffects, explain
from micrographia.methods.patching import patch, patch_sites

TOP = 15
PAIRED = 4
"""Of the strongest places, which are patched two at a time to tell AND from OR and backups."""
SOFTMAX = ("pattern", "scores")
Found = tuple[EffectMap, int]


def prepare_patch(question: Patch, model: LanguageModel) -> Compute:
    """Read everything that the question names; what remains is to patch."""
    prompts = read_prompts(question.prompts, model, names(question.metrics), "--metrics")
    pairs, metrics = prompts.pairs, metrics_of(names(question.metrics), prompts.pairs, model)
    sites, by, modes = names(question.sites), names(question.by), modes_of(question)
    axes = [*([] if question.together else ["layer"]), *(axis for axis in by if axis != "layer")]
    cells = grids(model, sites, axes, len(prompts.positions))
    choices: dict[str, Any] = {"replace": question.replace, "plan": question.plan}
    choices["reference"] = reference_inputs(question.reference, model, question.prompts.around)
    baselines_with_gap(*baselines(model, pairs, metrics[0]))

    def work(generator: Generator, watch: Watch) -> Findings:
        how: dict[str, Any] = {**choices, "generator": generator}
        each_mode = [
            patch_sites(
                model,
                pairs,
                sites,
                metrics,
                by=by,
                together=question.together,
                mode=mode,
                **how,
                watch=renamed(watch, f"patching, {mode}"),
            )
            for mode in modes
        ]
        by_metric = list(zip(*each_mode))
        each_baseline = [_baselines(metric, effects[0]) for metric, effects in zip(metrics, by_metric)]
        every = [effect_maps(effects) for effects in by_metric]
        maps = every[0]
        shown, joint = apart(maps, PAIRED), list[Patched]()
        if question.mode == "both" and question.replace == "other" and len(shown) > 1:
            patch_at = {each.kind: grid.patches for each, grid in zip(maps, cells)}
            twos = [one + other for one, other in combinations([patch_at[each.kind][i] for each, i in shown], 2)]
            joint = [patch(model, pairs, metrics, twos, mode=mode, watch=silent, **how) for mode in modes]
        first, rows = by_metric[0][0], rows_by_position(maps, prompts.positions)
        places = [record(*at, prompts.positions) for at in largest(maps, MOST_PLACES)]
        follow, single = [each for each in maps if by_position(each)], [each for each in maps if not by_position(each)]
        results = {
            "explanation": [
                *words.explanation(modes, question.replace),
                *_explained(shown, joint, each_baseline[0], prompts.positions),
            ],
            "top": [record(*at, prompts.positions) for at in largest(single, TOP)],
            "by_position": rows,
            "other_metrics": _others(each_baseline, every, prompts.positions),
            "places": places,
        }
        moves = [sentence for each in follow for sentence in followed(each, prompts.positions)]
        best = telling(single if moves else maps, prompts.positions, TOP, *prompts.ends(model))
        summary = [*moves, *words.strongest_patches(best, words.among(maps), question.replace, first.metric)]
        if not summary:
            summary = [words.CERTAIN]
        summary += numberless(maps)
        if question.replace != "other":
            if prompts.sink is not None and question.replace in ("zero", "mean", "noise"):
                summary.append(words.SINK_REPLACED.format(written=WRITTEN[question.replace]))
            summary.append(f"What was written is {first.source}, not the other run's value: that defines the question.")
        shown_as = [
            *position_table(rows, each_baseline[0].metric.name),
            *_other_table(results["other_metrics"]),
            *figures_of_maps(maps, prompts.positions, metric=first.metric, done="patched"),
        ]
        about: dict[str, Any] = {
            "prompts": prompts,
            "baselines": each_baseline,
            "metrics": _table(each_baseline, every),
        }
        return findings(question, model, results, summary=summary, figures=shown_as, **about)

    return work


def _baselines(metric: Any, effects: Effects) -> Baselines:
    return Baselines(metric, effects.clean.cpu(), effects.corrupt.cpu())


def _explained(
    shown: Sequence[Found], joint: Sequence[Patched], baseline: Baselines, positions: Sequence[str]
) -> list[str]:
    """The role of the strongest places, alone and in twos; a reason where the gap is too small for that."""
    if not joint or baseline.gap is None:
        return []
    if words.doubts(baseline):
        return [words.NOT_EXPLAINED]
    denoise, noise = (torch.tensor([float(each.shares[mode].ravel()[i]) for each, i in shown]) for mode in MODES)
    both = {}
    for each in joint:
        effect = each.effects()[..., 0].mean(1) / baseline.gap
        table = torch.full((len(shown), len(shown)), torch.nan)
        for (i, j), value in zip(combinations(range(len(shown)), 2), effect.tolist()):
            table[i, j] = table[j, i] = value if each.mode == "denoise" else -value
        both[each.mode] = table
    called = [each.spoken(i, positions) for each, i in shown]
    effects = PairEffects(called, denoise, noise, both["denoise"], both["noise"], error=_errors(shown, baseline.gap))
    return [word.sentence for word in explain(effects, dependent=_of_one_softmax(shown))]


def _errors(shown: Sequence[Found], gap: float) -> torch.Tensor:
    """The standard error of restored less destroyed, over the prompts; NaN with one pair."""
    apart = [sum(raw.reshape(len(raw), -1)[:, i] for raw in each.raw.values()) for each, i in shown]
    return torch.tensor([float(np.std(x, ddof=1)) / len(x) ** 0.5 if len(x) > 1 else np.nan for x in apart]) / abs(gap)


def _of_one_softmax(shown: Sequence[Found]) -> list[tuple[int, int]]:
    """The twos that are entries of one row of attention: what one loses the others must gain."""
    rows = [
        tuple(each.cell(i).get(axis) for axis in ("layer", "head", "query")) if each.kind in SOFTMAX else None
        for each, i in shown
    ]
    return [(i, j) for i, j in combinations(range(len(rows)), 2) if rows[i] is not None and rows[i] == rows[j]]


def _others(
    each_baseline: Sequence[Baselines], every: Sequence[Sequence[EffectMap]], positions: Sequence[str]
) -> list[dict[str, Any]]:
    """The strongest places of the first metric, in the other metrics."""
    rows = []
    for place, flat in largest(every[0], TOP) if len(each_baseline) > 1 else []:
        row: dict[str, Any] = {"place": place.spoken(flat, positions)}
        for baseline, maps in zip(each_baseline[1:], every[1:]):
            same = next(each for each in maps if each.kind == place.kind)
            shares = {mode: float(share.ravel()[flat]) for mode, share in same.shares.items()}
            row |= {f"{baseline.metric.name}, {mode}": None if x != x else x for mode, x in shares.items()}
        rows.append(row)
    return rows


def _other_table(rows: Sequence[dict[str, Any]]) -> list[Figure]:
    title = "In other metrics"
    caption = "The same places, as shares of each metric's own gap. A dash: it has none."
    about: dict[str, Any] = {"caption": caption, "group": title, "essential": False}
    return [figures.table("other-metrics", title, rows, **about)] if rows else []


def _table(each_baseline: Sequence[Baselines], every: Sequence[Sequence[EffectMap]]) -> dict[str, Any]:
    """A row a place; with several metrics their names before the columns."""
    table: dict[str, Any] = dict(columns(every[0]))
    for baseline, maps in zip(each_baseline[1:], every[1:]):
        own = {name: column for name, column in columns(maps).items() if name not in ("kind", *COORDINATES)}
        table |= {f"{baseline.metric.name} {name}": column for name, column in own.items()}
    return table
