"""The report: a Run as one HTML file that needs nothing else, on paper, on a telephone, in the dark.

Words and tables are plain HTML and can be read without scripts; pictures are drawn by plotly.js, taken from the
installed plotly and carried in the file, widgets by the scripts of their labs. What is on the page comes from
`sections`.
"""

from collections.abc import Mapping, Sequence
from functools import cache
from importlib import resources
from itertools import accumulate
from typing import Any

from plotly.offline import get_plotlyjs

from micrographia.core.claims import Run
from micrographia.core.figures import Figure
from micrographia.faces import words
from micrographia.faces.figures.axes import TICKS
from micrographia.faces.figures.draw import DRAW, draw
from micrographia.faces.figures.palette import LINES, MUTED, SCALES, template
from micrographia.faces.report import parts
from micrographia.faces.report.markup import Html, escape, join, prose, tag
from micrographia.faces.report.packing import packed, packed_text
from micrographia.faces.report.viewers import VIEWERS, viewed
from micrographia.faces.report.widgets import HOUSE, Scripts, read_scripts
from micrographia.faces.sections import sections, subtitle, summary, title


def render(run: Run, packages: Sequence[str] = HOUSE) -> str:
    """The whole page of a Run, as text. A second or two, most of it compressing the figures.

    `packages`: how the names of packages begin whose scripts a widget may bring.
    """
    drawers = read_scripts(run.figures, packages)
    chapters = _chapters(run, drawers.missing)
    contents = [("short", "In short"), *((anchor, heading) for anchor, heading, _ in chapters)]
    main = tag("main", _short(run), join(*(part for _, _, part in chapters)))
    return document(title(run), join(_header(run), _contents(contents), main), run.figures, drawers)


def _chapters(run: Run, missing: Mapping[str, str]) -> list[tuple[str, str, Html]]:
    """Anchor, heading and content: a section with a picture, what else is essential, the claims, then the rest."""
    verdicts = {judged.claim.id: judged.verdict for judged in run.claims}
    ordered = sorted(sections(run), key=lambda each: not each.essential)
    pictured = [each for each in ordered if any(figure.kind in DRAW for figure in each.figures)]
    opening = sorted(pictured, key=lambda each: each.figures[0].kind not in DRAW)[:1]  # rather one that begins with it
    ordered = [*opening, *(each for each in ordered if each not in opening)]
    found = [(each.essential, (each.id, each.title, parts.section(each, verdicts, missing))) for each in ordered]
    first, last = ([chapter for essential, chapter in found if essential == wanted] for wanted in (True, False))
    claims = [("claims", "The claims", parts.claims(run.claims))] if run.claims else []
    return [*first, *claims, *last, ("making", "How it was made", parts.making(run))]


def render_figures(figures: Sequence[Figure], heading: str = "", *, library: bool = True) -> str:
    """A page with these Figures alone, for a notebook's frame; without plotly.js where another frame has it."""
    drawers = read_scripts(figures)
    body = tag("main", *(parts.figure(each, {}, drawers.missing) for each in figures), class_="alone")
    return document(heading or figures[0].title, body, figures, drawers, library=library)


def needs_library(figures: Sequence[Figure]) -> bool:
    """Whether a page of these Figures needs plotly.js."""
    return any(each.kind in PLOTTED or each.kind == "widget" for each in figures)


def document(heading: str, body: Html, figures: Sequence[Figure], drawers: Scripts, *, library: bool = True) -> str:
    """The file around the body: styles, data, plotly.js and scripts, all inside."""
    pictures = {each.name: draw(each) for each in figures if each.kind in PLOTTED}
    widgets = {each.name: dict(each.data) for each in figures if each.data.get("asset") in drawers.texts}
    viewers, kinds = viewed(figures), {each.kind for each in figures}
    data = {"pictures": pictures, "widgets": widgets, "viewers": viewers, "themes": THEMES, "ticks": TICKS}
    head = join(
        tag("meta", charset="utf-8"),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("meta", name="generator", content="micrographia"),
        tag("title", heading),
        tag("style", Html(asset("report.css"))),
    )
    carried = [_carried("library", _library())] if library and (pictures or widgets) else []
    carried += [_carried("data", packed(data))] if pictures or widgets or viewers else []
    own = (asset(script) for kind, script in (*VIEWERS.items(), *COMPANIONS.items()) if kind in kinds)
    carried += [tag("script", Html(text)) for text in (*drawers.texts.values(), *own, asset("report.js"))]
    size = sum(map(len, (head, body, *carried))) / 1e6
    told = tag("p", f"{size:.1f} MB, with all that it needs: nothing is asked of the network.", class_="source size")
    page = tag("html", tag("head", head), tag("body", body, told if size >= 0.1 else "", *carried), lang="en")
    return f"<!DOCTYPE html>\n{page}\n"


PLOTTED = DRAW.keys() - VIEWERS.keys() - {"tokens"}
"""Kinds of Figure that plotly draws in a page."""
COMPANIONS: Mapping[str, str] = {"graph": "graph.js"}
"""Kinds whose plotly picture does more than plotly, and the script that makes it do so."""
THEMES: Mapping[str, Any] = {
    theme: {"template": {"layout": template(theme)}, "scales": SCALES[theme], "lines": LINES, "muted": MUTED}
    for theme in ("light", "dark")
}


@cache
def _library() -> str:
    """plotly.js, packed once a process."""
    return packed_text(get_plotlyjs())


def _carried(name: str, text: str) -> Html:
    """Packed data: a script element of a type that no browser runs."""
    return tag("script", Html(text), type="application/gzip+base64", id=f"carried-{name}")


def asset(name: str) -> str:
    """A style or script file of this package."""
    return (resources.files("micrographia.faces.report") / name).read_text(encoding="utf-8")


def _header(run: Run) -> Html:
    byline = [subtitle(run)]
    byline += [f"{name} {run.config[name]}" for name in ("seed",) if run.config.get(name) is not None]
    byline += [run.status] if run.status != "finished" else []
    return tag(
        "header",
        tag("p", tag("span", class_="lens", aria_hidden="true"), "micrographia", class_="wordmark"),
        tag("h1", title(run)),
        tag("p", " · ".join(byline), class_="byline"),
        tag("button", "dark / light", type="button", id="theme", title="Switch between light and dark"),
        class_="top",
    )


def _contents(entries: Sequence[tuple[str, str]]) -> Html:
    links = [tag("li", tag("a", text, href=f"#{anchor}")) for anchor, text in entries]
    return tag("nav", tag("details", tag("summary", "Contents"), tag("ol", *links), open=True), aria_label="Contents")


AT_ONCE = 420
"""Letters of the summary that stand there unfolded, so that the first picture is on the first screen."""


def _short(run: Run) -> Html:
    tally = words.tally([judged.verdict for judged in run.claims])
    sentences = summary(run) or ["This run has no results yet."]
    ends = list(accumulate(map(len, sentences)))
    n = max(1, sum(end <= AT_ONCE for end in ends))
    n = len(sentences) if ends[-1] - ends[n - 1] < AT_ONCE / 4 else n
    rest = [tag("p", prose(sentence)) for sentence in sentences[n:]]
    return tag(
        "section",
        tag("h2", "In short", class_="quiet"),
        tag("p", prose(sentences[0]), class_="first"),
        *(tag("p", prose(sentence)) for sentence in sentences[1:n]),
        tag("details", tag("summary", f"{len(rest)} more sentences" if len(rest) > 1 else "more"), *rest)
        if rest
        else "",
        tag("p", escape("Claims: "), tag("a", tally, href="#claims"), ".") if run.claims else "",
        id="short",
    )
