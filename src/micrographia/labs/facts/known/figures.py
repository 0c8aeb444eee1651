"""The pictures of what a pretrained model knows, and where."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from micrographia.core import figures
from micrographia.core.figures import Figure
from micrographia.labs.facts.known.heads import Extraction
from micrographia.labs.facts.known.lookup import Ablated, ReplacedLayer
from micrographia.labs.facts.known.readable import Readable
from micrographia.methods.recall import FEWEST

GROUP = "On a real model"
COLUMNS = {
    "relation": "relation", "shots": "examples", "questions": "questions", "answers": "answers", "top1": "top-1",
    "top1_low": "from", "top1_high": "to", "among": "among the answers", "among_low": "from ", "among_high": "to ",
    "commonest": "commonest answer", "miss": "commonest miss", "miss_share": "of misses", "left_out": "left out",
}  # fmt: skip
SOURCE = "Nanda et al. 2023, Fact Finding"


def recall_table(model: str, rows: Sequence[Mapping[str, Any]]) -> Figure:
    """Every relation, forward and inverse, with examples and without."""
    return figures.table(
        "known-recall", f"What {model} recalls", list(rows), columns=COLUMNS, group=GROUP, headline=True,
        caption="Scored by an answer's first token. Top-1: over all tokens; among the answers: over the relation's. A "
        "bare prompt often fails the first by its form alone, which the commonest miss shows. Left out: answers that "
        f"share their first token with another; relations with fewer than {FEWEST} questions left are not scored.",
    )  # fmt: skip


def readable_figure(name: str, found: Readable) -> Figure:
    """Accuracy of probes by layer, with the floors as lines."""
    flat = np.ones(len(found.layers))
    lines = {
        **found.accuracy, "shuffled labels": found.shuffled, "without training": found.untrained,
        "summed embeddings": found.embeddings * flat, "same last token": found.last_token * flat,
        "same first token": found.first_token * flat, "commonest answer": found.commonest * flat,
    }  # fmt: skip
    return figures.lines(
        f"known-readable-{_slug(name)}", f"{name}: read at the subject before it is asked for",
        np.array(found.layers), np.stack(list(lines.values())), names=list(lines), x_label="after layer",
        y_label="accuracy on other subjects", group=GROUP, source=SOURCE, highlight=[0], essential=False,
        caption="Neutral: the text ends with the subject and asks for nothing. Alone: the subject begins the text. "
        f"With examples: they give the relation away. Standard error over splits up to {np.nanmax(found.scatter):.2f}.",
    )  # fmt: skip


def ablated_figure(name: str, whole: float, found: Sequence[Ablated]) -> Figure:
    """Accuracy when windows of layers write their mean."""
    kinds = {"mlp_out": "MLPs", "attn_out": "attention"}
    series = {
        f"{word}, {place}": [getattr(each, field) for each in found if each.kind == kind]
        for kind, word in kinds.items()
        for place, field in (("at the subject", "at_subject"), ("at the token after it", "after_it"))
    }
    windows = [f"{each.first} to {each.last}" for each in found if each.kind == "mlp_out"]
    return figures.bars(
        f"known-ablated-{_slug(name)}", f"{name}: without a window of layers at one token",
        np.array(list(series.values())), names=windows, series=list(series), x_label="layers", y_label="accuracy",
        group=GROUP, source=SOURCE, essential=False, reference=[{"name": "untouched", "y": whole}],
        caption="The mean over the facts is written in place of what the layers write at the last token of the "
        "subject, or, as a control, at the next token.",
    )  # fmt: skip


def replaced_figure(name: str, found: Sequence[ReplacedLayer]) -> Figure:
    """Accuracy when the stream comes from a neutral text."""
    rows = {
        "own subject": [each.own for each in found],
        "another subject": [each.swapped for each in found],
        "another subject: the answer is its": [each.donor for each in found],
    }
    return figures.lines(
        f"known-replaced-{_slug(name)}", f"{name}: the subject taken from another text",
        np.array([each.layer for each in found]), np.array(list(rows.values())), names=list(rows),
        x_label="after layer", y_label="share", group=GROUP, source=SOURCE, essential=False,
        caption="The residual stream at the last token of the subject is replaced by that of a text that asks for "
        "nothing. Where the own subject's keeps the answer and another's brings its own, the lookup is done.",
    )  # fmt: skip


def heads_table(name: str, found: Extraction) -> Figure:
    """The heads chosen on half of the facts, judged on the other."""
    others = found.all_probes.flatten()
    rows = [
        {"head": f"L{each.layer}H{each.head}", "logits": each.direct, "judged": each.direct_judged, "probe": each.probe}
        for each in found.heads
    ]
    return figures.table(
        f"known-heads-{_slug(name)}", f"{name}: heads that write the answer", rows, group=GROUP, source=SOURCE,
        columns={"head": "head", "logits": "adds (logits), choosing half", "judged": "adds, judging half",
                 "probe": "accuracy of its weights, judging half"}, essential=False,
        caption=f"Of all heads' weights the median tells {float(others.median()):.0%} of the answers and the best "
        f"{float(others.max()):.0%}; always the commonest answer: {found.chance:.0%}.",
    )  # fmt: skip


def _slug(name: str) -> str:
    return "-".join(name.split())
