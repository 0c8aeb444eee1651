"""Patch: every place by itself, exactly, in both directions, with all metrics at once."""

from collections.abc import Sequence
from itertools import combinations
from typing import Literal

import numpy as np
import torch
from torch import Generator, Tensor

from micrographia.core.events import Watch, silent
from micrographia.core.model import Model
from micrographia.core.prompts import baselines, metrics_of
from micrographia.core.sweep import Patch as Places
from micrographia.core.sweep import PatchGrid as Cells
from micrographia.core.sweep import grids
from micrographia.labs.workbench import words
from micrographia.labs.workbench.answer import MOST_PLACES, Answer, Work, head_of
from micrographia.labs.workbench.config import MODES, Patch, axes_of, names
from micrographia.labs.workbench.effects import VERBS, Grid, columns, grid, record, strongest
from micrographia.labs.workbench.figures import of_grids
from micrographia.labs.workbench.prompts import (
    Ends,
    read_prompts,
    reference_inputs,
    refuse_no_gap,
    refuse_no_wrong,
)
from micrographia.methods.explain import PairEffects, explain
from micrographia.methods.patching import Patched, patch

TOP = 15
PAIRED = 4  # of the strongest places, patched two at a time to tell AND from OR and backups


def ask_patch(question: Patch, model: Model) -> Work:
    """Read everything that the question names; what remains is to patch."""
    asked = read_prompts(question.prompts, model)
    refuse_no_wrong(question.prompts, asked.pairs, names(question.metrics), "--metrics")
    metrics = metrics_of(names(question.metrics), asked.pairs, model)
    cells = grids(model, names(question.sites), axes_of(question), asked.n_pos)
    patches = [each for cell in cells for each in cell.patches]
    reference = reference_inputs(question.reference, model)
    refuse_no_gap(Ends(metrics[0], *(end.cpu() for end in baselines(model, asked.pairs, metrics[0])[1:])))
    modes = MODES[question.mode]

    def work(generator: Generator, watch: Watch) -> Answer:
        def patched(mode: Literal["denoise", "noise"], patches: Sequence[Places], watch: Watch) -> Patched:
            return patch(
                model,
                asked.pairs,
                metrics,
                patches,
                mode=mode,
                replace=question.replace,
                reference=reference,
                generator=generator,
                plan=question.plan,
                watch=watch,
            )

        found = [patched(mode, patches, watch) for mode in modes]
        ends = [Ends(m, found[0].clean[:, i].cpu(), found[0].corrupt[:, i].cpu()) for i, m in enumerate(metrics)]
        by_metric = [_grids(cells, found, i, end) for i, end in enumerate(ends)]
        first = by_metric[0]
        shown = strongest(first, PAIRED)
        pairs = _together(first, patches, shown) if question.mode == "both" and question.replace == "other" else []
        joint = [patched(mode, pairs, silent) for mode in modes] if pairs else []
        top = [record(place, flat, asked.positions) for place, flat in strongest(first, MOST_PLACES)]
        results = {
            "question": "patch",
            "summary": words.of_patch(question, ends[0], top, found[0].source, len(patches), len(asked.texts)),
            **head_of(asked, ends, model, question.target.model),
            "explanation": [*words.explanation(modes, question.replace), *_explained(shown, joint, ends[0])],
            "top": top[:TOP],
            "other_metrics": _others(ends, by_metric),
            "places": top,
        }
        pictures = of_grids(first, asked.positions, metric=ends[0].metric.name, done="patched")
        return Answer(results, pictures, _table(ends, by_metric))

    return work


def _grids(cells: Sequence[Cells], found: Sequence[Patched], metric: int, ends: Ends) -> list[Grid]:
    """The effects in one metric, cut back into the grids that were asked for."""
    done, made = 0, []
    for cell in cells:
        rows = slice(done, done + len(cell.patches))
        raw = {each.mode: _array(each.effects()[rows, :, metric].T) for each in found}
        made.append(grid(cell.kind, cell.axes, cell.lengths, cell.layers, raw, ends.gap, found[0].replace))
        done = rows.stop
    return made


def _together(grids: Sequence[Grid], patches: Sequence[Places], shown: Sequence[tuple[Grid, int]]) -> list[Places]:
    """The patches of every two of these places at once."""
    begins = np.cumsum([0, *(each.size for each in grids)])
    chosen = [patches[int(begins[_place(grids, each)]) + flat] for each, flat in shown]
    return [(*one, *other) for one, other in combinations(chosen, 2)]


def _place(grids: Sequence[Grid], wanted: Grid) -> int:
    return next(i for i, each in enumerate(grids) if each is wanted)


def _explained(shown: Sequence[tuple[Grid, int]], joint: Sequence[Patched], ends: Ends) -> list[str]:
    """What the strongest places are to the answer and to each other, in both modes; why not, where the gap is none."""
    if not joint or ends.gap is None:
        return []
    if words.doubts(ends):
        return [words.NOT_EXPLAINED]
    alone = {mode: torch.tensor([float(each.shares[mode].ravel()[flat]) for each, flat in shown]) for mode in VERBS}
    both = {}
    for each in joint:
        effect = each.effects()[..., 0].mean(1) / ends.gap
        table = torch.full((len(shown), len(shown)), torch.nan)
        for (i, j), value in zip(combinations(range(len(shown)), 2), effect.tolist()):
            table[i, j] = table[j, i] = value if each.mode == "denoise" else -value
        both[each.mode] = table
    told = PairEffects(
        [each.name(flat) for each, flat in shown], alone["denoise"], alone["noise"], both["denoise"], both["noise"]
    )
    return [word.sentence for word in explain(told)]


def _array(values: Tensor) -> np.ndarray:
    return values.double().cpu().numpy()


def _others(ends: Sequence[Ends], by_metric: Sequence[Sequence[Grid]]) -> list[dict[str, object]]:
    """The strongest places of the first metric, told in the others."""
    rows = []
    for place, flat in strongest(by_metric[0], TOP) if len(ends) > 1 else []:
        which = _place(by_metric[0], place)
        row: dict[str, object] = {"place": place.name(flat)}
        for end, others in zip(ends[1:], by_metric[1:]):
            for mode, share in others[which].shares.items():
                value = float(share.ravel()[flat])
                row[f"{end.metric.name}, {mode}"] = None if np.isnan(value) else value
        rows.append(row)
    return rows


def _table(ends: Sequence[Ends], by_metric: Sequence[Sequence[Grid]]) -> dict[str, list[object]]:
    """A row a place; with several metrics their names before the columns."""
    table = dict(columns(by_metric[0]))
    for end, others in zip(ends[1:], by_metric[1:]):
        table |= {
            f"{end.metric.name} {name}": column
            for name, column in columns(others).items()
            if name not in ("kind", "layer", "pos", "head", "unit", "query", "key")
        }
    return table
