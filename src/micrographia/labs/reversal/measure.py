"""The figure of each claim beside its null, in the order of `claims.toml`.

A figure over several networks is their median with its interval; the test of equality takes all facts of all networks
of its arm together. Exact matches are of all tokens that there are; chance is chance among the answers of the relation.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from micrographia.core.claims import Measured, Measures, median_interval
from micrographia.core.paired_tests import PairedTests, paired_tests
from micrographia.labs.reversal.arms import NONE_SHARED
from micrographia.labs.reversal.behaviour import MARGIN, Score
from micrographia.labs.reversal.evidence import ReversalEvidence
from micrographia.methods.asymmetry import Asymmetry, Matched

CLAIMS = Path(__file__).with_name("claims.toml")
NAMES = "two-token names"


def pooled(scores: Sequence[Score]) -> PairedTests:
    """Of all networks together: the right answer against the mean over the others."""
    values = np.concatenate([each.values for each in scores])
    return paired_tests(values[:, 0], values[:, 2], MARGIN)


def measures(found: ReversalEvidence) -> Measures:
    """Each claim's figure with its null."""
    return {**_of_the_curse(found), **_of_repairs(found), **_of_weights(found), **_of_edits(found)}


def _exact(
    found: ReversalEvidence, arm: str, kind: str, beside: str | None = None, other: str | None = None
) -> Measured:
    """Exact matches of an arm; the null is another kind of question, or another arm; else the shuffled pairs."""
    own = found.scores[arm][kind]
    if beside is None and other is None:
        return _medians(own, lambda each: each.exact.estimate, own, lambda each: each.shuffled)
    null = found.scores[other or arm][beside or kind]
    return _medians(own, lambda each: each.exact.estimate, null, lambda each: each.exact.estimate)


def _medians(
    own: Sequence[Score], read: Callable[[Score], float], null: Sequence[Score], read_null: Callable[[Score], float]
) -> Measured:
    return Measured(median_interval(map(read, own)), median_interval(map(read_null, null)))


def _of_the_curse(found: ReversalEvidence) -> Measures:
    plain = found.scores["plain"]
    back, ahead = pooled(found.scores[NONE_SHARED]["reverse"]), pooled(found.scores[NONE_SHARED]["forward"])
    linear = [pooled(found.scores["bilinear"][kind]) for kind in ("reverse", "forward")]
    curves = found.curves["plain"]
    return {
        "forward-learned": _exact(found, "plain", "forward"),
        "reverse-fails": _exact(found, "plain", "reverse", "forward"),
        "reverse-at-chance": _medians(
            plain["reverse"], lambda each: each.chosen.estimate - each.chance, plain["forward"],
            lambda each: each.chosen.estimate - each.chance,
        ),
        "no-difference-found": Measured(
            min(back.t_p, _ks(found.scores[NONE_SHARED]["reverse"])), min(ahead.t_p, ahead.ks_p)
        ),
        "shown-to-be-equal": Measured(back.equivalence_p, ahead.equivalence_p, raw=back.difference),
        "equal-where-bilinear": Measured(linear[0].equivalence_p, linear[1].equivalence_p, raw=linear[0].difference),
        "never-on-the-way": Measured(
            median_interval(max(curve["reverse"]) for curve in curves),
            median_interval(max(curve["forward"]) for curve in curves),
        ),
        "no-echo": _medians(plain["reverse"], lambda each: each.echo, plain["forward"], lambda each: each.echo),
        "more-shared-no-help": _exact(found, "90% of the entities shared", "reverse", other=NONE_SHARED),
        "tied-no-help": _exact(found, "tied", "reverse", other="plain"),
        "deeper-no-help": _exact(found, "two layers", "reverse", other="plain"),
        "both-directions": _exact(found, "both directions", "reverse", other="plain"),
        "symmetric-form": _medians(
            found.scores["bilinear, symmetric"]["reverse"], lambda each: each.chosen.estimate,
            found.scores["bilinear"]["reverse"], lambda each: each.chosen.estimate,
        ),
    }  # fmt: skip


def _ks(scores: Sequence[Score]) -> float:
    """Kolmogorov-Smirnov between right and random other answers, of all networks together."""
    values = np.concatenate([each.values for each in scores])
    return paired_tests(values[:, 0], values[:, 1], MARGIN).ks_p


def _of_repairs(found: ReversalEvidence) -> Measures:
    bridged = found.scores["identity bridge"]["reverse"]
    plain = found.scores["plain"]["reverse"]
    return {
        "copies-own-form": _exact(found, "entity-reversed copies", "own form"),
        "copies-as-asked": _exact(found, "entity-reversed copies", "reverse", other="plain"),
        "names-token-copies": _exact(found, f"{NAMES}, token-reversed copies", "own form", "forward"),
        "names-entity-copies": _exact(found, f"{NAMES}, entity-reversed copies", "own form"),
        "masked-own-form": _exact(found, "masked objective", "own form"),
        "masked-as-asked": _exact(found, "masked objective", "reverse", "own form"),
        "bridge-repairs": _exact(found, "identity bridge", "reverse", other="plain"),
        "bridge-moves": _medians(
            bridged, lambda each: each.steadier.difference, plain, lambda each: each.steadier.difference
        ),
        "tied-moves": _medians(
            found.scores["tied"]["reverse"], lambda each: each.steadier.difference, plain,
            lambda each: each.steadier.difference,
        ),
        "composed-repairs": _exact(found, "composed bridge", "reverse", other="plain"),
        "context-repairs": _exact(found, "fact in context", "own form", "reverse"),
    }  # fmt: skip


def _index(found: ReversalEvidence, arm: str, of: str, null: str, read: Callable[[Asymmetry], float]) -> Measured:
    own, beside = (median_interval(map(read, found.indices[each, of])) for each in (arm, null))
    return Measured(own, beside)


def _alike(found: ReversalEvidence, arm: str, what: str, null_arm: str, null: str) -> Measured:
    def excess(each: Matched) -> float:
        return each.excess

    own, beside = (median_interval(map(excess, found.alike[key])) for key in ((arm, what), (null_arm, null)))
    return Measured(own, beside)


def _of_weights(found: ReversalEvidence) -> Measures:
    ov, both = "attention only", "attention only, both directions"
    return {
        "weights-one-way": _index(found, ov, "W_OV", both, lambda each: each.share),
        "bridge-prediction": _index(found, ov, "W_OV", both, lambda each: each.standardised),
        "bridge-in-weights": _index(found, f"{ov}, identity bridge", "W_OV", ov, lambda each: each.standardised),
        "logits-one-way": _index(found, "plain", "logits", "both directions", lambda each: each.share),
        "gradient-one-way": _index(found, "plain", "gradient", "both directions", lambda each: each.share),
        "recogniser-is-not-writer": _alike(found, "plain", "neurons", "tied", "neurons"),
        "neurons-apart": _alike(found, "both directions", "overlap", "entity-reversed copies", "same"),
    }


def _of_edits(found: ReversalEvidence) -> Measures:
    def median(name: str) -> dict[str, float] | None:
        return median_interval(getattr(each, name) for each in found.edits)

    pairs = {
        "edit-forward": ("forward", "backward"),
        "edit-not-backward": ("backward", "untouched_backward"),
        "edit-leaves-the-old": ("old_backward", "backward"),
        "edit-moves-no-reverse": ("nats", "nats_random"),
    }
    return {name: Measured(median(own), median(beside)) for name, (own, beside) in pairs.items()}
