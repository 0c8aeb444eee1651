"""Boards: squares with the first row on top, a colour and a text in each, and rings around those that are marked."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from micrographia.faces.boards import board_texts, column_letters, marks_of
from micrographia.faces.figures.axes import Drawn, escaped, points
from micrographia.faces.figures.maps import panelled
from micrographia.faces.figures.palette import LINES

FEW, MOST_COLUMNS = 4, 4
MARK_SIZE = 24


def board(data: Mapping[str, Any]) -> Drawn:
    """z (panels, rows, columns). Without `texts` the colours speak alone, and the value is under the pointer."""
    z = np.asarray(data["z"])
    n_rows, n_columns = z.shape[1:]
    across = 1 if len(z) == 1 else 2 if len(z) <= FEW else MOST_COLUMNS
    names = {"x_names": column_letters(n_columns), "y_names": [str(i + 1) for i in range(n_rows)]}
    drawn = {**data, **names, "x_label": "", "y_label": "", "_downward": True}
    if data.get("texts") is not None:
        drawn["texts"] = board_texts(data)
    traces, layout = panelled(drawn, z, columns=across)
    traces = [trace | {"xgap": 1.5, "ygap": 1.5} for trace in traces]
    for i in range(len(z)):
        suffix = "" if i == 0 else str(i + 1)
        layout[f"yaxis{suffix}"] |= {"scaleanchor": f"x{suffix}", "constrain": "domain"}
        layout[f"xaxis{suffix}"] |= {"constrain": "domain"}
        if marks := marks_of(data, i):
            traces.append(_marks(marks, names, suffix))
    return traces, layout


def _marks(marks: Any, names: Mapping[str, Any], suffix: str) -> dict[str, Any]:
    return points(
        [names["x_names"][mark["column"]] for mark in marks],
        [names["y_names"][mark["row"]] for mark in marks],
        text=[escaped(mark.get("name", "")) for mark in marks],
        xaxis=f"x{suffix}",
        yaxis=f"y{suffix}",
        marker={"symbol": "circle-open", "size": MARK_SIZE, "color": LINES[5], "line": {"width": 2.5}},
        hovertemplate="%{x}%{y}: %{text}<extra></extra>",
    )
