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
SHORT_ROW, NARROW_SHARE = 8, 0.6  # more names across than that need a telephone's whole width; how high it is there
LEAST_ROW, GROUPED_ROW, MOST_HEIGHT = 15, 5, 2400  # pixels: of a row in a tall table, one of a group; of such a table
MOST_ROW = 64  # pixels of a row of a table of few
WIDTH, NARROW_WIDTH, AXIS_ROOM = 760, 350, 90  # pixels: of a picture, on a telephone; beside it for names and the bar
LETTER, BETWEEN_TICKS = 6.4, 13  # pixels: of a letter in a tick's name; between two slanted names, or two lines of them
SLANTED_NAMES = 24  # up to so many names are slanted, more stand upright
WORD_CELL, WORD_ROW, WORD_SIZE = 46, 21, 11  # pixels: of a cell with a word in it, and its letters
LONGEST_BAR, BAR_ROOM, WORD_BAR = 400, 44, 170  # pixels: of a colour bar; of one above words, how high and how long
ENDED = ("token", "position")  # what runs across, where the end is what is looked at first


def heatmap(data: Mapping[str, Any]) -> Drawn:
    """z (panels, rows, columns), rows upward along y. A diverging scale is centred on `midpoint` (0)."""
    z = np.asarray(data["z"])
    z = z[None] if z.ndim == 2 else z
    columns = 1 if data.get("texts") is not None else 2  # words in cells need the whole width
    return panelled(data, z, columns=min(columns, len(data["panels"])))


def panelled(data: Mapping[str, Any], z: np.ndarray, *, columns: int, labelled: bool = True) -> Drawn:
    """Panels in rows of `columns`. Small ones go without the names of their ticks, unless `labelled`."""
    scale = data.get("colour", "sequential")
    worded = scale == "sequential" and data.get("texts") is not None  # pale, so that words can be read on it
    layout = frame(meta={"scale": "words" if worded else scale})
    layout["margin"] = {"l": 8, "r": 8, "t": HEAD + 4, "b": 8}
    if data.get("texts") is not None and (wide := AXIS_ROOM + WORD_CELL * z.shape[-1]) > NARROW_WIDTH:
        layout["meta"]["width"] = wide  # the page scrolls where it is narrower
    layout |= _arranged(data, z, columns=columns, labelled=labelled)
    layout["coloraxis"] = colour_scale(data, height=layout["height"])
    if data.get("texts") is not None:
        layout["meta"]["end"] = data["x_label"] in ENDED
        layout["margin"]["t"] += BAR_ROOM
        layout["coloraxis"]["colorbar"] |= _bar_above(str(data.get("value_label") or ""), layout["height"])
    elif labelled:
        narrow = _arranged(data, z, columns=_narrow_columns(data, columns), labelled=True, share=NARROW_SHARE)
        layout["meta"]["narrow"] = narrow | {"coloraxis": colour_scale(data, height=narrow["height"])}
    return [_panel(data, z[i], str(name), i) for i, name in enumerate(data["panels"])], layout


def _narrow_columns(data: Mapping[str, Any], columns: int) -> int:
    """How many panels stand side by side on a telephone: one where its names across, or their headings, are long."""
    letters = max(map(len, map(str, data["panels"])), default=0)
    many = data.get("x_names") is not None and len(data["x_names"]) > SHORT_ROW
    return 1 if many or letters * LETTER > (NARROW_WIDTH - AXIS_ROOM) / columns else columns


def _arranged(
    data: Mapping[str, Any], z: np.ndarray, *, columns: int, labelled: bool, share: float = 1.0
) -> dict[str, Any]:
    """Where the panels stand: height, axes and headings. `share` makes all but tall tables lower."""
    panels = [str(name) for name in data["panels"]]
    rows = -(-len(panels) // columns)
    high = _single_height(data, z, share) if columns == 1 else _row_height(data, z, columns, share)
    high = max(high, _named_height(data))
    height = int(rows * high + (0 if columns == 1 else 40))
    gap = (HEAD + (34 if columns <= 2 else 8)) / height
    width = (NARROW_WIDTH if share < 1 else WIDTH) - AXIS_ROOM
    if data.get("texts") is not None:
        width = max(width, WORD_CELL * z.shape[-1])
    room = width / columns, (1 - gap * (rows - 1)) / rows * height - AXIS_ROOM / 2
    found: dict[str, Any] = {"height": height, "annotations": [], "shapes": []}
    for i, name in enumerate(panels):
        down, across = divmod(i, columns)
        box = _box(down, across, columns=columns, rows=rows, gap=gap)
        outer = (across == 0 and labelled, (down == rows - 1 or i + columns >= len(panels)) and labelled)
        found |= _panel_axes(data, i, box, outer=outer, room=room)
        found["shapes"] += _between_groups(data, i)
        if len(panels) > 1 or name:
            found["annotations"].append(_heading(name, box))
    return found


def _row_height(data: Mapping[str, Any], z: np.ndarray, columns: int, share: float = 1.0) -> float:
    """Small panels are lower, also those of few rows; those of a tall table as high as it needs."""
    usual = share * ROW_HEIGHT * 2 / max(columns, 2)
    return max(min(usual, AXIS_ROOM + MOST_ROW * z.shape[-2]), _tall(data, z))


def _single_height(data: Mapping[str, Any], z: np.ndarray, share: float = 1.0) -> int:
    """A square table is shown as a square, a flat one flatter, a tall one with rows that can be read."""
    usual = share * np.clip(620 * z.shape[-2] / z.shape[-1], 240, 620)
    return int(60 + max(min(usual, AXIS_ROOM + MOST_ROW * z.shape[-2]), _tall(data, z)))


def _named_height(data: Mapping[str, Any]) -> int:
    """Pixels of a panel in which each of a few named rows has a line, above upright names; 0 without names."""
    rows, across = ([*map(str, data.get(side) or ())] for side in ("y_names", "x_names"))
    if not rows or len(rows) > SLANTED_NAMES:
        return 0
    upright = LETTER * max(map(len, across)) if len(across) > SLANTED_NAMES else 0
    return int(len(rows) * BETWEEN_TICKS + max(AXIS_ROOM, upright + HEAD + 34))


def _tall(data: Mapping[str, Any], z: np.ndarray) -> int:
    """Pixels that a table of many more rows than columns needs, or one with words in its cells; 0 for any other."""
    rows, columns = z.shape[-2:]
    if data.get("texts") is not None:
        return rows * WORD_ROW + AXIS_ROOM
    least = LEAST_ROW if data.get("y_groups") is None else GROUPED_ROW
    return min(rows * least + AXIS_ROOM, MOST_HEIGHT) if rows > 1.5 * columns else 0


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
    bar: dict[str, Any] = {"thickness": 10, "outlinewidth": 0, "tickfont": {"size": 11}, "exponentformat": "power"}
    bar |= {"len": min(0.9 * height, LONGEST_BAR), "lenmode": "pixels"} if height else {"len": 0.9}
    bar |= {"y": 1, "yanchor": "top"} if 0.9 * height > LONGEST_BAR else {}
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
    n_letters = max(14, int(min(0.9 * (height - AXIS_ROOM), LONGEST_BAR) / 6.2))
    return "<br>".join(escaped(line) for text in texts for line in textwrap.wrap(text, n_letters))


def _bar_above(label: str, height: int) -> dict[str, Any]:
    """Where the colour bar of a wide map of words lies: above its first panel, so that it does not scroll away."""
    place = {"orientation": "h", "x": 1, "xanchor": "right", "y": 1 + HEAD / height, "yanchor": "bottom", "ypad": 0}
    title = {"text": escaped(label), "side": "top", "font": {"size": 11.5}}
    return place | {"lenmode": "pixels", "len": WORD_BAR, "thickness": 8, "title": title}


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
        letters = int(max(WORD_CELL, (WIDTH - AXIS_ROOM) / z.shape[-1]) / LETTER)
        trace["text"] = [[escaped(_short(str(text), letters)) for text in row] for row in data["texts"][i]]
        trace |= {"texttemplate": "%{text}", "textfont": {"size": WORD_SIZE}}
    told = data.get("texts") if data.get("told") is None else data["told"]
    if told is not None:
        trace["customdata"] = [[escaped(text) for text in row] for row in told[i]]
        trace["hovertemplate"] = trace["hovertemplate"].replace("<br>", "<br><b>%{customdata}</b><br>", 1)
    for side in "xy":
        if data.get(f"{side}_names") is not None:
            trace[side] = [escaped(text) for text in data[f"{side}_names"]]
    return trace


def _short(text: str, letters: int) -> str:
    return text if len(text) <= letters else text[: letters - 1] + "…"


def _panel_axes(
    data: Mapping[str, Any], i: int, box: Any, *, outer: tuple[bool, bool], room: tuple[float, float]
) -> dict[str, Any]:
    """Tick labels and names only along the left and lower edge of the whole picture; `room`: pixels, across and up."""
    left, lowest = outer
    named = {side: data.get(f"{side}_names") is not None for side in "xy"}
    common = {"showgrid": False, "zeroline": False, "nticks": 8, "showline": True, "mirror": True, "linewidth": 1}
    x = (
        axis(data["x_label"] if lowest else "", category=named["x"])
        | common
        | _ticks_across(data.get("x_names"), room[0])
        | {"domain": box[0], "anchor": f"y{_suffix(i)}"}
    )
    y = (
        axis(data["y_label"] if left else "", category=named["y"])
        | common
        | _ticks_up(data.get("y_names"), data.get("y_groups"), room[1])
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


def _ticks_across(names: Any, room: float) -> dict[str, Any]:
    """As many names as can stand side by side: flat where all of them can, else turned."""
    if names is None:
        return {}
    longest = max((len(str(name)) for name in names), default=0)
    flat = len(names) * (LETTER * longest + 6) <= room or longest <= 3
    step = _step(len(names), LETTER * longest + 6 if flat else BETWEEN_TICKS, room)
    return _named_ticks(names, names, step) | {"tickangle": 0 if flat else -45 if len(names) <= SLANTED_NAMES else -90}


def _ticks_up(names: Any, groups: Any, room: float) -> dict[str, Any]:
    """A name for each row, or each n-th; of rows in groups one in the middle of each, where not all fit."""
    if names is None:
        return {}
    step = _step(len(names), BETWEEN_TICKS, room)
    if groups is None or step == 1:
        return _named_ticks(names, names, step)
    middles = [(start + end) // 2 for start, end in _runs(groups)]
    step = _step(len(middles), BETWEEN_TICKS, room)
    return _named_ticks([names[at] for at in middles], [groups[at] for at in middles], step)


def _step(n: int, each: float, room: float) -> int:
    """Every how many-th of n names fits."""
    return max(1, -(-int(n * each) // max(int(room), 1)))


def _named_ticks(at: Any, names: Any, step: int) -> dict[str, Any]:
    chosen = ([escaped(name) for name in each][::step] for each in (at, names))
    return {"tickmode": "array", **dict(zip(("tickvals", "ticktext"), chosen)), "tickfont": {"size": 11}}


def _runs(groups: Any) -> list[tuple[int, int]]:
    """First and last row of each group."""
    starts = [i for i, group in enumerate(groups) if not i or group != groups[i - 1]]
    return [(start, end - 1) for start, end in zip(starts, [*starts[1:], len(groups)])]


def _between_groups(data: Mapping[str, Any], i: int) -> list[dict[str, Any]]:
    """A thin line above each group of rows but the last."""
    ends = [end + 0.5 for _, end in _runs(data.get("y_groups") or ())][:-1]
    line = {"type": "line", "xref": f"x{_suffix(i)} domain", "yref": f"y{_suffix(i)}", "line": {"width": 0.5}}
    return [{**line, "x0": 0, "x1": 1, "y0": end, "y1": end} for end in ends]


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
