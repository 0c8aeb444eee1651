"""Texts: tokens coloured by a value, and attention from token to token.

Tokens stand in lines of at most `LINE` characters, each as wide as its text, so that they read as a text on a telephone
too. Attention is a panel a head, with the query going down and the key across, as one reads a causal pattern.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from micrographia.core.titles import shown_token
from micrographia.faces.figures.axes import Drawn, escaped, frame, points
from micrographia.faces.figures.maps import colour_scale, panelled

LINE = 46
AIR = 2.2  # characters around a token
LINE_HEIGHT, HEAD_HEIGHT = 30, 24  # pixels
FEW_HEADS, FEW_COLUMNS, MANY_COLUMNS = 4, 2, 4
MOST_PANELS = 36
"""Heads in a picture on paper; the viewer of a page has all."""


def tokens(data: Mapping[str, Any]) -> Drawn:
    """Each row of tokens as a text under its name; the colour of a token is its value."""
    values = [np.asarray(row, dtype=np.float64) for row in data["values"]]
    middle = float(data.get("midpoint") or 0.0)
    traces, height = [], 0.0
    for name, texts, row in zip(data["names"], data["tokens"], values):
        if name:
            traces.append(_head(str(name), height + HEAD_HEIGHT / 2))
            height += HEAD_HEIGHT
        for first, widths in _lines([shown(text) for text in texts]):
            part = slice(first, first + len(widths))
            traces.append(_line(data, texts[part], np.nan_to_num(row[part], nan=middle), widths, height, first))
            height += LINE_HEIGHT
        height += LINE_HEIGHT / 4
    hidden = {"visible": False, "fixedrange": True}
    layout = frame(
        height=int(height + 26),
        xaxis={"range": [0, LINE], **hidden},
        yaxis={"range": [height, 0], **hidden},
        coloraxis=colour_scale({**data, "values": values}),
        meta={"scale": data.get("colour", "diverging")},
    )
    layout["margin"] = {"l": 4, "r": 4, "t": 8, "b": 8}
    return traces, layout


def shown(text: Any) -> str:
    """A token as it can be seen: line breaks and tabs by their signs, blanks as ␣, an empty one as a dot."""
    return shown_token(str(text)) if text else "·"


def _lines(texts: Sequence[str]) -> Iterator[tuple[int, list[float]]]:
    """For each line the place of its first token, and the widths of its tokens in characters."""
    first, widths = 0, []
    for i, text in enumerate(texts):
        width = min(len(text) + AIR, LINE)
        if widths and sum(widths) + width > LINE:
            yield first, widths
            first, widths = i, []
        widths.append(width)
    if widths:
        yield first, widths


def _line(data: Mapping[str, Any], texts: Any, values: Any, widths: Any, top: float, first: int) -> dict[str, Any]:
    return {
        "type": "heatmap",
        "z": values[None],
        "x": np.concatenate([[0.0], np.cumsum(widths)]),
        "y": [top, top + LINE_HEIGHT - 4],
        "text": [[escaped(shown(text)) for text in texts]],
        "texttemplate": "%{text}",
        "customdata": [[[first + i] for i in range(len(widths))]],
        "xgap": 1.5,
        "coloraxis": "coloraxis",
        "hovertemplate": f"%{{customdata[0]}} “%{{text}}”<br>{escaped(data['value_label'])} <b>%{{z:.4~g}}</b>"
        "<extra></extra>",
    }


def _head(name: str, y: float) -> dict[str, Any]:
    return points([0.2], [y], "text", text=[escaped(name)], textposition="middle right", hoverinfo="skip")


def attention_values(data: Mapping[str, Any]) -> np.ndarray:
    """z (panels, query, key) as it is meant: uint8 counts steps of 1/255."""
    z = np.asarray(data["z"])
    return z / np.float32(255) if z.dtype == np.uint8 else z


def attention(data: Mapping[str, Any]) -> Drawn:
    """z (panels, query, key): what each query position takes from each key position."""
    z = attention_values(data)[:MOST_PANELS]
    names = [f"{i} {shown(text)}" for i, text in enumerate(data["tokens"])]
    columns = 1 if len(z) == 1 else FEW_COLUMNS if len(z) <= FEW_HEADS else MANY_COLUMNS
    table = {
        **data,
        "z": z,
        "panels": list(data["panels"])[:MOST_PANELS],
        "x_label": "key",
        "y_label": "query",
        "x_names": names,
        "y_names": names,
        "_downward": True,
    }
    return panelled(table, z, columns=columns, labelled=columns < MANY_COLUMNS)
