"""Runs, Figures and results in a notebook, offline: a Run as its summary and claims, what is drawn in a frame.

core and methods know no face, so their classes get their `_repr_html_` here, from `attach`, which the facade calls. It
takes only what has been imported already, so that looking at a Run loads no tensor library.
"""

import html as escaping
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from micrographia.core.claims import Run
from micrographia.core.figures import Figure
from micrographia.faces import words
from micrographia.faces.outline import summary, title


@dataclass(frozen=True, slots=True)
class Shown:
    """HTML that a notebook displays."""

    html: str

    def _repr_html_(self) -> str:
        return self.html


def show(thing: Any, positions: Sequence[str] | None = None) -> Shown:
    """A Run's whole report, a Figure, or the pictures of a result, as something a notebook displays.

    Results are `Patched` and `Both`, `Attribution`, `EdgeAttribution` and `Traced`; `positions` names their positions,
    as `labs.workbench.prompts.position_names` does.
    """
    if isinstance(thing, Run):
        return Shown(report_html(thing))
    return Shown(figure_html(thing) if isinstance(thing, Figure) else result_html(thing, positions))


def attach() -> None:
    """Let Runs, Figures and the results that have been imported display themselves in a notebook."""
    Run._repr_html_ = run_html  # type: ignore[attr-defined]  # a display hook, looked up by name
    Figure._repr_html_ = figure_html  # type: ignore[attr-defined]
    for module, names in RESULTS.items():
        for name in names if module in sys.modules else ():
            getattr(sys.modules[module], name)._repr_html_ = result_html


RESULTS = {
    "micrographia.methods.patching": ("Patched", "Both"),
    "micrographia.core.effects": ("Effects",),
    "micrographia.methods.attribution.edges": ("EdgeAttribution",),
    "micrographia.methods.tracing": ("Traced",),
}


def result_html(result: Any, positions: Sequence[str] | None = None) -> str:
    """The pictures of a result, in a frame."""
    from micrographia.faces.report.page import render_figures
    from micrographia.labs.workbench.shown import figures_of

    figures = figures_of(result, positions)
    return _framed(render_figures(figures), height=min(560 * len(figures), 900))


def run_html(run: Run) -> str:
    """Title, sentences, claims: short enough to stand at the end of a cell."""
    from micrographia.faces.report.markup import tag

    said = [tag("p", sentence) for sentence in summary(run)]
    tally = tag("p", f"Claims: {words.tally([judged.verdict for judged in run.claims])}. Run: {run.path}")
    return str(tag("div", tag("h3", title(run)), *said, tally))


def figure_html(figure: Figure) -> str:
    """One Figure with its controls, in a frame of its own."""
    from micrographia.faces.report.page import render_figures

    return _framed(render_figures([figure]), height=760)


def report_html(run: Run) -> str:
    """The whole report in a frame."""
    from micrographia.faces.report.page import render

    return _framed(render(run), height=800)


def _framed(page: str, *, height: int) -> str:
    style = f"width:100%;height:{height}px;border:0"
    return f'<iframe srcdoc="{escaping.escape(page, quote=True)}" style="{style}"></iframe>'
