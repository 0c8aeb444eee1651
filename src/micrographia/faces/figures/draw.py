"""Figure -> plotly: one function a kind, in the table `DRAW`.

`draw` gives a plain dict of `data`, `layout` and `frames` with numpy arrays inside: plotly's own schema, without
importing plotly. The controls of a picture (log axes, a slider) stand in `layout.meta`, from which the page makes
them. Tables, texts and widgets are no plotly pictures: the page draws them itself.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from micrographia.core.figures import Figure
from micrographia.faces.figures.axes import Drawn, frame, padded, span
from micrographia.faces.figures.boards import board
from micrographia.faces.figures.counts import bars, histogram
from micrographia.faces.figures.curves import lines, scatter
from micrographia.faces.figures.graphs import graph
from micrographia.faces.figures.maps import heatmap, reach_of
from micrographia.faces.figures.palette import SCALES, template
from micrographia.faces.figures.texts import attention, tokens
from micrographia.faces.words import NOTHING_TO_SHOW

DRAW: dict[str, Callable[[Mapping[str, Any]], Drawn]] = {
    "lines": lines,
    "bars": bars,
    "histogram": histogram,
    "heatmap": heatmap,
    "scatter": scatter,
    "tokens": tokens,
    "attention": attention,
    "graph": graph,
    "board": board,
}

EMPTY = 120  # pixels: the height of a picture without a value
MOVING = ("x", "y", "z", "text", "error_y", "marker", "customdata", "width")
"""What a frame may change in a trace."""


def draw(figure: Figure) -> dict[str, Any]:
    """The plotly picture of a Figure: {"data", "layout", "frames"}. The slider starts at the last frame."""
    function = DRAW[figure.kind] if not figure.is_empty else _nothing
    if not figure.frames or figure.is_empty:
        traces, layout = function(figure.data)
        return {"data": traces, "layout": _themed(layout), "frames": []}
    drawn = [function(_at(figure, i)) for i in range(len(figure.frames))]
    traces, layout = drawn[-1]
    _hold_still(layout, [each for each, _ in drawn])
    layout["meta"] = {**layout.get("meta", {}), "frames": list(figure.frames)}
    moving = _moving([each for each, _ in drawn])
    frames = [
        {"name": name, "data": [{key: trace[key] for key in ("type", *keys)} for trace, keys in zip(each, moving)]}
        for name, (each, _) in zip(figure.frames, drawn)
    ]
    return {"data": traces, "layout": _themed(layout), "frames": frames}


def _nothing(data: Mapping[str, Any]) -> Drawn:
    """A picture without a value."""
    middle = {"xref": "paper", "yref": "paper", "x": 0.5, "y": 0.5, "showarrow": False, "text": NOTHING_TO_SHOW}
    hidden = {"visible": False}
    return [], frame(height=EMPTY, annotations=[middle], xaxis=hidden, yaxis=hidden)


def _themed(layout: dict[str, Any]) -> dict[str, Any]:
    if "scale" in layout.get("meta", {}):
        scale = [list(stop) for stop in SCALES["light"][layout["meta"]["scale"]]]
        layout["coloraxis"] = {"colorscale": scale, **layout.get("coloraxis", {})}
    return {**layout, "template": {"layout": template("light")}}


def _at(figure: Figure, i: int) -> dict[str, Any]:
    """The data of one frame, with what must be the same in all of them: classes, intervals, colour limits."""
    data = {**figure.data, "_frame": i}
    if data.get("categorical"):
        data["_classes"] = np.unique(np.asarray(data["colour"]))
    if figure.kind == "histogram":
        values = np.asarray(data["values"], dtype=np.float64)
        data["_edges"] = np.histogram_bin_edges(values[np.isfinite(values)], bins=int(data.get("bins", 30)))
    if figure.kind in ("heatmap", "attention", "board"):
        data["_reach"] = reach_of(data)
    return data | {name: figure.data[name][i] for name in figure.framed}


def _moving(drawn: list[list[dict[str, Any]]]) -> list[list[str]]:
    """For each trace, the entries that are not the same in all frames: a frame need carry nothing else."""
    first = drawn[0]
    return [
        [key for key in MOVING if key in trace and not all(_same(trace[key], each[i][key]) for each in drawn)]
        for i, trace in enumerate(first)
    ]


def _same(left: Any, right: Any) -> bool:
    if isinstance(left, Mapping):
        return left.keys() == right.keys() and all(_same(left[key], right[key]) for key in left)
    return bool(np.array_equal(left, right, equal_nan=np.asarray(left).dtype.kind == "f"))


def _hold_still(layout: dict[str, Any], drawn: list[list[dict[str, Any]]]) -> None:
    """Fix the axes over all frames, so that what moves is the data and not the ruler."""
    for side in "xy":
        limits = span([trace[side] for traces in drawn for trace in traces if side in trace])
        ruler = layout[f"{side}axis"]
        if limits is None or ruler["type"] == "category" or any("z" in trace for trace in drawn[0]):
            continue
        from_zero = side == "y" and drawn[0][0]["type"] == "bar"
        ruler["range"] = padded(limits, log=ruler["type"] == "log", from_zero=from_zero)
        spans = {kind: padded(limits, log=kind == "log", from_zero=from_zero) for kind in ("linear", "log")}
        layout["meta"].setdefault("ranges", {})[side] = spans
