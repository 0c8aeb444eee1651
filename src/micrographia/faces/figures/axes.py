"""Axes, phase bands and dashed marks, which several kinds of figure share.

`layout.meta` lists the controls that a picture wants: `log` names the axes that can be switched
between linear and logarithmic, `scale` the colour scale that follows the page's theme.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from micrographia.faces.figures.palette import BANDS, FONT, faint

HEIGHT = 440
TICKS: dict[str, dict[str, Any]] = {
    "linear": {"exponentformat": "B", "tickfont": {"size": 12}},
    "log": {"exponentformat": "power", "tickfont": {"size": 11}},  # plotly draws powers of ten a quarter larger
}

Drawn = tuple[list[dict[str, Any]], dict[str, Any]]
"""Traces and layout, in plotly's schema."""

LEGEND = {"orientation": "h", "x": 0, "xanchor": "left", "y": 1.02, "yanchor": "bottom", "title": {"text": ""}}


def escaped(text: Any) -> str:
    """Text as plotly shows it: there `<` opens a tag, and `%{` a variable of a hover template."""
    return str(text).replace("&", "&amp;").replace("<", "&lt;").replace("%{", "% {")


def axis(label: str, *, log: bool = False, category: bool = False) -> dict[str, Any]:
    """An axis with its name and kind."""
    kind = "category" if category else "log" if log else "linear"
    return {"title": {"text": escaped(label)}, "type": kind, "automargin": True, **TICKS["log" if log else "linear"]}


def frame(*, height: int = HEIGHT, **more: Any) -> dict[str, Any]:
    """The layout all pictures start from."""
    return {
        "height": height,
        "margin": {"l": 8, "r": 12, "t": 28, "b": 8},
        "legend": LEGEND,
        "showlegend": False,
        "hovermode": "closest",
        **more,
    }


def bands(phases: Sequence[Mapping[str, Any]]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Tinted spans behind the curves, and their entries in the legend. An open end reaches the picture's edge."""
    shapes, entries = [], []
    for i, phase in enumerate(phases):
        if phase.get("start") is None or phase.get("end") is None:
            continue
        colour = BANDS[i % len(BANDS)]
        shapes.append(
            {
                "type": "rect",
                "xref": "x",
                "yref": "paper",
                "x0": phase["start"],
                "x1": phase["end"],
                "y0": 0,
                "y1": 1,
                "fillcolor": faint(colour, 0.11),
                "line": {"width": 0},
                "layer": "below",
            }
        )
        entries.append(legend_square(str(phase["name"]), faint(colour, 0.35)))
    return shapes, entries


def points(x: Any, y: Any, mode: str = "markers", **more: Any) -> dict[str, Any]:
    """A trace of points, lines or texts; without a place in the legend unless it asks for one."""
    return {"type": "scatter", "mode": mode, "x": x, "y": y, "showlegend": False, **more}


def legend_square(name: str, colour: str) -> dict[str, Any]:
    """A trace with no point, for the legend alone."""
    marker = {"symbol": "square", "size": 12, "color": colour}
    return points([None], [None], name=escaped(name), marker=marker, hoverinfo="skip", showlegend=True)


def upright_marks(marks: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Dashed vertical lines at `x`, named beside their upper end."""
    place = {"textangle": 0, "xanchor": "left", "yanchor": "top"}
    return [_mark(mark, "x", place) for mark in marks if mark.get("x") is not None]


def level_marks(marks: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Dashed horizontal lines at `y`, named above their right end."""
    place = {"textangle": 0, "xanchor": "right", "yanchor": "bottom"}
    return [_mark(mark, "y", place) for mark in marks if mark.get("y") is not None]


def _mark(mark: Mapping[str, Any], along: str, place: Mapping[str, Any]) -> dict[str, Any]:
    across = "y" if along == "x" else "x"
    font = {"size": 11, "family": FONT}
    return {
        "type": "line",
        f"{along}ref": along,
        f"{across}ref": "paper",
        f"{along}0": mark[along],
        f"{along}1": mark[along],
        f"{across}0": 0,
        f"{across}1": 1,
        "line": {"width": 1.2, "dash": "dash"},
        "label": {"text": escaped(mark["name"]), "textposition": "end", "font": font, **place},
    }


def span(values: Sequence[Any]) -> list[float] | None:
    """Least, greatest and least positive of all numbers in these arrays; None when there is none."""
    numbers = [np.asarray(v, dtype=np.float64).ravel() for v in values if np.asarray(v).dtype.kind in "fiu"]
    flat = np.concatenate(numbers) if numbers else np.zeros(0)
    flat = flat[np.isfinite(flat)]
    if not flat.size:
        return None
    positive = flat[flat > 0]
    return [float(flat.min()), float(flat.max()), float(positive.min()) if positive.size else 1.0]


WIDE = 1e3
"""How many times its least positive value an axis must reach for a logarithm to show more."""


def switches(data: Mapping[str, Any], **values: Any) -> list[str]:
    """The axes that may be made logarithmic: those that are so already, and those without a negative value that reach
    over decades.
    """
    limits = {side: span([each]) or [0.0, 0.0, 1.0] for side, each in values.items()}
    return [
        side
        for side, (low, high, positive) in limits.items()
        if data.get(f"log_{side}") or (low >= 0 and high >= WIDE * positive)
    ]


MOST_COUNTED, MOST_TICKS = 60, 12


def counted(values: Any) -> dict[str, Any]:
    """Ticks at whole numbers only, where an axis counts layers or the like."""
    limits, numbers = span([values]), np.asarray(values)
    if limits is None or not np.array_equal(numbers, np.round(numbers)) or limits[1] - limits[0] > MOST_COUNTED:
        return {}
    return {"tick0": 0, "dtick": max(1, -(-int(limits[1] - limits[0]) // MOST_TICKS))}


def padded(limits: Sequence[float], *, log: bool, from_zero: bool = False) -> list[float]:
    """An axis range with some air around `span`'s limits, as plotly wants it: exponents on a logarithmic axis."""
    low, high, positive = limits
    if log:
        ends = np.log10([positive, max(high, positive)])
    else:
        ends = np.array([min(low, 0.0) if from_zero else low, high])
    air = 0.05 * (ends[1] - ends[0]) or 0.5
    return [float(ends[0] - (0 if from_zero and not log and ends[0] == 0 else air)), float(ends[1] + air)]
