"""Figures of many networks: bars by setting, curves along an axis of a sweep, and what each network chose.

Rows are networks; groups are settings, with an interval (`core.intervals.median_entry`, `share_entry`) under each name.
A gap is a median that lies beyond what was observed.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from micrographia.core.figures import Figure, bars, heatmap, lines
from micrographia.core.plan import Axes, varying

Row = Mapping[str, Any]
Ends = tuple[float, float, float]
UNKNOWN = (math.nan,) * 3


def group_bars(name: str, groups: Sequence[Row], *, title: str, series: Mapping[str, str], **more: Any) -> Figure:
    """Bars for each setting, with the ends of their intervals where those are known, else none."""
    found = np.array([[interval_ends(each[field]) for each in groups] for field in series])
    y, low, high = np.moveaxis(np.where(np.isnan(found), found[..., :1], found), -1, 0)
    names = [group["group"] for group in groups]
    shown = {"names": names, "series": list(series.values()), "low": low, "high": high, "x_label": "setting"}
    return bars(name, title, y, **shown, **more)


def interval_ends(entry: Row | float | None) -> Ends:
    """The figure of a group, a median or a fraction, and its ends; NaN for each that is not known."""
    if not isinstance(entry, Mapping):
        entry = {"median": entry}
    middle = entry["median"] if "median" in entry else entry["count"] / entry["of"] if entry["of"] else None
    first, low, high = (math.nan if x is None else float(x) for x in (middle, entry.get("low"), entry.get("high")))
    return first, low, high


def along_axes(
    value: str, plan: Any, axes: Axes, rows: Sequence[Row], groups: Sequence[Row], *, name: str, bound: float,
    **more: Any,
) -> list[Figure]:  # fmt: skip
    """`value` against each numeric axis that varies: each seed, and the median with its interval.

    With several axes crossed there is a median for each combination of the others, and the seeds are left out. `bound`
    is the end of an interval that is open above.
    """
    names = varying(plan, axes)
    figures = []
    for axis in (name for name in names if not isinstance(groups[0][name], str)):
        others = [other for other in names if other != axis]
        medians = _medians(value, groups, axis, others, bound)
        shown = {", ".join(f"{_plain(n)} {x}" for n, x in zip(others, key)): curve for key, curve in medians.items()}
        if len(medians) == 1:
            [(key, curve)] = medians.items()
            own = [row for row in rows if tuple(row[other] for other in others) == key]
            shown = {"median of the seeds": curve, **_by_seed(value, own, axis)}
        x = sorted({group[axis] for group in groups})
        ends = np.array([[curve.get(at, UNKNOWN) for at in x] for curve in shown.values()])
        y, low, high = ends.transpose(2, 0, 1)
        about = {"names": list(shown), "low": low, "high": high, "highlight": list(range(len(medians))), **more}
        title, label = f"{_plain(value).capitalize()} by {_plain(axis)}", {"x_label": _plain(axis)}
        x = np.array(x, dtype=np.float64)
        figures.append(lines(f"{name}_{axis}", title, x, y, y_label=_plain(value), **label, **about))
    return figures


def marked(
    name: str, title: str, sizes: Mapping[str, int], marks: Mapping[float, Sequence[Sequence[int]]], **more: Any
) -> Figure:
    """Which of its candidates 1 .. size each network has: `marks` gives by colour a list for each; later ones cover."""
    z = np.full((len(sizes), max(sizes.values())), np.nan, dtype=np.float32)
    for i, size in enumerate(sizes.values()):
        z[i, :size] = 0.0
        for colour, each in marks.items():
            z[i, [k - 1 for k in each[i]]] = colour
    return heatmap(name, title, z, x=[str(k + 1) for k in range(z.shape[1])], y=list(sizes), **more)


def _medians(
    value: str, groups: Sequence[Row], axis: str, others: Sequence[str], bound: float
) -> dict[tuple[Any, ...], dict[Any, Ends]]:
    """Along the axis, for each combination of the others that has more than one point."""
    curves: dict[tuple[Any, ...], dict[Any, Ends]] = {}
    for group in groups:
        y, low, high = interval_ends(group[value])
        high = bound if math.isnan(high) and not math.isnan(y) else high
        curves.setdefault(tuple(group[other] for other in others), {})[group[axis]] = y, low, high
    return {key: curve for key, curve in curves.items() if len(curve) > 1}


def _by_seed(value: str, rows: Sequence[Row], axis: str) -> dict[str, dict[Any, Ends]]:
    found: dict[str, dict[Any, Ends]] = {}
    for row in rows:
        first, _, _ = interval_ends(row.get(value))
        found.setdefault(f"seed {row['seed']}", {})[row[axis]] = first, math.nan, math.nan
    return found


def _plain(name: str) -> str:
    return name.replace("_", " ")
