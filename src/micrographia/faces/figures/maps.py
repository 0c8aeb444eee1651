"""Heat maps: one or several panels that share axes and one colour scale.

Heat maps stand in at most two columns, which a telephone can still show; panels of attention in more.
"""

import textwrap
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from micrographia.faces import words
from micrographia.faces.figures.axes import Drawn, axis, escaped, frame
from micrographia.faces.figures.palette import SCALES

ROW_HEIGHT = 370
GUTTER = 0.035
HEAD = 26  # pixels above a row of panels, for their names
SHORT_ROW, NARROW_SHARE = 8, 0.6  # more names across than that need a telephone's whole width; how high is less then
LEAST_ROW, MOST_HEIGHT = 15, 2400  # pixels: of a row in a tall table, and of such a table
ALL_NAMES, SLANTED_NAMES = 40, 24  # up to so many names each tick has its own; up to so many they are slanted


def heatmap(data: Mapping[str, Any]) -> Drawn:
    """z (panels, rows, columns), rows upward along y. A diverging scale is centred on `midpoint` (0)."""
    z = np.asarray(data["z"])
    z = z[None] if z.ndim == 2 else z
    columns = 1 if data.get("texts") is not None else 2  # words in cells need the whole width
    return panelled(data, z, columns=min(columns, len(data["panels"])))


def panelled(data: Mapping[str, Any], z: np.ndarray, *, columns: int, labelled: bool = True) -> Drawn:
    """Panels in rows of `columns`. Small ones go without the names of their ticks, unless `labelled`."""
    layout = frame(meta={"scale": data.get("colour", "sequential")})
    layout["margin"] = {"l": 8, "r": 8, "t": HEAD + 4, "b": 8}
    layout |= _arranged(data, z, columns=columns, labelled=labelled)
    layout["coloraxis"] = colour_scale(data, height=layout["height"])
    if labelled and data.get("x_names") is not None and len(data["x_names"]) > SHORT_ROW:
        layout["meta"]["narrow"] = _arranged(data, z, columns=1, labelled=True, share=NARROW_SHARE)
    return [_panel(data, z[i], str(name), i) for i, name in enumerate(data["panels"])], layout


def _arranged(
    data: Mapping[str, Any], z: np.ndarray, *, columns: int, labelled: bool, share: float = 1.0
) -> dict[str, Any]:
    """Where the panels stand: height, axes and headings. `share` makes all but tall tables lower."""
    panels = [str(name) for name in data["panels"]]
    rows = -(-len(panels) // columns)
    high = _single_height(z, share) if columns == 1 else _row_height(z, columns)
    height = int(rows * high + (0 if columns == 1 else 40))
    gap = (HEAD + (34 if columns <= 2 else 8)) / height
    found: dict[str, Any] = {"height": height, "annotations": []}
    for i, name in enumerate(panels):
        down, across = divmod(i, columns)
        box = _box(down, across, columns=columns, rows=rows, gap=gap)
        outer = (across == 0 and labelled, (down == rows - 1 or i + columns >= len(panels)) and labelled)
        found |= _panel_axes(data, i, box, outer=outer, tall=_tall(z) > 0)
        if len(panels) > 1 or name:
            found["annotations"].append(_heading(name, box))
    return found


def _row_height(z: np.ndarray, columns: int) -> float:
    """Small panels are lower; those of a tall table as high as it needs."""
    return max(ROW_HEIGHT * 2 / max(columns, 2), _tall(z))


def _single_height(z: np.ndarray, share: float = 1.0) -> int:
    """A square table is shown as a square, a flat one flatter, a tall one with rows that can be read."""
    return int(60 + max(share * np.clip(620 * z.shape[1] / z.shape[2], 240, 620), _tall(z)))


def _tall(z: np.ndarray) -> int:
    """Pixels that a table of many more rows than columns needs; 0 for any other."""
    rows, columns = z.shape[-2:]
    return min(rows * LEAST_ROW, MOST_HEIGHT) if rows > 1.5 * columns else 0


class Reach(NamedTuple):
    """Where the colours of a map end, and its largest value where that lies beyond them."""

    low: float
    high: float
    beyond: float | None = None


LONE, APART, LEAST = 0.01, 2.5, 0.5
"""One cell in a hundred may lie beyond the colours, if it is so many times the next one; they reach half of it."""


def reach_of(data: Mapping[str, Any]) -> Reach:
    """Least and greatest value; of a diverging scale as far on either side, and not as far as a few lone extremes.

    One cell ten times as strong as all others would leave these pale. But as nothing is more than twice as strong
    in colour as by its number, what is next to nothing stays pale.
    """
    z = np.asarray(data["z"], dtype=np.float64) if "z" in data else np.concatenate(data["values"])
    finite = z[np.isfinite(z)] if np.isfinite(z).any() else np.zeros(1)
    if data.get("colour", "sequential") == "sequential":
        return Reach(float(finite.min()), float(finite.max()))
    middle = float(data.get("midpoint") or 0.0)
    away = np.abs(finite - middle)
    sizes = np.sort(away[away > 0])[::-1] if (away > 0).any() else np.ones(1)
    n_lone = max(1, int(LONE * sizes.size))
    most, next_one = float(sizes[0]), float(sizes[min(n_lone, sizes.size - 1)])
    if "z" not in data or most <= APART * next_one:
        return Reach(middle - most, middle + most)
    reach = max(next_one, LEAST * most)
    return Reach(middle - reach, middle + reach, float(finite[np.argmax(away)]))


def colour_scale(data: Mapping[str, Any], *, height: int = 0) -> dict[str, Any]:
    """The scale that all panels share, for layout.coloraxis. Above `height` 0, what it shows stands along the bar."""
    kind = data.get("colour", "sequential")
    bar: dict[str, Any] = {"thickness": 10, "outlinewidth": 0, "len": 0.9, "tickfont": {"size": 11}}
    bar["exponentformat"] = "power"
    reach = data.get("_reach") or reach_of(data)
    if height and (label := _along_the_bar(str(data.get("value_label") or ""), reach, height)):
        bar["title"] = {"text": label, "side": "right", "font": {"size": 11.5}}
    scale = [list(stop) for stop in SCALES["light"][kind]]
    return {"colorscale": scale, "colorbar": bar, "cmin": reach.low, "cmax": reach.high}


def _along_the_bar(label: str, reach: Reach, height: int) -> str:
    """The title of a colour bar, in lines as long as it is."""
    texts = [label] if label else []
    if reach.beyond is not None:
        low, high, most = (words.format_number(float(f"{x:.3g}")) for x in reach)
        ends = f"±{high}" if reach.low == -reach.high else f"{low} and {high}"
        texts.append(f"colours end at {ends}; the most is {most}")
    n_letters = max(18, int(0.9 * height / 6.2))
    return "<br>".join(escaped(line) for text in texts for line in textwrap.wrap(text, n_letters))


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
        f"<br>{escaped(data.get('value_label') or '')} <b>%{{z:.4~g}}</b><extra>{escaped(name)}</extra>",
    }
    if data.get("texts") is not None:
        trace["text"] = [[escaped(text) for text in row] for row in data["texts"][i]]
        trace["texttemplate"] = "%{text}"
        trace["hovertemplate"] = trace["hovertemplate"].replace("<br>", "<br><b>%{text}</b><br>", 1)
    for side in "xy":
        if data.get(f"{side}_names") is not None:
            trace[side] = [escaped(text) for text in data[f"{side}_names"]]
    return trace


def _panel_axes(data: Mapping[str, Any], i: int, box: Any, *, outer: tuple[bool, bool], tall: bool) -> dict[str, Any]:
    """Tick labels and names only along the left and lower edge of the whole picture."""
    left, lowest = outer
    named = {side: data.get(f"{side}_names") is not None for side in "xy"}
    common = {"showgrid": False, "zeroline": False, "nticks": 8, "showline": True, "mirror": True, "linewidth": 1}
    x = (
        axis(data["x_label"] if lowest else "", category=named["x"])
        | common
        | _all_names(data.get("x_names"))
        | {"domain": box[0], "anchor": f"y{_suffix(i)}"}
    )
    y = (
        axis(data["y_label"] if left else "", category=named["y"])
        | common
        | _all_names(data.get("y_names"), most=MOST_HEIGHT // LEAST_ROW if tall else ALL_NAMES)
        | {"domain": box[1], "anchor": f"x{_suffix(i)}", "tickangle": 0}
    )
    if data.get("_downward"):
        y["autorange"] = "reversed"
    if i:
        x["matches"], y["matches"] = "x", "y"
    return {
        f"xaxis{_suffix(i)}": x | {"showticklabels": lowest},
        f"yaxis{_suffix(i)}": y | {"showticklabels": left},
    }


def _all_names(names: Any, *, most: int = ALL_NAMES) -> dict[str, Any]:
    """A tick for every name where there are few, as a text's tokens are read one by one."""
    if names is None or len(names) > most:
        return {}
    texts = [escaped(name) for name in names]
    angle = 0 if max(map(len, texts), default=0) <= 3 else -45 if len(texts) <= SLANTED_NAMES else -90
    return {"tickmode": "array", "tickvals": texts, "ticktext": texts, "tickangle": angle, "tickfont": {"size": 11}}


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
