"""Runs, Figures and results in a notebook, offline: a Run as its summary and claims, what is drawn in a frame.

core and methods know no face, so their classes get their `_repr_html_` here, from `attach`, which the facade calls. It
takes only what has been imported already, so that looking at a Run loads no tensor library.
"""

import html as escaping
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from micrographia.core.claims import Run
from micrographia.core.errors import UserError
from micrographia.core.figures import Figure
from micrographia.faces import words
from micrographia.faces.report.write import write_report
from micrographia.faces.sections import sections, subtitle, summary, title

FLOORS = ("micrographia.core.", "micrographia.methods.")
"""Where the classes of results are."""


WIDGET_HEIGHT = 1400
"""Pixels of a frame with a widget: enough for boards and their words. The page makes a frame lower that is too high."""


@runtime_checkable
class HasFigures(Protocol):
    """What a method found: it knows its own pictures."""

    def figures(self) -> Sequence[Figure]: ...


@dataclass(frozen=True, slots=True)
class Displayed:
    """HTML that a notebook displays."""

    html: str

    def __repr__(self) -> str:
        return f"Displayed({len(self.html):,} letters of HTML)"  # a notebook keeps the text beside the HTML

    def _repr_html_(self) -> str:
        return self.html


def show(thing: Run | Figure | HasFigures) -> Displayed:
    """A Run's whole report, a Figure, or the pictures of a result, as something a notebook displays.

    Raises UserError for what has no figures.
    """
    if isinstance(thing, Run | Figure | HasFigures):
        return Displayed(frame_html(thing, alone=True))
    kind = type(thing).__name__
    raise UserError(f"Asked to show a value of type {kind}. What can be shown: Run, Figure, a result with figures.")


def attach() -> None:
    """Let Runs, Figures and the results that have been imported display themselves in a notebook."""
    modules = [module for name, module in [*sys.modules.items()] if name.startswith(FLOORS)]
    there = {id(each): each for module in modules for each in vars(module).values() if isinstance(each, type)}
    found = [each for each in there.values() if callable(getattr(each, "figures", None))]
    kinds: list[tuple[Any, Any]] = [(Run, run_html), (Figure, frame_html), *((each, frame_html) for each in found)]
    for kind, display in kinds:
        kind._repr_html_ = display  # looked up by name
    Run.report = write_report  # type: ignore[attr-defined]  # core knows no face


def run_html(run: Run) -> str:
    """Title, sentences, claims, and the first picture: short enough to stand at the end of a cell."""
    from micrographia.faces.report.markup import Html, tag

    sentences = [tag("p", sentence) for sentence in summary(run)]
    tally = tag("p", f"Claims: {words.tally([judged.verdict for judged in run.claims])}. Run: {run.path}")
    figures = [each for section in sections(run) for each in section.figures if each.kind not in ("table", "text")]
    first = Html(frame_html(figures[0])) if figures else ""
    return str(tag("div", tag("h3", f"{title(run)} · {subtitle(run)}"), *sentences, tally, first))


class _Sent:
    """What the notebook of this process already has: later frames take plotly.js from the first."""

    library = False


def frame_html(shown: Run | Figure | HasFigures, *, alone: bool = False) -> str:
    """A Run's whole report, a Figure with its controls, or all pictures of a result, in a frame; else its text.

    The first frame of a process carries plotly.js, two megabytes, and those after it do not, unless they are to stand
    `alone`. A notebook that keeps its outputs apart (Colab, VS Code) needs `show`, whose frames do.
    """
    from micrographia.faces.report.page import needs_library, render, render_figures

    if isinstance(shown, Run):
        page, height = render(shown), 800
    else:
        figures = [shown] if isinstance(shown, Figure) else shown.figures()
        if not figures:
            return f"<pre>{escaping.escape(str(shown))}</pre>"
        page = render_figures(figures, library=alone or not _Sent.library)
        _Sent.library = _Sent.library or needs_library(figures)
        height = WIDGET_HEIGHT if any(each.kind == "widget" for each in figures) else min(200 + 560 * len(figures), 900)
    style = f"width:100%;height:{height}px;border:0"
    return f'<iframe class="micrographia" srcdoc="{escaping.escape(page, quote=True)}" style="{style}"></iframe>'
