"""Runs and Figures in a notebook, offline: a Run as its summary and claims, a Figure as a frame that can be moved.

core knows no face, so its classes get their `_repr_html_` here, from `attach`, which the facade calls.
"""

import html as escaping
from dataclasses import dataclass

from micrographia.core.claims import Figure, Run
from micrographia.faces import words
from micrographia.faces.outline import summary, title


@dataclass(frozen=True, slots=True)
class Shown:
    """HTML that a notebook displays."""

    html: str

    def _repr_html_(self) -> str:
        return self.html


def show(thing: Run | Figure) -> Shown:
    """A Run's whole report, or one Figure, as something a notebook displays."""
    return Shown(figure_html(thing) if isinstance(thing, Figure) else report_html(thing))


def attach() -> None:
    """Let Run and Figure display themselves in a notebook."""
    Run._repr_html_ = run_html  # type: ignore[attr-defined]  # a display hook, looked up by name
    Figure._repr_html_ = figure_html  # type: ignore[attr-defined]


def run_html(run: Run) -> str:
    """Title, sentences, claims: short enough to stand at the end of a cell."""
    from micrographia.faces.report import parts  # plotly-free, but not needed unless something is shown
    from micrographia.faces.report.markup import join, tag

    said = [tag("p", sentence) for sentence in summary(run)]
    tally = tag("p", f"Claims: {words.tally([judged.verdict for judged in run.claims])}. Run: {run.path}")
    return str(tag("div", tag("h3", title(run)), *said, join(*(parts.section(s) for s in ())), tally))


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
