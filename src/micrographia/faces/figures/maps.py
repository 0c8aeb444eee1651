"""Heat maps: one or several panels that share axes and one colour scale.

Panels stand in at most two columns, which a telephone can still show.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from micrographia.faces.figures.axes import Drawn, axis, escaped, frame
from micrographia.faces.figures.palette import SCALES

ROW_HEIGHT = 370
GUTTER = 0.035
HEAD = 26  # pixels above a row of panels, for their names


def heatmap(data: Mapping[str, Any]) -> Drawn:
    """z (panels, rows, columns), rows upward along y. A diverging scale is centred on `midpoint` (0)."""
    z = np.asarray(data["z"])
    z = z[None] if z.ndim == 2 else z
    panels = [str(name) for name in data["panels"]]
    columns = min(2, len(panels))
    rows = -(-len(panels) // columns)
    height = _single_height(z) if len(panels) == 1 else rows * ROW_HEIGHT + 40
    layout = frame(height=height, coloraxis=_colours(data, z), meta={"scale": data.get("colour", "sequential")})
    layout["margin"] = {"l": 8, "r": 8, "t": HEAD + 4, "b": 8}
    layout["annotations"] = []
    traces = []
    for i, name in enumerate(panels):
        down, across = divmod(i, columns)
        box = _box(down, across, columns=columns, rows=rows, gap=(HEAD + 34) / height)
        traces.append(_panel(data, z[i], name, i))
        layout |= _panel_axes(data, i, box, outer=(across == 0, down == rows - 1 or i + columns >= len(panels)))
        if len(panels) > 1 or name:
            layout["annotations"].append(_heading(name, box))
    return traces, layout


def _single_height(z: np.ndarray) -> int:
    """A square table is shown as a square, a flat one flatter."""
    return int(60 + np.clip(620 * z.shape[1] / z.shape[2], 240, 620))


def _colours(data: Mapping[str, Any], z: np.ndarray) -> dict[str, Any]:
    kind = data.get("colour", "sequential")
    bar = {"thickness": 10, "outlinewidth": 0, "len": 0.9, "tickfont": {"size": 11}, "exponentformat": "power"}
    limits = data.get("_limits") or (float(np.nanmin(z)), float(np.nanmax(z)))
    scale: dict[str, Any] = {"colorscale": [list(stop) for stop in SCALES["light"][kind]], "colorbar": bar}
    if kind == "sequential":
        return scale | {"cmin": limits[0], "cmax": limits[1]}
    middle = float(data.get("midpoint") or 0.0)
    reach = max(abs(limits[0] - middle), abs(limits[1] - middle)) or 1.0
    return scale | {"cmin": middle - reach, "cmax": middle + reach}


def _box(down: int, across: int, *, columns: int, rows: int, gap: float) -> tuple[list[float], list[float]]:
    """The panel's share of the picture, (x from to, y from to)."""
    width = (1 - GUTTER * (columns - 1)) / columns
    height = (1 - gap * (rows - 1)) / rows
    left = across * (width + GUTTER)
    top = 1 - down * (height + gap)
    return [left, left + width], [max(top - height, 0.0), top]


def _suffix(i: int) -> str:
    return "" if i == 0 else str(i + 1)


def _panel(data: Mapping[str, Any], z: np.ndarray, name: str, i: int) -> dict[str, Any]:
    trace = {
        "type": "heatmap",
        "z": z,
        "name": escaped(name),
        "xaxis": f"x{_suffix(i)}",
        "yaxis": f"y{_suffix(i)}",
        "coloraxis": "coloraxis",
        "hovertemplate": f"{escaped(data['x_label'])} %{{x}}<br>{escaped(data['y_label'])} %{{y}}"
        f"<br><b>%{{z:.4~g}}</b><extra>{escaped(name)}</extra>",
    }
    for side in "xy":
        if data.get(f"{side}_names") is not None:
            trace[side] = [escaped(text) for text in data[f"{side}_names"]]
    return trace


def _panel_axes(data: Mapping[str, Any], i: int, box: Any, *, outer: tuple[bool, bool]) -> dict[str, Any]:
    """Tick labels and names only along the left and lower edge of the whole picture."""
    left, lowest = outer
    named = {side: data.get(f"{side}_names") is not None for side in "xy"}
    common = {"showgrid": False, "zeroline": False, "nticks": 8, "showline": True, "mirror": True, "linewidth": 1}
    x = (
        axis(data["x_label"] if lowest else "", category=named["x"])
        | common
        | {"domain": box[0], "anchor": f"y{_suffix(i)}"}
    )
    y = (
        axis(data["y_label"] if left else "", category=named["y"])
        | common
        | {"domain": box[1], "anchor": f"x{_suffix(i)}"}
    )
    if i:
        x["matches"], y["matches"] = "x", "y"
    return {
        f"xaxis{_suffix(i)}": x | {"showticklabels": lowest},
        f"yaxis{_suffix(i)}": y | {"showticklabels": left},
    }


def _heading(name: str, box: Any) -> dict[str, Any]:
    return {
        "text": escaped(name),
        "x": box[0][0],
        "y": box[1][1],
        "xref": "paper",
        "yref": "paper",
        "xanchor": "left",
        "yanchor": "bottom",
        "showarrow": False,
        "font": {"size": 12.5},
    }
