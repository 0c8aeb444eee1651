"""Patch: every place by itself, exactly, in both directions, with all metrics at once."""

from collections.abc import Sequence
from itertools import combinations
from typing import Any

import torch
from torch import Generator

from micrographia.core import figures
from micrographia.core.effect_figures import figures_of_maps
from micrographia.core.effects import COORDINATES, EffectMap, Effects, columns, effect_maps, largest, record
from micrographia.core.events import Watch, silent
from micrographia.core.figures import Figure
from micrographia.core.lab import Findings
from micrographia.core.prompts import Baselines, LanguageModel, baselines, metrics_of
from micrographia.core.sweep import Patched, grids
from micrographia.core.titles import MODES
from micrographia.labs.workbench import words
from micrographia.labs.workbench.config import Patch, modes_of, names
from micrographia.labs.workbench.findings import MOST_PLACES, Compute, baselines_with_gap, findings
from micrographia.labs.workbench.prompts import read_prompts, reference_inputs
from micrographia.methods.explain import PairEffects, explain
from micrographia.methods.patching import patch, patch_sites

TOP = 15
PAIRED = 4
"""Of the strongest places, which are patched two at a time to tell AND from OR and backups."""
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
            patch_sites(model, pairs, sites, metrics, by=by, together=question.together, mode=mode, watch=watch, **how)
            for mode in modes
        ]
        by_metric = list(zip(*each_mode))
        each_baseline = [_baselines(metric, effects[0]) for metric, effects in zip(metrics, by_metric)]
        every = [effect_maps(effects) for effects in by_metric]
        maps, places = every[0], [record(*at, prompts.positions) for at in largest(every[0], MOST_PLACES)]
        shown, joint = largest(maps, PAIRED), list[Patched]()
        if question.mode == "both" and question.replace == "other" and len(shown) > 1:
            patch_at = {each.kind: grid.patches for each, grid in zip(maps, cells)}
            twos = [one + other for one, other in combinations([patch_at[each.kind][i] for each, i in shown], 2)]
            joint = [patch(model, pairs, metrics, twos, mode=mode, watch=silent, **how) for mode in modes]
        n_places, first = sum(each.size for each in maps), by_metric[0][0]
        results = {
            "explanation": [*words.explanation(modes, question.replace), *_explained(shown, joint, each_baseline[0])],
            "top": places[:TOP],
            "other_metrics": _others(each_baseline, every),
            "places": places,
        }
        summary = words.strongest_patches(places, n_places, question.replace)
        if question.replace != "other":
            summary.append(f"What was written is {first.source}, not the other run's value: that defines the question.")
        shown_as = [
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


def _explained(shown: Sequence[Found], joint: Sequence[Patched], baseline: Baselines) -> list[str]:
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
    names_of = [each.name(i) for each, i in shown]
    return [word.sentence for word in explain(PairEffects(names_of, denoise, noise, both["denoise"], both["noise"]))]


def _others(each_baseline: Sequence[Baselines], every: Sequence[Sequence[EffectMap]]) -> list[dict[str, Any]]:
    """The strongest places of the first metric, in the other metrics."""
    rows = []
    for place, flat in largest(every[0], TOP) if len(each_baseline) > 1 else []:
        row: dict[str, Any] = {"place": place.name(flat)}
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
