"""Runs and Figures in a terminal: tables by rich, curves as spark lines, bars as blocks.

Made for 80 columns and for pipes; nothing depends on colour alone.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from rich import box
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.padding import Padding
from rich.table import Table as Grid
from rich.text import Text

from micrographia.core.claims import Judged, Run
from micrographia.core.figures import Figure
from micrographia.faces import words
from micrographia.faces.boards import board_texts, column_letters, marks_of, square_name
from micrographia.faces.figures.texts import attention_values
from micrographia.faces.layout import drawn_width, n_names, parts_of, squeezed, widths
from micrographia.faces.sections import headline, sections, subtitle, summary, title
from micrographia.faces.tables import TextTable, table_of, texts_of

SPARKS = "▁▂▃▄▅▆▇█"
STYLES = {"holds": "green", "fails": "red", "not run": "bright_black"}
SIGNS = {"holds": "✓ holds", "fails": "✗ fails", "not run": "· not run"}
READABLE = ("table", "text", "board")
"""Kinds that a terminal prints as they are; of pictures it prints a summary, when asked for everything."""
MOST_ROWS = 8
"""Of the one table that is printed without being asked."""
MOST_TABLED = 40
"""Rows of any table in a terminal: the report has them all."""
MOST_BARS = 16
MOST_TOKENS = 8


def print_run(
    console: Console, run: Run, *, report: Path | None = None, verbose: bool = False, pictures: bool = False
) -> None:
    """What was found: the sentences, one short table, and the tally of the claims.

    `verbose`: every essential table and text, and the claims in full; `pictures`: what only a report has besides.
    """
    console.print()
    console.print(
        Text(title(run), style="bold").append(f"  ·  {subtitle(run)}, {run.status}", style="not bold bright_black")
    )
    for sentence in summary(run):
        console.print(sentence, markup=False, highlight=False)
    _print_all(console, run, pictures) if verbose or pictures else _print_briefly(console, run)
    console.print()
    print_place(console, "Run", run.path.absolute())
    if report is not None:
        print_place(console, "Report", report)


def _print_all(console: Console, run: Run, pictures: bool) -> None:
    for section in sections(run):
        chosen = [each for each in section.figures if pictures or (each.essential and each.kind in READABLE)]
        print_section(console, section.title, chosen)
    if run.claims:
        heading(console, "The claims")
        print_claims(console, run.claims, brief=not pictures)


def _print_briefly(console: Console, run: Run) -> None:
    """The Run's first table, as far as it is short, and the claims in a line each that fails."""
    if (figure := headline(run)) is not None:
        heading(console, figure.title)
        content = table_of(figure.data)
        print_table(console, content._replace(notes=()), most=MOST_ROWS)
    if run.claims:
        console.print()
        print_tally(console, run.claims)
    if any(section.essential for section in sections(run)):
        _remark(console, "All tables: --verbose. With pictures: the report.")


def print_tally(console: Console, claims: Sequence[Judged]) -> None:
    """How many claims hold, and those that fail, each in a line."""
    console.print(f"Claims: {words.tally([judged.verdict for judged in claims])}", markup=False, highlight=False)
    for claim in (judged.as_json() for judged in claims if judged.verdict == "fails"):
        line = Text(f"{SIGNS['fails']}  ", style=STYLES["fails"]).append(claim["text"], style="default")
        console.print(line.append(f" Measured {words.measured(claim)}, published {words.published(claim)}."))


def print_place(console: Console, name: str, path: Path) -> None:
    """A path on a line of its own, not wrapped, and a link where the terminal knows links."""
    link = Text(str(path), style=f"link {path.as_uri()}")
    console.print(Text(f"{name}: "), link, soft_wrap=True, sep="")


def heading(console: Console, text: str) -> None:
    console.print()
    console.print(Text(text, style="bold"))


def print_section(console: Console, name: str, figures: Sequence[Figure]) -> None:
    """The Figures of one group below its name."""
    if figures and figures[0].title != name:
        heading(console, name)
    print_figures(console, figures)


def print_figures(console: Console, figures: Sequence[Figure]) -> None:
    """Tables and texts as they are, and a summary of each picture: enough to see its shape."""
    for figure in figures:
        heading(console, figure.title)
        if figure.kind in READABLE and figure.caption:
            _remark(console, figure.caption)
        shown = Text(words.NOTHING_TO_SHOW) if figure.is_empty else SUMMARIES[figure.kind](_last_frame(figure))
        if isinstance(shown, TextTable):
            print_table(console, shown, most=MOST_TABLED)
        else:
            console.print(shown)
        if figure.kind not in READABLE and figure.caption:
            _remark(console, figure.caption)


def _last_frame(figure: Figure) -> Mapping[str, Any]:
    return {**figure.data, **{name: figure.data[name][-1] for name in figure.framed}}


def _remark(console: Console, text: str) -> None:
    console.print(text, style="bright_black", markup=False, highlight=False)


def print_table(console: Console, whole: TextTable, *, most: int | None = None) -> None:
    """A table; one that is too wide in parts, one below the other, which all begin with the names of the rows.

    Of more than `most` rows the first are printed, and how many are left.
    """
    content, room = whole._replace(rows=whole.rows[:most], notes=whole.notes[:most]), console.width
    parts = parts_of(content, room)
    for i, part in enumerate(parts):
        if i:
            _remark(console, f"The same table, from the column {part.columns[n_names(content)]!r} on:")
        chosen = widths(part, room) or squeezed(part, room)
        console.print(Uncut(table(part, chosen), drawn_width(chosen)), crop=False)
    remarks = (f"{row[0]}: {note}" for row, note in zip(content.rows, content.notes) if note)
    for remark in dict.fromkeys(remarks):  # rows of one name may share theirs
        _remark(console, remark)
    if more := len(whole.rows) - len(content.rows):
        _remark(console, f"and {more:,} more {'row' if more == 1 else 'rows'}")


@dataclass(frozen=True, slots=True)
class Uncut:
    """What is drawn as wide as it is, also where the terminal is narrower."""

    drawn: Grid
    width: int

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield from console.render(self.drawn, options.update(width=self.width))


def table(content: TextTable, widths: Sequence[int]) -> Grid:
    """A table with columns of these widths: texts and headings wrap between words, figures never."""
    drawn = Grid(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bright_black")
    for i, (name, width) in enumerate(zip(content.columns, widths)):
        drawn.add_column(Text(name), justify="left" if i in content.texts else "right", width=width, overflow="fold")
    for i, row in enumerate(content.rows):
        drawn.add_row(*map(Text, row), style="bold" if i in content.strong else "")
    return drawn


def print_claims(console: Console, claims: Sequence[Judged], *, brief: bool = False) -> None:
    """Each published statement beside the figure measured and the verdict. `brief` only names those not run."""
    shown = [judged for judged in claims if not brief or judged.verdict != "not run"]
    drawn = Grid.grid(padding=(0, 2, 0, 0))
    drawn.add_column(no_wrap=True)
    drawn.add_column()
    for judged in shown:
        drawn.add_row(Text(SIGNS[judged.verdict], style=STYLES[judged.verdict]), _claim(judged))
        drawn.add_row("", "")
    console.print(drawn)
    console.print(words.tally([judged.verdict for judged in claims]), markup=False, highlight=False)
    left = [judged.claim.id for judged in claims if judged not in shown]
    if left:
        _remark(console, f"Not run, since they are claims about other presets or seeds: {', '.join(left)}.")


def _claim(judged: Judged) -> Text:
    claim = judged.as_json()
    control = words.null(claim)
    lines = Text(claim["text"])
    lines.append("\npublished ", style="bright_black").append(words.published(claim))
    lines.append("\nmeasured  ", style="bright_black").append(words.measured(claim), style="bold")
    if control:
        lines.append("\ncontrol   ", style="bright_black").append(control, style="bright_black")
    return lines.append(f"\n{claim['source']}", style="bright_black italic")


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


def _rows(rows: Iterable[Sequence[str | Text]]) -> Grid:
    """Texts in columns, without rules or headings."""
    drawn, listed = Grid(box=None, show_header=False, pad_edge=False), [*rows]
    for i in range(max(map(len, listed), default=0)):
        drawn.add_column(overflow="fold", no_wrap=i == 2)  # a name or a bar goes on below, a figure never
    for row in listed:
        drawn.add_row(*(Text(each) if isinstance(each, str) else each for each in row))
    return drawn


def _written(values: Any) -> Callable[[Any], str]:
    """How the numbers of one picture are written: alike."""
    numbers = np.asarray(values, dtype=np.float64)
    numbers = numbers[np.isfinite(numbers)]
    whole = bool((numbers == numbers.round()).all())
    number = words.format_number if whole else words.common_format(numbers.tolist())
    return lambda x: number(float(x))


def _strongest(values: Any, n: int) -> list[int]:
    """Where the n largest by size are, the largest first."""
    return np.argsort(-np.nan_to_num(np.abs(values)), kind="stable")[:n].tolist()


def _lines(data: Mapping[str, Any]) -> Grid:
    y = np.atleast_2d(np.asarray(data["y"]))
    strong = [int(i) for i in data.get("highlight") or ()] or list(range(len(y)))
    rows, value = [], words.format_number if data.get("log_y") else _written(y)
    for i in strong[:MOST_BARS]:
        finite = y[i][np.isfinite(y[i])]
        ends = " → ".join(map(value, finite[[0, -1]].tolist())) if finite.size else words.NOTHING
        rows.append((str(data["names"][i]), spark(y[i], log=bool(data.get("log_y"))), ends))
    return _rows(rows)


def _bars(data: Mapping[str, Any]) -> Grid | Group:
    """A block of bars a series, under its name; the same bars in each, on one scale."""
    y = np.atleast_2d(np.asarray(data["y"], dtype=np.float64))
    names, series = [str(name) for name in data["names"]], data.get("series") or [""] * len(y)
    sizes = np.where(np.isnan(y), 0.0, np.abs(y)).max(0, initial=0.0)
    blocks = [bar_rows(names, heights, sizes=sizes) for heights in y]
    if len(blocks) == 1:
        return blocks[0]
    return Group(*(part for name, drawn in zip(series, blocks) for part in (Text(str(name), style="italic"), drawn)))


def bar_rows(
    names: Sequence[str], heights: Sequence[float], *, sizes: Sequence[float] | None = None, width: int = 36
) -> Grid:
    """The largest bars by size, in their own order, as rows of blocks with their values; one below 0 has a minus.

    `sizes` decides which bars are the largest, and the scale; by default the bars' own sizes do. An infinite bar is as
    long as the longest.
    """
    y = np.asarray(heights, dtype=np.float64)
    y = np.where(np.isnan(y), 0.0, y)
    size = np.abs(y) if sizes is None else np.asarray(sizes, dtype=np.float64)
    top = float(size[np.isfinite(size)].max(initial=0.0)) or 1.0
    falls, value = bool((y < 0).any()), _written(heights)
    rows: list[Sequence[str | Text]] = [
        (
            names[i],
            ("-" if y[i] < 0 else " ") * falls + "█" * round(width * min(abs(y[i]) / top, 1.0)),
            value(heights[i]),
        )
        for i in sorted(_strongest(size, MOST_BARS))
    ]
    if more := len(names) - len(rows):
        rows.append(("…", Text(f"and {more} smaller ones", style="bright_black"), ""))
    return _rows(rows)


def _histogram(data: Mapping[str, Any]) -> Grid:
    values = np.asarray(data["values"], dtype=np.float64)
    counts, edges = np.histogram(values[np.isfinite(values)], bins=10)
    ends = [words.format_number(x) for x in edges.tolist()]
    return bar_rows([f"{a} to {b}" for a, b in pairwise(ends)], counts)


def _heatmap(data: Mapping[str, Any]) -> Grid:
    """Each panel's range, and the means over its rows as a spark line."""
    z = np.asarray(data["z"], dtype=np.float64)
    value = _written(z)
    rows = []
    for name, panel in zip(data["panels"], z if z.ndim == 3 else z[None]):
        known, there = panel[~np.isnan(panel)], np.isfinite(panel)
        means = np.where(there, panel, 0.0).sum(0) / np.where(there.any(0), there.sum(0), np.nan)
        ends = f"{value(known.min())} to {value(known.max())}" if known.size else words.NOTHING
        rows.append((str(name), spark(means), ends))
    return _rows(rows)


def _scatter(data: Mapping[str, Any]) -> Grid:
    rows = []
    for side in "xy":
        values = np.asarray(data[side], dtype=np.float64)
        values = np.sort(values[np.isfinite(values)])
        middle = f"median {_written(values)(np.median(values))}" if values.size else words.NOTHING
        rows.append((str(data[f"{side}_label"]), spark(values), middle))
    return _rows(rows)


def _tokens(data: Mapping[str, Any]) -> Grid:
    """The tokens of each row with the greatest values, either sign, in the text's own order."""
    rows, value = [], _written(np.concatenate([np.asarray(row, dtype=np.float64) for row in data["values"]]))
    for name, texts, row in zip(data["names"], data["tokens"], data["values"]):
        values = np.nan_to_num(np.asarray(row, dtype=np.float64))
        rows.append((str(name), spark(np.abs(values), width=len(values)), ""))
        rows += [(f"{i:>4} {str(texts[i])!r}", "", value(values[i])) for i in sorted(_strongest(values, MOST_TOKENS))]
    return _rows(rows)


def _attention(data: Mapping[str, Any]) -> Grid:
    """Each panel's strongest pair: from which query to which key."""
    named, rows = [f"{i} {str(text)!r}" for i, text in enumerate(data["tokens"])], []
    z = attention_values(data)
    value = _written(z)
    for name, panel in [*zip(data["panels"], z)][:MOST_BARS]:
        query, key = divmod(_strongest(panel.ravel(), 1)[0], panel.shape[1])
        rows.append((str(name), f"{named[query]} ← {named[key]}", value(panel[query, key])))
    return _rows(rows)


def _graph(data: Mapping[str, Any]) -> Grid:
    """The strongest edges."""
    weights, names = np.asarray(data["weights"], dtype=np.float64), [str(name) for name in data["nodes"]]
    value = _written(weights)
    rows: list[Sequence[str | Text]] = [
        (f"{names[int(data['sources'][i])]} → {names[int(data['targets'][i])]}", value(weights[i]))
        for i in _strongest(weights, MOST_BARS)
    ]
    if more := len(weights) - len(rows):
        rows.append((Text(f"and {more} weaker edges", style="bright_black"), ""))
    return _rows(rows)


def _text(data: Mapping[str, Any]) -> RenderableType:
    paragraphs, lines = texts_of(data)
    return Group(*map(Text, paragraphs), *([Padding(Text("\n".join(lines)), (0, 0, 0, 2))] if lines else []))


def _board(data: Mapping[str, Any]) -> Group:
    """Each panel square by square, those that are marked in brackets; a wide one of numbers as a line a row."""
    parts: list[RenderableType] = []
    panels = list(zip(data["panels"], np.asarray(data["z"]), board_texts(data)))
    for place, (name, z, squares) in enumerate(panels[:MOST_BOARDS]):
        marks = {(mark["row"], mark["column"]): mark for mark in marks_of(data, place)}
        if data.get("texts") is None and max(len(x) for row in squares for x in row) * len(squares[0]) > WIDEST_BOARD:
            drawn = Group(*(Text(spark(row.tolist(), width=WIDEST_BOARD)) for row in z))
        else:
            drawn = _squares(squares, marks)
        named = "; ".join(f"{square_name(*at)}: {mark['name']}" for at, mark in marks.items() if mark.get("name"))
        parts += [*([Text(str(name), style="italic")] if name else []), drawn, *([Text(named)] if named else [])]
    if len(panels) > MOST_BOARDS:
        parts.append(Text(f"and {len(panels) - MOST_BOARDS} more boards", style="bright_black"))
    return Group(*parts)


MOST_BOARDS, WIDEST_BOARD = 4, 56


def _squares(squares: Sequence[Sequence[str]], marks: Mapping[tuple[int, int], Any]) -> Grid:
    drawn = Grid(box=None, header_style="bright_black", padding=(0, 1, 0, 0), pad_edge=False)
    drawn.add_column("", style="bright_black", justify="right")
    for letter in column_letters(len(squares[0])):
        drawn.add_column(letter, justify="right")
    for i, row in enumerate(squares):
        drawn.add_row(str(i + 1), *(Text(f"[{x}]" if (i, j) in marks else x or "·") for j, x in enumerate(row)))
    return drawn


def _widget(data: Mapping[str, Any]) -> Text:
    return Text("Interactive: open the report.", style="bright_black")


SUMMARIES: dict[str, Callable[[Mapping[str, Any]], Any]] = {
    "lines": _lines,
    "bars": _bars,
    "histogram": _histogram,
    "heatmap": _heatmap,
    "scatter": _scatter,
    "tokens": _tokens,
    "attention": _attention,
    "graph": _graph,
    "board": _board,
    "table": table_of,
    "text": _text,
    "widget": _widget,
}
