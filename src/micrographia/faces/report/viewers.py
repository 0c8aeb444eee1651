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
SIGNED, UNSIGNED, FEW = 127, 255, 63  # steps on a side
MANY_CELLS = 1_000_000


def viewer_data(figure: Figure) -> dict[str, Any]:
    """What `attention.js` takes; frames, which are layers, become groups of heads."""
    data, frames = figure.data, figure.frames or ("",)
    z = np.asarray(data["z"])
    z = z.reshape(-1, *z.shape[-2:])
    panels, groups = zip(*((panel, frame) for frame, panel in product(frames, data["panels"])))
    signed = data.get("colour") == "diverging"
    n = SIGNED if signed else FEW if z.size > MANY_CELLS else UNSIGNED
    steps, step = quantised(z, n, signed=signed)
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


def quantised(z: np.ndarray, n: int, *, signed: bool) -> tuple[np.ndarray, float]:
    """The values as whole steps, n of them up to the largest (int8, or uint8 where none is below 0), and their size."""
    if z.dtype == np.uint8:
        if n == UNSIGNED:
            return z, 1 / UNSIGNED
        z = z.astype(np.float32) / UNSIGNED
    values = np.nan_to_num(z.astype(np.float64))
    step = float(np.abs(values).max(initial=0.0) or 1.0) / n
    return (values / step).round().clip(-n if signed else 0, n).astype(np.int8 if signed else np.uint8), step


def viewed(figures: Sequence[Figure]) -> dict[str, dict[str, Any]]:
    """By name, the data of all Figures that a viewer shows."""
    return {each.name: viewer_data(each) for each in figures if each.kind in VIEWERS}
