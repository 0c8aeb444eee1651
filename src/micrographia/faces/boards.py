"""Boards as all faces name their squares: columns a, b, c from the left, rows 1, 2, 3 from the top."""

import string
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from micrographia.faces.words import decimals, fixed


def column_letters(n: int) -> list[str]:
    """a to z, then aa, ab."""
    letters = string.ascii_lowercase
    return [letters[i] if i < 26 else letters[i // 26 - 1] + letters[i % 26] for i in range(n)]


def square_name(row: int, column: int) -> str:
    """ "c4": the third column, the fourth row from the top."""
    return f"{column_letters(column + 1)[column]}{row + 1}"


def board_texts(data: Mapping[str, Any]) -> list[list[list[str]]]:
    """What stands in each square, as [panel][row][column]: the texts, or else the values in two figures."""
    z = np.asarray(data["z"], dtype=np.float64)
    if data.get("texts") is not None:
        return [[[str(text) for text in row] for row in panel] for panel in data["texts"]]
    places = max(decimals(z[np.isfinite(z)].tolist()) - 1, 0)
    return [[[fixed(x, places) for x in row] for row in panel] for panel in z.tolist()]


def marks_of(data: Mapping[str, Any], panel: int) -> Sequence[Mapping[str, Any]]:
    """The marked squares of one panel; a mark without a panel is on each."""
    return [mark for mark in data.get("marks") or () if mark.get("panel", panel) == panel]
