"""Lines, scatters: pictures with numbers on both axes.

With more series than colours can tell apart only the highlighted ones get a colour and a place in the legend; the
others are thin and grey, and their names come under the pointer.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from micrographia.faces.figures.axes import (
    Drawn,
    axis,
    bands,
    counted,
    escaped,
    frame,
    legend_square,
    padded,
    points,
    span,
    switches,
    upright_marks,
)
from micrographia.faces.figures.palette import LINES, MUTED, faint, line_styles

CROWD = 12
SPARSE = 60


def lines(data: Mapping[str, Any]) -> Drawn:
    """One curve a series, with intervals, phase bands and dashed marks where the figure has them."""
    y = np.atleast_2d(np.asarray(data["y"]))
    x = np.broadcast_to(np.asarray(data["x"]), y.shape)
    names = [str(name) for name in data["names"]]
    strong = _strong(data, len(names))
    traces = [_interval(data, i, x[i], strong[i]) for i in range(len(names)) if data.get("low") is not None]
    traces += [_curve(data, i, x[i], y[i], style=strong.get(i)) for i in sorted(range(len(names)), key=_last(strong))]
    if len(strong) < len(names):
        traces.append(legend_square(f"the other {len(names) - len(strong)}", faint(MUTED, 0.6)))
    shapes, entries = bands(data.get("bands") or ())
    ruler = {} if data.get("log_x") else counted(x)
    layout = frame(
        xaxis=axis(data["x_label"], log=bool(data.get("log_x"))) | ruler,
        yaxis=axis(data["y_label"], log=bool(data.get("log_y"))) | _reaching(data, y),
        shapes=shapes + upright_marks(data.get("marks") or ()),
        showlegend=len(names) > 1 or bool(entries),
        hovermode="closest" if len(names) > CROWD else "x unified",
        meta={"log": switches(data, x=x, y=y)},
    )
    return traces + entries, layout


def _reaching(data: Mapping[str, Any], y: Any) -> dict[str, Any]:
    """The range of the y axis, where the figure says how far it goes at least: what is small beside it looks small."""
    limits = span([y, np.asarray(data.get("reach", []), dtype=np.float64)])
    return {} if data.get("reach") is None or limits is None else {"range": padded(limits, log=False)}


def _strong(data: Mapping[str, Any], n: int) -> dict[int, dict[str, Any]]:
    """Series index -> style of the series that are drawn in colour."""
    chosen = [int(i) for i in data.get("highlight") or ()]
    if not chosen and n <= CROWD:
        chosen = list(range(n))
    if n <= CROWD and chosen:
        chosen = list(range(n))
    return dict(zip(chosen, line_styles([str(data["names"][i]) for i in chosen])))


def _last(strong: Mapping[int, Any]) -> Any:
    """Sorts the coloured series behind the grey ones, so that they are drawn on top."""
    return lambda i: (i in strong, i)


def _curve(data: Mapping[str, Any], i: int, x: Any, y: Any, *, style: Mapping[str, Any] | None) -> dict[str, Any]:
    name = str(data["names"][i])
    marked = i in [int(j) for j in data.get("highlight") or ()]
    line = {"color": faint(MUTED, 0.45), "width": 1} if style is None else {**style, "width": 2.6 if marked else 1.8}
    hidden = i in [int(j) for j in data.get("hidden") or ()]
    where = "<extra></extra>" if style is not None else f"<br>{escaped(data['x_label'])} %{{x}}<extra></extra>"
    return points(
        x,
        y,
        "lines+markers" if len(x) <= SPARSE and style is not None else "lines",
        marker={"size": 4},
        name=escaped(name),
        legendgroup=name,
        showlegend=style is not None,
        visible="legendonly" if hidden else True,
        line=line,
        connectgaps=False,
        hovertemplate=f"{escaped(name)}: %{{y:.4~g}}{where}",
    )


def _interval(data: Mapping[str, Any], i: int, x: Any, style: Mapping[str, Any]) -> dict[str, Any]:
    low, high = (np.atleast_2d(np.asarray(data[end]))[i] for end in ("low", "high"))
    there = np.isfinite(low) & np.isfinite(high)
    around = [np.concatenate([v[there], w[there][::-1]]) for v, w in ((x, x), (low, high))]
    return points(
        *around,
        "lines",
        fill="toself",
        fillcolor=faint(style["color"], 0.16),
        line={"width": 0},
        legendgroup=str(data["names"][i]),
        hoverinfo="skip",
        visible="legendonly" if i in [int(j) for j in data.get("hidden") or ()] else True,
    )


def scatter(data: Mapping[str, Any]) -> Drawn:
    """One point each; `colour` is a number (a scale with its bar) or, when `categorical`, a class with a legend."""
    if data.get("categorical") and data.get("colour") is not None:
        traces, layout = _classes(data), {"showlegend": True}
    else:
        traces, layout = [_points(data, slice(None))], {}
        if data.get("colour") is not None:
            traces[0]["marker"] |= {"color": np.asarray(data["colour"]), "coloraxis": "coloraxis"}
            bar = {"title": {"text": data.get("colour_label", "")}, "thickness": 10, "outlinewidth": 0}
            layout = {"coloraxis": {"colorbar": bar}}
    return traces, frame(
        xaxis=axis(data["x_label"], log=bool(data.get("log_x"))),
        yaxis=axis(data["y_label"], log=bool(data.get("log_y"))),
        meta={
            "log": switches(data, x=data["x"], y=data["y"]),
            **({"scale": "points"} if "coloraxis" in layout else {}),
        },
        shapes=[_diagonal(data)] if data.get("diagonal") else [],
        **layout,
    )


def _diagonal(data: Mapping[str, Any]) -> dict[str, Any]:
    """y = x over the span of both, where an estimate equals the truth."""
    limits = span([np.asarray(data["x"]), np.asarray(data["y"])]) or [0.0, 1.0]
    ends = {"x0": limits[0], "y0": limits[0], "x1": limits[1], "y1": limits[1]}
    return {"type": "line", "layer": "below", "line": {"width": 1.2, "dash": "dash"}, **ends}


def _classes(data: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A trace a class; in every frame the same traces in the same order, empty where a class has no point."""
    colour = np.asarray(data["colour"])
    label = data.get("colour_label", "")
    traces = []
    for place, value in enumerate(data.get("_classes", np.unique(colour))):
        style = {"color": LINES[place % len(LINES)], "symbol": _SYMBOLS[place // len(LINES) % len(_SYMBOLS)]}
        trace = _points(data, colour == value)
        trace["marker"] |= style
        traces.append(trace | {"name": escaped(f"{label} {value}".strip()), "showlegend": True})
    return traces


_SYMBOLS = ("circle", "diamond", "square", "cross", "x", "triangle-up")


def _points(data: Mapping[str, Any], which: Any) -> dict[str, Any]:
    trace = points(
        *(np.asarray(data[side])[which] for side in "xy"),
        marker={"size": 6.5, "opacity": 0.8, "line": {"width": 0}},
        hovertemplate=f"{escaped(data['x_label'])} %{{x:.4~g}}<br>{escaped(data['y_label'])} %{{y:.4~g}}",
    )
    if data.get("names") is not None:
        trace["text"] = [escaped(name) for name in np.asarray(data["names"], dtype=object)[which]]
        trace["hovertemplate"] = "%{text}<br>" + trace["hovertemplate"]
    if data.get("colour") is not None and not data.get("categorical"):
        trace["hovertemplate"] += f"<br>{escaped(data.get('colour_label', 'colour'))} %{{marker.color:.4~g}}"
    trace["hovertemplate"] += "<extra></extra>"
    return trace
