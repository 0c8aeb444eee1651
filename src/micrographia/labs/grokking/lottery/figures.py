"""The figures of the lottery: areas over t0 with interval and null, what decides, and who won."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from micrographia.core.figures import Figure, bars, lines, table
from micrographia.core.plan_figures import marked
from micrographia.methods.fourier.scores import SCORES

Row = Mapping[str, Any]
SCORE_TEXTS = {**SCORES, "combined": "all scores together, fitted on networks of other initialisations"}


def of_lottery(found: Mapping[str, Any], n_frequencies: int) -> list[Figure]:
    """All figures; without enough networks for any result the table of networks alone."""
    by_score: dict[str, list[Row]] = {}
    for row in found["curves"]:
        by_score.setdefault(row["score"], []).append(row)
    part = [row for row in found["networks"] if row["takes_part"]]
    figures = [_areas(by_score), *(_area(name, rows) for name, rows in by_score.items())] if by_score else []
    figures += [*_causes(found["causes"]), _winners(part, n_frequencies)] if by_score else []
    columns = {"network": "network", "winners": "winners", "test_accuracy": "test accuracy", "why_not": "left out"}
    about = {"group": "Networks", "caption": "The key frequencies of each network, or why it takes no part."}
    return [*figures, table("networks", "Every network", found["networks"], columns=columns, **about)]


def _areas(by_score: Mapping[str, Sequence[Row]]) -> Figure:
    caption = (
        "The probability that a score ranks a frequency that will win above one that will not, from the weights at t0 "
        "alone: the mean over networks. A half is chance, 1 is certainty."
    )
    y = {_plain(name): [row["area"] for row in rows] for name, rows in by_score.items()}
    return _over_t0("areas", "How early do the weights predict the winners?", next(iter(by_score.values())), y, caption)


def _area(name: str, rows: Sequence[Row]) -> Figure:
    """One score, beside the winners of other networks."""
    text = SCORE_TEXTS[name]
    caption = (
        f"{text[0].upper()}{text[1:]}. Bands: 95 % over networks, whole initialisations resampled; and 95 % of label "
        "permutations (winners of other networks), those that leave some in place included."
    )
    middle = [(row["null_low"] + row["null_high"]) / 2 for row in rows]
    y = {"its own winners": [row["area"] for row in rows], "winners of other networks": middle}
    limits = {limit: np.array([[row[at] for row in rows] for at in (limit, f"null_{limit}")]) for limit in LIMITS}
    return _over_t0(f"area_{name}", f"Predicted by {_plain(name)}", rows, y, caption, **limits)


LIMITS = ("low", "high")


def _over_t0(name: str, title: str, rows: Sequence[Row], y: Mapping[str, Any], caption: str, **more: Any) -> Figure:
    x = np.array([row["t0"] for row in rows], dtype=np.float64) + 1  # so that t0 = 0 has a place on a logarithmic axis
    return lines(
        name, title, x, np.array(list(y.values())), names=list(y), x_label="epoch t0 of the weights, plus 1",
        y_label="area under the ROC curve", log_x=True, caption=caption, group="Prediction", **more,
    )  # fmt: skip


def _causes(causes: Row) -> list[Figure]:
    shared = {"shared_same_init": "same weights", "shared_same_split": "same split", "shared_neither": "neither"}
    shares = {"init": "initial weights", "split": "split", "rest": "both together, or neither"}
    resampled = "Bars: 95 %, initialisations and splits resampled."
    return [
        _bars(
            "shared_winners", "Winners that two networks share", causes, shared, x_label="networks with",
            y_label="shared winners", reference=[{"name": "random sets", "y": causes["shared_by_chance"]}],
            caption=f"Mean number of key frequencies in common, by what the two networks have in common. {resampled}",
        ),
        _bars(
            "what_decides", "What decides which frequencies win", causes, shares, x_label="cause", y_label="share",
            reference=[{"name": "no effect of the initial weights", "y": causes["init"]["null_high"]}],
            caption=f"Shares of the variance of winning, within frequencies. {resampled} Dashed: 97.5 % of label "
            "permutations give the initial weights a smaller share.",
        ),
    ]  # fmt: skip


def _bars(name: str, title: str, causes: Row, names: Mapping[str, str], **more: Any) -> Figure:
    y, low, high = np.array([[causes[key][entry] for key in names] for entry in ("value", *LIMITS)])
    return bars(name, title, y, names=list(names.values()), low=low, high=high, group="What decides", **more)


def _winners(part: Sequence[Row], n_frequencies: int) -> Figure:
    return marked(
        "winners", "The winners of every network", {row["network"]: n_frequencies for row in part},
        {1.0: [row["winners"] for row in part]}, x_label="frequency k", y_label="network", group="Winners",
        caption="Networks of one initialisation stand together: are their rows alike?",
    )  # fmt: skip


def _plain(name: str) -> str:
    return name.replace("_x_", " × ").replace("_", " ")
