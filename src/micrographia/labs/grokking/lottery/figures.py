"""The figures of the lottery as data: areas over t0 with interval and null, what decides, and who won."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from micrographia.core.figures import Figure
from micrographia.labs.grokking.lottery.chance import COMBINED
from micrographia.labs.grokking.lottery.scores import SCORES

Row = Mapping[str, Any]
X_LABEL = "epoch t0 of the weights, plus 1"  # so that t0 = 0 has a place on a logarithmic axis


def of_lottery(results: Mapping[str, Any], n_frequencies: int) -> list[Figure]:
    """All figures; none without enough networks to say anything."""
    if not results["curves"]:
        return []
    said = {**SCORES, COMBINED: "all scores together, fitted on networks of other initialisations"}
    names = list(dict.fromkeys(row["score"] for row in results["curves"]))
    return [
        all_scores(results["curves"]),
        *(one_score(results["curves"], name, said[name]) for name in names),
        shared_winners(results["causes"]),
        what_decides(results["causes"]),
        winners([row for row in results["networks"] if row["takes_part"]], n_frequencies),
    ]


def all_scores(curves: Sequence[Row]) -> Figure:
    names = list(dict.fromkeys(row["score"] for row in curves))
    table = [[row["area"] for row in curves if row["score"] == name] for name in names]
    return Figure(
        name="areas",
        kind="lines",
        title="How early do the weights tell the winners?",
        caption="The chance that a score ranks a frequency that will win above one that will not, from the weights at "
        "t0 alone, in the mean over networks. A half is chance, 1 is certainty.",
        data={**_axes(curves), "y": np.array(table), "names": [_plain(name) for name in names]},
        group="Foretelling",
    )


def one_score(curves: Sequence[Row], name: str, text: str) -> Figure:
    rows = [row for row in curves if row["score"] == name]
    middle = [(row["null_low"] + row["null_high"]) / 2 for row in rows]
    return Figure(
        name=f"area_{name}",
        kind="lines",
        title=f"Foretold by {_plain(name)}",
        caption=f"{text[0].upper()}{text[1:]}. Bands: 95 % over networks, whole initialisations resampled; and 95 % of "
        "deals of the winners to other networks, those that leave some in place included.",
        data={
            **_axes(curves),
            "y": np.array([[row["area"] for row in rows], middle]),
            "low": np.array([[row["low"] for row in rows], [row["null_low"] for row in rows]]),
            "high": np.array([[row["high"] for row in rows], [row["null_high"] for row in rows]]),
            "names": ["its own winners", "winners of other networks"],
        },
        group="Foretelling",
    )


def shared_winners(causes: Row) -> Figure:
    names = {"shared_same_init": "same weights", "shared_same_split": "same split", "shared_neither": "neither"}
    return _bars(
        "shared_winners", "Winners that two networks share",
        "Mean number of key frequencies in common, by what the two networks have in common. Bars: 95 %, "
        "initialisations and splits resampled.",
        [causes[name] for name in names], list(names.values()), x_label="networks with", y_label="shared winners",
        reference=[{"name": "random sets", "y": causes["shared_by_chance"]}],
    )  # fmt: skip


def what_decides(causes: Row) -> Figure:
    names = {"init": "initial weights", "split": "split", "rest": "both together, or neither"}
    return _bars(
        "what_decides", "What decides which frequencies win",
        "Shares of the variance of winning, within frequencies. Bars: 95 %, initialisations and splits resampled. "
        "Dashed: where the share of initial weights lies in 97.5 % of deals in which they say nothing.",
        [causes[name] for name in names], list(names.values()), x_label="cause", y_label="share",
        reference=[{"name": "no effect of the initial weights", "y": causes["init"]["null_high"]}],
    )  # fmt: skip


def winners(part: Sequence[Row], n_frequencies: int) -> Figure:
    z = np.zeros((1, len(part), n_frequencies), dtype=np.float32)
    for line, row in zip(z[0], part):
        line[[k - 1 for k in row["winners"]]] = 1.0
    return Figure(
        name="winners",
        kind="heatmap",
        title="The winners of every network",
        caption="Networks of one initialisation stand together: are their rows alike?",
        data={
            "z": z,
            "panels": [""],
            "x_label": "frequency k",
            "y_label": "network",
            "x_names": [str(k) for k in range(1, n_frequencies + 1)],
            "y_names": [row["network"] for row in part],
            "colour": "sequential",
        },
        group="Winners",
    )


def _axes(curves: Sequence[Row]) -> dict[str, Any]:
    looks = sorted({row["t0"] for row in curves})
    label = "area under the ROC curve"
    return {"x": np.array(looks, dtype=np.float64) + 1, "log_x": True, "x_label": X_LABEL, "y_label": label}


def _bars(name: str, title: str, caption: str, parts: Sequence[Row], names: list[str], **more: Any) -> Figure:
    ends = {
        entry: np.array([part[key] for part in parts])
        for entry, key in (("y", "value"), ("low", "low"), ("high", "high"))
    }
    return Figure(
        name=name,
        kind="bars",
        title=title,
        caption=caption,
        data={**ends, "names": names, **more},
        group="What decides",
    )


def _plain(name: str) -> str:
    return name.replace("_x_", " × ").replace("_", " ")
