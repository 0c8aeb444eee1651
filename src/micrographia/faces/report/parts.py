"""The pieces of a page: tables, badges, sections, figures. Each takes data and gives Html."""

import dataclasses
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from micrographia.core.claims import Judged, Run
from micrographia.core.figures import Figure
from micrographia.faces import words
from micrographia.faces.figures.texts import shown
from micrographia.faces.report.markup import Html, join, prose, tag, typeset
from micrographia.faces.sections import Section, flat
from micrographia.faces.tables import TextTable, table_of, texts_of

COMPARED = 3
"""Rows of tokens up to which they are always taken for prompts that are compared position by position."""
WIDEST, AIR = 96, 2
"""Letters of a row that fit a page; what stands around each token, in letters."""


def table(content: TextTable) -> Html:
    """A table that scrolls sideways on a narrow screen; numbers stand right, texts left."""
    head = tag(
        "tr",
        *(tag("th", typeset(name), class_=_side(content, i), scope="col") for i, name in enumerate(content.columns)),
    )
    rows = [_row(content, i) for i in range(len(content.rows))]
    return tag("div", tag("table", tag("thead", head), tag("tbody", *rows)), class_="scroll")


def _row(content: TextTable, i: int) -> Html:
    note = content.notes[i] if content.notes else ""
    below = tag("span", typeset(note), class_="source below") if note else ""
    cells = [
        tag("td", _cell(cell, j in content.texts), below if j == 0 else "", class_=_side(content, j))
        for j, cell in enumerate(content.rows[i])
    ]
    return tag("tr", *cells, class_="strong" if i in content.strong else None)


def _cell(text: str, is_text: bool) -> Html:
    """A cell; where room is short the limits of an interval go below its figure, and neither is broken."""
    figure, _, limits = text.partition(" (")
    if is_text or not limits:
        return typeset(text)
    return Html(f"{typeset(figure)} {tag('span', typeset(f'({limits}'), class_='limits')}")


def _side(content: TextTable, column: int) -> str:
    return "text" if column in content.texts else "number"


def section(content: Section, verdicts: Mapping[str, str], missing: Mapping[str, str]) -> Html:
    """The Figures of a group below its name, pictures before tables; one of the same name goes without a heading of its
    own, and no sentence of a caption is said twice.

    `missing`: why a widget's script cannot be had, by its asset.
    """
    ordered, said = sorted(content.figures, key=lambda each: each.kind in ("table", "text")), set[str]()
    figures = []
    for each in ordered:
        sentences = re.split(r"(?<=[.:]) (?=[A-Z0-9])", each.caption)
        once = dataclasses.replace(each, caption=" ".join(text for text in sentences if text not in said))
        said.update(sentences)
        headed = each.title != content.title or len(ordered) > 1
        figures.append(figure(once, verdicts, missing, headed=headed))
    return tag("section", tag("h2", content.title), *figures, id=content.id)


def badge(verdict: str) -> Html:
    """A verdict with its sign, so that it does not rest on colour alone."""
    sign = {"holds": "✓", "fails": "✗"}.get(verdict, "·")
    return tag(
        "span", tag("span", sign, aria_hidden="true"), f" {verdict}", class_=f"badge {verdict.replace(' ', '-')}"
    )


def claims(judged: Sequence[Judged]) -> Html:
    """Each published statement beside what was measured, failures and what was not run included."""
    judged_here, others = ([each for each in judged if (each.verdict == "not run") == left] for left in (False, True))
    lead = (
        "Every published statement beside what this run measured. A claim is judged at the presets it was made for; "
        "elsewhere it is not run. One that was not reproduced stays here, marked as failed."
    )
    folded = tag("details", tag("summary", f"{len(others)} not run here"), _claims_table(others)) if others else ""
    return tag(
        "section",
        tag("h2", "The claims"),
        tag("p", lead, class_="lead"),
        _claims_table(judged_here) if judged_here else "",
        folded,
        id="claims",
    )


def _claims_table(judged: Sequence[Judged]) -> Html:
    head = tag("tr", *(tag("th", name, scope="col") for name in ("claim", "published", "measured", "verdict")))
    rows = [_claim(each.as_json()) for each in judged]
    return tag("div", tag("table", tag("thead", head), tag("tbody", *rows), class_="claims"), class_="scroll")


def _claim(claim: Mapping[str, Any]) -> Html:
    control = words.null(claim)
    statement = join(
        tag("span", typeset(claim["text"]), class_="statement"),
        tag("span", claim["source"], class_="source"),
        tag("span", "Control: ", typeset(control), class_="source") if control else "",
    )
    return tag(
        "tr",
        tag("td", statement),
        tag("td", typeset(words.published(claim)), data_label="published"),
        tag("td", typeset(words.measured(claim)), data_label="measured"),
        tag("td", badge(claim["verdict"]), data_label="verdict"),
        id=f"claim-{claim['id']}",
    )


def figure(content: Figure, verdicts: Mapping[str, str], missing: Mapping[str, str], *, headed: bool = True) -> Html:
    """A table or text with its lead; or a place for a picture, which the page's script draws, and its caption."""
    caption = prose(content.caption) if content.caption else ""
    notes = [tag("span", "After ", content.source, ". ", class_="source")] if content.source else []
    notes += [_bearing(name, verdicts.get(name)) for name in content.claims]
    readable = content.kind in ("table", "text")
    below = [*([] if readable else [caption, " "]), *notes]
    return tag(
        "figure",
        tag("h3", typeset(content.title)) if headed else "",
        tag("p", caption, class_="lead") if readable and caption else "",
        _widget(content, missing) if content.kind == "widget" else _BODIES.get(content.kind, _picture)(content),
        tag("figcaption", *below) if any(each.strip() for each in below) else "",
        id=f"figure-{content.name}",
    )


def _bearing(name: str, verdict: str | None) -> Html:
    text = tag(
        "span", "claim ", name, f" {verdict}" if verdict else "", class_=f"chip {(verdict or 'none').replace(' ', '-')}"
    )
    return tag("a", text, href=f"#claim-{name}") if verdict else text


def _picture(content: Figure) -> Html:
    return tag("div", class_="picture", data_figure=content.name, role="img", aria_label=content.title)


def _table(content: Figure) -> Html:
    return table(table_of(content.data))


def _text(content: Figure) -> Html:
    paragraphs, lines = texts_of(content.data)
    formula = tag("pre", "\n".join(lines), class_="formula") if lines else ""
    return join(*(tag("p", prose(paragraph)) for paragraph in paragraphs), formula)


def _widget(content: Figure, missing: Mapping[str, str]) -> Html:
    """An empty place for the widget's script to fill, or why there is none."""
    if reason := missing.get(str(content.data["asset"])):
        return tag("p", f"This cannot be drawn: {reason}.", class_="failed")
    return tag("div", class_="widget", data_widget=content.name)


def _viewer(content: Figure) -> Html:
    return tag("div", class_="viewer widget", data_viewer=content.name, role="group", aria_label=content.title)


def _tokens(content: Figure) -> Html:
    """Coloured text. Rows of as many tokens stand one above the other, position by position; the tokens that differ are
    marked, unless most do.

    A few of them, and those that are alike, are prompts to be compared, and broken together. Others are passages: each
    is broken by itself, always where they are too wide for a page, else on a narrow one.
    """
    data, scale = content.data, _strongest(content.data["values"])
    rows = [[shown(text) for text in row] for row in data["tokens"]]
    differ = {j for row in rows for j, text in enumerate(row) for other in rows if j < len(other) and other[j] != text}
    apart = 2 * len(differ) > max(map(len, rows), default=0)
    marked = set[int]() if apart else differ
    texts = [[_token(data, i, j, text, j in marked, scale) for j, text in enumerate(row)] for i, row in enumerate(rows)]
    alike = len(rows) > 1 and len({len(row) for row in rows}) == 1
    if not alike or (apart and len(rows) > COMPARED):
        lines = [tag("p", tag("span", name, class_="label"), *row) for name, row in zip(data["names"], texts)]
        fits = alike and sum(AIR + max(map(len, column)) for column in zip(*rows)) <= WIDEST
        kind = "token-rows token-grid" if fits else "token-rows"
        return tag("div", *lines, class_=kind, style=f"--columns:{1 + len(rows[0])}" if fits else None)
    names = [tag("span", name, class_="label") for name in data["names"]]
    columns = [tag("span", *column, class_="column") for column in (names, *map(list, zip(*texts)))]
    return tag("div", *columns, class_="token-columns")


def _token(data: Mapping[str, Any], i: int, j: int, text: str, marked: bool, scale: float) -> Html:
    value = float(data["values"][i][j])
    away = value - float(data.get("midpoint") or 0.0)
    strength = min(abs(away) / scale, 1.0) if math.isfinite(away) else 0.0
    return tag(
        "span",
        text,
        class_=f"token {'raises' if away >= 0 else 'lowers'}{' differs' * marked}",
        style=f"--strength:{100 * strength:.0f}%",
        title=f"{j} “{text}” {data['value_label']} {words.format_number(float(f'{value:.4g}'))}",
    )


def _strongest(values: Sequence[Sequence[float]]) -> float:
    """The largest size among all rows."""
    return max((abs(float(x)) for row in values for x in row if math.isfinite(x)), default=0.0) or 1.0


_BODIES = {"table": _table, "text": _text, "tokens": _tokens, "attention": _viewer}


def making(run: Run) -> Html:
    """Config and provenance: all that is needed to have this Run again."""
    columns = [
        tag(
            "div",
            tag("h3", heading),
            table(TextTable(("field", "value"), [[key, _exact(value)] for key, value in flat(content)])),
        )
        for heading, content in (("Config", run.config), ("Provenance", run.provenance))
        if content
    ]
    return tag("section", tag("h2", "How it was made"), tag("div", *columns, class_="columns"), id="making")


def _exact(value: Any) -> str:
    return repr(value) if isinstance(value, float) else words.format_value(value)
