"""Colours that read on paper and on a dark screen, also for colour-blind eyes.

Line colours have a contrast of at least 3 against both page colours, and stay apart under simulated protanopia,
deuteranopia and tritanopia (a test computes both). Beyond them series differ by dashes. Colour scales come in pairs,
since the middle of a diverging scale must be the page itself.
"""

from collections.abc import Sequence
from itertools import count
from typing import Any

PAGE = {"light": "#fdfcf9", "dark": "#15181d"}
INK = {"light": "#23272e", "dark": "#e4e2dc"}
SOFT_INK = {"light": "#667080", "dark": "#9aa3b0"}
GRID = {"light": "#e6e8ec", "dark": "#2b3038"}

LINES = ("#2f78c4", "#d9730d", "#189a7a", "#b8529a", "#8939e6", "#c4223f")
DASHES = ("solid", "dash", "dot", "dashdot")
MUTED = "#7f8794"
BANDS = ("#d9730d", "#2f78c4", "#189a7a", "#b8529a")

FONT = "system-ui, -apple-system, 'Segoe UI', 'Helvetica Neue', Arial, sans-serif"

_STOPS = {
    "sequential": (0.0, 0.15, 0.4, 0.65, 0.85, 1.0),
    "points": (0.0, 0.5, 1.0),
    "words": (0.0, 0.3, 1.0),
    "diverging": (0.0, 0.25, 0.5, 0.75, 1.0),
}
_SCALES = {
    "light": {
        "sequential": "#fdfcf9 #dfe9f5 #8fb8e0 #2f78c4 #17427a #0b2140",
        "points": "#b9d3ec #2f78c4 #0b2140",
        "words": "#fdfcf9 #dfe9f5 #8fb8e0",
        "diverging": "#123f7a #5c9bd6 #fdfcf9 #ee9a55 #8f3d05",
    },
    "dark": {
        "sequential": "#15181d #17304f #2563a6 #4ca3e6 #b5dcf7 #fdfaf0",
        "points": "#27486e #4ca3e6 #fdfaf0",
        "words": "#15181d #17304f #2b67a8",
        "diverging": "#a9d6ff #3f83c8 #15181d #c8670f #ffd2a1",
    },
}
SCALES: dict[str, dict[str, Sequence[tuple[float, str]]]] = {
    theme: {kind: tuple(zip(_STOPS[kind], colours.split())) for kind, colours in scales.items()}
    for theme, scales in _SCALES.items()
}


MEANINGS = {
    "clean": LINES[2], "corrupt": LINES[3],
    "restored": LINES[4], "denoise": LINES[4], "destroyed": LINES[5], "noise": LINES[5],
}  # fmt: skip
"""Series that have one colour in all figures. Blue and orange tell signs: lowers and raises."""
PATTERNS = ("", "/", ".", "x")
"""Of bars, where dashes tell lines apart."""


def line_styles(names: Sequence[str]) -> list[dict[str, Any]]:
    """Colour and dash of each series of a figure; no two of the first 12 are alike."""
    return [{"color": colour, "dash": DASHES[turn % len(DASHES)]} for colour, turn in _colours(names)]


def bar_styles(names: Sequence[str]) -> list[dict[str, Any]]:
    """Colour and, where colours do not suffice, pattern of each series of bars."""
    shapes = [(colour, PATTERNS[turn % len(PATTERNS)]) for colour, turn in _colours(names)]
    return [{"color": colour, **({"pattern": {"shape": shape}} if shape else {})} for colour, shape in shapes]


def _colours(names: Sequence[str]) -> list[tuple[str, int]]:
    """A colour for each, those of `MEANINGS` their own, and how many times all colours were used before."""
    free = [colour for colour in LINES if colour not in {MEANINGS.get(name) for name in names}]
    others = ((colour, turn) for turn in count() for colour in free)
    return [(MEANINGS[name], 0) if name in MEANINGS else next(others) for name in names]


def faint(colour: str, opacity: float) -> str:
    """`#rrggbb` as an rgba() of this opacity."""
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},{opacity:g})"


def template(theme: str) -> dict[str, Any]:
    """What a plotly layout needs to sit on the page of this theme: the report's script swaps the two."""
    axis = {
        "gridcolor": GRID[theme],
        "linecolor": SOFT_INK[theme],
        "tickcolor": GRID[theme],
        "zerolinecolor": GRID[theme],
        "zerolinewidth": 1,
        "ticks": "outside",
        "ticklen": 4,
        "title": {"font": {"size": 13, "color": SOFT_INK[theme]}, "standoff": 8},
    }
    return {
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "font": {"family": FONT, "size": 12.5, "color": INK[theme]},
        "xaxis": axis,
        "yaxis": axis,
        "legend": {"bgcolor": "rgba(0,0,0,0)", "font": {"size": 12.5}},
        "hoverlabel": {
            "bgcolor": PAGE[theme],
            "bordercolor": SOFT_INK[theme],
            "font": {"family": FONT, "size": 12.5, "color": INK[theme]},
        },
        "annotationdefaults": {"font": {"color": INK[theme]}},
        "shapedefaults": {"line": {"color": SOFT_INK[theme]}, "label": {"font": {"color": SOFT_INK[theme]}}},
        "modebar": {"bgcolor": "rgba(0,0,0,0)", "color": SOFT_INK[theme], "activecolor": INK[theme]},
        "colorway": list(LINES),
    }
