"""Figures as PNG and SVG, through the extra `png`: kaleido, and a Chrome or Chromium that it can drive.

plotly and kaleido are imported when a picture is asked for, not before.
"""

import os
import shutil
from collections.abc import Iterator, Sequence
from importlib import util

from micrographia.core.claims import Figure
from micrographia.core.errors import MissingExtra
from micrographia.faces.figures.draw import DRAW, draw
from micrographia.faces.figures.palette import PAGE

CHROMES = ("google-chrome", "google-chrome-stable", "chrome", "chromium", "chromium-browser", "microsoft-edge")
WIDTH = 900


def pictures(figures: Sequence[Figure], kind: str) -> Iterator[tuple[str, bytes]]:
    """(name, bytes) of every Figure that plotly draws; `kind` is png or svg. Of frames, the last.

    Raises MissingExtra when kaleido or the browser is not there.
    """
    refuse_without_browser()
    import plotly.graph_objects as graph

    for figure in figures:
        if figure.kind in DRAW:
            picture = draw(figure)
            layout = {**picture["layout"], "title": {"text": figure.title}, "paper_bgcolor": PAGE["light"]}
            layout["margin"] = {**layout["margin"], "t": 90, "l": 24, "r": 24, "b": 24}
            shown = graph.Figure(data=picture["data"], layout=layout)
            yield figure.name, shown.to_image(format=kind, width=WIDTH, height=layout["height"] + 70, scale=2)


def refuse_without_browser() -> None:
    """Raise MissingExtra unless a picture can be made; the message names both things that are needed."""
    lacking = [] if util.find_spec("kaleido") else ["the extra `png` (kaleido) is not installed"]
    lacking += [] if find_chrome() else ["no Chrome or Chromium was found"]
    if lacking:
        raise MissingExtra(
            f"Asked for pictures as files, which needs kaleido and Chrome or Chromium; {' and '.join(lacking)}. "
            "Install `micrographia[png]` and a Chrome or Chromium (or point $BROWSER_PATH at one). The HTML report "
            "needs neither."
        )


def find_chrome() -> str | None:
    """The browser that kaleido would drive."""
    named = os.environ.get("BROWSER_PATH")
    if named and os.access(named, os.X_OK):
        return named
    return next((path for name in CHROMES if (path := shutil.which(name))), None)
