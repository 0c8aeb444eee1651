"""Figures that the page's own scripts show: attention, of which plotly would carry every cell as a number.

A value is one of 256 steps, so that a cell takes a byte; of many heads one of 64, which packs to half of that. The page
says how large a step is.
"""

from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any

import numpy as np

from micrographia.core.figures import Figure
from micrographia.faces.figures.texts import shown

VIEWERS: Mapping[str, str] = {"attention": "attention.js"}
"""Kinds of Figure, and the script of this package that shows each."""
SIGNED, UNSIGNED = 127, 255  # steps on a side
MANY_CELLS, COARSE = 1_000_000, 4


def viewer_data(figure: Figure) -> dict[str, Any]:
    """What `attention.js` takes; frames, which are layers, become groups of heads."""
    data, frames = figure.data, figure.frames or ("",)
    z = np.asarray(data["z"])
    z = z.reshape(-1, *z.shape[-2:])
    panels, groups = zip(*((panel, frame) for frame, panel in product(frames, data["panels"])))
    signed = data.get("colour") == "diverging"
    steps, step = quantised(z, signed=signed)
    if not signed and steps.size > MANY_CELLS:
        steps, step = ((steps.astype(np.int16) + COARSE // 2) // COARSE).astype(np.uint8), step * COARSE
    return {
        "kind": figure.kind,
        "z": steps,
        "step": step,
        "most": max(int(np.abs(steps.astype(np.int16)).max(initial=0)), 1),
        "signed": signed,
        "panels": list(map(str, panels)),
        "groups": list(map(str, data.get("groups") or groups)),
        "shown": [shown(text) for text in data["tokens"]],
        "value": str(data.get("value_label") or "attention"),
        "first": int(np.abs(steps.astype(np.int64)).sum((1, 2)).argmax()) if signed else 0,
    }


def quantised(z: np.ndarray, *, signed: bool) -> tuple[np.ndarray, float]:
    """The values as whole steps (int8, or uint8 where none is below 0), and the size of a step."""
    if z.dtype == np.uint8:
        return z, 1 / UNSIGNED
    values = np.nan_to_num(z.astype(np.float64))
    n, kind = (SIGNED, np.int8) if signed else (UNSIGNED, np.uint8)
    step = float(np.abs(values).max(initial=0.0) or 1.0) / n
    return (values / step).round().clip(-SIGNED if signed else 0, n).astype(kind), step


def viewed(figures: Sequence[Figure]) -> dict[str, dict[str, Any]]:
    """By name, the data of all Figures that a viewer shows."""
    return {each.name: viewer_data(each) for each in figures if each.kind in VIEWERS}
