"""What the lottery found, in plain words, whatever it is."""

from collections.abc import Mapping, Sequence
from typing import Any

Row = Mapping[str, Any]

SIGNIFICANT = 0.05
MARKS = (0.75, 0.95)
"""Areas whose first t0 is told."""


def sentences(found: Mapping[str, Any]) -> list[str]:
    """Who took part, what decides, what the initial weights tell, when the winners show."""
    said = [_part(found["networks"])]
    if not found["curves"]:
        return [*said, "Too few networks grokked to tell initialisations and splits apart, so nothing can be said."]
    return [*said, *_causes(found["causes"]), _at_start(found["curves"]), *_marks(found["curves"])]


def _part(rows: Sequence[Row]) -> str:
    out = [f"{row['network']} ({row['why_not']})" for row in rows if not row["takes_part"]]
    left = f" Left out: {', '.join(out)}." if out else " None was left out."
    return f"{len(rows) - len(out)} of {len(rows)} networks grokked and take part.{left}"


def _causes(causes: Row) -> list[str]:
    shared = {name: causes[name]["value"] for name in ("shared_same_init", "shared_same_split", "shared_neither")}
    return [
        f"A network has {causes['winners']['value']:.1f} key frequencies in the mean. Two networks share "
        f"{shared['shared_same_init']:.2f} of them when they began from the same weights, "
        f"{shared['shared_same_split']:.2f} when they saw the same pairs, {shared['shared_neither']:.2f} when neither; "
        f"random sets would share {causes['shared_by_chance']:.2f}.",
        f"Which frequencies win is decided to {_percent(causes['init'])} by the initial weights alone, to "
        f"{_percent(causes['split'])} by the split alone; the rest, {_number(causes['rest']['value'])}, by both "
        "together or by neither.",
    ]


def _percent(share: Row) -> str:
    ends = f"{_number(share['low'])} to {_number(share['high'])}"
    return f"{_number(share['value'])} ({ends}, p = {share['p_value']:.3g})"


def _number(share: float) -> str:
    return f"{100 * share:.0f} %"


def _at_start(curves: Sequence[Row]) -> str:
    first = min(row["t0"] for row in curves)
    best = max((row for row in curves if row["t0"] == first), key=lambda row: row["area"])
    seen = best["p_best"] < SIGNIFICANT
    told = "foretell the winners better than chance" if seen else "were not seen to foretell the winners"
    return (
        f"At t0 = {first} the weights {told}: the best score, {best['score'].replace('_', ' ')}, ranks a winner above "
        f"another frequency with probability {best['area']:.2f} ({best['low']:.2f} to {best['high']:.2f}; winners of "
        f"other networks {best['null_low']:.2f} to {best['null_high']:.2f}; p = {best['p_best']:.3g} over all scores)."
    )


def _marks(curves: Sequence[Row]) -> list[str]:
    return [_mark(curves, mark) for mark in MARKS]


def _mark(curves: Sequence[Row], mark: float) -> str:
    beyond = [row for row in curves if row["area"] >= mark]
    if not beyond:
        return f"No score reaches a probability of {mark:.2f} at any t0."
    row = min(beyond, key=lambda row: (row["t0"], -row["area"]))
    score = row["score"].replace("_", " ")
    return f"A probability of {mark:.2f} is first passed at t0 = {row['t0']}, by {score} ({row['area']:.2f})."
