"""The naive hypotheses of the studies, a row each: what it says, what follows, what was measured, and the verdict.

A row stands on one claim's figure. The hypothesis is falsified where what follows from it is not so; what the study
said of it stands beside. Bounds are ours.
"""

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

from micrographia.core.claims import Measured


class Hypothesis(NamedTuple):
    """`side` and `bound`: where the figure of `claim` lies if the hypothesis is right."""

    name: str
    statement: str
    prediction: str
    claim: str
    side: Literal["above", "below"]
    bound: float
    study: str


LEARNED = 0.95
"""Accuracy above which the facts of a network are called learned."""
UNJUDGED = {"verdict": "not judged: the facts were not learned"}
HYPOTHESES = (
    Hypothesis(
        "facts in the embeddings", "The embeddings of the names hold the facts.",
        "with embeddings that stay as they were drawn, under half of the facts are learned",
        "frozen-embeddings-suffice", "below", 0.5, "not tested; Ravfogel et al. 2026 for names of one token",
    ),
    Hypothesis(
        "single-step detokenisation", "Many neurons each join raw tokens in one step, and write all facts.",
        "single neurons make at least half of what a pair of names adds to its answer",
        "single-neurons-make-little", "above", 0.5, "against it: about a quarter",
    ),
    Hypothesis(
        "one step, no composition", "No MLP of the look-up reads another.",
        "cutting any path between two MLPs loses less than a tenth of the facts",
        "paths-between-mlps", "below", 0.1, "against it: clear drops",
    ),
    Hypothesis(
        "one detector, all facts", "The neurons that detect an entity serve all its facts.",
        "effects of neurons on two facts correlate by at least a half above those of other entities",
        "facts-share-no-neurons", "above", 0.5, "against it: about 0",
    ),
    Hypothesis(
        "hash, then look-up", "Early layers make a code that says nothing of values; later ones look it up.",
        "in the middle of the layers a probe reads less than a tenth of its final rise",
        "readable-halfway", "below", 0.1, "against it: a smooth rise",
    ),
    Hypothesis(
        "a hash knows no names", "Early layers treat known and unknown pairs of names alike.",
        "norms of the second MLP's output tell them apart by chance, an area below 0.55",
        "known-names-write-more", "below", 0.55, "against it: larger for known names",
    ),
    Hypothesis(
        "partial hash and look-up", "Early layers break up what is linear in names, more than chance weights do.",
        "more of the MLPs' variance is of pairs than under shuffled weights",
        "pairs-beyond-parts", "above", 0.0, "could not be falsified",
    ),
    Hypothesis(
        "bagging", "Neurons are many weak voters, so that half of them still know nine facts in ten.",
        "with half of the neurons at their mean, accuracy is above 0.9",
        "half-the-neurons-suffice", "above", 0.9, "left open",
    ),
    Hypothesis(
        "entity cells", "One neuron holds one entity.",
        "for half of the entities some neuron's ablation loses that entity and no other",
        "entity-cells", "above", 0.5, "Yona et al. 2026: often so",
    ),
    Hypothesis(
        "look-up before the question", "The value is at the last name before the relation is seen.",
        "after the first layer more of the answer hangs on the last name than on the relation's place",
        "name-before-relation", "above", 0.0, "so in Pythia 2.8B",
    ),
)  # fmt: skip


def hypotheses(measures: Mapping[str, Measured]) -> list[dict[str, Any]]:
    """Every row, with the median over seeds. Of networks that did not learn their facts none is judged."""
    known: Any = measures["facts-learned"].value
    learned = known["median"] > LEARNED
    return [_row(each, measures[each.claim]) | ({} if learned else UNJUDGED) for each in HYPOTHESES]


def _row(each: Hypothesis, measured: Measured) -> dict[str, Any]:
    about = {"hypothesis": each.name, "statement": each.statement, "prediction": each.prediction}
    figures = {"measured": measured.value, "null": measured.null}
    return {**about, **figures, "verdict": verdict(each, measured), "study": each.study, "claim": each.claim}


def verdict(each: Hypothesis, measured: Measured) -> str:
    """Falsified, not falsified, or between where networks lie on both sides of the bound."""
    value: Any = measured.value
    if value is None:
        return "not measured"
    low, high = (value["low"], value["high"]) if isinstance(value, Mapping) else (value, value)
    right = [x > each.bound if each.side == "above" else x < each.bound for x in (low, high)]
    return "not falsified" if all(right) else "open: networks differ" if any(right) else "falsified"
