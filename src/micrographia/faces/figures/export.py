"""Figures as PNG and SVG, through the extra `png`: kaleido, and a Chrome or Chromium that it can drive.

plotly and kaleido are imported when a picture is drawn, not before.
"""

import os
import shutil
from collections.abc import Iterator, Sequence
from importlib import util
from typing import Any

from micrographia.core.errors import MissingExtra
from micrographia.core.figures import Figure
from micrographia.faces.figures.axes import escaped
from micrographia.faces.figures.draw import DRAW, draw
from micrographia.faces.figures.palette import PAGE

CHROMES = ("google-chrome", "google-chrome-stable", "chrome", "chromium", "chromium-browser", "microsoft-edge")
WIDTH = 900


def pictures(figures: Sequence[Figure], kind: str) -> Iterator[tuple[str, bytes]]:
    """(name, bytes) of every Figure that plotly draws; `kind` is png or svg. Of frames, the last.

    One browser draws them all, and asks the network for nothing. Raises MissingExtra when kaleido or the browser is
    not there.
    """
    refuse_without_browser()
    import kaleido
    import plotly.graph_objects as graph

    kaleido.start_sync_server(silence_warnings=True, mathjax=False)
    try:
        for figure in drawable(figures):
            picture = _on_paper(figure)
            shown = graph.Figure(data=picture["data"], layout=picture["layout"]).to_plotly_json()
            size = {"format": kind, "width": WIDTH, "height": picture["layout"]["height"], "scale": 2}
            yield figure.name, kaleido.calc_fig_sync(shown, opts=size)
    finally:
        kaleido.stop_sync_server(silence_warnings=True)


def drawable(figures: Sequence[Figure]) -> list[Figure]:
    """Those that plotly draws; tables, texts and widgets are the report's own."""
    return [figure for figure in figures if figure.kind in DRAW]


def _on_paper(figure: Figure) -> dict[str, Any]:
    """The picture with its title inside, on the page's colour."""
    picture = draw(figure)
    layout = {**picture["layout"], "paper_bgcolor": PAGE["light"], "height": picture["layout"]["height"] + 70}
    layout["title"] = {"text": escaped(figure.title), "x": 0.02, "xanchor": "left"}
    layout["margin"] = {**layout["margin"], "t": 90, "l": 24, "r": 24, "b": 24}
    return {**picture, "layout": layout}


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
