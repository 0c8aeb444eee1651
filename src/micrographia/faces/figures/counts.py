"""Bars and histograms: a height for each name, or for each interval of values."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from micrographia.faces.figures.axes import Drawn, axis, escaped, frame, level_marks, switches, upright_marks
from micrographia.faces.figures.palette import LINES, MUTED, bar_styles, faint

ROOM, NARROW_ROOM = 95, 42  # characters along the axis of a picture, and on a telephone
LONG_NAME, MANY_NAMES = 14, 24  # characters of a name, and names that are no numbers: bars with more of either lie
LYING, CLOSE = (20, 9, 7), (15, 7, 4)  # pixels of a lying bar: at least, a series, and around them; of many bars


def bars(data: Mapping[str, Any]) -> Drawn:
    """One bar a name; with `series`, groups of bars. Highlighted bars are strong, the others pale."""
    y = np.atleast_2d(np.asarray(data["y"]))
    series = [escaped(name) for name in data.get("series") or ("",)]
    names = [escaped(name) for name in data["names"]]
    styles = bar_styles([str(name) for name in data.get("series") or ("",)])
    traces = [_bar(data, i, names, y[i], name=name, style=styles[i]) for i, name in enumerate(series)]
    longest = max(map(len, names), default=0)
    many = len(names) > MANY_NAMES and not all(name.isdecimal() for name in names)  # of numbers some may be left out
    if (longest > LONG_NAME or many) and not data.get("reference") and "_frame" not in data:
        return [_lying(trace) for trace in traces], _lying_layout(data, len(names), len(series), y)
    slanted = len(names) * (1 + longest) > ROOM
    layout = frame(
        xaxis=axis(data["x_label"], category=True)
        | {"tickangle": -45 if slanted else 0, "nticks": 30 if slanted else 20},
        yaxis=axis(data["y_label"], log=bool(data.get("log_y"))) | {"rangemode": "tozero"},
        shapes=level_marks(data.get("reference") or ()),
        showlegend=len(series) > 1,
        bargap=0.25 if len(names) < 30 else 0.12,
        meta={"log": switches(data, y=y)},
    )
    if not slanted and len(names) * (1 + longest) > NARROW_ROOM and not all(name.isdecimal() for name in names):
        layout["meta"]["narrow"] = {"xaxis": {**layout["xaxis"], "tickangle": -45, "nticks": len(names)}}
    return traces, layout


def _lying(trace: dict[str, Any]) -> dict[str, Any]:
    """A bar that goes to the right, with room for a long name at its left."""
    turned = {**trace, "orientation": "h", "x": trace["y"], "y": trace["x"]}
    turned["hovertemplate"] = trace["hovertemplate"].replace("%{x}", "%{label}").replace("%{y", "%{value")
    if "error_y" in turned:
        turned["error_x"] = turned.pop("error_y")
    return turned


def _lying_layout(data: Mapping[str, Any], n: int, n_series: int, y: np.ndarray) -> dict[str, Any]:
    least, each, around = CLOSE if n > MANY_NAMES else LYING
    return frame(
        height=int(90 + n * max(least, each * n_series + around)),
        xaxis=axis(data["y_label"], log=bool(data.get("log_y"))) | {"rangemode": "tozero"},
        yaxis=axis(data["x_label"], category=True)
        | {"autorange": "reversed", "tickmode": "linear", "dtick": 1, "tickfont": {"size": 11}},
        showlegend=n_series > 1,
        bargap=0.25,
        meta={"log": [{"y": "x"}[side] for side in switches(data, y=y)]},
    )


def _bar(
    data: Mapping[str, Any], i: int, names: list[str], y: Any, *, name: str, style: dict[str, Any]
) -> dict[str, Any]:
    if data.get("highlight") is not None and len(data["highlight"]):
        strong = {int(j) for j in data["highlight"]}
        style["color"] = [style["color"] if j in strong else faint(MUTED, 0.5) for j in range(len(names))]
    trace = {
        "type": "bar",
        "x": names,
        "y": y,
        "name": name,
        "marker": {**style, "line": {"width": 0}},
        "hovertemplate": f"{escaped(data['x_label'])} %{{x}}: %{{y:.4~g}}<extra>{name}</extra>",
    }
    if data.get("low") is not None and data.get("high") is not None:
        low, high = (np.atleast_2d(np.asarray(data[end]))[i] for end in ("low", "high"))
        trace["error_y"] = {
            "type": "data",
            "symmetric": False,
            "array": high - y,
            "arrayminus": y - low,
            "color": MUTED,
            "thickness": 1.4,
            "width": 3,
        }
    return trace


def histogram(data: Mapping[str, Any]) -> Drawn:
    """Counts of `values` in equal intervals, drawn as bars so that every face agrees on the intervals."""
    values = np.asarray(data["values"], dtype=np.float64).ravel()
    values = values[np.isfinite(values)]
    edges = np.asarray(data.get("_edges", np.histogram_bin_edges(values, bins=int(data.get("bins", 30)))))
    counts, edges = np.histogram(values, bins=edges)
    trace = {
        "type": "bar",
        "x": (edges[1:] + edges[:-1]) / 2,
        "y": counts,
        "width": np.diff(edges) * 0.94,
        "marker": {"color": LINES[0], "line": {"width": 0}},
        "customdata": np.stack([edges[:-1], edges[1:]], axis=1),
        "hovertemplate": "%{customdata[0]:.3~g} to %{customdata[1]:.3~g}: %{y}<extra></extra>",
    }
    return [trace], frame(
        xaxis=axis(data["x_label"]),
        yaxis=axis(data["y_label"], log=bool(data.get("log_y"))),
        shapes=upright_marks(data.get("marks") or ()),
        bargap=0.04,
        meta={"log": switches(data, y=counts)},
    )
