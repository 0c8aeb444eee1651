"""Ablate: every head and layer removed by itself, ranked by what that costs, and the worst head token by token.

The null is what a place drawn at random costs; every figure has its interval over the texts.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Generator

from micrographia.core import figures
from micrographia.core.answers import answer_tokens, stacked
from micrographia.core.effect_figures import figures_of_maps
from micrographia.core.effects import EffectMap, columns, largest, numberless
from micrographia.core.events import Watch, renamed
from micrographia.core.figures import Figure
from micrographia.core.intervals import clustered_mean
from micrographia.core.lab import Findings
from micrographia.core.metrics import Metric, logit, logit_difference
from micrographia.core.prompt_files import read_texts
from micrographia.core.prompts import LanguageModel, onto
from micrographia.core.questions import names
from micrographia.core.sites import Site
from micrographia.core.titles import kind_title
from micrographia.core.tokens import ids_of, to_str_tokens
from micrographia.labs.workbench.config import Ablate
from micrographia.labs.workbench.findings import MOST_PLACES, Compute, findings
from micrographia.labs.workbench.prompts import check_length, framing_of, reference_inputs
from micrographia.methods.ablation import ablate

MOST_TEXTS = 5
"""Coloured texts, those of the largest change."""
ENOUGH = 20
"""Places of a kind, for what one at random costs to be a sentence."""
TITLE = "What each ablation costs"


def texts_of(given: str) -> list[str]:
    """The texts of a file, or the text itself where there is no such file."""
    is_path = len(given) < 1000 and (Path(given).is_file() or Path(given).suffix in (".txt", ".json", ".jsonl", ".csv"))
    return read_texts(given) if is_path else [given]


def prepare_ablate(question: Ablate, model: LanguageModel) -> Compute:
    """Read the texts; what remains is to remove one place after the other."""
    texts, framing = texts_of(question.texts), framing_of(question.around)
    inputs = onto(model.weights.W_E.device, framing.tokens(model, texts))
    check_length(inputs, model)
    reference = reference_inputs(question.reference, model, question.around)
    metrics = _metrics(question, model, len(texts))

    def work(generator: Generator, watch: Watch) -> Findings:
        found = ablate(
            model,
            inputs,
            names(question.sites),
            by=names(question.by),
            replace=question.replace,
            reference=reference,
            metrics=metrics,
            generator=generator,
            watch=renamed(watch, "ablation"),
        )
        each_maps = [effects.maps() for effects in found.effects]
        maps, loss = each_maps[0], found.effects[0]
        rows = [_row(each_maps, i, flat, generator) for i, flat in _ranked(maps, MOST_PLACES)]
        nulls = [_null(each) for each in maps]
        results = {
            "loss": float(loss.clean.mean()),
            "replaced_by": loss.source,
            "n_texts": len(texts),
            "at_random": nulls,
            "top": rows[: question.top],
            "places": rows,
            "explanation": [*EXPLAINED],
        }
        others = [effects.metric for effects in found.effects[1:]]
        shown = [
            *figures_of_maps(maps, [], metric="the loss, in nats per token", done="ablated"),
            *_worst_texts(model, ids_of(inputs), maps, found.tokens),
            *_tables(results, others, len(texts)),
        ]
        summary = [*_summary(results, others, len(texts)), *numberless(maps)]
        return findings(question, model, results, summary=summary, figures=shown, metrics=columns(maps))

    return work


EXPLAINED = (
    "A change is the loss with one place removed less the loss of the model as it is; above 0 the place helped.",
    "A head that costs little may have a backup that takes over; one that costs much may only hold something that all "
    "texts need. With zeros later layers meet what they never saw, which costs by itself: compare with the mean.",
)


def _metrics(question: Ablate, model: LanguageModel, n: int) -> list[Metric]:
    named = [
        stacked([answer_tokens(model.tokenizer, each, first=question.first_token)] * n, model.weights.W_E.device)
        for each in (question.answer, question.wrong)
        if each is not None
    ]
    return [(logit, logit_difference)[len(named) - 1](*named)] if named else []


def _ranked(maps: Sequence[EffectMap], n: int) -> list[tuple[int, int]]:
    return [(next(i for i, one in enumerate(maps) if one is each), flat) for each, flat in largest(maps, n)]


def _row(each_maps: Sequence[Sequence[EffectMap]], i: int, flat: int, generator: Generator) -> dict[str, Any]:
    """A place: the change of its loss with its interval over the texts, its rank among its kind, and other changes."""
    loss, *others = [maps[i] for maps in each_maps]
    changes = [each.raw["noise"].reshape(len(each.raw["noise"]), -1)[:, flat] for each in (loss, *others)]
    row: dict[str, Any] = {"part": loss.component(flat), "place": loss.name(flat), "change": float(changes[0].mean())}
    if len(changes[0]) > 1:
        _, low, high = clustered_mean(changes[0], np.arange(len(changes[0])), generator=generator)
        row["interval"] = {"low": float(low), "high": float(high), "mean": row["change"]}
    return row | {f"other_{k}": float(each.mean()) for k, each in enumerate(changes[1:])}


def _null(each: EffectMap) -> dict[str, Any]:
    """What one of a kind costs that is drawn at random."""
    costs = each.raw["noise"].mean(0).ravel()
    low, median, high = np.quantile(costs, [0.05, 0.5, 0.95])
    about = {"kind": kind_title(each.kind), "n": costs.size, "median": float(median)}
    return about | {"range": {"low": float(low), "high": float(high), "median": float(median)}}


def _worst_texts(
    model: LanguageModel, ids: torch.Tensor, maps: Sequence[EffectMap], tokens: Mapping[Site, torch.Tensor]
) -> list[Figure]:
    """The texts, coloured by how the loss of each token changes without the head (or place) that costs most."""
    heads = [each for each in maps if "head" in each.axes] or list(maps)
    costs = [np.nan_to_num(each.raw["noise"].mean(0).ravel()) for each in heads]
    which = max(range(len(heads)), key=lambda i: costs[i].max())
    each, flat = heads[which], int(costs[which].argmax())
    place = each.place(flat)
    change = tokens[place.site][(slice(None), *place.where.values())]
    order = change.nansum(1).argsort(descending=True)[:MOST_TEXTS].tolist()
    rows = [change[i].isfinite().nonzero()[:, 0] for i in order]
    return [
        figures.tokens(
            "worst",
            f"The loss of each token without {each.component(flat)}",
            [to_str_tokens(model.tokenizer, ids[i][row.to(ids.device)]) for i, row in zip(order, rows)],
            [change[i][row].tolist() for i, row in zip(order, rows)],
            names=[f"text {i}" for i in order],
            value="change of the loss, in nats",
            diverging=True,
            caption="Above 0 the token is less likely without it. First tokens, which nothing predicts, are left out.",
            group="In pictures",
        )
    ]


def _tables(results: Mapping[str, Any], others: Sequence[str], n: int) -> list[Figure]:
    over = "One text: no interval." if n == 1 else f"Mean over {n} texts, with its 95 % interval (bootstrap)."
    named = {"part": "place", "change": "loss change"} | ({"interval": "over texts"} if n > 1 else {})
    named |= {f"other_{i}": f"{name} change" for i, name in enumerate(others)}
    at_random = {"kind": "one drawn from", "n": "of", "median": "median change", "range": "90 % of them"}
    return [
        figures.table(
            "top",
            TITLE,
            results["top"],
            columns=named,
            caption=f"In nats per token. {over}",
            group=TITLE,
            headline=True,
        ),
        figures.table(
            "at-random",
            "What one at random costs",
            results["at_random"],
            columns=at_random,
            group=TITLE,
            essential=False,
        ),
    ]


def _summary(results: Mapping[str, Any], others: Sequence[str], n: int) -> list[str]:
    over = "the text" if n == 1 else f"{n} texts"
    costs = ", ".join(f"{row['part']} ({row['change']:+.3g})" for row in results["top"][:3])
    sentences = [
        f"The loss on {over} is {results['loss']:.4g} nats per token. It changes most without {costs}.",
        *(
            f"One of the {null['n']} {null['kind']} drawn at random: {null['median']:+.2g} at the median, "
            f"{null['range']['low']:+.2g} to {null['range']['high']:+.2g} for nine in ten."
            for null in results["at_random"]
            if null["n"] >= ENOUGH
        ),
    ]
    if others:
        row = max(results["places"], key=lambda row: abs(row["other_0"]))
        sentences.append(f"The {others[0]} changes most without {row['part']} ({row['other_0']:+.3g}).")
    return [*sentences, f"What was written in their place: {results['replaced_by']}."]
