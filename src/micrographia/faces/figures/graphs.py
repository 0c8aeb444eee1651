"""Graphs: a circuit as nodes on levels, the embeddings lowest, with edges as strong as their weights.

An edge that raises the metric is orange, one that lowers it blue, as in the diverging scale; width shows strength
and by the number under the pointer, not by colour alone. In a page a node that is clicked shows its edges alone, by
`graph.js`, which reads them from `layout.meta`.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from micrographia.faces.figures.axes import Drawn, escaped, frame, points
from micrographia.faces.figures.palette import LINES, MUTED, faint

SIGNS = (("raises", LINES[1]), ("lowers", LINES[0]))
WIDTHS = ((0.15, 0.8, 0.45), (0.4, 1.8, 0.65), (0.75, 3.2, 0.8), (1.0, 5.0, 0.95))  # up to a share: width, opacity
LEVEL_HEIGHT, EDGES_TOLD = 54, 400
ALONE = (-0.09, 0.13, -0.16, 0.06, 0.19)  # where a lone node stands, level after level: no three on a line


def graph(data: Mapping[str, Any]) -> Drawn:
    """Nodes in rows by level, edges as straight lines between them."""
    levels = np.asarray(data["levels"])
    x, y = _places(levels)
    weights = np.asarray(data["weights"], dtype=np.float64)
    ends = np.stack([np.asarray(data["sources"], dtype=int), np.asarray(data["targets"], dtype=int)], axis=1)
    traces = _edges(ends, weights, x, y)
    traces += [_midpoints(data, ends, weights, x, y), _nodes(data, x, y)]
    links = {"sources": ends[:, 0], "targets": ends[:, 1], "weights": weights, "x": x, "y": y}
    meta = {"kind": "graph", "links": links | {"names": [str(name) for name in data["nodes"]]}}
    rows = np.unique(levels)
    named = {float(each["level"]): escaped(each["name"]) for each in data.get("level_names") or ()}
    ticks = {"tickmode": "array", "tickvals": rows, "ticktext": [named.get(float(row), "") for row in rows]}
    return traces, frame(
        height=int(90 + LEVEL_HEIGHT * max(len(rows), 3)),
        xaxis={"visible": False, "range": [-0.56, 0.56], "fixedrange": True},
        yaxis={"showgrid": False, "zeroline": False, "automargin": True, "type": "linear", "ticks": "", **ticks}
        | {"range": [-0.6, len(rows) - 0.4], "tickvals": np.arange(len(rows))},
        showlegend=True,
        meta=meta,
    )


def _places(levels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """x in -0.5 .. 0.5, evenly along each level; y the level's place among those that are there.

    Nodes that are alone on their levels are staggered, so that an edge past one of them does not run through it.
    """
    rows, y = np.unique(levels, return_inverse=True)
    x = np.zeros(len(levels))
    for row in range(len(rows)):
        here = np.flatnonzero(y == row)
        x[here] = (np.arange(len(here)) + 0.5) / len(here) - 0.5
        if len(here) == 1 and 0 < row < len(rows) - 1:
            x[here] = ALONE[row % len(ALONE)]
    return x, y.astype(np.float64)


def _edges(ends: np.ndarray, weights: np.ndarray, x: np.ndarray, y: np.ndarray) -> list[dict[str, Any]]:
    """A trace for each sign and strength, and one a sign for the legend."""
    share = np.abs(weights) / (np.abs(weights).max(initial=0.0) or 1.0)
    traces = []
    for (name, colour), sign in zip(SIGNS, (weights >= 0, weights < 0)):
        below = 0.0
        for limit, width, opacity in WIDTHS:
            chosen = ends[sign & (share <= limit) & ((share > below) | (limit == WIDTHS[0][0]))]
            below = limit
            if len(chosen):
                traces.append(_lines(chosen, x, y, {"color": faint(colour, opacity), "width": width}))
        if sign.any():
            traces.append(_lines(ends[:0], x, y, {"color": colour, "width": 3}) | {"name": name, "showlegend": True})
    return traces


def _lines(ends: np.ndarray, x: np.ndarray, y: np.ndarray, line: Mapping[str, Any]) -> dict[str, Any]:
    gap = np.full(len(ends), np.nan)
    path = [np.stack([side[ends[:, 0]], side[ends[:, 1]], gap], axis=1).ravel() for side in (x, y)]
    along, up = path if len(ends) else ([None], [None])
    return points(along, up, "lines", line=dict(line), hoverinfo="skip")


def _midpoints(data: Mapping[str, Any], ends: np.ndarray, weights: np.ndarray, x: np.ndarray, y: np.ndarray) -> Any:
    """Where the pointer finds an edge: the strongest, at two fifths of their way, where fewer cross."""
    strongest = np.argsort(-np.abs(weights), kind="stable")[:EDGES_TOLD]
    source, target = ends[strongest].T
    names = [escaped(name) for name in data["nodes"]]
    label = escaped(data.get("weight_label") or "weight")
    return points(
        *(0.6 * side[source] + 0.4 * side[target] for side in (x, y)),
        marker={"size": 12, "opacity": 0},
        text=[f"{names[a]} → {names[b]}" for a, b in zip(source, target)],
        customdata=weights[strongest],
        hovertemplate=f"%{{text}}<br>{label} <b>%{{customdata:.4~g}}</b><extra></extra>",
    )


def _nodes(data: Mapping[str, Any], x: np.ndarray, y: np.ndarray) -> dict[str, Any]:
    names = [escaped(name) for name in data["nodes"]]
    values = data.get("values")
    label = "%{text}" + ("" if values is None else "<br>%{customdata:.4~g}")
    trace = points(
        x,
        y,
        "markers+text",
        text=names,
        textposition="bottom center",
        textfont={"size": 10.5},
        marker={"size": 11, "color": MUTED, "line": {"width": 0}},
        hovertemplate=f"{label}<extra></extra>",
    )
    return trace if values is None else trace | {"customdata": np.asarray(values, dtype=np.float64)}
