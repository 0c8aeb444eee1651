"""The report: a Run as one HTML file that needs nothing else, on paper, on a telephone, in the dark.

Words and tables are plain HTML and can be read without scripts; pictures are drawn by plotly.js, taken from the
installed plotly and carried in the file. What is on the page comes from `outline` and from the Run's Figures.
"""

from collections.abc import Mapping, Sequence
from functools import cache
from importlib import resources
from typing import Any

from plotly.offline import get_plotlyjs

from micrographia.core.claims import Run
from micrographia.core.figures import Figure
from micrographia.faces import words
from micrographia.faces.figures.axes import TICKS
from micrographia.faces.figures.draw import DRAW, draw
from micrographia.faces.figures.palette import LINES, MUTED, SCALES, template
from micrographia.faces.outline import outline, standing, summary, title
from micrographia.faces.report import parts
from micrographia.faces.report.markup import Html, escape, join, tag, typeset
from micrographia.faces.report.packing import packed, packed_text
from micrographia.faces.sections import Section

SCRIPTS = ("explorer_loss.js", "explorer.js", "report.js")
UNGROUPED = "Figures"
OPENING = ("The run", "In pictures")
"""The groups of pictures that open the page, before any table."""
ORDER = (*OPENING, "The circuit", "Progress measures", "Neurons", "Attention", "Explorer")
"""Groups with these names stand first, in this order."""


def render(run: Run) -> str:
    """The whole page of a finished Run, as text. A second or two, most of it compressing the figures."""
    sections = outline(run)
    groups = grouped(run.figures)
    chapters = _chapters(run, sections, groups)
    contents = [("short", "In short"), *((anchor, heading) for anchor, heading, _ in chapters)]
    body = join(*(part for _, _, part in chapters))
    return document(title(run), join(_header(run), _contents(contents), tag("main", _short(run), body)), run.figures)


def _chapters(
    run: Run, sections: Sequence[Section], groups: Mapping[str, Sequence[Figure]]
) -> list[tuple[str, str, Html]]:
    """Anchor, heading and content in reading order: the opening pictures, what was found, all pictures, the claims."""
    pictures = {name: (slug(name), name, figures_section(name, each, run)) for name, each in groups.items()}
    opening = [pictures.pop(name) for name in OPENING if name in pictures]
    found = [(s.id, s.title, parts.section(s)) for s in sections if s.essential]
    claims = [("claims", "The claims", parts.claims(run.claims))] if run.claims else []
    more = [(s.id, s.title, parts.section(s)) for s in sections if not s.essential]
    return [*opening, *found, *pictures.values(), *claims, *more, ("making", "How it was made", parts.making(run))]


def render_figures(figures: Sequence[Figure], heading: str = "") -> str:
    """A page with these Figures alone, for a notebook's frame."""
    body = tag("main", *(parts.figure(each, {}) for each in figures), class_="alone")
    return document(heading or figures[0].title, body, figures)


def document(heading: str, body: Html, figures: Sequence[Figure]) -> str:
    """The file around the body: styles, data, plotly.js and scripts, all inside."""
    pictures = {each.name: draw(each) for each in figures if each.kind in DRAW}
    explorers = {each.name: dict(each.data) for each in figures if each.kind == "explorer"}
    data = {"pictures": pictures, "explorers": explorers, "themes": THEMES, "ticks": TICKS}
    head = join(
        tag("meta", charset="utf-8"),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("meta", name="generator", content="micrographia"),
        tag("title", heading),
        tag("style", Html(asset("report.css"))),
    )
    scripts = [_carried("library", _library()), _carried("data", packed(data))] if pictures or explorers else []
    scripts += [tag("script", Html(asset(name))) for name in SCRIPTS]
    page = tag("html", tag("head", head), tag("body", body, *scripts), lang="en")
    return f"<!DOCTYPE html>\n{page}\n"


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


def grouped(figures: Sequence[Figure]) -> dict[str, list[Figure]]:
    """Figures by group: the well-known groups first, then others in the order of their first figure."""
    groups: dict[str, list[Figure]] = {}
    for each in figures:
        groups.setdefault(each.group or UNGROUPED, []).append(each)
    known = [name for name in ORDER if name in groups]
    return {name: groups[name] for name in [*known, *(name for name in groups if name not in known)]}


def figures_section(group: str, figures: Sequence[Figure], run: Run) -> Html:
    verdicts = {judged.claim.id: judged.verdict for judged in run.claims}
    return tag("section", tag("h2", group), *(parts.figure(each, verdicts) for each in figures), id=slug(group))


def slug(text: str) -> str:
    """A group's name as an anchor."""
    return "group-" + "".join(letter if letter.isalnum() else "-" for letter in text.lower())


def _header(run: Run) -> Html:
    facts = [standing(run)]
    facts += [f"{name} {run.config[name]}" for name in ("seed",) if run.config.get(name) is not None]
    facts += [run.status] if run.status != "finished" else []
    return tag(
        "header",
        tag("p", tag("span", class_="lens", aria_hidden="true"), "micrographia", class_="wordmark"),
        tag("h1", title(run)),
        tag("p", " · ".join(facts), class_="facts"),
        tag("button", "dark / light", type="button", id="theme", title="Switch between light and dark"),
        class_="top",
    )


def _contents(entries: Sequence[tuple[str, str]]) -> Html:
    links = [tag("li", tag("a", text, href=f"#{anchor}")) for anchor, text in entries]
    return tag("nav", tag("details", tag("summary", "Contents"), tag("ol", *links), open=True), aria_label="Contents")


def _short(run: Run) -> Html:
    tally = words.tally([judged.verdict for judged in run.claims])
    said = summary(run) or ["This run has no results yet."]
    return tag(
        "section",
        tag("h2", "In short", class_="quiet"),
        tag("p", typeset(said[0]), class_="first"),
        *(tag("p", typeset(sentence)) for sentence in said[1:]),
        tag("p", escape("Claims: "), tag("a", tally, href="#claims"), ".") if run.claims else "",
        parts.tiles((run.results or {}).get("measures") or {}),
        id="short",
    )
