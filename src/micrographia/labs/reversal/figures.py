"""The lab's pictures and tables, as Figures."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from micrographia.core import figures
from micrographia.core.claims import median_interval
from micrographia.core.figures import Figure
from micrographia.core.intervals import Interval, share
from micrographia.labs.reversal.arms import NONE_SHARED
from micrographia.labs.reversal.behaviour import Score
from micrographia.labs.reversal.evidence import OV_ARMS, WHAT, ReversalEvidence
from micrographia.labs.reversal.measure import pooled
from micrographia.methods.asymmetry import Asymmetry, Matched

ANSWERS, TRAINING, WEIGHTS = "Forward and reverse", "While it learns", "In the weights"
GOLOVNEVA = "Berglund et al. 2023; Kitouni et al. 2024; Ma et al. 2026"
COLUMNS = {
    "arm": "arm", "networks": "networks", "forward": "forward", "reverse": "reverse", "own": "in the arm's own form",
    "difference": "right less others, nats", "equal": "p of equality within .1 nat", "least": "least margin, nats",
    "echo": "echo", "rows": "sequences", "flops": "GFLOP", "seconds": "seconds",
}  # fmt: skip


def of_run(found: ReversalEvidence) -> list[Figure]:
    """All figures of a Run, the table of arms first."""
    return [
        table_of_arms(found),
        both_ways(found),
        told_apart(found),
        on_the_way(found),
        maps(found),
        indices(found),
        neurons(found),
        edited(found),
    ]


def exact(scores: Sequence[Score]) -> Interval:
    """Over the questions of all networks together, with Wilson's interval."""
    return share(sum(each.right for each in scores), sum(each.asked for each in scores))


def _cell(found: Interval) -> dict[str, float]:
    return {"value": found.estimate, "low": found.low, "high": found.high}


def arm_rows(found: ReversalEvidence) -> list[dict[str, Any]]:
    """A record an arm: exact matches with Wilson intervals, the held-out answers against others, and the cost."""
    rows = []
    for arm, kinds in found.scores.items():
        back, cost = pooled(kinds["reverse"]), found.costs[arm]
        rows.append({
            "arm": arm, "networks": len(kinds["forward"]), "forward": _cell(exact(kinds["forward"])),
            "reverse": _cell(exact(kinds["reverse"])),
            "own": _cell(exact(kinds["own form"])) if "own form" in kinds else None,
            "difference": {"mean": back.difference, "low": back.low, "high": back.high},
            "equal": back.equivalence_p, "least": back.least_margin,
            "echo": float(np.mean([each.echo for each in kinds["reverse"]])),
            "rows": cost.rows, "flops": cost.flops / 1e9, "seconds": cost.seconds,
        })  # fmt: skip
    return rows


def table_of_arms(found: ReversalEvidence) -> Figure:
    return figures.table(
        "arms", "What repairs it, and at what cost", arm_rows(found), columns=COLUMNS, group=ANSWERS, headline=True,
        source=GOLOVNEVA,
        claims=("forward-learned", "reverse-fails", "both-directions", "copies-as-asked", "bridge-repairs"),
        caption="Exact matches among all tokens, with Wilson's interval over the questions of all networks. Reverse: "
        "the held-out direction, asked by the inverse relation. Own form: the same answer asked for as the arm taught "
        "it (copies: by the forward relation; masked: the blank filled in; context: behind the fact). Right less "
        "others: log-probability of the right held-out answer less that of other held-out answers of the relation; "
        "equality within .1 nat is by two one-sided tests, and the least margin is the finest that these facts could "
        "show. Cost of one network; seconds are its share of the program that it trained in.",
    )  # fmt: skip


def both_ways(found: ReversalEvidence) -> Figure:
    """Exact matches of every arm, forward and reverse."""
    arms = list(found.scores)
    each = [[exact(found.scores[arm][kind]) for arm in arms] for kind in ("forward", "reverse")]
    y, low, high = (np.array([[getattr(x, name) for x in row] for row in each]) for name in ("estimate", "low", "high"))
    return figures.bars(
        "both-ways", "Taught, and asked the other way round", y, names=arms, series=["forward", "reverse"], low=low,
        high=high, y_label="exact matches", group=ANSWERS, claims=("forward-learned", "reverse-fails"),
        caption="Forward: facts as they were taught. Reverse: the other direction, which was not.",
    )  # fmt: skip


SHOWN_ARMS = ("plain", NONE_SHARED, "tied", "identity bridge", "composed bridge", "two layers", "attention only")


def told_apart(found: ReversalEvidence) -> Figure:
    """What the right held-out answer has over the others, in nats: where exact matches show nothing."""
    arms = [arm for arm in SHOWN_ARMS if arm in found.scores]
    tests = [pooled(found.scores[arm]["reverse"]) for arm in arms]
    y, low, high = (np.array([getattr(each, name) for each in tests]) for name in ("difference", "low", "high"))
    return figures.bars(
        "told-apart", "Does the held-out answer stand out at all?", y, names=arms, low=low, high=high, group=ANSWERS,
        y_label="nats above the other held-out answers",
        claims=("no-difference-found", "shown-to-be-equal", "tied-moves"),
        caption="Mean log-probability of the right answer less that of the other held-out answers of its relation, "
        "with a 95 % interval over all facts. Zero: the network does not tell them apart.",
    )  # fmt: skip


def on_the_way(found: ReversalEvidence) -> Figure:
    """Forward and reverse along training, of three arms; means over their networks."""
    names, rows, steps = [], [], np.zeros(0)
    for arm in ("plain", "both directions", "tied"):
        for kind in ("forward", "reverse"):
            curves = np.array([curve[kind] for curve in found.curves[arm]])
            names.append(f"{arm}: {kind}")
            rows.append(curves.mean(0))
            steps = np.asarray(found.curves[arm][0]["step"])
    return figures.lines(
        "on-the-way", "When forward and reverse part", steps, np.stack(rows), names=names, x_label="step",
        highlight=[0, 1], y_label="exact matches", group=TRAINING, claims=("never-on-the-way",),
        caption=_plateau(found),
    )  # fmt: skip


def _plateau(found: ReversalEvidence) -> str:
    curve = found.curves["plain"][0]
    nats = [f"{-x:.1f}" for x in curve["forward nats"][:6]]
    return (
        "A network that knows the relation alone gives each of its answers the same probability. Nats that the first "
        f"plain network needs for a taught answer at its first measures: {', '.join(nats)}."
    )


def maps(found: ReversalEvidence) -> Figure:
    """M_AB and M_BA of the attention-only arms, pairs in one order."""
    arms = [arm for arm in OV_ARMS if arm in found.maps]
    panels = [f"{arm}: {way}" for arm in arms for way in ("A to B", "B to A")]
    z = np.stack([np.asarray(way) for arm in arms for way in found.maps[arm]])
    return figures.heatmap(
        "maps", "What W_OV says of each B after each A, and of each A after each B", z, panels=panels, diverging=True,
        x_label="output", y_label="input", value="logit", group=WEIGHTS, source="Zhu et al. 2024; Ma et al. 2026",
        claims=("weights-one-way", "bridge-prediction", "bridge-in-weights"),
        caption="Taught pairs of one relation, each column less its mean; matched pairs stand on the diagonal. A fact "
        "that is stored in one direction has its diagonal on the left alone.",
    )  # fmt: skip


def _permuted(each: Sequence[Asymmetry]) -> dict[str, float] | None:
    return {"low": min(x.low for x in each), "high": max(x.high for x in each), "value": 0.0} if each else None


def indices(found: ReversalEvidence) -> Figure:
    """The asymmetry index of every arm and map, beside permuted pairs."""

    def row(arm: str, of: str, each: Sequence[Asymmetry]) -> dict[str, Any]:
        return {
            "arm": arm, "map": of, "index": median_interval(x.share for x in each),
            "permuted": _permuted([x for x in each if not math.isnan(x.share)]),
            "standardised": median_interval(x.standardised for x in each),
        }  # fmt: skip

    rows = [row(arm, of, each) for (arm, of), each in found.indices.items()]
    columns = {
        "arm": "arm", "map": "map", "index": "asymmetry index", "permuted": "permuted pairs, 95 %",
        "standardised": "reverse diagonal, in deviations of the rest",
    }  # fmt: skip
    return figures.table(
        "indices", "Stored in one direction, or in both", rows, columns=columns, group=WEIGHTS,
        claims=("weights-one-way", "logits-one-way", "gradient-one-way", "bridge-prediction"),
        caption="What the diagonal has over the rest in the reverse map, as a share of the same in the forward map: 0 "
        "is one direction alone, 1 both alike. Medians over networks.",
    )  # fmt: skip


def neurons(found: ReversalEvidence) -> Figure:
    """Likeness of recogniser and writer, and of the neurons of both directions, beside other pairs."""

    def row(arm: str, what: str, each: Sequence[Matched]) -> dict[str, Any]:
        return {
            "arm": arm, "what": WHAT[what], "own": median_interval(x.own for x in each),
            "others": median_interval(x.others for x in each), "p": max(x.p for x in each),
        }  # fmt: skip

    rows = [row(arm, what, each) for (arm, what), each in found.alike.items()]
    columns = {"arm": "arm", "what": "cosine between", "own": "of one pair", "others": "of different pairs", "p": "p"}
    return figures.table(
        "neurons", "Do the two directions share anything?", rows, columns=columns, group=WEIGHTS,
        claims=("recogniser-is-not-writer", "neurons-apart"), source="Nanda 2023",
        caption="All cosines are centred over the pairs of a relation. p: the largest over networks, by permutation.",
    )  # fmt: skip


def edited(found: ReversalEvidence) -> Figure:
    """What a rank-one edit A -> B' does forward and backward."""
    names: Mapping[str, str] = {
        "forward": "A gives B'", "backward": "B' gives A", "untouched_backward": "B' gives A, before the edit",
        "old_backward": "B still gives A", "others": "other facts as before",
        "nats": "change of log p(A after B'), nats", "nats_random": "the same of a random entity, nats",
    }  # fmt: skip
    rows = [[text, median_interval(getattr(each, name) for each in found.edits)] for name, text in names.items()]
    return figures.table(
        "edits", "A fact rewritten by a change of rank one, read both ways", rows, columns=["", "share or nats"],
        group=WEIGHTS, claims=("edit-forward", "edit-not-backward", "edit-leaves-the-old", "edit-moves-no-reverse"),
        source="Meng et al. 2022, equation 2",
        caption="Facts that were taught in both directions, each rewritten alone in the last MLP: A gave B, and is "
        "made to give B'. Medians over networks.",
    )  # fmt: skip
