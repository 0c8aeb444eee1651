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
from micrographia.faces.sections import subtitle, summary, title

RESULTS = {
    "micrographia.core.effects": "Effects",
    "micrographia.methods.attribution.calibrate": "Calibration",
    "micrographia.methods.attribution.edges": "EdgeAttribution",
    "micrographia.methods.circuits.evaluate": "CircuitEvaluation",
    "micrographia.methods.lens": "StreamReading",
    "micrographia.methods.tracing": "Traced",
}
"""Module and name of the results that display themselves, where they have figures."""


@runtime_checkable
class HasFigures(Protocol):
    """What a method found: it knows its own pictures."""

    def figures(self) -> Sequence[Figure]: ...


@dataclass(frozen=True, slots=True)
class Displayed:
    """HTML that a notebook displays."""

    html: str

    def _repr_html_(self) -> str:
        return self.html


def show(thing: Run | Figure | HasFigures) -> Displayed:
    """A Run's whole report, a Figure, or the pictures of a result, as something a notebook displays.

    Raises UserError for what has no figures.
    """
    if isinstance(thing, Run):
        return Displayed(report_html(thing))
    if isinstance(thing, Figure):
        return Displayed(figure_html(thing))
    if isinstance(thing, HasFigures):
        return Displayed(result_html(thing))
    kind = type(thing).__name__
    raise UserError(f"Asked to show a value of type {kind}. What can be shown: Run, Figure, a result with figures.")


def attach() -> None:
    """Let Runs, Figures and the results that have been imported display themselves in a notebook."""
    kinds: list[tuple[Any, Any]] = [(Run, run_html), (Figure, figure_html)]
    there = [getattr(sys.modules[at], name, None) for at, name in RESULTS.items() if at in sys.modules]
    kinds += [(kind, result_html) for kind in there if isinstance(kind, type) and issubclass(kind, HasFigures)]
    for kind, display in kinds:
        kind._repr_html_ = display  # looked up by name
    Run.report = write_report  # type: ignore[attr-defined]  # core knows no face


def run_html(run: Run) -> str:
    """Title, sentences, claims: short enough to stand at the end of a cell."""
    from micrographia.faces.report.markup import tag

    sentences = [tag("p", sentence) for sentence in summary(run)]
    tally = tag("p", f"Claims: {words.tally([judged.verdict for judged in run.claims])}. Run: {run.path}")
    return str(tag("div", tag("h3", f"{title(run)} · {subtitle(run)}"), *sentences, tally))


def result_html(result: HasFigures) -> str:
    """The pictures of a result, in a frame."""
    return figures_html(result.figures())


def figure_html(figure: Figure) -> str:
    """One Figure with its controls, in a frame of its own."""
    return figures_html([figure])


def figures_html(figures: Sequence[Figure]) -> str:
    """Figures one below the other, in one frame."""
    from micrographia.faces.report.page import render_figures

    return _framed(render_figures(figures), height=min(200 + 560 * len(figures), 900))


def report_html(run: Run) -> str:
    """The whole report in a frame."""
    from micrographia.faces.report.page import render

    return _framed(render(run), height=800)


def _framed(page: str, *, height: int) -> str:
    style = f"width:100%;height:{height}px;border:0"
    return f'<iframe srcdoc="{escaping.escape(page, quote=True)}" style="{style}"></iframe>'
