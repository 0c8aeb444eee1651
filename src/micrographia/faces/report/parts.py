"""The pieces of a page: tables, badges, sections, figures. Each takes data and gives Html."""

from collections.abc import Mapping, Sequence
from typing import Any

from micrographia.core.claims import Judged, Run
from micrographia.core.figures import Figure
from micrographia.faces import words
from micrographia.faces.report.markup import Html, join, tag, typeset
from micrographia.faces.sections import Section, Table, flat


def table(content: Table, *, caption: str = "") -> Html:
    """A table that scrolls sideways on a narrow screen; numbers stand right, texts left."""
    head = tag(
        "tr",
        *(tag("th", typeset(name), class_=_side(content, i), scope="col") for i, name in enumerate(content.columns)),
    )
    rows = [_row(content, i) for i in range(len(content.rows))]
    inner = tag("table", tag("caption", caption) if caption else "", tag("thead", head), tag("tbody", *rows))
    return tag("div", inner, class_="scroll")


def _row(content: Table, i: int) -> Html:
    cells = [
        tag("td", typeset(words.value(cell)), _note(content, i) if j == 0 else "", class_=_side(content, j))
        for j, cell in enumerate(content.rows[i])
    ]
    return tag("tr", *cells, class_="strong" if i in content.strong else None)


def _note(content: Table, i: int) -> Html:
    return (
        tag("span", typeset(content.notes[i]), class_="source below")
        if content.notes and content.notes[i]
        else Html("")
    )


def _side(content: Table, column: int) -> str:
    return "text" if column in content.texts else "number"


def section(content: Section) -> Html:
    """A heading with its lead, its sentences, its preformatted lines and its table."""
    return tag(
        "section",
        tag("h2", content.title),
        tag("p", typeset(content.lead), class_="lead") if content.lead else "",
        *(tag("p", typeset(paragraph)) for paragraph in content.paragraphs),
        tag("pre", "\n".join(content.lines), class_="formula") if content.lines else "",
        table(content.table) if content.table else "",
        id=content.id,
    )


def badge(verdict: str) -> Html:
    """A verdict with its sign, so that it does not rest on colour alone."""
    sign = {"holds": "✓", "fails": "✗"}.get(verdict, "·")
    return tag(
        "span", tag("span", sign, aria_hidden="true"), f" {verdict}", class_=f"badge {verdict.replace(' ', '-')}"
    )


def claims(judged: Sequence[Judged]) -> Html:
    """Each published statement beside what was measured, failures and what was not run included."""
    rows = [_claim(each.as_json()) for each in judged]
    head = tag("tr", *(tag("th", name, scope="col") for name in ("claim", "published", "measured", "verdict")))
    inner = tag("table", tag("thead", head), tag("tbody", *rows), class_="claims")
    lead = (
        "Every published statement beside what this run measured. A claim is judged at the presets it was made for; "
        "elsewhere it is not run. One that was not reproduced stays here and says so."
    )
    return tag(
        "section",
        tag("h2", "The claims"),
        tag("p", lead, class_="lead"),
        tag("div", inner, class_="scroll"),
        id="claims",
    )


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


def figure(content: Figure, verdicts: Mapping[str, str]) -> Html:
    """A place for the picture, which the page's script draws, with its caption below."""
    body = _FIGURES.get(content.kind, _picture)(content)
    notes = [tag("span", "After ", content.source, ". ", class_="source")] if content.source else []
    notes += [_bearing(name, verdicts.get(name)) for name in content.claims]
    return tag(
        "figure",
        tag("h3", typeset(content.title)),
        body,
        tag("figcaption", typeset(content.caption), " ", *notes),
        id=f"figure-{content.name}",
    )


def _bearing(name: str, verdict: str | None) -> Html:
    text = tag(
        "span", "claim ", name, f" {verdict}" if verdict else "", class_=f"chip {(verdict or 'none').replace(' ', '-')}"
    )
    return tag("a", text, href=f"#claim-{name}") if verdict else text


def _picture(content: Figure) -> Html:
    return tag("div", class_="picture", data_figure=content.name, role="img", aria_label=content.title)


def _table_figure(content: Figure) -> Html:
    rows = [list(row) for row in content.data["rows"]]
    texts = frozenset(j for row in rows for j, cell in enumerate(row) if isinstance(cell, str))
    strong = frozenset(int(i) for i in content.data.get("highlight") or ())
    return table(Table([str(name) for name in content.data["columns"]], rows, strong, texts))


def _explorer(content: Figure) -> Html:
    """The controls of the explorer; its script fills in chips, figures and curves."""
    choices = [("key", "key set"), ("all", "all"), ("none", "none"), ("others", "all but the key set")]
    rows = [("all", "all pairs"), ("train", "training pairs"), ("test", "unseen pairs")]
    switches = tag(
        "div",
        tag(
            "div",
            *(tag("button", text, type="button", data_set=name) for name, text in choices),
            class_="switch",
            role="group",
        ),
        tag(
            "div",
            *(tag("button", text, type="button", data_rows=name, aria_pressed="false") for name, text in rows),
            class_="switch",
            role="group",
        ),
        class_="controls",
    )
    slider = tag(
        "label",
        tag("span", "checkpoint", class_="label"),
        tag("input", type="range", min=0, value=0, step=1, data_part="checkpoint", aria_label="checkpoint"),
        tag("output", data_part="label"),
        class_="slider",
    )
    return tag(
        "div",
        switches,
        tag("div", class_="chips", data_part="chips", role="group", aria_label="frequencies"),
        slider,
        tag("div", class_="readout", data_part="readout", aria_live="polite"),
        tag("div", class_="picture", data_part="plot"),
        class_="explorer",
        data_explorer=content.name,
    )


_FIGURES = {"table": _table_figure, "explorer": _explorer}


def tiles(measures: Mapping[str, Any]) -> Html:
    """The few figures that a reader looks for first, large."""
    found = [(key, measures[key]) for key in TILES if measures.get(key) is not None]
    cells = [tag("div", tag("dt", TILES[key]), tag("dd", typeset(_large(key, value)))) for key, value in found]
    return tag("dl", *cells, class_="tiles") if cells else Html("")


def _large(key: str, value: Any) -> str:
    return f"{words.value(100 * value)} %" if key in SHARES else words.value(value)


SHARES = ("test_accuracy", "logit_variance_explained")
TILES = {
    "test_accuracy": "of unseen pairs right",
    "train_loss": "training loss",
    "test_loss": "test loss",
    "trig_loss": "loss of the cosines alone",
    "excluded_loss": "excluded loss",
    "logit_variance_explained": "logit variance explained",
}


def making(run: Run) -> Html:
    """Config and provenance: all that is needed to have this Run again."""
    columns = [
        tag(
            "div",
            tag("h3", heading),
            table(Table(("field", "value"), [[key, _shown(value)] for key, value in flat(content)])),
        )
        for heading, content in (("Config", run.config), ("Provenance", run.provenance))
        if content
    ]
    return tag("section", tag("h2", "How it was made"), tag("div", *columns, class_="columns"), id="making")


def _shown(value: Any) -> Any:
    return repr(value) if isinstance(value, float) else value
