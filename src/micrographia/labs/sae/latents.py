"""Latents that a person can read: explained by tokens on half of the text, judged on the other, shown in context."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Generator

from micrographia.core import figures
from micrographia.core.dictionaries.dictionary import Dictionary
from micrographia.core.events import Watch
from micrographia.core.figures import Figure
from micrographia.core.model import Model
from micrographia.core.sites import Site
from micrographia.core.stream.rows import TokenRows
from micrographia.core.titles import shown_token
from micrographia.methods.dictionaries.evaluation.contexts import Contexts, gather_contexts
from micrographia.methods.dictionaries.evaluation.offline import (
    FEWEST,
    Explained,
    OfflineInterpretation,
    explain_offline,
)
from micrographia.methods.dictionaries.evaluation.reading import Counted

PASSAGES = 5
GROUP = "Latents"
ROW, AIR = 84, 2
"""Letters that stand in a row of a report, and the room around a token in letters."""


class Read(NamedTuple):
    """What is told of a dictionary's latents."""

    results: dict[str, Any]
    figures: list[Figure]
    sentence: str


def read_latents(
    one: Dictionary,
    model: Model,
    site: Site,
    rows: TokenRows,
    n: int,
    *,
    counted: Counted,
    generator: Generator,
    watch: Watch,
) -> Read:
    """The explanations of all latents, and the `n` best recognised with the passages at which they fire most."""
    found = explain_offline(one, model, rows, site, generator=generator, counted=counted, watch=watch)
    best = found.recognisable[:n]
    shown = list(found.figures())
    if best:
        chosen = torch.tensor([each.latent for each in best])
        contexts = gather_contexts(
            one, model, rows, site, generator=generator, latents=chosen, top=PASSAGES, sample=0, silent_ones=0,
            counted=counted, watch=watch,
        )  # fmt: skip
        shown += [_passages(each, contexts, model) for each in best]
    results = {"latents": found.rows(), "accuracy": found.mean(), "null_accuracy": found.mean(null=True)}
    return Read(results, shown, _sentence(found))


def _sentence(found: OfflineInterpretation) -> str:
    live = sum(each.n_fires >= FEWEST for each in found.explained)
    return (
        f"{len(found.recognisable):,} of the {live:,} latents that fire {FEWEST} times or more on the second half "
        "of the held-out text are told by a few tokens chosen on the first half (precision and recall of one half or "
        f"more). Detection accuracy {found.mean():.2f}; with another latent's tokens {found.mean(null=True):.2f}."
    )


def _passages(each: Explained, contexts: Contexts, model: Model) -> Figure:
    passages = contexts.passages(each.latent)
    tokenizer = model.tokenizer
    assert tokenizer is not None  # the text was read with it
    n, texts, values = contexts.before + contexts.after + 1, [], []
    for passage in passages:  # those at the ends of rows are filled up, so that all peaks stand in one column
        left = contexts.before - passage.at
        right = n - left - len(passage.tokens)
        texts.append([""] * left + [tokenizer.decode([i]) for i in passage.tokens] + [""] * right)
        values.append([math.nan] * left + [*passage.values] + [math.nan] * right)
    shown = in_a_row(texts, contexts.before)
    return figures.tokens(
        f"latent-{each.latent}",
        f"Latent {each.latent}: {each.text}",
        [row[shown] for row in texts],
        [row[shown] for row in values],
        names=[f"{each.values[each.at]:.3g}" for each in passages],
        value="activation",
        caption=f"The passages at which it is largest. Chosen by {each.kind}; on held-out text precision "
        f"{each.detected.precision:.2f}, recall {each.detected.recall:.2f}.",
        group=GROUP,
        essential=False,
    )


def in_a_row(texts: Sequence[Sequence[str]], at: int) -> slice:
    """The columns around `at` that fit into one row of a report, two before it for each one after."""
    widths = [AIR + max(len(shown_token(text)) if text else 1 for text in column) for column in zip(*texts)]
    first, stop, room = at, at + 1, ROW - widths[at]
    low, high = 0, len(widths)
    while first > low or stop < high:
        before = first > low and (at - first < 2 * (stop - at) or stop == high)
        further = first - 1 if before else stop
        if widths[further] > room:  # nothing more on this side
            low, high = (first, high) if before else (low, stop)
        else:
            room -= widths[further]
            first, stop = min(first, further), max(stop, further + 1)
    return slice(first, stop)
