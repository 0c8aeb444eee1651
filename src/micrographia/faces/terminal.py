"""Runs and Figures in a terminal: tables by rich, curves as spark lines, bars as blocks.

Made for 80 columns and for pipes; nothing depends on colour alone.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from rich import box
from rich.console import Console, Group
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from micrographia.core.claims import Judged, Run
from micrographia.core.figures import Figure
from micrographia.faces import words
from micrographia.faces.outline import outline, standing, summary, title
from micrographia.faces.sections import Section
from micrographia.faces.sections import Table as Content

SPARKS = "▁▂▃▄▅▆▇█"
STYLES = {"holds": "green", "fails": "red", "not run": "bright_black"}
SIGNS = {"holds": "✓ holds", "fails": "✗ fails", "not run": "· not run"}
MOST_BARS = 16
MOST_TOKENS = 8


def print_run(console: Console, run: Run, *, report: Path | None = None, everything: bool = False) -> None:
    """What was found, in words and tables; `everything` adds the sections that a report has further down."""
    console.print()
    console.print(
        Text(title(run), style="bold").append(f"  ·  {standing(run)}, {run.status}", style="not bold bright_black")
    )
    for sentence in summary(run):
        console.print(sentence, markup=False, highlight=False)
    for section in outline(run):
        if everything or section.essential:
            print_section(console, section)
    if run.claims:
        heading(console, "The claims")
        print_claims(console, run.claims, brief=not everything)
    console.print()
    print_place(console, "Run", run.path.absolute())
    if report is not None:
        print_place(console, "Report", report)


def print_place(console: Console, name: str, path: Path) -> None:
    """A path on a line of its own, not wrapped, and a link where the terminal knows links."""
    link = Text(str(path), style=f"link {path.as_uri()}")
    console.print(Text(f"{name}: "), link, soft_wrap=True, sep="")


def heading(console: Console, text: str) -> None:
    console.print()
    console.print(Text(text, style="bold"))


def print_section(console: Console, section: Section) -> None:
    """Heading, lead, sentences, table and preformatted lines."""
    heading(console, section.title)
    if section.lead:
        console.print(section.lead, markup=False, highlight=False)
    for paragraph in section.paragraphs:
        console.print(paragraph, markup=False, highlight=False)
    if section.lines:
        console.print(Padding(Text("\n".join(section.lines)), (0, 0, 0, 2)))
    if section.table:
        print_table(console, section.table)


def print_table(console: Console, content: Content) -> None:
    """A table; one that is too wide in parts, one below the other, which all begin with the names of the rows."""
    parts = blocks(console, content)
    for i, part in enumerate(parts):
        if i:
            said = f"The same table, from the column {str(part.columns[_n_names(content)])!r} on:"
            console.print(said, style="bright_black", markup=False, highlight=False)
        console.print(table(part))


def blocks(console: Console, content: Content) -> list[Content]:
    """The columns of a table in as many parts as fit the width, each with its rows' names; whole where it fits."""
    names = list(range(_n_names(content)))
    chosen = [names]
    for i in range(len(names), len(content.columns)):
        if len(chosen[-1]) > len(names) and not fits(console, _columns(content, [*chosen[-1], i])):
            chosen.append(names)
        chosen[-1] = [*chosen[-1], i]
    return [content] if len(chosen) == 1 else [_columns(content, each) for each in chosen]


def _n_names(content: Content) -> int:
    """How many of the first columns it takes to tell the rows apart, of words and two at most; else one."""
    for n in (1, 2):
        names = [tuple(map(str, row[:n])) for row in content.rows]
        if content.texts.issuperset(range(n)) and n < len(content.columns) and len(set(names)) == len(names):
            return n
    return 1


UNBOUNDED = 10_000


def fits(console: Console, content: Content) -> bool:
    endless = console.options.update(width=UNBOUNDED)  # else what is measured never says that it is wider
    return console.measure(table(content), options=endless).minimum <= console.width


def _columns(content: Content, chosen: Sequence[int]) -> Content:
    rows = [[row[i] for i in chosen] for row in content.rows]
    texts = frozenset(place for place, i in enumerate(chosen) if i in content.texts)
    return replace(content, columns=[content.columns[i] for i in chosen], rows=rows, texts=texts)


def table(content: Content) -> Table:
    """A table of the outline as rich draws it: where room is short, texts and headings wrap, numbers never."""
    drawn = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bright_black")
    cells = [[words.value(cell) for cell in row] for row in content.rows]
    for i, name in enumerate(content.columns):
        column = [row[i] for row in cells]
        is_text = i in content.texts
        pieces = [piece for text in column for piece in text.split()] if is_text else column
        least = max(map(len, [*pieces, *str(name).split()]), default=1)
        drawn.add_column(Text(str(name)), justify="left" if is_text else "right", min_width=min(least, MOST_LEAST))
    for i, row in enumerate(cells):
        drawn.add_row(*map(Text, row), style="bold" if i in content.strong else "")
    return drawn


MOST_LEAST = 18  # columns that a cell may ask for at least


def print_claims(console: Console, claims: Sequence[Judged], *, brief: bool = False) -> None:
    """Each published statement beside the figure measured and the verdict. `brief` only names those not run."""
    shown = [judged for judged in claims if not brief or judged.verdict != "not run"]
    drawn = Table.grid(padding=(0, 2, 0, 0))
    drawn.add_column(no_wrap=True)
    drawn.add_column()
    for judged in shown:
        drawn.add_row(Text(SIGNS[judged.verdict], style=STYLES[judged.verdict]), _claim(judged))
        drawn.add_row("", "")
    console.print(drawn)
    console.print(words.tally([judged.verdict for judged in claims]), markup=False, highlight=False)
    left = [judged.claim.id for judged in claims if judged not in shown]
    if left:
        said = f"Not run, since they are claims about other presets or seeds: {', '.join(left)}."
        console.print(said, style="bright_black", markup=False, highlight=False)


def _claim(judged: Judged) -> Text:
    claim = judged.as_json()
    control = words.null(claim)
    said = Text(claim["text"])
    said.append("\npublished ", style="bright_black").append(words.published(claim))
    said.append("\nmeasured  ", style="bright_black").append(words.measured(claim), style="bold")
    if control:
        said.append("\ncontrol   ", style="bright_black").append(control, style="bright_black")
    return said.append(f"\n{claim['source']}", style="bright_black italic")


def print_figures(console: Console, figures: Sequence[Figure]) -> None:
    """A summary of each picture: enough to see its shape."""
    for figure in figures:
        heading(console, figure.title)
        shown = SUMMARIES[figure.kind](_last_frame(figure))
        if isinstance(shown, Content):
            print_table(console, shown)
        else:
            console.print(shown)
        console.print(figure.caption, style="bright_black", markup=False, highlight=False)


def _last_frame(figure: Figure) -> Mapping[str, Any]:
    return {**figure.data, **{name: figure.data[name][-1] for name in figure.framed}}


def spark(values: Sequence[float], *, width: int = 40, log: bool = False) -> str:
    """A curve in one line of eight heights; a blank where there is no number."""
    y = np.asarray(values, dtype=np.float64)
    y = np.log10(np.where(y > 0, y, np.nan)) if log else y
    y = y[np.linspace(0, len(y) - 1, min(width, len(y))).round().astype(int)]
    finite = y[np.isfinite(y)]
    if not finite.size:
        return " " * len(y)
    low, high = finite.min(), finite.max()
    heights = np.nan_to_num((y - low) / ((high - low) or 1.0), nan=-1.0, posinf=1.0, neginf=0.0)
    return "".join(" " if h < 0 else SPARKS[min(int(h * len(SPARKS)), len(SPARKS) - 1)] for h in heights)


def _lines(data: Mapping[str, Any]) -> Table:
    y = np.atleast_2d(np.asarray(data["y"]))
    strong = [int(i) for i in data.get("highlight") or ()] or list(range(len(y)))
    drawn = Table(box=None, show_header=False, pad_edge=False)
    for i in strong[:MOST_BARS]:
        numbers = y[i][np.isfinite(y[i])]
        ends = (
            f"{words.value(float(numbers[0]))} → {words.value(float(numbers[-1]))}" if numbers.size else words.NOTHING
        )
        drawn.add_row(Text(str(data["names"][i])), spark(y[i], log=bool(data.get("log_y"))), Text(ends))
    return drawn


def _bars(data: Mapping[str, Any]) -> Table | Group:
    """A block of bars a series, under its name; the same bars in each, on one scale."""
    y = np.atleast_2d(np.asarray(data["y"], dtype=np.float64))
    names, series = [str(name) for name in data["names"]], data.get("series") or [""] * len(y)
    sizes = np.nan_to_num(np.abs(y)).max(0, initial=0.0)
    rows = [bar_rows(names, heights, sizes=sizes) for heights in y]
    if len(rows) == 1:
        return rows[0]
    return Group(*(part for name, drawn in zip(series, rows) for part in (Text(str(name), style="italic"), drawn)))


def bar_rows(
    names: Sequence[str], heights: Sequence[float], *, sizes: Sequence[float] | None = None, width: int = 36
) -> Table:
    """The largest bars by size, in their own order, as rows of blocks with their values; one below 0 has a minus.

    `sizes`: which are the largest, and the scale, where that is not for these bars alone to say.
    """
    y = np.asarray(heights, dtype=np.float64)
    size = np.nan_to_num(np.abs(y)) if sizes is None else np.asarray(sizes, dtype=np.float64)
    chosen = sorted(np.argsort(-size, kind="stable")[:MOST_BARS])
    top = float(size.max(initial=0.0)) or 1.0
    falls = bool((y < 0).any())
    drawn = Table(box=None, show_header=False, pad_edge=False)
    for i in chosen:
        blocks = "█" * round(width * abs(np.nan_to_num(y[i])) / top)
        drawn.add_row(Text(names[i]), ("-" if y[i] < 0 else " ") * falls + blocks, Text(words.value(float(y[i]))))
    if len(names) > len(chosen):
        drawn.add_row(Text("…"), Text(f"and {len(names) - len(chosen)} smaller ones", style="bright_black"), Text(""))
    return drawn


def _histogram(data: Mapping[str, Any]) -> Table:
    values = np.asarray(data["values"], dtype=np.float64)
    counts, edges = np.histogram(values[np.isfinite(values)], bins=10)
    names = [f"{words.number(a)} to {words.number(b)}" for a, b in zip(edges[:-1].tolist(), edges[1:].tolist())]
    return bar_rows(names, counts)


def _heatmap(data: Mapping[str, Any]) -> Table:
    """Each panel's range, and the means over its rows as a spark line."""
    z = np.asarray(data["z"], dtype=np.float64)
    drawn = Table(box=None, show_header=False, pad_edge=False)
    for name, panel in zip(data["panels"], z if z.ndim == 3 else z[None]):
        ends = f"{words.value(float(np.nanmin(panel)))} to {words.value(float(np.nanmax(panel)))}"
        drawn.add_row(Text(str(name)), spark(np.nanmean(panel, axis=0)), Text(ends))
    return drawn


def _scatter(data: Mapping[str, Any]) -> Table:
    drawn = Table(box=None, show_header=False, pad_edge=False)
    for side in "xy":
        values = np.asarray(data[side], dtype=np.float64)
        values = np.sort(values[np.isfinite(values)])
        middle = f"median {words.value(float(np.median(values)))}" if values.size else words.NOTHING
        drawn.add_row(Text(str(data[f"{side}_label"])), spark(values), Text(middle))
    return drawn


def _tokens(data: Mapping[str, Any]) -> Table:
    """The tokens of each row with the greatest values, either sign, in the text's own order."""
    drawn = Table(box=None, show_header=False, pad_edge=False)
    for name, texts, row in zip(data["names"], data["tokens"], data["values"]):
        values = np.nan_to_num(np.asarray(row, dtype=np.float64))
        drawn.add_row(Text(str(name)), spark(np.abs(values), width=len(values)), Text(""))
        for i in sorted(np.argsort(-np.abs(values), kind="stable")[:MOST_TOKENS].tolist()):
            drawn.add_row(Text(f"{i:>4} {str(texts[i])!r}"), Text(""), Text(words.value(float(values[i]))))
    return drawn


def _attention(data: Mapping[str, Any]) -> Table:
    """Each panel's strongest pair: from which query to which key."""
    drawn = Table(box=None, show_header=False, pad_edge=False)
    named = [f"{i} {str(text)!r}" for i, text in enumerate(data["tokens"])]
    for name, panel in zip(data["panels"], np.asarray(data["z"], dtype=np.float64)):
        query, key = np.unravel_index(np.argmax(np.abs(np.nan_to_num(panel))), panel.shape)
        value = words.value(float(panel[query, key]))
        drawn.add_row(Text(str(name)), Text(f"{named[int(query)]} ← {named[int(key)]}"), Text(value))
    return drawn


def _graph(data: Mapping[str, Any]) -> Table:
    """The strongest edges."""
    drawn = Table(box=None, show_header=False, pad_edge=False)
    weights = np.asarray(data["weights"], dtype=np.float64)
    names = [str(name) for name in data["nodes"]]
    for i in np.argsort(-np.abs(weights), kind="stable")[:MOST_BARS].tolist():
        source, target = names[int(data["sources"][i])], names[int(data["targets"][i])]
        drawn.add_row(Text(f"{source} → {target}"), Text(words.value(float(weights[i]))))
    if len(weights) > MOST_BARS:
        drawn.add_row(Text(f"and {len(weights) - MOST_BARS} weaker edges", style="bright_black"), Text(""))
    return drawn


def _table(data: Mapping[str, Any]) -> Content:
    rows = [list(row) for row in data["rows"]]
    texts = frozenset(j for row in rows for j, cell in enumerate(row) if isinstance(cell, str))
    return Content([str(name) for name in data["columns"]], rows, frozenset(data.get("highlight") or ()), texts)


def _explorer(data: Mapping[str, Any]) -> Text:
    return Text(f"Interactive, in the report: {len(data['labels'])} checkpoints, any set of frequencies.")


SUMMARIES: dict[str, Callable[[Mapping[str, Any]], Any]] = {
    "lines": _lines,
    "bars": _bars,
    "histogram": _histogram,
    "heatmap": _heatmap,
    "scatter": _scatter,
    "tokens": _tokens,
    "attention": _attention,
    "graph": _graph,
    "table": _table,
    "explorer": _explorer,
}
